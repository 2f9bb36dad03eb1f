"""Where signals are added: residual merges, their trunks, and how many stand on one trunk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.graphs import Call, Graph, Ref, activation_of, passes

NORMALIZATIONS = tuple(
    getattr(keras.layers, name)
    for name in (
        "BatchNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "UnitNormalization",
    )
    if hasattr(keras.layers, name)
)
_SCALINGS = ("Divide", "Multiply", "Rescaling", "TrueDivide")
MERGES = ("Add", "Subtract", "Average")


@dataclass(frozen=True)
class Merge:
    """A sum of signals.

    Attributes:
        call: the addition.
        trunk: the tensor that the others were made from; `None` where they have no such thing.
        parts: how many signals meet.
        length: how many merges follow each other on this trunk.
    """

    call: Call
    trunk: int | None
    parts: int
    length: int = 1


def is_merge(call: Call) -> bool:
    """Whether a call adds signals."""
    return type(call.operation).__name__ in MERGES and len(set(call.inputs)) > 1


def merges_of(graph: Graph, order: dict[int, int]) -> dict[int, Merge]:
    """Finds every merge, its trunk, and how many stand on the same trunk."""
    found: dict[int, Merge] = {}
    chain: dict[int, int] = {}
    lengths: dict[int, int] = {}
    for call in graph.calls:
        if not is_merge(call):
            continue
        trunk = _trunk(graph, call, order)
        found[id(call)] = Merge(call, trunk, len(set(call.inputs)))
        previous = None if trunk is None else _merge_before(graph, trunk)
        chain[id(call)] = chain.get(id(previous), len(chain)) if previous is not None else len(chain)
        if trunk is not None:
            lengths[chain[id(call)]] = lengths.get(chain[id(call)], 0) + 1
    return {key: Merge(one.call, one.trunk, one.parts, lengths.get(chain[key], 1)) for key, one in found.items()}


def unscaled(graph: Graph, tensor: int) -> int:
    """Returns what a tensor was before it was multiplied by numbers alone."""
    while (maker := graph.maker(tensor)) is not None and len(maker.inputs) == 1 and _scales(maker):
        tensor = maker.inputs[0]
    return tensor


def _scales(call: Call) -> bool:
    """Whether a call multiplies all it takes by one number; a rotation of positions multiplies by tables."""
    if type(call.operation).__name__ not in _SCALINGS or call.variables:
        return False
    others = [value for value in keras.tree.flatten((call.args, call.kwargs)) if not isinstance(value, Ref)]
    return all(_is_number(value) for value in (getattr(call.operation, "scale", 1.0), *others))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, str, type(None))) or math.prod(getattr(value, "shape", (2,))) == 1


def _position(graph: Graph, tensor: int, order: dict[int, int]) -> int:
    maker = graph.maker(tensor)
    return -1 if maker is None else order[id(maker)]


def _trunk(graph: Graph, call: Call, order: dict[int, int]) -> int | None:
    """Returns the input that another input was made from, or was but for a factor on it."""
    inputs = sorted(set(call.inputs), key=lambda tensor: _position(graph, unscaled(graph, tensor), order))
    trunk, first = inputs[0], unscaled(graph, inputs[0])
    earliest = _position(graph, first, order)
    stack, seen = list(inputs[1:]), set(inputs[1:])
    while stack:
        tensor = stack.pop()
        maker = graph.maker(tensor)
        if maker is None:
            continue
        for number in maker.inputs:
            if number == first:
                return trunk
            if number not in seen and _position(graph, number, order) > earliest:
                seen.add(number)
                stack.append(number)
    return None


def _merge_before(graph: Graph, tensor: int) -> Call | None:
    """Returns the merge that a trunk comes from with nothing but passing operations and activations between."""
    while True:
        maker = graph.maker(tensor)
        if maker is None or isinstance(maker.operation, NORMALIZATIONS):
            return None
        if is_merge(maker):
            return maker
        if len(set(maker.inputs)) != 1 or not (passes(maker) or activation_of(maker) is not None):
            return None
        tensor = maker.inputs[0]
