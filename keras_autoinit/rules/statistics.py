"""What a normalization computes of a signal, and of the gradient that comes back through it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_autoinit.averages import averaged
from keras_autoinit.bending import steepness, steepness_of_mean
from keras_autoinit.channels import Channels
from keras_autoinit.joined import between_parts, in_places
from keras_autoinit.laws import GRADIENTS, dominance
from keras_autoinit.rectified import form_of
from keras_autoinit.rules.base import scale
from keras_autoinit.signals import Near, Signal
from keras_autoinit.sizes import Sizes, centred, floored, law_of, power_lost, product, to_power
from keras_autoinit.sums import FAINT, blended, multiplied


@dataclass(frozen=True)
class Statistics:
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
            return self._applied_each(signal, *signal.joined)
        signal = dataclasses.replace(signal, apart=_apart(signal))
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
        profile = list(self._spread(signal, centre, variance) or (None,) * len(signal.along))
        if unit is not None:
            # Units that vary as little as epsilon stay smaller.
            left = np.maximum(known, FAINT)
            profile[unit] = left / left.mean() if np.ptp(left) > 1e-6 else None
        if along and common is not None:
            along = (along[0] * common, *along[1:])
        made = Signal(
            factor * variance,
            mean,
            along,
            profile=tuple(profile) if any(one is not None for one in profile) else (),
            apart=apart,
            patterns=signal.patterns,
            channels=(signal.channels or form_of(signal.law)) if 0 in self.sizes and self.centred else None,
            sizes=to_power(_centred_sizes(signal, centre), evened) if evened else {},
            near=self._near(signal, centre, factor, common),
        )
        return made, unit, factors * (1 + uneven * known**2)

    def returned(self, gradient: Signal, made: Signal, unit: int | None, factors: np.ndarray) -> Signal:
        """Returns the gradient before a normalization: without its mean, and without what goes as the signal does.

        Args:
            gradient: at what was made.
            made: the normalized signal.
            unit: the axis of units that have a scale each.
            factors: on their squares.
        """
        lost = _centre(gradient, self.sizes, self.whole) if self.centred else gradient.times(0.0)
        one = made.times(1 / math.sqrt(made.second_moment)) if made.second_moment > 0 else made
        one = dataclasses.replace(one, sizes=made.sizes or {})
        going = averaged(multiplied([gradient, one], GRADIENTS), self.sizes)
        # What all have in common is radial, too, where a function is steeper on one side: a gradient that has been
        # centred has less of it than one whose entries know nothing of each other.
        alike = lost.second_moment - gradient.second_moment / max(math.prod(self.sizes.values()), 1.0)
        radial = gradient.radial * max(steepness(gradient) * going + steepness_of_mean(gradient) * alike, 0.0)
        along, apart = (
            tuple(value - off - radial * own for value, off, own in zip(*several))
            for several in ((gradient.along, lost.along, one.along), (_apart(gradient), _apart(lost), _apart(one)))
        )
        rest = max(gradient.second_moment - lost.second_moment - radial, 0.0)
        back = Signal(rest, 0.0, along, profile=gradient.profile, apart=apart)
        passed = scale(back, float(factors[0])) if unit is None else _by_unit(back, unit, factors)
        assert passed is not None
        by_batch = 0 in self.sizes
        return dataclasses.replace(
            passed,
            steered=gradient.steered * float(np.mean(factors)),
            near=gradient.near and gradient.near.times(passed.second_moment / max(gradient.second_moment, 1e-300)),
            bent=gradient.bent,
            sizes=_sizes_left(gradient, made, lost, radial) if by_batch else gradient.sizes,
            radial=0.0 if by_batch else 1.0,
        )

    def _spread(self, signal: Signal, centre: Signal, variance: float) -> tuple[Any, ...]:
        """Returns how what is made is spread over positions: what is faint at a border stays so, beside the mean.

        The mean of all is off everywhere, and at a border there was less of it.
        """
        if len(self.sizes) < 2 or variance <= 0:
            return ()
        found = list(signal.profile or (None,) * len(signal.along))
        for axis in [axis for axis in self.whole if axis > 0 and 0 in self.whole]:
            size = np.ones(int(self.sizes[axis])) if found[axis] is None else found[axis]
            pull = signal.pulls.get(axis)
            if pull is None or len(pull) != len(size):
                # A swish's mean goes with more than a root.
                pull = size ** (0.5 if signal.mean_power is None else max(signal.mean_power, 0.5))
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
        few = dominance(law_of(sizes)) / batch
        within = {axis: size for axis, size in self.sizes.items() if axis > 0}
        # Twice the mean square of all pairs' correlations is how uneven a mean of squares is.
        own = 2 * averaged(pairs, within)
        evened = max(1 - own / batch, 0.0)
        if isinstance(signal.channels, Channels):
            # How channels differ is known, and what that makes of their pattern.
            own, lasting = signal.channels.uneven, signal.channels.lasting**2
            evened = max(1 - own / batch, 0.0)
            return own * (few + (1 - 1 / batch) * lasting), signal.channels.patterned, evened
        uneven = 2 * averaged(pairs, self.sizes) + own * (few - 1 / batch)
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

    def _applied_each(
        self, whole: Signal, axis: int, parts: Sequence[tuple[int, Signal]]
    ) -> tuple[Signal, int | None, np.ndarray]:
        """Returns the same of signals that stand side by side, each of which has a variance of its own."""
        found = [self.applied(dataclasses.replace(part, joined=None)) for _, part in parts]
        counts = [count for count, _ in parts]
        made = blended([one for one, _, _ in found], [count / sum(counts) for count in counts])
        grown = [math.sqrt(float(one.mean())) for _, _, one in found]
        # What two parts have in common, the branches of a residual trunk say, each has in its own size.
        common = 0.0 if 0 in self.sizes else np.outer(grown, grown)
        cross, other = (common * between_parts(whole, axis, parts, apart) for apart in (False, True))
        shape = (len(parts), len(parts))
        normalized = list(zip(counts, (one for one, _, _ in found)))
        made = in_places(made, axis, normalized, np.broadcast_to(cross, shape), np.broadcast_to(other, shape))
        factors = [np.broadcast_to(one, count) for (_, _, one), count in zip(found, counts)]
        return dataclasses.replace(made, joined=(axis, tuple(normalized))), axis, np.concatenate(factors)


def _apart(signal: Signal) -> tuple[float, ...]:
    """Returns how far entries of different samples agree, that differ on each axis, too."""
    return signal.pairs[len(signal.along) :]


def _centre(signal: Signal, sizes: dict[int, float], whole: Sequence[int]) -> Signal:
    """Returns the mean over some axes, which is the same for all entries of those that are taken whole."""
    square, axes = max(averaged(signal, sizes), 0.0), range(len(signal.along))
    along = tuple(square if axis in whole else averaged(signal, sizes, (axis,)) for axis in axes)
    if not signal.apart:
        return Signal(square, signal.mean, along)
    # Of two samples, where samples are not averaged over, the means agree as samples do.
    both = along if 0 in whole else [averaged(signal, sizes, (0, axis)) for axis in axes]
    apart = tuple(along[0] if axis in whole else value for axis, value in enumerate(both))
    return Signal(square, signal.mean, along, apart=apart)


def _centred_sizes(signal: Signal, centre: Signal) -> Sizes:
    """Returns a signal's sizes once the mean over all samples is off."""
    common = round(max(centre.second_moment, 0.0) / signal.second_moment, 2)
    return centred(signal.sizes or {}, common, 0.5 if signal.mean_power is None else round(signal.mean_power, 2))


def _by_unit(gradient: Signal, axis: int, factors: np.ndarray) -> Signal:
    """Returns a gradient whose squares grow by a factor for each unit."""
    own = gradient.profile[axis] if gradient.profile else None
    if own is not None and len(own) == len(factors):
        factors = factors * own
    return gradient.times(math.sqrt(float(factors.mean()))).with_profile(axis, factors / factors.mean())


def _sizes_left(gradient: Signal, made: Signal, lost: Signal, radial: float) -> Sizes | None:
    """Returns a gradient's sizes behind a normalization by the batch.

    Once the mean over all samples is off, small ones have lost what large ones have; and what goes as the signal does
    is most in samples where both are large.
    """
    if not gradient.sizes or gradient.second_moment <= 0:
        return gradient.sizes
    floor = float(f"{lost.second_moment / gradient.second_moment:.2g}")
    signal = made.sizes or {}
    return product(
        [
            floored(gradient.sizes, floor),
            to_power(signal, power_lost(gradient.sizes, signal, radial / gradient.second_moment)),
        ]
    )
