"""What the theory keeps of a tensor: its mean, its second moment, and how far it agrees with itself.

A forward signal and a gradient are the same record.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_autoinit.sizes import Sizes

Shape = tuple[int, ...]


# What is beyond is no number to go on with.
LARGEST = 1e60


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
        channels: how single units are distributed (a `Form`); `None` for Gaussians.
        steered: of a gradient that an activation has let through where a depthwise convolution made it
            bend: `E g g' z z'` of two positions, where what was made there is `z` and `z'`.
        radial: of a gradient, how much it has of what would only make each channel larger, over what one that
            knows nothing of the signal has: nothing where a normalization behind takes off how large channels are.
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
    radial: float = field(default=1.0, repr=False, compare=False)
    sizes: Sizes | None = field(default=None, repr=False, compare=False)
    mean_power: float | None = field(default=None, repr=False, compare=False)
    near: Near | None = field(default=None, repr=False, compare=False)

    @property
    def pulls(self) -> dict[int, np.ndarray]:
        """How far entries agree with the mean of all, by their place on each axis where that is known."""
        return {} if self.near is None else dict(zip(self.near.axes, self.near.pulls))

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
        return pairs_at(powers_at(self, self.near.axes, 0.5), self.near.same.shape)

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


def fainter(signal: Signal) -> Near | None:
    """Returns how neighbours agree that would all agree alike, and do as little with others as they are faint."""
    if signal.near is None or not signal.profile:
        return signal.near
    alike = signal.alike()
    near = signal.near.changed(lambda values: values * alike)
    return dataclasses.replace(near, pulls=tuple(one / one.mean() for one in powers_at(signal, near.axes, 0.5)))


def evened(signal: Signal) -> Near | None:
    """Returns how neighbours would agree if all entries were of the same size."""
    # Where a border leaves nothing, nothing agrees.
    alike = np.maximum(signal.alike(), 1e-30)
    return signal.near and signal.near.changed(lambda values: values / alike)


def powers_at(signal: Signal, axes: Sequence[int], power: float) -> tuple[np.ndarray, ...]:
    """Returns a power of how large entries' squares are at each place on some axes; nothing of nothing."""
    known = [signal.profile[axis] for axis in axes]
    return tuple(np.ones(1) if one is None else np.where(one > 0, one, 1.0) ** power * (one > 0) for one in known)


def pairs_at(values: Sequence[np.ndarray], sizes: Sequence[int]) -> Any:
    """Returns the mean product of what two places have, by their distance, as a table of these sizes.

    Places that have nothing, as among zeros around a signal, make all of it less, and none of it in particular.
    """
    found = []
    for one, size in zip(values, sizes):
        pairs, there = (np.correlate(each, each, "full")[len(one) - 1 :] for each in (one, 1.0 * (one > 0)))
        held = np.where(there > 0.5, pairs / np.maximum(there, 1.0), 1.0) * there[0] / len(one)
        found.append(_as_long(held, size))
    return math.prod(np.ix_(*found))


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
