"""Normalizations as training sees them: by the batch, a layer's units, groups of them, or one sample."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_autoinit.averages import averaged
from keras_autoinit.rules.base import Context, Effect, Gradients, axes_of, for_layers, for_operations, scale
from keras_autoinit.signals import Near, Shape, Signal, constant
from keras_autoinit.sizes import BATCH, Sizes, centred_power, covariance, dominance, floored_power, to_power
from keras_autoinit.sums import FAINT, blended, multiplied


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
    statistics = _Statistics(sizes, whole, centred, gamma, float(getattr(layer, "epsilon", 1e-6) or 0.0))
    made, unit, factors = statistics.applied(context.signal)
    beta = getattr(layer, "beta", None)
    if beta is not None and not isinstance(getattr(layer, "beta_initializer", None), keras.initializers.Zeros):
        made = _shifted(made, beta)

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None:
            return (None,)
        lost = _centre(gradient, sizes, whole) if centred else gradient.times(0.0)
        # The share that grows with the signal, too, changes nothing behind the normalization.
        one = made.times(1 / math.sqrt(made.second_moment)) if made.second_moment > 0 else made
        along_signal = averaged(multiplied([gradient, one]), sizes)
        rest = max(gradient.second_moment - lost.second_moment - along_signal, 0.0)
        along = tuple(value - other for value, other in zip(gradient.along, lost.along))
        back = Signal(rest, 0.0, along, profile=gradient.profile)
        passed = scale(back, float(factors[0])) if unit is None else _by_unit(back, unit, factors)
        steered = gradient.steered * float(np.mean(factors))
        uneven = _floored(gradient, lost) if 0 in sizes else gradient.sizes
        return (passed and dataclasses.replace(passed, steered=steered, bent=gradient.bent, sizes=uneven),)

    return Effect((made,), backward)


@dataclass(frozen=True)
class _Statistics:
    """What a normalization computes.

    Attributes:
        sizes: how many entries each axis has that statistics are taken over.
        whole: those of the axes that are not cut into groups.
        centred: whether the mean goes off.
        gamma: the second moment of the scales.
        epsilon: is added to the variance.
    """

    sizes: dict[int, float]
    whole: Sequence[int]
    centred: bool
    gamma: float
    epsilon: float

    def applied(self, signal: Signal) -> tuple[Signal, int | None, np.ndarray]:
        """Returns the normalized signal, the axis of units that have a scale each, and the factor on their squares."""
        if signal.joined is not None and signal.joined[0] not in self.sizes:
            return self._applied_each(*signal.joined)
        signal = dataclasses.replace(signal, apart=signal.pairs[len(signal.along) :])
        centre = _centre(signal, self.sizes, self.whole) if self.centred else signal.times(0.0)
        variance = max(signal.second_moment - centre.second_moment, 0.0)
        # Each unit has a scale of its own, if it is not among what is averaged over.
        unit = next((a for a, one in enumerate(signal.profile) if one is not None and a not in self.sizes), None)
        spread = np.full(1, variance) if unit is None else variance * signal.profile[unit]
        whole = np.maximum(spread + self.epsilon, 1e-30)
        # Of units that vary little, epsilon takes more off; what it adds is certain.
        factors, known = (self.gamma / whole, spread / whole) if variance > 0 else (np.zeros(1), np.ones(1))
        uneven, common, evened = self._unevenness(signal, centre, variance)
        lost = uneven * known * (1 - known)
        factor = float((factors * spread * (1 - lost)).mean()) / variance if variance > 0 else 0.0
        along = tuple(factor * (value - other) for value, other in zip(signal.along, centre.along))
        apart = tuple(factor * (value - other) for value, other in zip(signal.apart, centre.apart))
        mean = 0.0 if self.centred else signal.mean * math.sqrt(factor)
        left = self._spread(signal, centre, variance)
        profile = tuple(None if axis == unit else one for axis, one in enumerate(left))
        if along and common is not None:
            along = (along[0] * common, *along[1:])
        made = Signal(
            factor * variance,
            mean,
            along,
            profile=profile,
            apart=apart,
            patterns=signal.patterns,
            channels=signal.channels if 0 in self.sizes and self.centred else None,
            sizes=to_power(signal.sizes or {}, evened) if evened else {},
            near=self._near(signal, centre, factor, common),
        )
        return made, unit, factors * (1 + uneven * known**2)

    def _spread(self, signal: Signal, centre: Signal, variance: float) -> tuple[Any, ...]:
        """Returns how what is made is spread over positions: what is faint at a border stays so, beside the mean.

        The mean of all is off everywhere, and at a border there was less of it.
        """
        if len(self.sizes) < 2 or variance <= 0:
            return ()
        found = list(signal.profile or (None,) * len(signal.along))
        known = {} if signal.near is None else dict(zip(signal.near.axes, signal.near.pulls))
        for axis in [axis for axis in self.whole if axis > 0 and 0 in self.whole]:
            size = np.ones(int(self.sizes[axis])) if found[axis] is None else found[axis]
            # What all have in common is at least as faint there as the rest.
            pull = np.sqrt(size)
            if axis in known and len(known[axis]) == len(size):
                pull = np.minimum(known[axis], pull)
            left = signal.second_moment * size + centre.second_moment * (1 - 2 * pull / pull.mean())
            found[axis] = np.maximum(left / left.mean(), FAINT) if np.ptp(left) > 1e-6 * variance else None
        return tuple(found)

    def _near(self, signal: Signal, centre: Signal, factor: float, common: float | None) -> Near | None:
        """Returns how far neighbours agree once a mean is off that is the same for them."""
        left = self._off(signal, centre)
        if left is None:
            return None
        same, other = factor * left.same, factor * left.other
        own, shared = same - other, other if common is None else common * other
        whole, rest = same.ravel()[0] - shared.ravel()[0], own.ravel()[0]
        # What all samples have in common shrinks, and what each has of its own makes up for it.
        return Near(left.axes, shared + own * (whole / rest if rest > 0 else 1.0), shared)

    def _off(self, signal: Signal, centre: Signal) -> Near | None:
        """Returns how far neighbours agree beside the mean; `None` where it is not the same for them."""
        near = signal.near
        if near is None or (self.centred and not {0, *near.axes} <= set(self.whole)):
            return None
        # Those at a border agree less with the mean than others do.
        mean = centre.second_moment * (2 * near.pull() - 1)
        return near.changed(lambda values: values - mean)

    def _unevenness(self, signal: Signal, centre: Signal, variance: float) -> tuple[float, float | None, float]:
        """Returns how uneven variances are, and what dividing by them makes of all samples' pattern and of sizes.

        A variance `v` is a mean of `N` squared Gaussians of covariance `K`, so that `E v^2 / (E v)^2 - 1`
        is twice the mean of `K^2` over all pairs, and `E 1/v` is larger than `1 / E v` by as much. Where the
        pattern is stronger, `v` is too: its share of what is made shrinks. So does that of a sample that is
        large in one unit: of its size the power `1 - (E w^2 - 1) / B` is left in a batch of `B`, with `w` the
        squares of one sample's units.
        """
        if variance <= 0:
            return 0.0, None, 1.0 if 0 in self.sizes else 0.0
        pairs = self._pairs(signal, centre, variance)
        if 0 not in self.sizes:
            return 2 * averaged(pairs, self.sizes), None, 0.0
        batch, sizes = self.sizes[0], signal.sizes or {}
        few = dominance(covariance(sizes, sizes)) / batch
        within = {axis: size for axis, size in self.sizes.items() if axis > 0}
        # Twice the mean square of all pairs' correlations is how uneven a mean of squares is.
        own = 2 * averaged(pairs, within)
        common = round(max(centre.second_moment, 0.0) / signal.second_moment, 2)
        power = 0.5 if signal.mean_power is None else round(signal.mean_power, 2)
        centred = centred_power(float(f"{covariance(sizes, sizes):.2g}"), common, power)
        if signal.channels is not None:
            # How channels differ is known, and what that makes of their pattern.
            own, lasting = signal.channels.uneven, signal.channels.lasting**2
            evened = centred * max(1 - own / batch, 0.0)
            return own * (few + (1 - 1 / batch) * lasting), signal.channels.patterned, evened
        uneven = 2 * averaged(pairs, self.sizes) + own * (few - 1 / batch)
        evened = centred * max(1 - own / batch, 0.0)
        places = math.prod(within.values())
        if places <= 1:
            return uneven, None, evened
        pattern = (signal.along[0] - centre.along[0]) / variance
        if pairs.near is not None:
            strength = 2 * averaged(pairs, within, (0,))
        else:
            # Patterns are fewer than positions: what two positions have of them agrees or is opposed.
            strength = 2 * pattern**2 / min(signal.patterns or places - 1, places - 1)
            uneven += max((1 - 1 / batch) * (strength - 2 * pattern**2 / places), 0.0)
        shrunk = max(1 + uneven - strength / pattern, 0.0) if pattern > 1e-9 else None
        return uneven, shrunk, evened

    def _pairs(self, signal: Signal, centre: Signal, variance: float) -> Signal:
        """Returns the squares of all pairs' correlations."""
        along, apart = (
            tuple((value - other) / variance for value, other in zip(*pairs))
            for pairs in ((signal.along, centre.along), (signal.apart, centre.apart))
        )
        near = self._off(signal, centre)
        near = near and near.times(1 / variance)
        one = Signal(1.0, 0.0, along, apart=apart, near=near)
        return multiplied([one, one])

    def _applied_each(self, axis: int, parts: Sequence[tuple[int, Signal]]) -> tuple[Signal, int | None, np.ndarray]:
        """Returns the same of signals that stand side by side, each of which has a variance of its own."""
        found = [self.applied(dataclasses.replace(part, joined=None)) for _, part in parts]
        counts = [count for count, _ in parts]
        made = blended([one for one, _, _ in found], [count / sum(counts) for count in counts])
        factors = [np.broadcast_to(one, count) for (_, _, one), count in zip(found, counts)]
        return made, axis, np.concatenate(factors)


def _centre(signal: Signal, sizes: dict[int, float], whole: Sequence[int]) -> Signal:
    """Returns the mean over some axes, which is the same for all entries of those that are taken whole."""
    square, axes = averaged(signal, sizes), range(len(signal.along))
    along = tuple(square if axis in whole else averaged(signal, sizes, (axis,)) for axis in axes)
    if not signal.apart:
        return Signal(square, signal.mean, along)
    # Of two samples, where samples are not averaged over, the means agree as samples do.
    both = along if 0 in whole else [averaged(signal, sizes, (0, axis)) for axis in axes]
    apart = tuple(along[0] if axis in whole else value for axis, value in enumerate(both))
    return Signal(square, signal.mean, along, apart=apart)


def _by_unit(gradient: Signal, axis: int, factors: np.ndarray) -> Signal:
    """Returns a gradient whose squares grow by a factor for each unit."""
    return gradient.times(math.sqrt(float(factors.mean()))).with_profile(axis, factors / factors.mean())


def _floored(gradient: Signal, lost: Signal) -> Sizes | None:
    """Returns a gradient's sizes once the mean over all samples is off: small ones lose what large ones have."""
    if not gradient.sizes or gradient.second_moment <= 0:
        return gradient.sizes
    variance, floor = covariance(gradient.sizes, gradient.sizes), lost.second_moment / gradient.second_moment
    return to_power(gradient.sizes, floored_power(float(f"{variance:.2g}"), float(f"{floor:.2g}")))


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
