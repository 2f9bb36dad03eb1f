"""What an activation makes of a signal, and of a gradient that comes back through it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_autoinit.activations import Activation
from keras_autoinit.joined import beside, part_of
from keras_autoinit.laws import law_with
from keras_autoinit.rectified import RELU, rectified_sum
from keras_autoinit.responses import (
    Response,
    of_overlapping,
    powers_of,
    radial_growth,
    radial_of_mean,
    radial_share,
    respond,
    respond_unevenly,
    slope_where,
)
from keras_autoinit.signals import Near, Signal, evened, fainter, pairs_at, powers_at
from keras_autoinit.sizes import Sizes, law_of, power_with, product, shift, to_power
from keras_autoinit.sums import FAINT, weighted_by

# Samples whose squares differ by less are alike: of what that changes, a few thousandths would be left.
EVEN = law_with(0.01)
# Places in what `powers_of` returns.
SQUARE, SLOPE = 0, 1


def activated(signal: Signal, function: Activation) -> tuple[Signal, Callable[[Signal | None], Signal | None]]:
    """Returns what an activation makes of a signal, and what it makes of a gradient."""
    if function.linear or function.function is None:
        return signal, lambda gradient: gradient
    if signal.parts is not None and function == RELU:
        return _rectified_again(signal, *signal.parts)
    if signal.joined is not None:
        return _each_activated(*signal.joined, function)
    channels = signal.channels
    sizes = signal.sizes or {}
    uneven = law_of(sizes)
    given = (function, signal.mean, signal.variance, channels)
    response = respond_unevenly(*given, uneven) if uneven > EVEN else respond(*given)
    rounded = _rounded(function, signal)
    differ = bool(sizes or signal.profile)
    power, steeper, of_mean = powers_of(*rounded, max(uneven, EVEN)) if differ else (1.0, 0.0, 0.5)
    correlations = [_correlation(signal, value) for value in signal.along]
    unlike = _unlike(signal)
    along = tuple(map(response.covariance, correlations, unlike))
    along = (*map(response.between_samples, correlations[:1]), *along[1:])
    apart = tuple(response.between_samples(_correlation(signal, value)) for value in signal.apart)
    powers = _powers(function, signal) if signal.profile else (0.0, 0.0)
    shares = [_to_power(signal, power) for power in powers]
    near = _near(function, signal, response, max(unlike, default=0.0), of_mean, shares[0])
    if near is not None:
        along = (float(near.other.ravel()[0]), *along[1:])
    made = Signal(response.second_moment, response.mean, along, apart=apart, patterns=signal.patterns, near=near)
    made = dataclasses.replace(
        weighted_by(made, shares[0], 1.0),
        bent=(function, signal),
        sizes=to_power(sizes, power),
        mean_power=of_mean / power if power > 0 else None,
    )

    def back(gradient: Signal | None) -> Signal | None:
        if gradient is None:
            return None
        slope = response.slope
        if gradient.tilt is not None:
            slope *= slope_where(function, signal.mean, signal.variance, gradient.tilt, channels) / max(
                respond(*given).slope, 1e-300
            )
        slope *= _where_large(signal, function, gradient.sizes or {}, SLOPE)
        grown = slope / response.slope if response.slope > 0 else 1.0
        ranks = len(gradient.along)
        own, other = (
            tuple(v * response.slope_covariance(_correlation(signal, c)) * grown for v, c in zip(*several))
            for several in (
                (gradient.along, signal.along),
                (gradient.pairs[ranks:] if gradient.apart else (), signal.pairs[ranks:]),
            )
        )
        passed = Signal(
            gradient.second_moment * slope,
            0.0,
            own,
            apart=other,
            profile=gradient.profile,
            sizes=product([gradient.sizes or {}, to_power(sizes, steeper)]),
            radial=gradient.radial + (1 - gradient.radial) * radial_share(*rounded),
        )
        passed = dataclasses.replace(
            weighted_by(passed, shares[1], 1.0),
            bent=(function, signal),
            near=_near_back(gradient, signal, response, grown),
        )
        if channels is None:
            return passed
        alike = gradient.agreement([axis for axis, one in enumerate(unlike) if one])
        # Other taps that both positions have in common make what is there alike, and leave less to this one.
        steered = max(response.slope_powers[1] + 2 * channels.share * response.turn, 0.0)
        return dataclasses.replace(passed, steered=alike * steered)

    return made, back


def _rounded(function: Activation, signal: Signal) -> tuple[Activation, float, float, Any]:
    """Returns what a function is given, to three digits: signals that are nearly alike share what it makes of them."""
    return function, float(f"{signal.mean:.3g}"), float(f"{signal.variance:.3g}"), signal.channels


def steepness(gradient: Signal) -> float:
    """Returns how much steeper a function is where entries are large, which a gradient has come back through."""
    if gradient.bent is None:
        return 1.0
    return radial_growth(*_rounded(*gradient.bent))


def steepness_of_mean(gradient: Signal) -> float:
    """Returns the same of what all entries of a gradient have in common."""
    if gradient.bent is None:
        return 0.0
    return radial_of_mean(*_rounded(*gradient.bent))


def coherence(gradient: Signal) -> float:
    """Returns how much more squared gradient comes back through mirrored pairs of units than through single ones.

    Both units of a pair get the gradient `r` of what reads them, with opposite signs, and hand back
    `r (f'(z) + f'(-z))` together: `E (f'(z) + f'(-z))^2 / (2 E f'(z)^2)` times the sum of two that know
    nothing of each other.
    """
    if gradient.bent is None:
        return 1.0
    function, signal = gradient.bent
    slope = respond(function, signal.mean, signal.variance).slope
    return respond(within_pairs(function), signal.mean, signal.variance).slope / slope if slope > 0 else 1.0


@functools.lru_cache(maxsize=256)
def within_pairs(function: Activation) -> Activation:
    """Returns what weights of opposite sign read of a pair that sees `z` and `-z`: the odd part, times a root of two.

    Half of the sum over all units of `w^2 f_odd^2` comes twice, once from each unit of a pair.
    """
    f = function.function
    assert f is not None
    return Activation(f"odd part of {function}", (), lambda z: (f(z) - f(-z)) / math.sqrt(2), function.known)


def larger_where(signal: Signal, others: Sizes) -> float | None:
    """Returns how much larger the squares of what a function has made are in samples where others are large.

    `None` where no function has made it.
    """
    if signal.bent is None:
        return None
    function, source = signal.bent
    return _where_large(source, function, others, SQUARE)


def _where_large(signal: Signal, function: Activation, others: Sizes, moment: int) -> float:
    """Returns one of a function's moments over samples by how large others are there, over that of all."""
    sizes = signal.sizes or {}
    uneven = law_of(sizes)
    if uneven <= EVEN:
        # So little of a power is a straight line.
        power = powers_of(*_rounded(function, signal), EVEN)[moment] if uneven.variance else 0.0
        return math.exp(power * shift(sizes, others))
    power = round(power_with(sizes, others), 2)
    if not power:
        return 1.0
    given = (function, signal.mean, signal.variance, signal.channels, uneven)
    counted, whole = (respond_unevenly(*given, *more) for more in ((power,), ()))
    name = ("second_moment", "slope")[moment]
    return float(getattr(counted, name) / max(getattr(whole, name), 1e-300))


def _each_activated(axis: int, parts: tuple[tuple[int, Signal], ...], function: Activation) -> Any:
    """Bends signals that stand side by side: a rectifier lets the gradient at one that is never negative through."""
    found = [activated(dataclasses.replace(one, joined=None), function) for _, one in parts]
    counts = [count for count, _ in parts]
    ends = np.cumsum(counts).tolist()

    def back(gradient: Signal | None) -> Signal | None:
        if gradient is None:
            return None
        places = zip(found, counts, ends)
        passed = [(count, back(part_of(gradient, axis, end - count, end))) for (_, back), count, end in places]
        return beside(axis, [(count, one) for count, one in passed if one is not None])

    return beside(axis, [(count, one) for count, (one, _) in zip(counts, found)]), back


def _unlike(signal: Signal) -> tuple[float, ...]:
    """Returns the variance of the correlation of two entries that differ on each axis: of positions, it has one."""
    rank = len(signal.along)
    if signal.channels is None:
        return (0.0,) * rank
    unit = [axis == signal.channels.axis for axis in range(rank)]
    return tuple(0.0 if axis == 0 or unit[axis] else signal.channels.unlike for axis in range(rank))


def _to_power(signal: Signal, power: float) -> tuple[Any, ...]:
    """Returns a power of a signal's profile; with mean one, where the law of all positions is known already."""
    if power == 0:
        return ()
    found = [None if one is None else np.maximum(one, FAINT) ** power for one in signal.profile]
    return tuple(None if one is None else one / (1.0 if signal.channels is None else one.mean()) for one in found)


def _near(
    function: Activation,
    signal: Signal,
    response: Response,
    unlike: float,
    of_mean: float,
    profile: tuple[Any, ...],
) -> Near | None:
    """Returns how far neighbours agree in what a function makes.

    Args:
        function: what bends the signal.
        signal: what is given to it.
        response: of the function.
        unlike: the variance of the correlation of two positions of one sample.
        of_mean: the power of the squares that are given to it with which the mean goes.
        profile: by which what is made grows from place to place.
    """
    if signal.near is None or signal.variance <= 1e-24:
        return None
    alike, mean, variance, even = signal.alike(), signal.mean**2, signal.variance, evened(signal)
    assert even is not None
    same, other = ((values - mean) / variance for values in (even.same, even.other))
    within = response.covariances(same, unlike)
    if unlike:
        # A position has nothing unlike itself.
        within.ravel()[0] = response.covariance(float(same.ravel()[0]))
    between = response.all_between_samples(other)
    shared = None if signal.channels is None else signal.channels.shared
    if shared is not None and shared.shape == within.shape:
        # What overlaps is the same number or another, and the larger it is the more often the same.
        overlap = of_overlapping(function, signal.mean, signal.variance, signal.channels, shared)
        within = np.where((shared > 0) & (shared < 1), overlap + between - response.powers[0], within)
    if not signal.profile or response.powers[0] <= 1e-6 * response.second_moment:
        return dataclasses.replace(signal.near, same=alike * within, other=alike * between)
    # The mean of a rectifier grows as the spread does, that of a swish more; and all have it in common, place by place.
    axes, square = signal.near.axes, response.powers[0]
    means = powers_at(signal, axes, of_mean)
    if signal.channels is not None:
        means = tuple(one / one.mean() for one in means)
    growth = math.prod(1.0 if one is None else float(one.mean()) for one in profile)
    table = square / growth * pairs_at(means, signal.near.same.shape)
    same, other = (alike * (values - square) + table for values in (within, between))
    return dataclasses.replace(signal.near, same=same, other=other, pulls=tuple(one / one.mean() for one in means))


def _near_back(gradient: Signal, signal: Signal, response: Response, grown: float) -> Near | None:
    """Returns how far neighbours agree of a gradient that a function has let through: as far as its slopes do."""
    near = gradient.near
    if near is None or signal.variance <= 1e-24:
        return None
    distances = [np.arange(size) for size in near.same.shape]
    tables = (_correlation(signal, signal.by_distance(near.axes, distances, apart)) for apart in (False, True))
    same, other = (
        values * response.slope_covariances(np.broadcast_to(table, values.shape)) * grown
        for values, table in zip((near.same, near.other), tables)
    )
    return Near(near.axes, same, other)


def _powers(function: Activation, signal: Signal) -> tuple[float, float]:
    """Returns the powers with which the second moment of a function, and of its slope, go with that of its input."""
    step = 1.1
    given = respond(function, signal.mean, signal.variance, signal.channels)
    more = respond(function, math.sqrt(step) * signal.mean, step * signal.variance, signal.channels)
    pairs = ((more.second_moment, given.second_moment), (more.slope, given.slope))
    found = tuple(math.log(one / other) / math.log(step) if min(one, other) > 0 else 0.0 for one, other in pairs)
    # Of what bends every scale alike, rounding would leave a power of nearly nothing.
    return round(found[0], 3), round(found[1], 3)


def slope_power(gradient: Signal) -> float:
    """Returns the power of a unit's square with which the slope goes that a gradient has come back through."""
    if gradient.bent is None:
        return 0.0
    function, signal = gradient.bent
    mean, variance = float(f"{signal.mean:.3g}"), float(f"{signal.variance:.3g}")
    given = dataclasses.replace(signal, mean=mean, second_moment=mean**2 + variance)
    return _powers(function, given)[1]


def _rectified_again(signal: Signal, law: Any, other: Signal) -> Any:
    found = rectified_sum(law, other)

    def back(gradient: Signal | None) -> Signal | None:
        if gradient is None:
            return None
        factor, slopes, tilt = found.back(gradient.tilt)
        along = tuple(value * slope for value, slope in zip(gradient.along, slopes))
        return Signal(gradient.second_moment * factor, 0.0, along, profile=gradient.profile, tilt=tilt)

    joined = signal.joined and (
        signal.joined[0],
        tuple((count, activated(part, RELU)[0]) for count, part in signal.joined[1]),
    )
    # What has been rectified is nearly so again: its squares grow as they did.
    made = dataclasses.replace(found.whole, profile=signal.profile, patterns=signal.patterns, sizes=signal.sizes)
    return dataclasses.replace(made, joined=joined, near=fainter(made)), back


def _correlation(signal: Signal, agreement: Any) -> Any:
    return (agreement - signal.mean**2) / signal.variance if signal.variance > 1e-24 else 0.0
