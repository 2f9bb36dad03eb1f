"""Sums, products and mixtures of signals."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_autoinit.averages import averaged
from keras_autoinit.laws import BATCH, SIGNALS, Leaning, law_with, log_mean
from keras_autoinit.signals import Near, Shape, Signal
from keras_autoinit.sizes import Sizes, of_sum, product, split, together, variance_of

# The least share that counts: to a negative power, nothing would be without bounds.
FAINT = 1e-3


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
    return dataclasses.replace(made, tilt=_tilt_of(signals), near=near, joined=_joined_sums(signals))


def _joined_sums(signals: Sequence[Signal]) -> tuple[int, tuple[tuple[int, Signal], ...]] | None:
    """Returns the sums, part by part, of signals that stand side by side in the same places; else `None`."""
    joined = [one.joined for one in signals if one.joined is not None]
    places = {(axis, *(count for count, _ in parts)) for axis, parts in joined}
    if len(joined) < len(signals) or len(places) != 1:
        return None
    axis, first = joined[0]
    sums = [added([parts[index][1] for _, parts in joined]) for index in range(len(first))]
    return axis, tuple((count, one) for (count, _), one in zip(first, sums))


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


def multiplied(signals: Sequence[Signal], leaning: Leaning = SIGNALS, more: float | None = None) -> Signal:
    """Returns the product of independent signals with the same axes.

    Args:
        signals: the factors.
        leaning: how far the logarithms of samples' sizes lean to the right.
        more: how much larger its squares are for being large in the same samples, where that is known.
    """
    rank = min((len(one.along) for one in signals), default=0)
    along = tuple(math.prod(one.along[axis] for one in signals) for axis in range(rank))
    apart = tuple(math.prod(one.agreement({0, axis}) for one in signals) for axis in range(rank))
    mean = math.prod(one.mean for one in signals)
    near = _near_of(signals, math.prod)
    made = Signal(math.prod(one.second_moment for one in signals), mean, along, apart=apart, near=near)
    made = _large_together(made, signals, leaning, more)
    # Where all are faint together, as at borders, the product is larger than that of the means.
    for one in signals:
        made = weighted_by(made, one.profile, 1.0)
    return made


def _large_together(made: Signal, signals: Sequence[Signal], leaning: Leaning, more: float | None) -> Signal:
    """Returns a product whose squares are larger where its factors are large in the same samples."""
    sizes = [one.sizes for one in signals if one.sizes is not None]
    if not sizes:
        return made
    if more is None:
        # Over what the mean would be if all were as uneven, and large in samples of their own.
        gaussian, dropped = zip(*map(split, sizes))
        variances = variance_of(product(gaussian)), sum(map(variance_of, gaussian))
        whole, unlike = (log_mean(law_with(one, leaning)) for one in variances)
        more = math.exp(whole - unlike + sum(together(*pair) for pair in itertools.combinations(dropped, 2)))
    along = tuple(value if axis == 0 else more * value for axis, value in enumerate(made.along))
    near = made.near and dataclasses.replace(made.near, same=more * made.near.same)
    return dataclasses.replace(
        made, second_moment=more * made.second_moment, along=along, sizes=product(sizes), near=near
    )


def chance_between(signal: Signal, shape: Shape) -> float:
    """Returns how uneven a sample's mean square is beside those of others, over how uneven one square is.

    Squares of Gaussians of correlation `r` agree by `r^2`: those of positions of one sample do, and what all samples
    have in common makes none of them larger than another.
    """
    positions, units = math.prod(shape[1:-1]), max(shape[-1], 1)
    if signal.variance <= 0:
        return 0.0
    unlike = 0.0 if signal.channels is None else (1 - 1 / positions) * signal.channels.unlike
    return max(_alike_in_one(signal, signal, shape) + unlike, 0.0) / units


def chance_of_sum(signals: Sequence[Signal], shape: Shape) -> float:
    """Returns how uneven a sum's mean square over a sample is by what its parts agree in by chance.

    Of `(x + y)^2` the mean of `2 x y` is nothing over all samples, and something in each.
    """
    total = sum(one.second_moment for one in signals)
    if not 0 < total < math.inf or len(shape) < 2:
        return 0.0
    pairs = itertools.combinations([one for one in signals if one.variance > 0], 2)
    found = sum(4 * a.variance * b.variance * max(_alike_in_one(a, b, shape), 0.0) for a, b in pairs)
    return found / total**2 / max(shape[-1], 1)


def _alike_in_one(first: Signal, second: Signal, shape: Shape) -> float:
    """Returns the mean product of two signals' correlations in one sample, beyond that between samples."""
    one = _correlations(first)
    both = multiplied([one, one if second is first else _correlations(second)])
    sizes = {axis: float(size) for axis, size in enumerate(shape[:-1]) if axis > 0}
    return averaged(both, sizes) - averaged(both, sizes, (0,))


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


def mixed_sizes(signals: Sequence[Signal], leaning: Leaning = SIGNALS) -> Sizes:
    """Returns the sizes of a sum of signals, by their second moments."""
    total = sum(one.second_moment for one in signals)
    # Of what grows beyond all bounds, no part has a share.
    if not 0 < total < math.inf:
        return {}
    return of_sum([one.sizes or {} for one in signals], [one.second_moment / total for one in signals], leaning)


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
