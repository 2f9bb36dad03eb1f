"""What the weights of a model hold, measured against what they should: spread, symmetry, gradient."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_autoinit.by_table import Table
from keras_autoinit.fans import Axes, default_axes
from keras_autoinit.graphs import Graph
from keras_autoinit.measures import array_of, distinct_share, second_moment, sums
from keras_autoinit.plans import Decision
from keras_autoinit.readings import WeightReading
from keras_autoinit.schemes import AxesScheme, make
from keras_autoinit.selection import Selection
from keras_autoinit.subjects import Held, Subject

# Rows of a table are looked up, one at a time, and each channel of a depthwise kernel sees a channel of its own.
_NO_UNITS = frozenset({"depthwise", "embeddings", "positions", "token", "tied", "beside_tied", "reverse", "unknown"})
# Their spread is no matter of fans.
_NO_FANS = frozenset({"embeddings", "positions", "token", "tied", "beside_tied", "unknown"})
# Schemes that repeat units on purpose, or give every layer of a shape the same.
_REPEATING = frozenset({"icnr", "identity", "dirac", "sparse"})

# Optimizers whose first step is of one size whatever the gradient's: by the factor on the learning rate.
_FIRST_STEPS: dict[str, float] = {"Adam": 1.0, "AdamW": 1.0, "Adamax": 1.0, "Nadam": 1.0, "Lion": 1.0, "Adagrad": 1.0}


@dataclass(frozen=True)
class Gradients:
    """What has come back to the weights.

    Attributes:
        at: the gradient at each weight that one reaches, by the `id` of its variable.
        optimizer: the compiled model's, or `None`.
        true: whether they are those of a loss, so that their size means something.
    """

    at: dict[int, Any]
    optimizer: Any
    true: bool


def weight_readings(
    graph: Graph, subjects: Iterable[Subject], gradients: Gradients, trained: bool, brief: bool = False
) -> dict[int, WeightReading]:
    """Returns the reading of each weight that a row computes with, by the `id` of its variable.

    Args:
        graph: the model.
        subjects: its rows.
        gradients: what has come back.
        trained: whether the weights are no longer what their initializers have drawn.
        brief: whether to leave out what is compared between weights.
    """
    decisions = {} if trained else {row.path: row for row in Table().decide(graph, Selection())}
    readings: dict[int, WeightReading] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for subject in subjects:
        for held in subject.weights:
            if id(held.variable) not in readings:
                twins = None if brief else seen
                readings[id(held.variable)] = _reading(held, gradients, twins, decisions.get(held.path))
    return readings


def _reading(
    held: Held, gradients: Gradients, seen: dict[tuple[Any, ...], str] | None, decision: Decision | None
) -> WeightReading:
    variable, slot = held.variable, held.slot
    values, shape = array_of(variable), tuple(variable.shape)
    mean, square = sums(values)
    finite = math.isfinite(mean) and math.isfinite(square)
    constant = float(values.flat[0]) if values.size and bool((values == values.flat[0]).all()) else None
    name = slot.recipe(held.place.layer).name.rpartition(">")[2].lower()
    compared = seen is not None and finite and held.role not in _NO_UNITS and name not in _REPEATING
    meant = decision is not None and held.role not in _NO_FANS
    initializer = slot.initializer(held.place.layer) if meant else None
    gradient = gradients.at.get(id(variable))
    back = None if gradient is None else second_moment(array_of(gradient))
    return WeightReading(
        held.path,
        held.role,
        shape,
        str(slot.recipe(held.place.layer)),
        finite,
        math.sqrt(max(0.0, square - mean * mean)) if finite else None,
        _expected_std(initializer, slot.axes, shape),
        _expected_std(initializer, _counted_axes(initializer, shape), shape),
        None if decision is None else _std_of(decision),
        "" if decision is None else str(decision.new),
        constant,
        _distinct(held, values) if compared else None,
        None if seen is None or constant is not None or name in _REPEATING else _twin(held.path, values, seen),
        back,
        _update_ratio(gradients, back, square),
    )


def _expected_std(initializer: Any, axes: Axes | None, shape: tuple[int, ...]) -> float | None:
    """Returns the spread that one of Keras's fan-scaled initializers means, with the fans of the weight's role."""
    if axes is None or not isinstance(initializer, keras.initializers.VarianceScaling):
        return None
    if isinstance(initializer, AxesScheme):
        return None
    fan_in, fan_out = axes.fans(shape)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    return math.sqrt(initializer.scale / max(fans[initializer.mode], 1e-9))


def _counted_axes(initializer: Any, shape: tuple[int, ...]) -> Axes | None:
    """Returns the axes that Keras counts fans along: those it was told, or those of a dense kernel or convolution."""
    told = getattr(initializer, "input_axes", None), getattr(initializer, "output_axes", None)
    if None not in told:
        return Axes(tuple(told[0] or ()), tuple(told[1] or ()))
    return default_axes(len(shape)) if len(shape) >= 2 else None


def _std_of(decision: Decision) -> float | None:
    """Returns the spread of what the table recommends, where its scheme states one."""
    scheme: Any = make(decision.new, seed=0) if decision.new.name.startswith("autoinit>") else None
    if decision.shape is None or not hasattr(scheme, "variance"):
        return None
    return math.sqrt(float(scheme.variance(decision.shape)))


def _distinct(held: Held, values: np.ndarray) -> float | None:
    axes = held.slot.axes
    units = (values.ndim - 1,) if axes is None else tuple(a for a in axes.outputs if a not in axes.inputs)
    found = distinct_share(values, units) if units else None
    bias = getattr(held.place.layer, "bias", None) if found is not None and found < 1 else None
    # Units that start from different biases go different ways.
    if bias is not None and tuple(bias.shape) == tuple(values.shape[axis] for axis in units):
        flat = np.concatenate(
            [np.moveaxis(values, units, range(-len(units), 0)).reshape(-1, *bias.shape), array_of(bias)[None]]
        )
        return distinct_share(flat, tuple(range(1, flat.ndim)))
    return found


def _twin(path: str, values: np.ndarray, seen: dict[tuple[Any, ...], str]) -> str | None:
    """Returns the path of a weight seen before that holds the same numbers."""
    if values.size < 2:
        return None
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).digest()
    earlier = seen.setdefault((values.shape, digest), path)
    return None if earlier == path else earlier


def _update_ratio(gradients: Gradients, gradient: float | None, square: float) -> float | None:
    """Returns the size of the optimizer's first step over that of the weight."""
    optimizer = gradients.optimizer
    if optimizer is None or gradient is None or not gradient > 0 or not square > 0:
        return None
    kind = type(optimizer).__name__
    rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    if kind in _FIRST_STEPS:
        return rate * _FIRST_STEPS[kind] / math.sqrt(square)
    if kind == "RMSprop":
        return rate / math.sqrt((1 - optimizer.rho) * square)
    return rate * math.sqrt(gradient / square) if kind == "SGD" and gradients.true else None
