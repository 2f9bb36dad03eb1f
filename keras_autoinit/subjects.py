"""Which calls of a graph are measured: those that compute with a weight, and activations."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.activations import activation
from keras_autoinit.by_table import role_of
from keras_autoinit.errors import ActivationError
from keras_autoinit.graphs import Call, Graph, Place, activation_of, adds, passes
from keras_autoinit.merges import NORMALIZATIONS, is_merge
from keras_autoinit.recommendations import KEPT
from keras_autoinit.slots import Slot
from keras_autoinit.stretches import fate_of


@dataclass(frozen=True)
class Held:
    """A weight that a call computes with."""

    place: Place
    slot: Slot

    @property
    def path(self) -> str:
        """Where it stands."""
        return f"{self.place.path}/{self.slot.weight}"

    @property
    def role(self) -> str:
        """What it is for."""
        return role_of(self.place, self.slot)

    @property
    def variable(self) -> Any:
        """The weight itself."""
        return self.slot.variable(self.place.layer)


@dataclass(frozen=True)
class Subject:
    """A call that gets a row.

    Attributes:
        call: the call.
        path: the row's name.
        activation: the name of what it applies, empty for nothing.
        feeds: what its output meets first.
        weights: those that it computes with.
    """

    call: Call
    path: str
    activation: str
    feeds: str
    weights: tuple[Held, ...]


def subjects_of(graph: Graph) -> list[Subject]:
    """Returns the calls that get a row, in the order of computation."""
    users = _users(graph)
    paths = {id(place.layer): place.path for place in graph.places}
    taken: Counter[str] = Counter()
    found: list[Subject] = []
    for call in graph.calls:
        weights = () if adds(call) else tuple(users.get(id(call.operation), ()))
        applied = _applied(call, bool(weights))
        if not call.outputs or not (weights or applied):
            continue
        path = _path(call, weights, paths)
        taken[path] += 1
        name = path if taken[path] == 1 else f"{path}#{taken[path]}"
        found.append(Subject(call, name, applied, _feeds(graph, call), weights))
    return found


def _users(graph: Graph) -> dict[int, list[Held]]:
    """Returns the weights that each operation computes with, by its `id`."""
    users: dict[int, list[Held]] = defaultdict(list)
    for place in graph.places:
        for slot in place.slots:
            held = Held(place, slot)
            if held.variable is not None and (held.role not in KEPT or held.role == "unknown"):
                for key in graph.computing(held.place, held.variable):
                    users[key].append(held)
    return users


def _applied(call: Call, weighted: bool) -> str:
    """Returns the name of the activation that a call applies, empty for none."""
    operation = call.operation
    try:
        if not weighted:
            met = activation_of(call)
        elif isinstance(operation, keras.layers.RNN) or not isinstance(operation, keras.Layer):
            met = None
        else:
            met = activation(getattr(operation, "activation", None))
    except ActivationError:
        return ""
    return "" if met is None or met.linear else met.name


def _path(call: Call, weights: tuple[Held, ...], paths: dict[int, str]) -> str:
    known = paths.get(id(call.operation))
    if known is not None:
        return known
    if weights and not isinstance(call.operation, keras.Layer):
        return weights[0].place.path
    name = call.operation.name if isinstance(call.operation, keras.Layer) else call.name
    within = paths.get(id(call.within)) if call.within is not None else None
    return f"{within}/{name}" if within else name


def _feeds(graph: Graph, call: Call) -> str:
    """Returns what a call's output meets first, or `output` where only activations stand between it and the end."""
    tensor = call.outputs[0]
    fate = fate_of(graph, tensor)
    if fate.kind in ("merge", "normalization"):
        return fate.kind
    if _ends(graph, tensor):
        return "output"
    return "activation" if fate.kind == "activation" else "other"


def _ends(graph: Graph, tensor: int) -> bool:
    stack, seen = [tensor], {tensor}
    while stack:
        number = stack.pop()
        if number in graph.outputs:
            return True
        for call in graph.readers(number):
            handed_on = (passes(call) or activation_of(call) is not None) and not is_merge(call)
            if handed_on and not isinstance(call.operation, NORMALIZATIONS):
                stack.extend(set(call.outputs) - seen)
                seen.update(call.outputs)
    return False
