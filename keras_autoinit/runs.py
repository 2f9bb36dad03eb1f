"""One pass over a batch: each weight is drawn when its layer is met, measured, and scaled."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_autoinit.execution import Arguments, computed, normalizes_by_batch, storing_nothing
from keras_autoinit.graphs import Call, Graph, Place, adds
from keras_autoinit.plans import Decision, Plan
from keras_autoinit.recipes import Recipe
from keras_autoinit.rewriting import Target, match, values_of
from keras_autoinit.scaling import Measured, Outcome, Task, Weight, is_usable, multiplied, scaled
from keras_autoinit.schemes import AxesScheme, make
from keras_autoinit.selection import Selection
from keras_autoinit.shares import shares_of
from keras_autoinit.spreads import pooled_std
from keras_autoinit.training import judged_places, moved_weights
from keras_autoinit.twins import rerouted, twin
from keras_autoinit.users import by_output, groups, is_reverse, parts, users

FIRST = "Measured on the first of its calls, as others come after it."


class Run:
    """One pass: what `execution` is to compute by, and what has been measured.

    Args:
        graph: the model.
        rows: what each weight is to be drawn from.
        selection: what may be touched.
        seed: the plan's, by which the weights are drawn.
        center: whether biases are to take away each unit's mean.
        calibrate: whether the statistics of batch normalizations are to be kept.
        shares: whether residual branches are to be as large as their share of the trunk.

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
        shares: bool = True,
    ) -> None:
        self.places = judged_places(graph.places, selection)
        self.measured: dict[str, Measured] = {}
        self.averages: dict[str, tuple[Place, Any, Any]] = {}
        self.biases: dict[str, tuple[Place, Any]] = {}
        built = [target for target in match(Plan(tuple(rows)), graph.places) if target.variable is not None]
        targets = [target for target in built if target.row.role != "unknown"]
        self._used_by = users(graph, targets)
        reached = {target.row.path for users in self._used_by.values() for target in users}
        self.unseen = {target.row.path for target in targets} - reached
        self.groups = groups(graph, self._used_by)
        self._seed, self._center, self._calibrate = seed, center, calibrate
        # What is drawn anew without being measured is seen by whatever computes with it.
        anew = [(t.variable, values_of(t, seed)) for t in built if t.row.role == "unknown" and t.row.changed]
        self._starts = (*moved_weights(self.places), *anew)
        self._normalizations = {id(p.layer): p for p in self.places if calibrate and normalizes_by_batch(p.layer)}
        self._drawn: dict[str, Any] = {}
        self._left = Counter(id(call.operation) for call in graph.calls)
        self._by_output = by_output(graph, targets)
        self._read_back = {
            t.row.path for t in targets if any(is_reverse(call) for call in graph.calls_of(t.place.layer))
        }
        self._parts = parts(graph, self._used_by)
        mixing = [call for call in graph.calls if id(call.operation) in self._used_by]
        self._shares = shares_of(graph, mixing) if shares else {}
        self._trunks: dict[int, float] = dict.fromkeys((share.trunk for share in self._shares.values()), math.nan)

    def see(self, numbers: Sequence[int], tensors: Sequence[Any]) -> None:
        """Measures those tensors on which residual branches will stand."""
        for number, tensor in zip(numbers, tensors):
            if number in self._trunks:
                self._trunks[number] = pooled_std([tensor])

    def compute(self, calls: tuple[Call, ...], arguments: list[Arguments]) -> list[Any]:
        """Returns what calls of one operation put out, its weights that are still open being scaled."""
        operation = calls[0].operation
        if id(operation) in self._normalizations:
            return [self._calibrated(operation, operation, *each) for each in arguments]
        targets = self._used_by.get(id(operation), [])
        for target in targets:
            if target.row.path not in self._drawn:
                self._drawn[target.row.path] = values_of(target, self._seed)
        compute = self._whole if id(operation) in self._parts else self._scaled
        outputs = compute(calls[0], targets, arguments)
        self._left[id(operation)] -= len(calls)
        if not self._left[id(operation)]:
            for target in targets:
                self._drawn.pop(target.row.path, None)
        return outputs

    def _scaled(self, call: Call, targets: list[Target], arguments: list[Arguments]) -> list[Any]:
        """Returns what a call's operation puts out, and keeps what has been measured."""
        waiting = [t for t in targets if t.row.path not in self.measured and self._is_meant(t, call)]
        weights = [t for t in waiting if not adds(call) and self._has_gain(t)]
        chosen = {t.row.path for t in weights}
        settled = [(t.variable, self._drawn[t.row.path]) for t in targets if t.row.path not in chosen]
        drawn = tuple(Weight(t.row.path, t.row.role, t.variable, self._drawn[t.row.path]) for t in weights)
        task = Task(call.operation, arguments, drawn, (*self._starts, *settled), self._center, *self._wanted(call))
        outcome = scaled(call.operation, task) if weights else Outcome(task.run())
        for target in targets:
            if target in waiting:
                self._keep(call, target, outcome)
            elif self._is_meant(target, call):
                self._tell_first(target.row.path)
        return outcome.outputs

    def _has_gain(self, target: Target) -> bool:
        scheme = _scheme(target.row.new)
        return target.row.path not in self._by_output and isinstance(scheme, AxesScheme) and not scheme.paired

    def _wanted(self, call: Call) -> tuple[float, str]:
        """Returns the spread that a call's output is to have, and why that is not one."""
        share = self._shares.get(id(call))
        trunk = math.nan if share is None else self._trunks[share.trunk]
        if share is None or not is_usable(trunk):
            return 1.0, ""
        target = share.target(trunk)
        return target, (
            f"Its target is {target:.3g}: it ends a residual branch, one of {share.length} on a trunk of {trunk:.3g}, "
            "which together at most double its variance."
        )

    def _whole(self, call: Call, targets: list[Target], arguments: list[Arguments]) -> list[Any]:
        """Returns what a layer that cannot be looked into puts out, each layer in it being met there if it can be.

        If not, inside a loop that is traced say, its kernels are scaled together; an error of the
        layer's own comes again.
        """
        inside = self._parts[id(call.operation)]
        routes = [(layer, functools.partial(self._part, layer, met)) for layer, met in inside]
        normalizations = [route for route in routes if normalizes_by_batch(route[0])]
        for part, compute in ((routes, self._by_parts), (normalizations, self._scaled)):
            before = dict(self.measured), dict(self._drawn), dict(self.averages), dict(self.biases)
            try:
                with rerouted(part):
                    return compute(call, targets, arguments)
            except Exception:
                self.measured, self._drawn, self.averages, self.biases = before
        return self._scaled(call, targets, arguments)

    def _by_parts(self, call: Call, targets: list[Target], arguments: list[Arguments]) -> list[Any]:
        """Runs a layer, the layers in which are rerouted."""
        fixed = (*self._starts, *((t.variable, self._drawn[t.row.path]) for t in targets))
        outputs = [computed(call.operation, each, fixed) for each in arguments]
        for target in targets:
            reason = "The scale is kept: the layer around it does not call it on these samples."
            self.measured.setdefault(target.row.path, Measured(1.0, reason))
        return outputs

    def _part(self, layer: Any, targets: list[Target], whole: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns what a layer inside another puts out; `whole` is the layer to compute."""
        if id(layer) in self._normalizations:
            return self._calibrated(layer, whole, args, kwargs)
        return self._scaled(Call(whole, (), (), args, kwargs), targets, [(args, kwargs)])[0]

    def _tell_first(self, path: str) -> None:
        """Says in a row that it is about the first calls of a layer that is called again."""
        measured = self.measured[path]
        if measured.scaled and not measured.reason.endswith(FIRST):
            self.measured[path] = dataclasses.replace(measured, reason=f"{measured.reason} {FIRST}")

    def _keep(self, call: Call, target: Target, outcome: Outcome) -> None:
        path = target.row.path
        measured = outcome.measured.get(path) or self._as_drawn(call, target, outcome.outputs)
        self.measured[path] = measured
        if measured.factor != 1:
            self._drawn[path] = multiplied(self._drawn[path], measured.factor)
        if measured.bias is not None:
            self.biases[target.place.path] = (target.place, measured.bias)

    def _as_drawn(self, call: Call, target: Target, outputs: Any) -> Measured:
        if target.row.path in self._by_output:
            return Measured(1.0, self._by_output[target.row.path], pooled_std(outputs))
        if adds(call):
            return Measured(1.0, "The scale is kept: it is added to the signal, not multiplied with it.")
        if getattr(_scheme(target.row.new), "paired", False):
            return Measured(1.0, "The scale is kept: its product with its partner decides.", pooled_std(outputs))
        return Measured(1.0, f"The scale is kept: {target.row.new.name} has no gain.", pooled_std(outputs))

    def _is_meant(self, target: Target, call: Call) -> bool:
        """Whether a call decides on a weight: a table that goes back too is decided on there."""
        if target.slot.role not in ("tied", "reverse", "embeddings"):
            return True
        if target.slot.role == "tied":
            return is_reverse(call) or target.row.path not in self._read_back
        return is_reverse(call) == (target.slot.role == "reverse")

    def _calibrated(self, layer: Any, whole: Any, args: Any, kwargs: Any) -> Any:
        """Returns what a batch normalization puts out, and keeps the statistics that it has used."""
        place = self._normalizations[id(layer)]
        # Without momentum, the moving averages become what the layer itself computes of the batch.
        with storing_nothing(self._starts) as scope:
            outputs = twin(whole, momentum=0.0)(*args, **{**kwargs, "training": True})
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
    scheme: Any = _scheme(row.new)
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


@functools.lru_cache(maxsize=256)
def _scheme(recipe: Recipe) -> Any:
    """Returns what a recipe makes, to be asked and not to be drawn from."""
    return make(recipe, seed=0)


def _rounded(gain: float) -> float:
    return float(f"{gain:.9g}")
