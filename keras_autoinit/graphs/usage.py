"""What the operations that take a weight say about it: its role, and which of its axes are summed over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import tree

from keras_autoinit.activations import is_own
from keras_autoinit.fans import Axes, default_axes
from keras_autoinit.graphs.records import Call, Graph, Place, Ref
from keras_autoinit.slots import Slot
from keras_autoinit.variables import Variable

Use = tuple[str, Axes | None]


def with_uses(graph: Graph) -> Graph:
    """Returns the graph with the slots of which only their use can tell what they are."""
    return dataclasses.replace(graph, places=tuple(_informed(graph, place) for place in graph.places))


def _informed(graph: Graph, place: Place) -> Place:
    if all(slot.role != "unknown" for slot in place.slots):
        return place
    return dataclasses.replace(place, slots=tuple(_informed_slot(graph, place, slot) for slot in place.slots))


def _informed_slot(graph: Graph, place: Place, slot: Slot) -> Slot:
    """Returns the slot as its uses have it, where there is one and they agree."""
    variable = slot.variable(place.layer) if slot.role == "unknown" else None
    if variable is None:
        return slot
    if slot.recipe(place.layer).name in ("Zeros", "Ones", "Constant"):
        return dataclasses.replace(slot, role="constant")
    uses = {_use(call, variable) for call in graph.uses(variable)}
    use = uses.pop() if len(uses) == 1 else None
    return slot if use is None else dataclasses.replace(slot, role=use[0], axes=use[1])


def _use(call: Call, variable: Any) -> Use | None:
    """Returns a weight's role and axes in one call, or `None` where the operation does not tell."""
    rule = _RULES.get(type(call.operation).__name__) if is_own(call.operation) else None
    operands = [value for value in tree.flatten((call.args, call.kwargs)) if isinstance(value, (Ref, Variable))]
    places = [index for index, value in enumerate(operands) if value is variable]
    return rule(call, len(variable.shape), places[0]) if rule is not None and len(places) == 1 else None


def _matrix(call: Call, rank: int, position: int) -> Use:
    inputs, outputs = (rank - 2, rank - 1) if position else (rank - 1, rank - 2)
    return "kernel", Axes((inputs,), (outputs,))


def _einsum(call: Call, rank: int, position: int) -> Use | None:
    """Letters that only the weight and the output have are made; those that the output lacks are summed over."""
    equation = getattr(call.operation, "subscripts", "").replace(" ", "")
    left, _, output = equation.partition("->")
    terms = left.split(",")
    if "." in equation or not output or position >= len(terms):
        return None
    mine, others = terms[position], "".join(term for index, term in enumerate(terms) if index != position)
    inputs = tuple(axis for axis, letter in enumerate(mine) if letter not in output)
    outputs = tuple(axis for axis, letter in enumerate(mine) if letter in output and letter not in others)
    return ("kernel", Axes(inputs, outputs)) if inputs else None


def _convolution(call: Call, rank: int, position: int) -> Use | None:
    return ("kernel", default_axes(rank)) if position == 1 else None


def _depthwise(call: Call, rank: int, position: int) -> Use | None:
    taps = tuple(range(rank - 2))
    return ("depthwise", Axes(taps, (*taps, rank - 1))) if position == 1 else None


def _table(call: Call, rank: int, position: int) -> Use | None:
    return None if position else ("embeddings", Axes((), (rank - 1,)))


def _sum(call: Call, rank: int, position: int) -> Use:
    return "positions", Axes((), (rank - 1,))


def _scale(call: Call, rank: int, position: int) -> Use:
    return "scale", None


# By the names of Keras's own operation classes.
_RULES: dict[str, Callable[[Call, int, int], Use | None]] = {
    "Add": _sum,
    "Conv": _convolution,
    "DepthwiseConv": _depthwise,
    "Dot": _matrix,
    "Einsum": _einsum,
    "Matmul": _matrix,
    "Multiply": _scale,
    "Take": _table,
}
