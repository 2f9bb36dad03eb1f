"""What an elementwise function does to a Gaussian of any mean and variance, quickly.

A plan asks for hundreds of these, so the integrals are sums over one fixed grid. The function's
coefficients in Hermite polynomials give its covariance map: two Gaussians of correlation `c` come
out with the covariance `sum_k a_k^2 c^k` (Daniely et al. 2016, arXiv 1602.05897).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_autoinit.activations import Activation
from keras_autoinit.laws import Law, log_mean, straight

# Fine enough that a kink between two nodes shifts no moment by more than 1e-4.
NODES = 1601
REACH = 8.0
# Beyond this order a correlation below one has no power left; what remains counts as the next order.
ORDERS = 24


@dataclass(frozen=True)
class Response:
    """What a function makes of a Gaussian.

    Attributes:
        mean: `E f(z)`.
        second_moment: `E f(z)^2`.
        slope: `E f'(z)^2`.
        powers: squared Hermite coefficients of `f`, from order zero.
        slope_powers: the same of `f'`.
        turn: the mean of the second derivative times that of the fourth, for a unit Gaussian.
        apart: for two different samples, whose sizes have nothing to do with each other, what `powers` are for one.
    """

    mean: float
    second_moment: float
    slope: float
    powers: tuple[float, ...]
    slope_powers: tuple[float, ...]
    turn: float = 0.0
    apart: tuple[float, ...] = ()

    def covariance(self, correlation: float, unlike: float = 0.0) -> float:
        """Returns `E f(z) f(z')` for two Gaussians of this correlation, or of such whose correlations vary about it."""
        # Half the second derivative of the sum below, at no correlation.
        return series(self.powers, self.second_moment, correlation) + self.powers[2] * unlike

    def between_samples(self, correlation: float) -> float:
        """Returns `E f(z) f(z')` of two samples."""
        return series(self.apart or self.powers, sum(self.apart) or self.second_moment, correlation)

    def covariances(self, correlations: np.ndarray, unlike: float = 0.0) -> np.ndarray:
        """Returns `covariance` for several correlations."""
        return series_at(self.powers, self.second_moment, correlations) + self.powers[2] * unlike

    def all_between_samples(self, correlations: np.ndarray) -> np.ndarray:
        """Returns `between_samples` for several correlations."""
        return series_at(self.apart or self.powers, sum(self.apart) or self.second_moment, correlations)

    def slope_covariance(self, correlation: float) -> float:
        """Returns `E f'(z) f'(z')`."""
        return series(self.slope_powers, self.slope, correlation)

    def slope_covariances(self, correlations: np.ndarray) -> np.ndarray:
        """Returns `slope_covariance` for several correlations."""
        return series_at(self.slope_powers, self.slope, correlations)


@functools.lru_cache(maxsize=4096)
def respond(function: Activation, mean: float, variance: float, channels: Any = None) -> Response:
    """Integrates an activation against a Gaussian.

    Args:
        function: an elementwise activation.
        mean: the Gaussian's mean.
        variance: its variance; at zero the Gaussian is one number.
        channels: what has made a signal that is no Gaussian, but a function of one.
    """
    _, weights, polynomials = hermite_grid()
    spread = math.sqrt(max(variance, 1e-24))
    values, slopes, between = _on_grid(function, mean, spread, channels)
    coefficients = polynomials @ (weights * values)
    slope_coefficients = _between_nodes()[1] @ (between * slopes)
    return Response(
        float(coefficients[0]),
        float(weights @ values**2),
        float(between @ slopes**2 / between.sum()),
        tuple((coefficients**2).tolist()),
        tuple((slope_coefficients**2).tolist()),
        float(math.sqrt(6) * slope_coefficients[1] * slope_coefficients[3]),
    )


@functools.lru_cache(maxsize=4096)
def respond_unevenly(
    function: Activation, mean: float, variance: float, channels: Any, uneven: Law, power: float = 0.0
) -> Response:
    """Integrates an activation against Gaussians of which some are larger than others.

    Args:
        function: an elementwise activation.
        mean: the mean of all.
        variance: that of all.
        channels: what has made a signal that is no Gaussian, but a function of one.
        uneven: the law of the logarithms of their squares.
        power: of their squares, with which they count.
    """
    logs, shares = uneven.batch()
    found = _responses(function, mean, variance, channels, logs - log_mean(uneven))
    counts = shares * np.exp(power * logs)
    counts /= counts.sum()

    def over(name: str) -> np.ndarray:
        return np.asarray(counts @ np.array([getattr(one, name) for one in found]))

    # A coefficient has the same sign in large samples as in small ones, or is next to nothing.
    apart = (counts @ np.sqrt(np.array([one.powers for one in found]))) ** 2
    return Response(
        float(over("mean")),
        float(over("second_moment")),
        float(over("slope")),
        tuple(over("powers").tolist()),
        tuple(over("slope_powers").tolist()),
        float(over("turn")),
        tuple(apart.tolist()),
    )


def _responses(
    function: Activation, mean: float, variance: float, channels: Any, logs: Sequence[float] | np.ndarray
) -> list[Response]:
    """Returns the responses to Gaussians whose squares are larger by these logarithms, to three digits."""
    factors = [float(f"{math.exp(log):.3g}") for log in logs]
    return [respond(function, math.sqrt(factor) * mean, factor * variance, channels) for factor in factors]


@functools.lru_cache(maxsize=1024)
def powers_of(
    function: Activation, mean: float, variance: float, channels: Any, uneven: Law
) -> tuple[float, float, float]:
    """Returns the powers of a sample's square with which what is made of it goes: its square, the slope's, its mean."""
    logs, _ = uneven.batch()
    found = _responses(function, mean, variance, channels, logs - log_mean(uneven))

    def power(several: list[float]) -> float:
        return straight(uneven, np.maximum(several, 1e-300)) if min(several) > 0 else 0.0

    several = ([one.second_moment for one in found], [one.slope for one in found], [abs(one.mean) for one in found])
    return power(several[0]), power(several[1]), power(several[2])


@functools.lru_cache(maxsize=1024)
def chance_of(function: Activation, mean: float, variance: float, channels: Any) -> float:
    """Returns how uneven the squares of what a function makes are, but for what goes with the squares given to it."""
    z, weights, _ = hermite_grid()
    spread = math.sqrt(max(variance, 1e-24))
    values = _on_grid(function, mean, spread, channels)[0] ** 2
    given = (mean + spread * (z if channels is None else channels.law)) ** 2
    whole = weights @ values
    apart, own = given - weights @ given, values - whole
    left = weights @ own**2 - (weights @ (own * apart)) ** 2 / max(weights @ apart**2, 1e-24)
    return float(left / whole**2) if whole > 1e-24 else 0.0


def slope_where(function: Activation, mean: float, variance: float, tilt: np.ndarray, channels: Any = None) -> float:
    """Returns `E t f'^2` for entries of which some count more than others, by their place on `hermite_grid`."""
    _, slopes, between = _on_grid(function, mean, math.sqrt(max(variance, 1e-24)), channels)
    counts = between * (tilt[1:] + tilt[:-1]) / 2
    return float(counts @ slopes**2 / between.sum())


@functools.lru_cache(maxsize=1024)
def radial_growth(function: Activation, mean: float, variance: float, channels: Any) -> float:
    """Returns `E (f' z)^2 / E f'^2`, with `z` what is given to the function, as far as it varies, over its spread."""
    made, slopes, counts = _radially(function, mean, variance, channels)
    return float(counts @ (slopes * made) ** 2 / max(counts @ slopes**2, 1e-300))


@functools.lru_cache(maxsize=1024)
def radial_of_mean(function: Activation, mean: float, variance: float, channels: Any) -> float:
    """Returns `(E f' z)^2 / (E f')^2`: with `radial_growth`'s `z`, of a gradient that is the same for all entries."""
    made, slopes, counts = _radially(function, mean, variance, channels)
    even = (counts @ slopes) ** 2
    return float((counts @ (slopes * made)) ** 2 / even) if even > FLAT * (counts @ slopes**2) else 0.0


@functools.lru_cache(maxsize=1024)
def radial_share(function: Activation, mean: float, variance: float, channels: Any) -> float:
    """Returns how much of `f' z` does not go with `f`: nothing of a rectifier's."""
    made, slopes, counts = _radially(function, mean, variance, channels)
    values = _on_grid(function, mean, math.sqrt(max(variance, 1e-24)), channels)[0]
    values, grown = (values[1:] + values[:-1]) / 2, slopes * made
    both = (counts @ (grown * values)) ** 2
    return float(max(1 - both / max((counts @ grown**2) * (counts @ values**2), 1e-300), 0.0))


def _radially(function: Activation, mean: float, variance: float, channels: Any) -> tuple[np.ndarray, ...]:
    """Returns what varies of what is given to a function, between the nodes, the slopes there, and the counts."""
    z, _, _ = hermite_grid()
    law = z if channels is None else channels.law
    _, slopes, counts = _on_grid(function, mean, math.sqrt(max(variance, 1e-24)), channels)
    return (law[1:] + law[:-1]) / 2, slopes, counts


# Of slopes whose mean is less of their spread, nothing is left of what is the same everywhere.
FLAT = 1e-3
# Squares of one term, over their mean, at which what it does to a slope is looked up.
SQUARES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@functools.lru_cache(maxsize=256)
def slope_beside(
    function: Activation, mean: float, variance: float, parts: tuple[tuple[float, float], ...]
) -> np.ndarray:
    """Returns the mean squared slope at sums by the square of one term: at each of `SQUARES`, over that at one.

    Args:
        function: an elementwise activation.
        mean: that of the sums.
        variance: the mean of theirs.
        parts: the term's share in the variance of a sum, and that variance over the mean: of sums that are as likely.
    """
    z, _, _ = hermite_grid()
    _, slopes, _ = _on_grid(function, mean, math.sqrt(max(variance, 1e-24)), None)
    shares, sizes = np.array(parts).T[..., None]
    # A sum of one term has nothing beside it.
    share, square = np.minimum(shares, 0.999), np.array(SQUARES)[:, None, None]
    found = np.zeros(len(SQUARES))
    for side in (-1, 1):
        apart = (z[1:] + z[:-1]) / 2 - side * np.sqrt(share * sizes * square)
        counts = np.exp(-(apart**2) / (1 - share) / sizes / 2)
        found += (counts @ slopes**2 / counts.sum(-1)).mean(-1)
    return np.asarray(found / found[SQUARES.index(1.0)])


def _on_grid(
    function: Activation, mean: float, spread: float, channels: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a function's values on the nodes, its slopes between them, and the weights there."""
    z, _, _ = hermite_grid()
    assert function.function is not None
    law = z if channels is None else channels.law
    with np.errstate(all="ignore"):
        values = np.nan_to_num(
            np.asarray(function.function(mean + spread * law), np.float64), posinf=1e150, neginf=-1e150
        )
        slopes = np.nan_to_num(np.diff(values) / np.diff(law) / spread)
    return values, slopes, _between_nodes()[0]


def of_overlapping(function: Activation, mean: float, variance: float, form: Any, shares: np.ndarray) -> np.ndarray:
    """Returns `E f f'` of a function of the maxima of two windows, by the share of entries that both hold.

    The largest of those that only one holds is below a level `u` of all with chance `u^(1 - share)`, the largest of
    those that both hold with `u^share`: given that one, the two windows know nothing of each other.

    Args:
        function: an elementwise activation.
        mean: that of the maxima.
        variance: theirs.
        form: how they are distributed.
        shares: any number of them.
    """
    _, weights, _ = hermite_grid()
    values = _on_grid(function, mean, math.sqrt(max(variance, 1e-24)), form)[0]
    levels = np.append(0.0, np.minimum(np.cumsum(weights), 1.0))
    found = {}
    for share in set(shares.ravel().tolist()):
        own, both = np.diff(levels ** (1 - share)), np.diff(levels**share)
        above = np.append(np.cumsum((values * own)[::-1])[::-1], 0.0)[1:]
        found[share] = float(both @ (values * levels[1:] ** (1 - share) + above) ** 2) if share > 0 else 0.0
    return np.vectorize(found.get)(shares)


def input_variance(function: Activation, wanted: float) -> float:
    """Returns the variance of a Gaussian without mean of which an activation makes this second moment, by bisection."""
    low, high = math.log(1e-6), math.log(1e4)
    for _ in range(24):
        middle = (low + high) / 2
        made = respond(function, 0.0, float(f"{math.exp(middle):.6g}")).second_moment
        low, high = (middle, high) if made < wanted else (low, middle)
    return math.exp((low + high) / 2)


def series(powers: tuple[float, ...], total: float, correlation: float) -> float:
    """Returns `sum_k a_k^2 c^k`, what is beyond the known orders counted as the next one."""
    c = min(max(correlation, -1.0), 1.0)
    if c == 0:
        return powers[0]
    value = 0.0
    for power in reversed(powers):
        value = value * c + power
    return value + max(total - sum(powers), 0.0) * c ** len(powers)


def series_at(powers: tuple[float, ...], total: float, correlations: np.ndarray) -> np.ndarray:
    """Returns the same for several correlations."""
    c = np.clip(correlations, -1.0, 1.0)
    value = np.full_like(c, max(total - sum(powers), 0.0))
    for power in reversed(powers):
        value *= c
        value += power
    return value


@functools.cache
def hermite_grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns nodes, weights that sum to one, and normalized Hermite polynomials on the nodes."""
    z = np.linspace(-REACH, REACH, NODES)
    weights = np.exp(-(z**2) / 2)
    weights /= weights.sum()
    rows = [np.ones_like(z), z]
    for order in range(1, ORDERS):
        rows.append((z * rows[order] - math.sqrt(order) * rows[order - 1]) / math.sqrt(order + 1))
    return z, weights, np.stack(rows)


@functools.cache
def _between_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of `hermite_grid` between its nodes, and there all polynomials but the last."""
    _, weights, polynomials = hermite_grid()
    return (weights[1:] + weights[:-1]) / 2, (polynomials[:-1, 1:] + polynomials[:-1, :-1]) / 2
