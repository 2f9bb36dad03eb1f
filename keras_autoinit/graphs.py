"""A model as a graph: which layers stand where, and what meets what.

The only module that reads Keras internals: the nodes that Functional models record, the layers
inside a layer, and the names of Keras's own operation classes.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_autoinit.activations import Activation, activation, is_activation_layer, known
from keras_autoinit.errors import ModelTypeError
from keras_autoinit.functions import ALIASES, FUNCTIONS
from keras_autoinit.slots import Slots, slots_of


@dataclass(frozen=True)
class Place:
    """A layer where it stands.

    Attributes:
        layer: the layer itself.
        path: names of its containers and its own, joined by `/`.
        key: the path with automatic names (`dense_17`) replaced by class and ordinal, so that it
            is the same in every session.
        parent: the container.
        slots: the weights it owns.
        frozen: whether it or a container has `trainable=False`.
    """

    layer: keras.Layer
    path: str
    key: str
    parent: Any
    slots: Slots
    frozen: bool


@dataclass(frozen=True)
class Call:
    """One call of an operation: tensors in, tensors out, each tensor a number."""

    operation: keras.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """What a row calls the operation: its class in snake case."""
        return snake_case(type(self.operation).__name__)


@dataclass(frozen=True)
class Graph:
    """A flat list of calls, and every place with weights.

    Attributes:
        places: every layer that owns weights or holds layers that do, in the order of the model.
        calls: in the order of computation.
        outputs: numbers of the model's output tensors.
        opaque: paths of layers whose calls could not be read.
    """

    places: tuple[Place, ...]
    calls: tuple[Call, ...]
    outputs: frozenset[int]
    opaque: tuple[str, ...] = ()
    _readers: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list), repr=False, compare=False)
    _calls_of: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list), repr=False, compare=False)

    def __post_init__(self) -> None:
        for call in self.calls:
            self._calls_of[id(call.operation)].append(call)
            for tensor in call.inputs:
                self._readers[tensor].append(call)

    def readers(self, tensor: int) -> list[Call]:
        """Returns the calls that take a tensor."""
        return self._readers.get(tensor, [])

    def calls_of(self, layer: keras.Layer) -> list[Call]:
        """Returns the calls of a layer."""
        return self._calls_of.get(id(layer), [])


def read(model: Any) -> Graph:
    """Reads a model; changes nothing.

    Raises:
        ModelTypeError: it is no Keras model.
    """
    if not isinstance(model, keras.Model):
        raise ModelTypeError(
            f"Expected a keras.Model (Functional, Sequential or a subclass). Received: {model!r} of type "
            f"{type(model).__name__}."
        )
    places = tuple(_places(model))
    reader = _Reader()
    outputs = reader.expand(model, None)
    return Graph(places, tuple(reader.calls), frozenset(outputs), tuple(reader.opaque))


class _Reader:
    """Collects calls while nested models are written out in place."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.opaque: list[str] = []
        self._fresh = itertools.count()

    def expand(self, model: keras.Model, inputs: list[int] | None) -> list[int]:
        """Adds a model's calls on these tensors, and returns its output tensors."""
        if isinstance(model, keras.Sequential):
            return self._chain(model, inputs)
        if is_functional(model):
            return self._nodes(model, inputs)
        self.opaque.append(model.name)
        return [next(self._fresh)]

    def _chain(self, model: keras.Sequential, inputs: list[int] | None) -> list[int]:
        tensors = [next(self._fresh)] if inputs is None else inputs
        for layer in model.layers:
            tensors = self._call(layer, tensors, 1)
        return tensors

    def _nodes(self, model: Any, inputs: list[int] | None) -> list[int]:
        numbers = {id(tensor): next(self._fresh) for tensor in model.inputs}
        if inputs is not None:
            numbers.update(zip(map(id, model.inputs), inputs))
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    self._node(node, numbers)
        return [numbers[id(tensor)] for tensor in model.outputs if id(tensor) in numbers]

    def _node(self, node: Any, numbers: dict[int, int]) -> None:
        known = [numbers[id(tensor)] for tensor in node.arguments.keras_tensors if id(tensor) in numbers]
        outputs = self._call(node.operation, known, len(node.outputs))
        numbers.update(zip(map(id, node.outputs), outputs))

    def _call(self, operation: keras.Operation, inputs: list[int], count: int) -> list[int]:
        if isinstance(operation, keras.Sequential) or is_functional(operation):
            return self.expand(operation, inputs)
        outputs = [next(self._fresh) for _ in range(count)]
        self.calls.append(Call(operation, tuple(inputs), tuple(outputs)))
        return outputs


def activation_of(call: Call) -> Activation | None:
    """Returns the activation that a call applies, or `None` if it applies none."""
    operation = call.operation
    if is_activation_layer(operation):
        return activation(operation)
    if isinstance(operation, keras.Layer) or not _is_own(operation):
        return None
    name = _OPERATION_NAMES.get(type(operation).__name__, call.name)
    return known(name, vars(operation)) if ALIASES.get(name, name) in FUNCTIONS else None


def passes(call: Call) -> bool:
    """Whether a call hands the signal on without bending it: an activation may follow."""
    if isinstance(call.operation, keras.Layer):
        return isinstance(call.operation, _PASSING_LAYERS)
    name = type(call.operation).__name__
    return _is_own(call.operation) and (name in _PASSING or (name in _SCALING and len(call.inputs) == 1))


def _is_own(operation: keras.Operation) -> bool:
    return type(operation).__module__.startswith("keras.")


# Keras's operation classes that are named unlike the function they stand for.
_OPERATION_NAMES = {"ReLU": "relu"}

_PASSING = frozenset(
    """
    AdaptiveAveragePool AdaptiveMaxPool Add Average AveragePool BatchNorm BroadcastTo Cast Concatenate Copy
    DepthToSpace ExpandDims Flip GetItem Identity LayerNorm Max MaxPool Mean Moveaxis Negative Normalize Pad
    RMSNorm Ravel Repeat Reshape Resize Roll SpaceToDepth Split Squeeze Stack Subtract Swapaxes Tile Transpose
    """.split()
)
ATTENTION = tuple(
    getattr(keras.layers, name) for name in ("MultiHeadAttention", "GroupQueryAttention") if hasattr(keras.layers, name)
)

_SCALING = frozenset({"Divide", "Multiply", "TrueDivide"})

_PASSING_LAYERS = tuple(
    getattr(keras.layers, name)
    for name in """
    ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AlphaDropout Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Concatenate Cropping1D Cropping2D Cropping3D Dropout Flatten
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization Identity LayerNormalization Masking
    MaxPooling1D MaxPooling2D MaxPooling3D Normalization Permute RMSNormalization RepeatVector Rescaling Reshape
    Resizing SpatialDropout1D SpatialDropout2D SpatialDropout3D Subtract UnitNormalization UpSampling1D UpSampling2D
    UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()
    # Younger Keras versions have more layers than the oldest that is supported.
    if hasattr(keras.layers, name)
)


def is_functional(operation: Any) -> bool:
    """Whether an operation is a model that has recorded its nodes, and computes by them."""
    if not isinstance(operation, keras.Function) or not isinstance(operation, keras.Model):
        return False
    return type(operation).call.__module__.startswith("keras.")


def is_unseen(place: Place) -> bool:
    """Whether a layer will make weights when it is built that cannot be known before."""
    layer = place.layer
    makes_weights = type(layer).build is not keras.Layer.build
    plain = isinstance(layer, (keras.Model, *_PASSING_LAYERS)) or is_activation_layer(layer)
    return makes_weights and not (layer.built or plain or place.slots or layers_inside(layer))


def shared_argument(place: Place) -> str | None:
    """Returns the argument in which an attention layer keeps one initializer for its projections.

    From it the layer's configuration is written, and a copy of the layer is built.
    """
    if isinstance(place.parent, keras.layers.MultiHeadAttention):
        return "_kernel_initializer"
    if isinstance(place.parent, ATTENTION):
        return "kernel_initializer"
    return None


def layers_inside(container: Any) -> list[keras.Layer]:
    """Returns the layers that a container holds itself, each once."""
    if isinstance(container, keras.Model):
        return list(container.layers)
    return list(container._flatten_layers(recursive=False, include_self=False))


def _places(model: keras.Model) -> Iterator[Place]:
    """Walks every layer of the model, depth first, each where it is met first."""
    seen: set[int] = set()
    stack = _children(model, "", "", not model.trainable, seen)
    while stack:
        place = stack.pop()
        yield place
        stack.extend(_children(place.layer, f"{place.path}/", f"{place.key}/", place.frozen, seen))


def _children(container: Any, path: str, key: str, frozen: bool, seen: set[int]) -> list[Place]:
    """Returns the places that a container holds itself, the last one first."""
    inner = [layer for layer in layers_inside(container) if id(layer) not in seen]
    seen.update(map(id, inner))
    names = zip(inner, _unique(layer.name for layer in inner), _stable_names(inner))
    return [
        Place(layer, path + name, key + stable, container, slots_of(layer), frozen or not layer.trainable)
        for layer, name, stable in names
    ][::-1]


def _unique(names: Iterable[str]) -> list[str]:
    """Returns the names, with a number behind each that came before."""
    counts: dict[str, int] = defaultdict(int)
    result = []
    for name in names:
        counts[name] += 1
        result.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return result


def _stable_names(layers: list[keras.Layer]) -> list[str]:
    """Returns the layers' names, automatic ones replaced by class and ordinal among siblings."""
    ordinals: dict[str, int] = defaultdict(int)
    result = []
    for layer in layers:
        kind = type(layer).__name__
        # Bidirectional puts a word before its layers' names.
        automatic = re.fullmatch(rf"(forward_|backward_)?{re.escape(snake_case(kind))}(_\d+)?", layer.name)
        if automatic:
            result.append(f"{automatic[1] or ''}{kind}:{ordinals[kind]}")
            ordinals[kind] += 1
        else:
            result.append(layer.name)
    return _unique(result)


def snake_case(name: str) -> str:
    """Returns a class name as Keras writes it into automatic layer names."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
