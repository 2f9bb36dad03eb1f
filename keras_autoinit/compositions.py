"""Activations that a model writes out by hand, such as `x * sigmoid(x)`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from keras import tree

from keras_autoinit.activations import Activation, is_activation_layer, known, measured
from keras_autoinit.errors import ActivationError
from keras_autoinit.functions import FUNCTIONS
from keras_autoinit.graphs import Call, Graph, Ref, activation_of, adds, is_elementwise

# The longest that anybody writes by hand, GELU by its power series in tanh, has nine.
MOST_CALLS = 16
# Wide enough that no two known activations agree on it to this.
GRID = np.linspace(-6.0, 6.0, 241)
AGREEMENT = 1e-3


@dataclasses.dataclass(frozen=True)
class Composition:
    """Elementwise operations that together are one function of one tensor.

    Attributes:
        source: number of the tensor that it is a function of.
        calls: the operations, in order.
        output: number of the tensor that it makes.
    """

    source: int
    calls: tuple[Call, ...]
    output: int

    def __call__(self, x: Any) -> Any:
        """Computes the function on a tensor."""
        values = {self.source: x}
        for call in self.calls:
            args, kwargs = tree.map_structure(
                lambda value: values[value.number] if isinstance(value, Ref) else value, (call.args, call.kwargs)
            )
            values[call.outputs[0]] = call.operation(*args, **kwargs)
        return values[self.output]


def composition_at(graph: Graph, tensor: int) -> Composition | None:
    """Returns the function that several operations make of a tensor, or `None`.

    They are one function where the tensor goes into two operations or more, and all that they
    make comes together again: `x * sigmoid(x)`, or GELU written out.
    """
    if len(graph.readers(tensor)) < 2:
        return None
    calls = _region(graph, tensor)
    inside = set(map(id, calls))
    for call in reversed(calls):
        (output,) = call.outputs
        needed = _needed(calls, call)
        between = {tensor, *(out for one in needed for out in one.outputs)} - {output}
        if all(id(reader) in inside and reader in needed for number in between for reader in graph.readers(number)):
            return Composition(tensor, tuple(needed), output)
    return None


def raised_at(graph: Graph, tensor: int) -> Composition | None:
    """Returns the function that an activation makes of a tensor that a number has been added to, or `None`.

    What is done to it next with other numbers belongs to it: `relu6(x + 3) / 6` is a hard sigmoid.
    """
    calls: list[Call] = []
    while len(calls) < MOST_CALLS and len(readers := graph.readers(calls[-1].outputs[0] if calls else tensor)) == 1:
        (call,) = readers
        if not calls and not adds(call):
            return None
        if not is_elementwise(graph, call) and not is_activation_layer(call.operation):
            break
        calls.append(call)
    bends = any(activation_of(call) is not None for call in calls[1:])
    return Composition(tensor, tuple(calls), calls[-1].outputs[0]) if bends else None


def composed_activation(composition: Composition) -> Activation | None:
    """Returns a composition as an activation: a known one where it computes the same, else measured.

    `None` where it is no function of finite values.
    """
    try:
        function = measured(composition, f"function ending in {composition.calls[-1].name}")
        assert function.function is not None
        values = function.function(GRID)
    except ActivationError:
        return None
    for name, definition in FUNCTIONS.items():
        if definition is not None and name != "linear":
            with np.errstate(all="ignore"):
                difference = np.abs(definition(GRID) - values)
            if (difference < AGREEMENT).all():
                return known(name, {})
    return function


def _region(graph: Graph, tensor: int) -> list[Call]:
    """Returns the elementwise operations that depend on one tensor alone, in order."""
    calls: list[Call] = []
    made, waiting = {tensor}, list(graph.readers(tensor))
    while waiting and len(calls) < MOST_CALLS:
        call = next((one for one in waiting if is_elementwise(graph, one) and made.issuperset(one.inputs)), None)
        if call is None:
            break
        waiting.remove(call)
        calls.append(call)
        made.update(call.outputs)
        waiting.extend(reader for reader in graph.readers(call.outputs[0]) if reader not in waiting)
    return calls


def _needed(calls: list[Call], last: Call) -> list[Call]:
    """Returns the calls that the last one's output depends on, in order."""
    wanted, found = set(last.inputs), [last]
    for call in reversed(calls[: calls.index(last)]):
        if wanted.intersection(call.outputs):
            found.append(call)
            wanted.update(call.inputs)
    return found[::-1]
