"""What an elementwise function does to a Gaussian of any mean and variance, quickly.

A plan asks for hundreds of these, so the integrals are sums over one fixed grid. The function's
coefficients in Hermite polynomials give its covariance map: two Gaussians of correlation `c` come
out with the covariance `sum_k a_k^2 c^k` (Daniely et al. 2016, arXiv 1602.05897).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from keras_autoinit.activations import Activation

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
    """

    mean: float
    second_moment: float
    slope: float
    powers: tuple[float, ...]
    slope_powers: tuple[float, ...]

    def covariance(self, correlation: float) -> float:
        """Returns `E f(z) f(z')` for two Gaussians of this correlation."""
        return series(self.powers, self.second_moment, correlation)

    def covariances(self, correlations: np.ndarray) -> np.ndarray:
        """Returns the same for several correlations."""
        return series_at(self.powers, self.second_moment, correlations)

    def slope_covariance(self, correlation: float) -> float:
        """Returns `E f'(z) f'(z')`."""
        return series(self.slope_powers, self.slope, correlation)


@functools.lru_cache(maxsize=4096)
def respond(function: Activation, mean: float, variance: float) -> Response:
    """Integrates an activation against a Gaussian.

    Args:
        function: an elementwise activation.
        mean: the Gaussian's mean.
        variance: its variance; at zero the Gaussian is one number.
    """
    _, weights, polynomials = hermite_grid()
    spread = math.sqrt(max(variance, 1e-24))
    values, slopes, between = _on_grid(function, mean, spread)
    coefficients = polynomials @ (weights * values)
    orders = np.sqrt(np.arange(1, ORDERS + 1))
    return Response(
        float(coefficients[0]),
        float(weights @ values**2),
        float(between @ slopes**2 / between.sum()),
        tuple((coefficients**2).tolist()),
        tuple(((coefficients[1:] * orders / spread) ** 2).tolist()),
    )


def slope_where(function: Activation, mean: float, variance: float, tilt: np.ndarray) -> float:
    """Returns `E t f'^2` for entries of which some count more than others, by their place on `hermite_grid`."""
    _, slopes, between = _on_grid(function, mean, math.sqrt(max(variance, 1e-24)))
    counts = between * (tilt[1:] + tilt[:-1]) / 2
    return float(counts @ slopes**2 / between.sum())


def _on_grid(function: Activation, mean: float, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a function's values on the nodes, its slopes between them, and the weights there."""
    z, weights, _ = hermite_grid()
    assert function.function is not None
    with np.errstate(all="ignore"):
        values = np.nan_to_num(
            np.asarray(function.function(mean + spread * z), np.float64), posinf=1e150, neginf=-1e150
        )
    return values, np.diff(values) / np.diff(z) / spread, (weights[1:] + weights[:-1]) / 2


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
    rest = max(total - sum(powers), 0.0)
    return np.asarray(np.polynomial.polynomial.polyval(np.clip(correlations, -1.0, 1.0), (*powers, rest)))


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
