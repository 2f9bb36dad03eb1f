"""What the theory keeps of a tensor: its mean, its second moment, and how far it agrees with itself.

A forward signal and a gradient are the same record.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_autoinit.sizes import BATCH as BATCH
from keras_autoinit.sizes import Sizes, covariance, log_mean, of_sum, product

Shape = tuple[int, ...]
# What is beyond is no number to go on with.
LARGEST = 1e60
# The least share that counts: to a negative power, nothing would be without bounds.
FAINT = 1e-3


# The distance up to which it matters which neighbours two entries are.
FARTHEST = 24


@dataclass(frozen=True)
class Near:
    """How far entries agree by their distance: windows that overlap are alike, or lie at one border.

    Attributes:
        axes: those of the positions.
        same: `E x x'` of entries of one sample, by the distance on each of these axes, from zero on.
        other: the same of entries of different samples.
        pulls: for each axis, how far an entry at each place agrees with the mean of all, over that of
            all: of windows at a border some taps meet nothing. Empty for one everywhere.
    """

    axes: tuple[int, ...]
    same: np.ndarray
    other: np.ndarray
    pulls: tuple[np.ndarray, ...] = ()

    def changed(self, change: Callable[[np.ndarray], np.ndarray]) -> Near:
        """Returns the same of a signal whose agreements change so."""
        return Near(self.axes, change(self.same), change(self.other), self.pulls)

    def pull(self) -> Any:
        """Returns the mean pull of two entries by their distance, as a table like the others."""
        found = []
        for one, size in zip(self.pulls, self.same.shape):
            counts = np.arange(len(one), 0, -1)
            means = (np.cumsum(one)[::-1] + np.cumsum(one[::-1])[::-1]) / 2 / counts
            found.append(_as_long(means, size))
        return math.prod(np.ix_(*found)) if found else 1.0

    def times(self, factor: float) -> Near:
        """Returns the same of what is larger by a factor."""
        return self.changed(lambda values: factor * values)


@dataclass(frozen=True)
class Signal:
    """Moments of a tensor's entries, over random weights and random samples.

    Attributes:
        second_moment: `E x^2`.
        mean: `E x`, over units too.
        along: for each axis, `E x x'` of two entries that differ in their place on that axis and
            agree in all others. The first axis counts the samples. Entries of one sample that differ on
            several axes agree as little as the least of these.
        bent: the activation that made the signal, and the signal that it was made from; of a gradient,
            the activation that it has come back through, and the signal that this was given.
        profile: for each axis, how the second moment is spread over it, with mean one; `None` where
            it is the same everywhere. Borders, which kernels meet with fewer taps, are fainter.
        law: of a rectified signal that others have been added to, how it is distributed.
        parts: of the sum of a rectified signal and another, the law of the first, and the second.
        tilt: of a gradient at what a function makes of a Gaussian, how its squares go with that one:
            with mean one, on the nodes of `hermite_grid`; `None` where they do not.
        joined: of signals side by side, the axis, and each one's length there with itself.
        apart: for each axis, `E x x'` of two entries of different samples that differ in their place on
            that axis, too: what is the same for all samples, such as positions, and what is the same in
            all of one sample, agree in neither. Empty for as little as the least of both.
        patterns: of what all samples have in common, how many independent patterns over positions
            make it up (the participation ratio); `None` for as many as there are positions.
        channels: what each channel of a depthwise convolution has made; `None` for Gaussians.
        steered: of a gradient that an activation has let through where a depthwise convolution made it
            bend: `E g g' z z'` of two positions, where what was made there is `z` and `z'`.
        sizes: how large single samples are beside the others; `None` for as large as what it was made from.
        mean_power: with which power of a sample's square its mean goes; `None` for that of what it was made from.
        near: how far entries agree by their distance; `None` where all agree as `along` says.
    """

    second_moment: float
    mean: float = 0.0
    along: tuple[float, ...] = ()
    bent: Any = field(default=None, repr=False, compare=False)
    profile: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    law: Any = field(default=None, repr=False, compare=False)
    parts: tuple[Any, Signal] | None = field(default=None, repr=False, compare=False)
    tilt: Any = field(default=None, repr=False, compare=False)
    joined: tuple[int, tuple[tuple[int, Signal], ...]] | None = field(default=None, repr=False, compare=False)
    apart: tuple[float, ...] = field(default=(), repr=False, compare=False)
    patterns: float | None = field(default=None, repr=False, compare=False)
    channels: Any = field(default=None, repr=False, compare=False)
    steered: float = field(default=0.0, repr=False, compare=False)
    sizes: Sizes | None = field(default=None, repr=False, compare=False)
    mean_power: float | None = field(default=None, repr=False, compare=False)
    near: Near | None = field(default=None, repr=False, compare=False)

    @property
    def covariance(self) -> float:
        """`E x x'` for two different samples."""
        return self.along[0] if self.along else 0.0

    @property
    def variance(self) -> float:
        """`E x^2 - (E x)^2`."""
        return max(self.second_moment - self.mean**2, 0.0)

    def times(self, number: float) -> Signal:
        """Returns the signal times a number."""
        square = number * number
        along = tuple(square * value for value in self.along)
        apart = tuple(square * value for value in self.apart)
        second_moment, mean = square * self.second_moment, number * self.mean
        near = self.near and self.near.times(square)
        return Signal(second_moment, mean, along, profile=self.profile, apart=apart, patterns=self.patterns, near=near)

    def by_distance(self, axes: Sequence[int], distances: Sequence[np.ndarray], other: bool = False) -> np.ndarray:
        """Returns `E x x'` of entries by their distances on some axes: on the grid of these.

        Args:
            axes: on which they may differ.
            distances: for each axis.
            other: whether they are of different samples.
        """
        places = dict(zip(axes, np.ix_(*distances)))
        far = self.agreement({*axes, 0} if other else axes)
        found = np.full((1,) * len(axes), self.covariance if other else self.second_moment)
        known = self.near.axes if self.near is not None else ()
        if self.near is not None:
            at = [places.get(axis, np.zeros((1,) * len(axes), int)) for axis in known]
            values = self.near.other if other else self.near.same
            inside = [place < size for place, size in zip(at, values.shape)]
            values = values[tuple(np.where(within, place, 0) for within, place in zip(inside, at))]
            found = np.where(functools.reduce(np.logical_and, inside), values, far)
        apart = [place > 0 for axis, place in places.items() if axis not in known]
        return functools.reduce(lambda values, one: np.where(one, far, values), apart, found)

    def alike(self) -> Any:
        """Returns how much less neighbours agree for being of different size, by their distance; one if they are not.

        The mean of the root of the product of two entries' profiles, as a table like those of `near`.
        """
        if self.near is None or not self.profile:
            return 1.0
        found = []
        for axis, size in zip(self.near.axes, self.near.same.shape):
            roots = np.ones(size) if self.profile[axis] is None else np.sqrt(self.profile[axis])
            pairs = np.correlate(roots, roots, "full")[len(roots) - 1 :] / np.arange(len(roots), 0, -1)
            found.append(_as_long(pairs, size))
        return math.prod(np.ix_(*found))

    def mixed(self, power: float, axis: int | None = None) -> Signal:
        """Returns what independent weights with mean zero make of the signal, along one axis anew."""
        along, apart = [power * value for value in self.along], [power * value for value in self.apart]
        profile = list(self.profile)
        if axis is not None and along:
            along[axis] = 0.0
        if axis is not None and apart:
            apart[axis] = 0.0
        if axis is not None and profile:
            profile[axis] = None
        return Signal(
            power * self.second_moment,
            0.0,
            tuple(along),
            profile=tuple(profile),
            apart=tuple(apart),
            patterns=self.patterns,
            near=self.near and self.near.times(power),
        )

    def agreement(self, axes: Iterable[int]) -> float:
        """Returns how far entries agree that differ on some axes."""
        axes = tuple(axes)
        if self.apart and 0 in axes and len(axes) > 1:
            # Whatever is independent on one axis is so wherever it stands on the others.
            return min([self.apart[axis] for axis in axes if axis], key=abs)
        values = [self.along[axis] for axis in axes]
        smallest = min(values, default=self.second_moment)
        if smallest >= 0:
            return smallest
        least = min((value for value in values if value >= 0), default=self.second_moment)
        opposed = min((value for value in values if value < 0), default=None)
        # What sums to nothing over one axis does so wherever it stands on the others.
        return least if opposed is None or not self.second_moment else least * opposed / self.second_moment

    @property
    def pairs(self) -> tuple[float, ...]:
        """How far entries agree that differ on each axis, and then those of different samples."""
        return (*self.along, *(self.agreement({0, axis}) for axis in range(len(self.along))))

    def with_profile(self, axis: int, profile: Any) -> Signal:
        """Returns the signal spread so over one axis."""
        found = list(self.profile or (None,) * len(self.along))
        found[axis] = profile
        return dataclasses.replace(self, profile=tuple(found))

    def with_axes(self, along: Sequence[float], apart: Sequence[float] = ()) -> Signal:
        """Returns the signal with other axes."""
        return dataclasses.replace(self, along=tuple(along), profile=(), joined=None, apart=tuple(apart), near=None)


def _as_long(values: np.ndarray, size: int) -> np.ndarray:
    """Returns so many values, the last one again where there are fewer."""
    return values[np.minimum(np.arange(size), len(values) - 1)]


def fitting(signal: Signal, shape: Shape) -> Signal:
    """Returns a signal without a profile of another length than its axis has; a unit signal if it has no bounds.

    Args:
        signal: what a rule has made.
        shape: of the tensor; empty where it is not known.
    """
    if not abs(signal.second_moment) <= LARGEST:
        return independent(shape or (1,) * len(signal.along))
    if not shape or not signal.profile:
        return signal
    lengths = (*shape, *[None] * len(signal.profile))
    fits = [one is None or len(one) == length for one, length in zip(signal.profile, lengths)]
    if all(fits):
        return signal
    kept = tuple(one if fit else None for one, fit in zip(signal.profile, fits))
    return dataclasses.replace(signal, profile=kept)


def independent(shape: Shape, second_moment: float = 1.0) -> Signal:
    """Returns the signal of independent numbers with mean zero."""
    return Signal(second_moment, 0.0, (0.0,) * len(shape), apart=(0.0,) * len(shape))


def constant(value: Any) -> tuple[Signal, Shape]:
    """Returns the signal of given numbers, and its shape."""
    array = np.asarray(value, np.float64)
    if not array.size:
        return Signal(0.0, 0.0, (0.0,) * array.ndim), array.shape
    second_moment = float((array**2).mean())
    along = tuple(_agreement(array, axis, second_moment) for axis in range(array.ndim))
    return Signal(second_moment, float(array.mean()), along), array.shape


def _agreement(array: np.ndarray, axis: int, second_moment: float) -> float:
    count = array.shape[axis]
    if count == 1:
        return second_moment
    means = float((array.mean(axis) ** 2).mean())
    return (count * means - second_moment) / (count - 1)


def averaged(signal: Signal, sizes: Mapping[int, float], apart: Sequence[int] = ()) -> float:
    """Returns the second moment of an average of this many entries on each of some axes.

    Of two averages, the product, if they stand apart on other axes.
    """
    sizes = {axis: size for axis, size in sizes.items() if size > 1}
    known = signal.near.axes if signal.near is not None and set(apart) <= {0} else ()
    near = [axis for axis in sizes if axis in known]
    # Most often all pairs go by their distance.
    ways = [] if near and sizes.keys() <= {0, *near} else _differing(sizes, apart)
    total = 0.0
    for share, axes in ways:
        if not near or not axes <= {0, *near}:
            total += share * signal.agreement(axes)
    return total + (_averaged_near(signal, sizes, near, 0 in apart) if near else 0.0)


def _differing(sizes: Mapping[int, float], apart: Sequence[int]) -> list[tuple[float, frozenset[int]]]:
    """Returns the axes on which two entries of a window may differ, beside some given ones, each with its share."""
    ways = [(1.0, frozenset(apart))]
    for axis, size in sizes.items():
        same = 1 / size
        ways = [way for share, axes in ways for way in ((share * same, axes), (share * (1 - same), axes | {axis}))]
    return ways


def _averaged_near(signal: Signal, sizes: Mapping[int, float], near: Sequence[int], apart: bool) -> float:
    """Returns the part of an average's second moment that pairs make whose agreement goes with their distance."""
    window = {axis: sizes[axis] for axis in near}
    rest = math.prod(1 / size for axis, size in sizes.items() if axis not in near and axis != 0)
    same = 0.0 if apart else 1 / sizes.get(0, 1.0)
    return rest * sum(
        share * in_window(signal, window, other) for share, other in ((same, False), (1 - same, True)) if share
    )


def in_window(signal: Signal, sizes: Mapping[int, float], other: bool = False) -> float:
    """Returns how far two entries of a window agree, on average, by their distances on axes that `near` knows."""
    near = signal.near
    assert near is not None
    far = signal.agreement({*sizes, 0} if other else sizes)
    found = (near.other if other else near.same) - far
    for axis in reversed(near.axes):
        length = found.shape[-1]
        found = found @ _distances(sizes[axis])[:length] if axis in sizes else found[..., 0]
    return far + float(found)


@functools.lru_cache(maxsize=256)
def _distances(size: float) -> np.ndarray:
    """Returns how many pairs of a run of this length are how far apart: `size - d`, either way round."""
    distances = np.arange(max(math.ceil(size), FARTHEST))
    pairs = np.maximum(size - distances, 0.0) * np.where(distances > 0, 2.0, 1.0)
    return np.asarray(pairs / pairs.sum())


def averaged_signal(signal: Signal, sizes: Mapping[int, float]) -> Signal:
    """Returns the average of entries on some axes, with all axes kept."""
    along = tuple(averaged(signal, sizes, (axis,)) for axis in range(len(signal.along)))
    apart = tuple(averaged(signal, sizes, (0, axis)) for axis in range(len(signal.apart)))
    return Signal(averaged(signal, sizes), signal.mean, along, apart=apart)


def aligned(signal: Signal, shape: Shape, wanted: Shape) -> Signal:
    """Returns a signal as broadcasting repeats it: repeated entries agree wholly."""
    missing = len(wanted) - len(shape)
    repeated = [own == 1 and other != 1 for own, other in zip(shape, wanted[missing:])]
    along = [signal.second_moment if again else value for again, value in zip(repeated, signal.along)]
    profile = [None if again else one for again, one in zip(repeated, signal.profile)]
    # Samples of what is repeated over samples are one: what differs between them differs on the other axes alone.
    one_sample = missing > 0 or repeated[:1] == [True]
    pairs = (*[signal.second_moment] * missing, *along) if one_sample else ()
    apart = [signal.along[0] if again else value for again, value in zip(repeated, signal.apart)]
    return dataclasses.replace(
        signal,
        apart=pairs or tuple(apart),
        along=(*[signal.second_moment] * missing, *along),
        joined=None,
        near=None if missing or any(repeated) else signal.near,
        profile=(*[None] * missing, *profile) if profile else (),
    )


def summed_back(gradient: Signal, shape: Shape, wanted: Shape) -> Signal:
    """Returns the gradient of what broadcasting from `wanted` to `shape` has repeated: its sum."""
    missing = len(shape) - len(wanted)
    axes = [axis for axis, size in enumerate(shape) if size > 1 and (axis < missing or wanted[axis - missing] == 1)]
    whole = sum_over(gradient, {axis: shape[axis] for axis in axes})
    return dataclasses.replace(whole.with_axes(whole.along[missing:]), sizes=gradient.sizes)


def sum_over(signal: Signal, sizes: Mapping[int, float]) -> Signal:
    """Returns the sum of entries on some axes, with all axes kept."""
    return averaged_signal(signal, sizes).times(math.prod(sizes.values())) if sizes else signal


def added(signals: Sequence[Signal]) -> Signal:
    """Returns the sum of independent signals with the same axes."""
    mean = sum(one.mean for one in signals)
    cross = mean**2 - sum(one.mean**2 for one in signals)
    rank = min((len(one.along) for one in signals), default=0)
    along = tuple(sum(one.along[axis] for one in signals) + cross for axis in range(rank))
    apart = tuple(sum(one.agreement({0, axis}) for one in signals) + cross for axis in range(rank))
    total = sum(one.second_moment for one in signals) + cross
    made = Signal(total, mean, along, profile=_profile_of(signals, rank), apart=apart, patterns=_fewest(signals))
    near = _near_of(signals, lambda several: sum(several) + cross)
    return dataclasses.replace(made, tilt=_tilt_of(signals), near=near)


def _near_of(signals: Sequence[Signal], together: Callable[[list[np.ndarray]], Any]) -> Near | None:
    """Returns how far neighbours agree in what is made of several signals."""
    several = laid_out(signals)
    if not several:
        return None
    axes, same, other = several[0].axes, [one.same for one in several], [one.other for one in several]
    return Near(axes, together(same), together(other), _pulls_of(signals, axes))


def _pulls_of(signals: Sequence[Signal], axes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Returns the pulls of what is made of several signals: each one's, by how large its mean over all is."""
    known = [one.near for one in signals if one.near is not None and one.near.axes == axes and one.near.pulls]
    if not known or any(len(a) != len(b) for one in known for a, b in zip(one.pulls, known[0].pulls)):
        return ()
    shares = np.array([float(np.abs(one.other).mean()) for one in known])
    shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(known), 1 / len(known))
    return tuple(sum(share * one.pulls[i] for share, one in zip(shares, known)) for i in range(len(axes)))


def laid_out(signals: Sequence[Signal]) -> list[Near]:
    """Returns how far neighbours agree in each of several signals, by the same distances; none if in none of them."""
    known = [one.near for one in signals if one.near is not None]
    if len(known) == len(signals) and len({(one.axes, one.same.shape) for one in known}) == 1:
        return known
    axes = sorted({axis for one in known for axis in one.axes})
    sizes = [max(one.same.shape[one.axes.index(axis)] for one in known if axis in one.axes) for axis in axes]
    distances = [np.arange(size) for size in sizes]
    if not known:
        return []
    tables = [[one.by_distance(axes, distances, other) for other in (False, True)] for one in signals]
    return [Near(tuple(axes), same, other) for same, other in tables]


def _fewest(signals: Sequence[Signal]) -> float | None:
    """Returns how many patterns a sum has: borders make them all, so that they are the same ones."""
    return min((one.patterns for one in signals if one.patterns is not None), default=None)


def _tilt_of(signals: Sequence[Signal]) -> Any:
    """Returns the tilt of a sum: each part's, by its second moment."""
    total = sum(one.second_moment for one in signals)
    if total <= 0 or all(one.tilt is None for one in signals):
        return None
    return sum(one.second_moment / total * (1.0 if one.tilt is None else one.tilt) for one in signals)


def _profile_of(signals: Sequence[Signal], rank: int) -> tuple[Any, ...]:
    """Returns the profile of a sum: each part's, by its second moment."""
    if not any(one.profile for one in signals):
        return ()
    total = sum(one.second_moment for one in signals) or 1.0
    found: list[Any] = []
    for axis in range(rank):
        parts = [one.profile[axis] if one.profile else None for one in signals]
        sizes = {len(part) for part in parts if part is not None}
        if len(sizes) != 1:
            found.append(None)
            continue
        found.append(sum(one.second_moment / total * (1.0 if p is None else p) for one, p in zip(signals, parts)))
    return tuple(found)


def multiplied(signals: Sequence[Signal]) -> Signal:
    """Returns the product of independent signals with the same axes."""
    rank = min((len(one.along) for one in signals), default=0)
    along = tuple(math.prod(one.along[axis] for one in signals) for axis in range(rank))
    apart = tuple(math.prod(one.agreement({0, axis}) for one in signals) for axis in range(rank))
    mean = math.prod(one.mean for one in signals)
    near = _near_of(signals, math.prod)
    made = Signal(math.prod(one.second_moment for one in signals), mean, along, apart=apart, near=near)
    made = _large_together(made, signals)
    # Where all are faint together, as at borders, the product is larger than that of the means.
    for one in signals:
        made = weighted_by(made, one.profile, 1.0)
    return made


def _large_together(made: Signal, signals: Sequence[Signal]) -> Signal:
    """Returns a product whose squares are larger where its factors are large in the same samples."""
    sizes = [one.sizes for one in signals if one.sizes is not None]
    if not sizes:
        return made
    whole = product(sizes)
    more = math.exp(log_mean(covariance(whole, whole)) - sum(log_mean(covariance(one, one)) for one in sizes))
    along = tuple(value if axis == 0 else more * value for axis, value in enumerate(made.along))
    near = made.near and dataclasses.replace(made.near, same=more * made.near.same)
    return dataclasses.replace(made, second_moment=more * made.second_moment, along=along, sizes=whole, near=near)


def chance_between(signal: Signal, shape: Shape) -> float:
    """Returns how uneven a sample's mean square is beside those of others, over how uneven one square is.

    Squares of Gaussians of correlation `r` agree by `r^2`: those of positions of one sample do, and what all samples
    have in common makes none of them larger than another.
    """
    positions, units = math.prod(shape[1:-1]), max(shape[-1], 1)
    if signal.variance <= 0:
        return 0.0
    one = _correlations(signal)
    squares = multiplied([one, one])
    sizes = {axis: float(size) for axis, size in enumerate(shape[:-1]) if axis > 0}
    unlike = 0.0 if signal.channels is None else (1 - 1 / positions) * signal.channels.unlike
    return max(averaged(squares, sizes) + unlike - averaged(squares, sizes, (0,)), 0.0) / units


def _correlations(signal: Signal) -> Signal:
    """Returns how far entries agree beside their mean, for a variance of one."""
    mean, variance = signal.mean**2, signal.variance
    along, apart = (tuple((v - mean) / variance for v in values) for values in (signal.along, signal.apart))
    near = signal.near and signal.near.changed(lambda values: (values - mean) / variance)
    return Signal(1.0, 0.0, along, apart=apart, near=near)


def chance_of_square(signal: Signal, shape: Shape) -> float:
    """Returns how uneven one draw's mean square is: of Gaussians, twice the mean of their correlations' squares.

    Few units that make the same of all samples are few numbers.
    """
    if signal.variance <= 0 or len(shape) != len(signal.along):
        return 0.0
    one = _correlations(signal)
    sizes = {axis: float(BATCH if axis == 0 else size) for axis, size in enumerate(shape)}
    return 2 * max(averaged(multiplied([one, one]), sizes), 0.0)


def mixed_sizes(signals: Sequence[Signal]) -> Sizes:
    """Returns the sizes of a sum of signals, by their second moments."""
    total = sum(one.second_moment for one in signals)
    if total <= 0:
        return {}
    return of_sum([one.sizes or {} for one in signals], [one.second_moment / total for one in signals])


def weighted_by(signal: Signal, profile: Sequence[Any], exponent: float) -> Signal:
    """Returns a signal whose squares grow by a power of a profile, place by place."""
    if exponent == 0 or all(one is None for one in profile):
        return signal
    growth, found = 1.0, list(signal.profile or (None,) * len(signal.along))
    for axis, one in enumerate(profile[: len(found)]):
        own = found[axis]
        if one is not None and (own is None or len(own) == len(one)):
            whole = (1.0 if own is None else own) * np.maximum(one, FAINT) ** exponent
            size = whole.mean()
            growth *= float(size)
            found[axis] = whole / size
    along, apart = (tuple(growth * value for value in values) for values in (signal.along, signal.apart))
    return dataclasses.replace(
        signal,
        second_moment=growth * signal.second_moment,
        along=along,
        apart=apart,
        near=signal.near and signal.near.times(growth),
        profile=tuple(found),
        bent=None,
        joined=None,
    )


def blended(signals: Sequence[Signal], shares: Sequence[float]) -> Signal:
    """Returns the signal of entries that are one signal or another, by their shares."""
    mean = sum(share * one.mean for one, share in zip(signals, shares))
    rank = min((len(one.along) for one in signals), default=0)
    along = tuple(sum(share * one.along[axis] for one, share in zip(signals, shares)) for axis in range(rank))
    apart = [sum(s * one.agreement({0, axis}) for one, s in zip(signals, shares)) for axis in range(rank)]
    weighted = [one.times(math.sqrt(share)) for one, share in zip(signals, shares)]
    second_moment = sum(one.second_moment for one in weighted)
    made = Signal(second_moment, mean, along, profile=_profile_of(weighted, rank), apart=tuple(apart))
    near = _near_of(signals, lambda several: sum(share * one for share, one in zip(shares, several)))
    sizes = None
    if any(one.sizes is not None for one in signals):
        # By how much of the whole each one is, not by how large its entries are.
        sizes = mixed_sizes([dataclasses.replace(one, sizes=given.sizes) for one, given in zip(weighted, signals)])
    return dataclasses.replace(made, patterns=_fewest(signals), near=near, sizes=sizes)


def side_by_side(whole: Signal, axis: int, parts: Sequence[tuple[int, Signal]]) -> Signal:
    """Returns a blend of signals that stand side by side, each in its place on an axis.

    Args:
        whole: the blend.
        axis: where they stand side by side.
        parts: how long each one is there, and the signal.
    """
    sizes = [
        one.second_moment * (np.ones(count) if not one.profile or one.profile[axis] is None else one.profile[axis])
        for count, one in parts
    ]
    found, profile = np.concatenate(sizes), list(whole.profile or (None,) * len(whole.along))
    profile[axis] = found / found.mean() if found.mean() > 0 else None
    return dataclasses.replace(whole, profile=tuple(profile))


def part_of(gradient: Signal | None, axis: int, start: int, end: int) -> Signal | None:
    """Returns the gradient at a part of an axis."""
    if gradient is None or not gradient.profile or gradient.profile[axis] is None:
        return gradient
    own = gradient.profile[axis][start:end]
    part = gradient.times(math.sqrt(max(float(own.mean()), 1e-30)))
    profile = list(part.profile)
    profile[axis] = own / own.mean() if own.mean() > 0 else None
    return dataclasses.replace(part, profile=tuple(profile), tilt=gradient.tilt)


def reshaped(signal: Signal, shape: Shape, wanted: Shape) -> Signal:
    """Returns a signal whose axes are split and joined from one shape to another."""
    if len(signal.along) != len(shape) or shape == wanted:
        return signal
    along: list[float] = []
    apart: list[float] = []
    for old, new in _groups(shape, wanted):
        along += [_joined_axes(signal, shape, old)] * len(new)
        apart += [_joined_axes(signal, shape, old, (0,))] * len(new)
    # Samples that are cut up or put together are no samples any more.
    kept = shape[:1] == wanted[:1]
    return dataclasses.replace(
        signal,
        along=tuple(along),
        profile=(),
        joined=None,
        apart=tuple(apart) if kept and signal.apart else (),
        near=None,
    )


def _joined_axes(signal: Signal, shape: Shape, axes: Sequence[int], apart: Sequence[int] = ()) -> float:
    """Returns how far entries agree that differ on an axis made of others, and on those of `apart`."""
    if len(axes) == 1:
        return signal.agreement({*axes, *apart})
    sizes = {axis: float(shape[axis]) for axis in axes}
    count = math.prod(sizes.values())
    same = signal.agreement(apart) if apart else signal.second_moment
    return (count * averaged(signal, sizes, apart) - same) / (count - 1) if count > 1 else same


def _groups(shape: Shape, wanted: Shape) -> list[tuple[list[int], list[int]]]:
    """Returns runs of axes of two shapes that hold the same number of entries."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(shape) or j < len(wanted):
        old, new = [i] if i < len(shape) else [], [j] if j < len(wanted) else []
        held, asked = (shape[i] if old else 1), (wanted[j] if new else 1)
        i, j = i + len(old), j + len(new)
        while held != asked and (i < len(shape) or j < len(wanted)):
            if (held < asked and i < len(shape)) or j >= len(wanted):
                held, i = held * shape[i], i + 1
                old.append(i - 1)
            else:
                asked, j = asked * wanted[j], j + 1
                new.append(j - 1)
        groups.append((old, new))
    return groups
