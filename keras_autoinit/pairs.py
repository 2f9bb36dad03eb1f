"""Mirrored pairs of units on their way through a model: what keeps them, what ends them.

A tensor holds pairs where along one axis the second half of every block mirrors its first: `z` and
`-z` before an activation, `f(z)` and `f(-z)` after it. What reads the latter with opposite signs
sees `f(z) - f(-z)`, twice the odd part of `f`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.activations import Activation
from keras_autoinit.graphs import ATTENTION, Call, Graph
from keras_autoinit.recipes import Recipe

# The share of the odd part's power that is no line, at which an activation still counts as linear.
# It adds up: of a stretch of 35 layers at this share half of the signal is linear. Exact are relu,
# leaky relu, gelu, silu and softplus; mish has 0.001, elu 0.007, selu 0.013, sigmoid 0.016; the next
# are hard shrink with 0.03, then those that are odd themselves, and exp and squared relu with 0.15.
NEARLY_LINEAR = 0.02
# The share of the even part's power that counts as none: Gaussian integrals are exact to 1e-9.
NOTHING = 1e-6
Key = tuple[int, str]


@dataclass(frozen=True)
class Pairs:
    """What is known of a tensor that holds pairs.

    Attributes:
        axis: the axis along which they lie.
        block: how many units a block holds: first halves, second halves, and one alone if it is odd.
        origins: the weights that made them.
        variance: that of `z`.
        slope: `None` before the activation; after it, the slope of `f(z) - f(-z)`.
        spread: the standard deviation of a unit.
        residual: after the activation, the share of the power of `f(z) - f(-z)` that is not on the line.
        several: whether signals with pairs have been added up or set side by side.
        normalized: whether a normalization has met it since its weight.
    """

    axis: int
    block: int
    origins: tuple[Key, ...]
    variance: float = 1.0
    slope: float | None = None
    spread: float = 1.0
    residual: float = 0.0
    several: bool = False
    normalized: bool = False


@dataclass(frozen=True)
class Narrower:
    """Pairs would be kept if they lay in blocks of so many units."""

    block: int


# Pairs that are kept, the block in which they would be, or a reason for which they are not.
Fate = Pairs | Narrower | str


def bent(pairs: Pairs, met: Activation) -> Fate:
    """Returns what an activation makes of pairs."""
    if met.linear:
        return pairs
    if pairs.slope is not None:
        return f"{met} bends a pair that an activation has bent already"
    if met.function is None:
        return f"{met} mixes units"
    variance = float(f"{pairs.variance:.6g}")
    odd, moments = met.odd_part(variance), met.moments(variance)
    # f is half the sum of f(z) - f(-z) and f(z) + f(-z), which do not correlate.
    if 4 * moments.second_moment <= odd.second_moment * (1 + NOTHING):
        return f"{met} is odd, so that mirroring does nothing for it"
    if odd.residual > NEARLY_LINEAR:
        return f"the odd part of {met} is no line ({odd.residual:.0%} of its power is not on the nearest one)"
    spread = math.sqrt(max(moments.second_moment - moments.mean**2, 1e-12))
    slope = math.sqrt(odd.second_moment / variance)
    return dataclasses.replace(pairs, slope=slope, spread=spread, residual=odd.residual)


def kept(graph: Graph, call: Call, pairs: Sequence[Pairs | None]) -> Fate:
    """Returns what an operation without weights makes of pairs.

    Args:
        graph: the model.
        call: the operation.
        pairs: what is known of each of its inputs; `None` for a signal without pairs.
    """
    if not (call.inputs and call.outputs and all(t in graph.specs for t in (call.inputs[0], call.outputs[0]))):
        return f"what {call.name} does to them cannot be told: a shape is not known"
    if isinstance(call.operation, keras.Layer):
        return keeps(call.operation, _Meeting(graph, call, tuple(pairs)))
    return _OPERATIONS.get(call.name, _ended)(call.operation, _Meeting(graph, call, tuple(pairs)))


@dataclass(frozen=True)
class _Meeting:
    """A call, and the pairs among its inputs."""

    graph: Graph
    call: Call
    given: tuple[Pairs | None, ...]

    @property
    def pairs(self) -> Pairs:
        return next(one for one in self.given if one is not None)

    @property
    def shape_in(self) -> tuple[int, ...]:
        return self.graph.specs[self.call.inputs[0]].shape

    @property
    def shape_out(self) -> tuple[int, ...]:
        return self.graph.specs[self.call.outputs[0]].shape


@functools.singledispatch
def keeps(layer: Any, meeting: _Meeting) -> Fate:
    """Returns what a layer without weights of its own makes of pairs; a layer that is not listed ends them."""
    return _ended(layer, meeting)


def _ended(operation: Any, meeting: _Meeting) -> Fate:
    name = meeting.call.name
    if "max" in name and "softmax" not in name:
        return f"{name} takes the largest of several, whose mirror image is not the largest"
    if name == "multiply":
        return "multiply gates one signal by another"
    if isinstance(operation, keras.layers.RNN):
        return f"{name} is recurrent"
    return f"{name} does not keep a unit and its mirror image apart"


def _same(operation: Any, meeting: _Meeting) -> Fate:
    if meeting.shape_in[-1:] != meeting.shape_out[-1:] and meeting.pairs.axis == len(meeting.shape_in) - 1:
        return _ended(operation, meeting)
    return meeting.pairs


def _reshaped(operation: Any, meeting: _Meeting) -> Fate:
    """Rows of a reshaped array stay rows: whole blocks along the last axis stay whole."""
    pairs, made = meeting.pairs, meeting.shape_out
    if len(meeting.given) != 1 or pairs.axis != len(meeting.shape_in) - 1:
        return f"{meeting.call.name} tears a pair apart"
    if made[-1] % pairs.block:
        return _narrower(pairs, made[-1], meeting)
    return dataclasses.replace(pairs, axis=len(made) - 1)


def _flattened(layer: Any, meeting: _Meeting) -> Fate:
    first = layer.data_format == "channels_first" and len(meeting.shape_in) > 2
    if meeting.pairs.axis != (1 if first else len(meeting.shape_in) - 1):
        return f"{meeting.call.name} tears a pair apart"
    return dataclasses.replace(meeting.pairs, axis=1)


def _pooled(layer: Any, meeting: _Meeting) -> Fate:
    same_rank = len(meeting.shape_out) == len(meeting.shape_in)
    return meeting.pairs if same_rank else dataclasses.replace(meeting.pairs, axis=1)


def _repeated(layer: Any, meeting: _Meeting) -> Fate:
    return dataclasses.replace(meeting.pairs, axis=2)


def _permuted(layer: Any, meeting: _Meeting) -> Fate:
    return dataclasses.replace(meeting.pairs, axis=(0, *layer.dims).index(meeting.pairs.axis))


def _transposed(operation: Any, meeting: _Meeting) -> Fate:
    rank = len(meeting.shape_in)
    axes = [axis % rank for axis in operation.axes] if operation.axes else [*range(rank)][::-1]
    return dataclasses.replace(meeting.pairs, axis=axes.index(meeting.pairs.axis))


def _added(operation: Any, meeting: _Meeting) -> Fate:
    name = meeting.call.name
    if len(set(map(meeting.graph.specs.__getitem__, meeting.call.inputs))) > 1:
        return f"{name} spreads a signal of another shape"
    return _together(meeting, name)


def _concatenated(operation: Any, meeting: _Meeting) -> Fate:
    return _together(meeting, meeting.call.name)


def _together(meeting: _Meeting, name: str) -> Fate:
    """Returns the pairs of several signals that are alike in them."""
    found = [one for one in meeting.given if one is not None]
    if len(found) < len(meeting.call.inputs) or len(meeting.given) < 2:
        return f"{name} brings in a signal without pairs"
    first = found[0]
    if any(one.axis != first.axis or not _alike(one.slope, first.slope) for one in found):
        return f"{name} brings in pairs of another kind"
    block = math.gcd(*(one.block for one in found))
    if any(one.block != block for one in found):
        return Narrower(block) if block > 1 else f"{name} brings in pairs of another width"
    origins = tuple(dict.fromkeys(key for one in found for key in one.origins))
    variance = sum(one.variance for one in found) * (1 if "add" in name or "subtract" in name else 1 / len(found))
    residual = max(one.residual for one in found)
    return dataclasses.replace(first, origins=origins, variance=variance, residual=residual, several=True)


def _alike(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-2)


def _normalized(layer: Any, meeting: _Meeting) -> Fate:
    """A pair's two statistics agree before an activation, and after it if `z` is symmetric around zero."""
    for name in ("gamma_initializer", "beta_initializer"):
        if not is_constant(getattr(layer, name, None)):
            return f"{meeting.call.name} starts with numbers that differ within a pair"
    pairs, one = meeting.pairs, dataclasses.replace(meeting.pairs, variance=1.0, spread=1.0, normalized=True)
    return one if pairs.slope is None else dataclasses.replace(one, slope=pairs.slope / pairs.spread)


def _batch_normalized(layer: Any, meeting: _Meeting) -> Fate:
    if layer.axis % len(meeting.shape_in) != meeting.pairs.axis:
        return f"{meeting.call.name} runs along another axis"
    return _normalized(layer, meeting)


def _group_normalized(layer: Any, meeting: _Meeting) -> Fate:
    """A group holds both of a pair, or its mirror image is a group too."""
    pairs, groups = meeting.pairs, layer.groups
    length = meeting.shape_in[pairs.axis]
    size = length // groups if groups > 0 else 1
    if size % pairs.block and (pairs.block % 2 or (pairs.block // 2) % size):
        return _narrower(pairs, size, meeting)
    return _normalized(layer, meeting)


def _narrower(pairs: Pairs, length: int, meeting: _Meeting) -> Fate:
    block = math.gcd(pairs.block, length)
    return Narrower(block) if block > 1 else f"{meeting.call.name} tears a pair apart"


_CONSTANT = ("None", "Zeros", "Ones", "Constant", "autoinit>zeros", "autoinit>ones", "autoinit>constant")


def is_constant(initializer: Any) -> bool:
    """Whether an initializer gives every unit the same number."""
    return Recipe.of(initializer).name in _CONSTANT


def is_zero(initializer: Any) -> bool:
    """Whether an initializer gives every unit zero; `None` stands for no weight."""
    return Recipe.of(initializer).name in ("None", "Zeros", "autoinit>zeros")


_LAYERS: dict[Callable[..., Fate], str] = {
    _same: "AlphaDropout AveragePooling1D AveragePooling2D AveragePooling3D Cropping1D Cropping2D Cropping3D Dropout "
    "GaussianDropout GaussianNoise Identity ActivityRegularization Masking Resizing SpatialDropout1D SpatialDropout2D "
    "SpatialDropout3D UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D",
    _pooled: "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D",
    _flattened: "Flatten",
    _reshaped: "Reshape",
    _repeated: "RepeatVector",
    _permuted: "Permute",
    _added: "Add Average Subtract",
    _concatenated: "Concatenate",
    _normalized: "LayerNormalization RMSNormalization UnitNormalization",
    _batch_normalized: "BatchNormalization",
    _group_normalized: "GroupNormalization",
}
for _rule, _names in _LAYERS.items():
    for _name in _names.split():
        # Younger Keras versions have more layers than the oldest that is supported.
        if hasattr(keras.layers, _name):
            keeps.register(getattr(keras.layers, _name), _rule)

# Keras's operations, by the names that a graph gives them.
_OPERATIONS: dict[str, Callable[[Any, _Meeting], Fate]] = {
    **dict.fromkeys(["identity", "cast", "copy", "pad", "average_pool", "resize"], _same),
    **dict.fromkeys(["reshape", "squeeze", "expand_dims", "ravel"], _reshaped),
    **dict.fromkeys(["add", "average", "subtract"], _added),
    "concatenate": _concatenated,
    "transpose": _transposed,
}


def holds_attention(graph: Graph) -> bool:
    """Whether a model is a transformer of some kind."""
    kinds = (*ATTENTION, keras.layers.Attention, keras.layers.AdditiveAttention)
    return any(isinstance(place.layer, kinds) for place in graph.places)
