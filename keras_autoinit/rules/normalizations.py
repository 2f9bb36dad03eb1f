"""Normalizations as training sees them: by the batch, a layer's units, groups of them, or one sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_autoinit.laws import BATCH
from keras_autoinit.rules.base import Context, Effect, Gradients, axes_of, for_layers, for_operations, scale
from keras_autoinit.rules.statistics import Statistics
from keras_autoinit.signals import Shape, Signal, constant


@for_layers("BatchNormalization")
def batch_normalization(context: Context) -> Effect:
    """Centres and scales each unit over samples and positions."""
    rank = len(context.signal.along)
    (unit,) = axes_of(context.layer.axis, rank) or (0,)
    return normalized(context, [axis for axis in range(rank) if axis != unit], centred=True)


@for_layers("LayerNormalization")
def layer_normalization(context: Context) -> Effect:
    """Centres and scales each position over its units."""
    axes = axes_of(context.layer.axis, len(context.signal.along))
    return normalized(context, axes, centred=not getattr(context.layer, "rms_scaling", False))


@for_layers("RMSNormalization")
def rms_normalization(context: Context) -> Effect:
    """Scales each position over its units."""
    return normalized(context, axes_of(context.layer.axis, len(context.signal.along)), centred=False)


@for_layers("GroupNormalization")
def group_normalization(context: Context) -> Effect:
    """Centres and scales groups of units over their positions."""
    rank = len(context.signal.along)
    (unit,) = axes_of(context.layer.axis, rank) or (0,)
    groups = context.layer.groups
    return normalized(context, range(1, rank), centred=True, groups={unit: math.inf if groups == -1 else groups})


@for_layers("UnitNormalization")
def unit_normalization(context: Context) -> Effect:
    """Scales each position to length one."""
    signal, shape = context.signal, context.shape_in()
    count = math.prod(shape[axis] for axis in axes_of(context.layer.axis, len(shape))) if shape else 1
    factor = 1 / math.sqrt(max(signal.second_moment * count, 1e-12))
    return Effect((signal.times(factor),), lambda gradients: (scale(gradients[0], factor**2),))


@for_layers("Normalization")
def by_given_statistics(context: Context) -> Effect:
    """Centres and scales by numbers that data have given; by nothing while they have not."""
    layer, signal = context.layer, context.signal
    variance = getattr(layer, "variance", None)
    if variance is None:
        return Effect((signal,), lambda gradients: gradients)
    factor = 1 / math.sqrt(max(float(keras.ops.convert_to_numpy(variance).mean()), 1e-12))
    mean = float(keras.ops.convert_to_numpy(layer.mean).mean())
    if mean == 0 and factor == 1:
        return Effect((signal,), lambda gradients: gradients)
    # Data that were normalized by their own statistics.
    made = Signal(1.0, 0.0, (0.0,) * len(signal.along))
    return Effect((made,), lambda gradients: (scale(gradients[0], factor**2),))


@for_operations("RMSNorm", "LayerNorm", "Normalize")
def operation(context: Context) -> Effect:
    """The same as an operation."""
    name, rank = type(context.layer).__name__, len(context.signal.along)
    return normalized(context, axes_of(context.option("axis", -1), rank), centred=name == "LayerNorm")


def normalized(context: Context, axes: Sequence[int], centred: bool, groups: dict[int, float] | None = None) -> Effect:
    """Divides by the spread over some axes, after taking off the mean where `centred`.

    Args:
        context: the call.
        axes: what the statistics are taken over.
        centred: whether the mean goes off.
        groups: how many groups an axis is cut into.
    """
    layer = context.layer
    sizes = {axis: _size(context.shape_in(), axis) / (groups or {}).get(axis, 1.0) for axis in axes}
    whole = [axis for axis in axes if axis not in (groups or {})]
    gamma = _second_moment(getattr(layer, "gamma", getattr(layer, "scale", None)))
    statistics = Statistics(sizes, whole, centred, gamma, float(getattr(layer, "epsilon", 1e-6) or 0.0))
    made, unit, factors = statistics.applied(context.signal)
    beta = getattr(layer, "beta", None)
    if beta is not None and not isinstance(getattr(layer, "beta_initializer", None), keras.initializers.Zeros):
        made = _shifted(made, beta)

    def backward(gradients: Gradients) -> Gradients:
        return (gradients[0] and statistics.returned(gradients[0], made, unit, factors),)

    return Effect((made,), backward)


def _size(shape: Shape, axis: int) -> float:
    return float(BATCH) if axis == 0 or not shape else float(shape[axis])


def _second_moment(value: Any) -> float:
    """Returns the mean square of a variable's numbers; one where there is none."""
    if not isinstance(value, keras.Variable):
        return 1.0
    return float((keras.ops.convert_to_numpy(value).astype("float64") ** 2).mean())


def _shifted(signal: Signal, beta: Any) -> Signal:
    shift, _ = constant(keras.ops.convert_to_numpy(beta))
    along = tuple(value + shift.second_moment for value in signal.along)
    return Signal(signal.second_moment + shift.second_moment, signal.mean + shift.mean, along)
