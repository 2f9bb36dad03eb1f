"""Tables of learned positions: where they are added to a stream of tokens, and what they are drawn from then."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import keras

from keras_autoinit.by_table import beside_tied
from keras_autoinit.graphs import Call, Graph, Place, Ref, passes
from keras_autoinit.merges import is_merge
from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes import with_axes
from keras_autoinit.schemes.positions import scale_beside
from keras_autoinit.signals import Signal
from keras_autoinit.slots import Slot
from keras_autoinit.solving import Fixed

SOURCE = "Vaswani et al. 2017, arXiv 1706.03762"
# The spread of class and register tokens in vision transformers (Touvron et al. 2021, arXiv 2012.12877).
SMALL = 0.02
# Operations between a table and the sum that adds it: a slice, a cast, a broadcast.
NEAR = 6
# Operations by which layers of their own look tokens up.
_LOOKING_UP = ("Take", "OneHot")


@dataclass(frozen=True)
class Table:
    """A weight that every sample shares, of one row for each position.

    Attributes:
        place: the layer that owns it.
        slot: the weight.
        shape: its shape.
    """

    place: Place
    slot: Slot
    shape: tuple[int, ...]

    @property
    def path(self) -> str:
        """The weight's path."""
        return f"{self.place.path}/{self.slot.weight}"


def tables_start(
    graph: Graph, signals: Mapping[int, Signal], kept: Collection[str]
) -> tuple[dict[str, Fixed], dict[str, str]]:
    """Returns what tables of positions and shared tokens are to be drawn from, and why others are not, by path.

    Args:
        graph: the model.
        signals: those that are predicted from the plain start, by tensor.
        kept: paths of weights that stay as they are.
    """
    fixed: dict[str, Fixed] = {}
    remarks: dict[str, str] = {}
    for table in _tables(graph, kept):
        if table.slot.role == "token":
            recipe = with_axes(Recipe("autoinit>variance_scaling", {"gain": SMALL}), table.slot.axes)
            fixed[table.path] = Fixed(recipe, "A token that every sample shares: small at first.", power=SMALL**2)
            continue
        tokens = _tokens_of(graph, table, signals)
        if tokens is not None and _are_looked_up(graph, tokens):
            fixed[table.path] = _sinusoids(graph, table, signals[tokens].second_moment)
        elif tokens is not None:
            remarks[table.path] = (
                "No sinusoids: its tokens are looked up in no table, as words are, and with images they were slower."
            )
        elif table.slot.role == "positions":
            remarks[table.path] = "No sinusoids: it is seen to be added to no stream of tokens."
    return fixed, remarks


def _tables(graph: Graph, kept: Collection[str]) -> Iterator[Table]:
    """Yields tables of tokens and positions, and what else is looked up, which may be one of positions."""
    for place in graph.places:
        for slot in place.slots:
            variable = slot.variable(place.layer)
            looked_up = isinstance(place.layer, keras.layers.Embedding)
            if variable is None or not (looked_up or slot.role in ("token", "positions")):
                continue
            table = Table(place, slot, tuple(variable.shape))
            if table.path not in kept:
                yield table


def _tokens_of(graph: Graph, table: Table, signals: Mapping[int, Signal]) -> int | None:
    """Returns the tensor of tokens that a table is added to; `None` where it is none of positions."""
    if len([length for length in table.shape if length > 1]) != 2 or table.shape[-1] == 1:
        return None
    for tensor in _tokens_beside(graph, table):
        signal = signals.get(tensor)
        if signal is not None and 0 < signal.second_moment < math.inf:
            return tensor
    return None


def _are_looked_up(graph: Graph, tensor: int) -> bool:
    """Whether tokens come from a table, or more, by operations that keep them where they are."""
    for _ in range(NEAR):
        maker = graph.maker(tensor)
        if maker is None:
            return False
        if isinstance(maker.operation, keras.layers.Embedding) or type(maker.operation).__name__ in _LOOKING_UP:
            return True
        if not (passes(maker) or is_merge(maker)) or not maker.inputs:
            return False
        tensor = maker.inputs[0]
    return False


def _sinusoids(graph: Graph, table: Table, second_moment: float) -> Fixed:
    size = float(f"{math.sqrt(second_moment):.3g}")
    reason = f"Sines and cosines of the position ({SOURCE}), of the spread {size:g} of the tokens they are added to."
    recipe = Recipe("autoinit>sinusoids", {"scale": scale_beside(second_moment)})
    # The power counts a table beside one that is tied to the output as the kernel that it stands by.
    axes = beside_tied(graph, table.place, table.slot).axes
    fan_in = 1.0 if axes is None else axes.fans(table.shape)[0]
    return Fixed(recipe, reason, power=max(fan_in, 1.0) * second_moment)


def _tokens_beside(graph: Graph, table: Table) -> Iterator[int]:
    """Yields the tensors of tokens that a table of positions is added to."""
    place, shape = table.place, table.shape
    if isinstance(place.layer, keras.layers.Embedding):
        # Looked up by numbers that no input decides, so all that is seen is the sum.
        sums = [] if graph.calls_of(place.layer) else [call for call in graph.calls if _adds_array(call, shape)]
        yield from (tensor for call in sums for tensor in call.inputs)
        return
    variable = table.slot.variable(place.layer)
    for call in graph.uses(variable):
        yield from _others(graph, call, None, shape)
        yield from (tensor for made in call.outputs for tensor in _beside(graph, made, shape))
    for made in graph.made_by(place.layer) if not graph.uses(variable) else ():
        yield from _beside(graph, made, shape)


def _adds_array(call: Call, shape: tuple[int, ...]) -> bool:
    arrays = [value for value in keras.tree.flatten((call.args, call.kwargs)) if not isinstance(value, Ref)]
    shapes = [tuple(getattr(value, "shape", ())) for value in arrays]
    return type(call.operation).__name__ == "Add" and any(len(one) >= 2 and one[-2:] == shape[-2:] for one in shapes)


def _beside(graph: Graph, tensor: int, shape: tuple[int, ...]) -> Iterator[int]:
    """Follows a table to the sum that it goes into."""
    for _ in range(NEAR):
        readers = graph.readers(tensor)
        if len(readers) != 1:
            return
        (call,) = readers
        if is_merge(call):
            yield from _others(graph, call, tensor, shape)
            return
        if not passes(call) or len(set(call.inputs)) != 1:
            return
        tensor = call.outputs[0]


def _others(graph: Graph, call: Call, tensor: int | None, shape: tuple[int, ...]) -> Iterator[int]:
    """Yields what else is added, where that is a stream of tokens as wide as the table."""
    for other in call.inputs if type(call.operation).__name__ == "Add" else ():
        spec = graph.specs.get(other)
        if other != tensor and spec is not None and len(spec.shape) == 3 and spec.shape[-1] == shape[-1]:
            yield other
