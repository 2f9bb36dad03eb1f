"""One pass over a batch: each weight is drawn when its layer is met, measured, and scaled."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_autoinit.execution import Arguments, normalizes_by_batch, storing_nothing
from keras_autoinit.graphs import Call, Graph, Place, adds
from keras_autoinit.plans import Decision, Plan
from keras_autoinit.recipes import Recipe
from keras_autoinit.rewriting import Target, match, values_of
from keras_autoinit.scaling import Measured, Outcome, Task, Weight, multiplied, scaled
from keras_autoinit.schemes import AxesScheme, make
from keras_autoinit.selection import Selection
from keras_autoinit.spreads import pooled_std
from keras_autoinit.training import judged_places, moved_weights
from keras_autoinit.twins import twin


class Run:
    """One pass: what `execution` is to compute by, and what has been measured.

    Args:
        graph: the model.
        rows: what each weight is to be drawn from.
        selection: what may be touched.
        seed: the plan's, by which the weights are drawn.
        center: whether biases are to take away each unit's mean.
        calibrate: whether the statistics of batch normalizations are to be kept.

    Attributes:
        measured: by path of the weight.
        averages: mean and variance that a batch normalization has used, by path of its place.
        biases: start of a bias, by path of its place.
        unseen: paths of weights of which no use was seen.
    """

    def __init__(
        self,
        graph: Graph,
        rows: Sequence[Decision],
        selection: Selection,
        seed: int,
        center: bool = False,
        calibrate: bool = True,
    ) -> None:
        self.places = judged_places(graph.places, selection)
        self.measured: dict[str, Measured] = {}
        self.averages: dict[str, tuple[Place, Any, Any]] = {}
        self.biases: dict[str, tuple[Place, Any]] = {}
        targets = [target for target in match(Plan(tuple(rows)), graph.places) if target.variable is not None]
        self._used_by = _users(graph, targets)
        reached = {target.row.path for users in self._used_by.values() for target in users}
        self.unseen = {target.row.path for target in targets} - reached
        self.groups = _groups(graph, self._used_by)
        self._seed, self._center, self._calibrate = seed, center, calibrate
        self._starts = tuple(moved_weights(self.places))
        self._normalizations = {id(p.layer): p for p in self.places if calibrate and normalizes_by_batch(p.layer)}
        self._drawn: dict[str, Any] = {}
        self._left = Counter(id(call.operation) for call in graph.calls)

    def compute(self, calls: tuple[Call, ...], arguments: list[Arguments]) -> list[Any]:
        """Returns what calls of one operation put out, its weights that are still open being scaled."""
        operation = calls[0].operation
        place = self._normalizations.get(id(operation))
        if place is not None:
            return [self._calibrated(place, *each) for each in arguments]
        targets = self._used_by.get(id(operation), [])
        for target in targets:
            if target.row.path not in self._drawn:
                self._drawn[target.row.path] = values_of(target, self._seed)
        outputs = self._scaled(calls[0], targets, arguments)
        self._forget(operation, targets, len(calls))
        return outputs

    def _scaled(self, call: Call, targets: list[Target], arguments: list[Arguments]) -> list[Any]:
        """Returns what a call's operation puts out, and keeps what has been measured."""
        waiting = [t for t in targets if t.row.path not in self.measured and _is_meant(t, call)]
        weights = [t for t in waiting if not adds(call) and rescaled(t.row, 1.0) is not None]
        chosen = {t.row.path for t in weights}
        settled = [(t.variable, self._drawn[t.row.path]) for t in targets if t.row.path not in chosen]
        drawn = tuple(Weight(t.row.path, t.row.role, t.variable, self._drawn[t.row.path]) for t in weights)
        task = Task(call.operation, arguments, drawn, (*self._starts, *settled), self._center)
        outcome = scaled(call.operation, task) if weights else Outcome(task.run())
        for target in waiting:
            self._keep(call, target, outcome)
        return outcome.outputs

    def _keep(self, call: Call, target: Target, outcome: Outcome) -> None:
        path = target.row.path
        measured = outcome.measured.get(path) or _as_drawn(call, target, outcome.outputs)
        self.measured[path] = measured
        if measured.factor != 1:
            self._drawn[path] = multiplied(self._drawn[path], measured.factor)
        if measured.bias is not None:
            self.biases[target.place.path] = (target.place, measured.bias)

    def _forget(self, operation: Any, targets: list[Target], calls: int) -> None:
        """Lets go of weights that no later call needs."""
        self._left[id(operation)] -= calls
        if not self._left[id(operation)]:
            for target in targets:
                self._drawn.pop(target.row.path, None)

    def _calibrated(self, place: Place, args: Any, kwargs: Any) -> Any:
        """Returns what a batch normalization puts out, and keeps the statistics that it has used."""
        layer: Any = place.layer
        # Without momentum, the moving averages become what the layer itself computes of the batch.
        with storing_nothing(self._starts) as scope:
            outputs = twin(layer, momentum=0.0)(*args, **{**kwargs, "training": True})
        found = [scope.get_current_value(variable) for variable in (layer.moving_mean, layer.moving_variance)]
        if all(value is not None for value in found):
            mean, variance = (np.asarray(ops.convert_to_numpy(value)) for value in found)
            if np.isfinite(mean).all() and np.isfinite(variance).all():
                self.averages[place.path] = (place, mean, variance)
        return outputs


def rescaled(row: Decision, factor: float) -> Recipe | None:
    """Returns a row's recipe with its spread multiplied, or `None` if its scheme has no gain.

    A fan-scaled scheme becomes the general one, whose gain says how its spread compares with
    `1 / sqrt(fan_in)`; the same seed draws the same numbers from it but for their spread.
    """
    scheme: Any = make(row.new, seed=0)
    if not isinstance(scheme, AxesScheme) or row.shape is None:
        return None
    if not hasattr(scheme, "variance"):
        return row.new.replace(gain=_rounded(scheme.gain_value * factor))
    fan_in = scheme.axes(row.shape).fans(row.shape)[0]
    config = {key: value for key, value in row.new.config.items() if key != "mode"}
    if scheme.distribution != "truncated_normal":
        config["distribution"] = scheme.distribution
    gain = math.sqrt(scheme.variance(row.shape) * fan_in) * factor
    return Recipe("autoinit>variance_scaling", {**config, "gain": _rounded(gain)})


def _rounded(gain: float) -> float:
    return float(f"{gain:.9g}")


def _as_drawn(call: Call, target: Target, outputs: Any) -> Measured:
    if adds(call):
        return Measured(1.0, "The scale is kept: it is added to the signal, not multiplied with it.")
    return Measured(1.0, f"The scale is kept: {target.row.new.name} has no gain.", pooled_std(outputs))


def _is_meant(target: Target, call: Call) -> bool:
    """Whether a call computes with a weight: an untied embedding goes back by a table of its own."""
    if getattr(target.place.layer, "reverse_embeddings", None) is None:
        return True
    return bool(call.kwargs.get("reverse")) == (target.slot.weight == "reverse_embeddings")


def _users(graph: Graph, targets: Iterable[Target]) -> dict[int, list[Target]]:
    """Returns the weights that each operation computes with, by its `id`."""
    places = {id(place.layer): place for place in graph.places}
    users: dict[int, list[Target]] = defaultdict(list)
    for target in targets:
        for key in _operations(graph, places, target):
            users[key].append(target)
    return users


def _operations(graph: Graph, places: dict[int, Place], target: Target) -> set[int]:
    """Returns the operations that compute with a weight: those it is handed to, its layer, or what holds that."""
    found = {id(call.operation) for call in graph.uses(target.variable)}
    place: Place | None = target.place
    while place is not None and not found:
        found = {id(call.operation) for call in graph.calls_of(place.layer)}
        if id(place.layer) in graph.expanded:
            break
        place = places.get(id(place.parent))
    return found


def _groups(graph: Graph, operations: Iterable[int]) -> list[tuple[Call, ...]]:
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
