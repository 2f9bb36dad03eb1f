"""Which operations compute with each weight, and which of their calls decide on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import keras

from keras_autoinit.by_table import beside_tied
from keras_autoinit.execution import normalizes_by_batch
from keras_autoinit.graphs import Call, Graph, Place
from keras_autoinit.rewriting import Target

BY_OUTPUT = {
    "tied": "The scale is kept: the output that reads this table back decides, and gives logits of a spread near one.",
    "beside_tied": "The scale is kept: it is added to a table that the output decides, and is of the size of that.",
}


def is_reverse(call: Call) -> bool:
    """Whether a table of embeddings is read back: from vectors to logits."""
    return bool(call.kwargs.get("reverse", call.args[1:2] == (True,)))


def by_output(graph: Graph, targets: Iterable[Target]) -> dict[str, str]:
    """Returns the tables of which the output decides the size, by path, each with the reason."""
    roles = {target.row.path: beside_tied(graph, target.place, target.slot).role for target in targets}
    return {path: BY_OUTPUT[role] for path, role in roles.items() if role in BY_OUTPUT}


# What is one layer to whoever scales it, with the cells and layers inside.
_UNITS = (keras.layers.Wrapper, keras.layers.RNN, keras.layers.Bidirectional)


def parts(graph: Graph, used_by: dict[int, list[Target]]) -> dict[int, list[tuple[Any, list[Target]]]]:
    """Returns the layers inside each layer that is called as a whole, by its `id`, with their weights.

    Left out are layers that have weights of their own beside theirs, or do something to theirs, as wrappers do.
    """
    whole = {id(call.operation) for call in graph.calls if _is_whole(call.operation)}
    places = {id(each.layer): each for each in graph.places}
    found: dict[int, dict[int, tuple[Any, list[Target]]]] = defaultdict(dict)
    for key in whole:
        for target in used_by.get(key, []):
            unit = _unit(places, target.place, key)
            found[key].setdefault(id(unit), (unit, []))[1].append(target)
    for place in filter(lambda place: normalizes_by_batch(place.layer), graph.places):
        for key in _holders(places, place) & whole:
            unit = _unit(places, place, key)
            found[key].setdefault(id(unit), (unit, []))
    return {key: list(inside.values()) for key, inside in found.items() if key not in inside}


def _is_whole(operation: Any) -> bool:
    own = (*_UNITS, keras.layers.BatchNormalization)
    return isinstance(operation, keras.Layer) and not isinstance(operation, own)


def _unit(places: dict[int, Place], place: Place, holder: int) -> Any:
    """Returns the outermost layer around a place, inside a holder, that is computed as one."""
    unit, parent = place.layer, place.parent
    while id(parent) in places and id(parent) != holder:
        unit = parent if isinstance(parent, _UNITS) else unit
        parent = places[id(parent)].parent
    return unit


def _holders(places: dict[int, Place], place: Place) -> set[int]:
    """Returns the layers around a place, by `id`."""
    found = set()
    parent = place.parent
    while id(parent) in places and id(parent) not in found:
        found.add(id(parent))
        parent = places[id(parent)].parent
    return found


def users(graph: Graph, targets: Iterable[Target]) -> dict[int, list[Target]]:
    """Returns the weights that each operation computes with, by its `id`."""
    users: dict[int, list[Target]] = defaultdict(list)
    for target in targets:
        for key in graph.computing(target.place, target.variable):
            users[key].append(target)
    return users


def groups(graph: Graph, operations: Iterable[int]) -> list[tuple[Call, ...]]:
    """Returns the calls of one operation that do not depend on each other: they are measured together."""
    by_operation: dict[int, list[Call]] = defaultdict(list)
    for call in graph.calls:
        by_operation[id(call.operation)].append(call)
    found = (_independent(graph, by_operation[key]) for key in operations if len(by_operation[key]) > 1)
    return [group for group in found if len(group) > 1]


def _independent(graph: Graph, calls: list[Call]) -> tuple[Call, ...]:
    """Returns the calls that depend on none before them in the list."""
    chosen: list[Call] = []
    reached: set[int] = set()
    for call in calls:
        if id(call) not in reached:
            chosen.append(call)
            _follow(graph, call, reached)
    return tuple(chosen)


def _follow(graph: Graph, call: Call, reached: set[int]) -> None:
    """Adds the calls that depend on a call."""
    waiting = [call]
    while waiting:
        for output in waiting.pop().outputs:
            fresh = [reader for reader in graph.readers(output) if id(reader) not in reached]
            reached.update(map(id, fresh))
            waiting.extend(fresh)
