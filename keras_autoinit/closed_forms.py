"""Gaussian moments that have a formula: the rectifiers, the exponential and the sine.

The rectifiers because most networks consist of them, the other two because no fixed set of nodes
serves every variance: one grows without bound, the other oscillates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

# Variance and mean -> `E f`, `E f^2`, `E f'^2`.
OneInput = Callable[[float, float], tuple[float, float, float]]
# Variance, covariance and mean -> `E f f` and `E f' f'`, or `None` where there is no formula.
TwoInputs = Callable[[float, float, float], "tuple[float, float] | None"]


def closed_moments(name: str, parameters: Mapping[str, float]) -> OneInput | None:
    """Returns the formula for one Gaussian input, where there is one.

    Example:
        >>> closed_moments("relu", {})(4.0, 0.0)[1:]
        (2.0, 0.5)
    """
    slope = _slope(name, parameters)
    if slope is not None:
        return lambda variance, mean: _rectified(slope, variance, mean)
    return {"exponential": _exponential, "sin": _sine}.get(name)


def closed_cross_moments(name: str, parameters: Mapping[str, float]) -> TwoInputs | None:
    """Returns the formula for two Gaussian inputs, where there is one.

    That of the rectifiers is the arc-cosine kernel of Cho and Saul 2009, for a mean of zero.

    Example:
        >>> round(closed_cross_moments("relu", {})(1.0, 0.0, 0.0)[0] * 2 * math.pi, 9)
        1.0
    """
    slope = _slope(name, parameters)
    if slope is not None:
        return lambda variance, covariance, mean: _rectified_pair(slope, variance, covariance, mean)
    return {"exponential": _exponential_pair, "sin": _sine_pair}.get(name)


def _slope(name: str, parameters: Mapping[str, float]) -> float | None:
    """Returns the slope below zero of a function whose slope above is 1."""
    if name == "leaky_relu":
        return parameters["negative_slope"]
    if name == "relu":
        plain = parameters.get("threshold", 0.0) == 0.0 and parameters.get("max_value", math.inf) == math.inf
        return parameters.get("negative_slope", 0.0) if plain else None
    return 1.0 if name == "linear" else None


def _rectified(slope: float, variance: float, mean: float) -> tuple[float, float, float]:
    """Sums what lies above zero and what lies below; at a variance of zero, the limit."""
    spread = math.sqrt(variance)
    ratio = mean / spread if spread else math.copysign(math.inf, mean) if mean else 0.0
    above, below = 0.5 * math.erfc(-ratio / math.sqrt(2)), 0.5 * math.erfc(ratio / math.sqrt(2))
    bump = spread * math.exp(-0.5 * min(ratio * ratio, 1e4)) / math.sqrt(2 * math.pi)
    up, down = mean * above + bump, mean * below - bump
    square = mean * mean + variance
    square_up, square_down = square * above + mean * bump, square * below - mean * bump
    return up + slope * down, square_up + slope**2 * square_down, above + slope**2 * below


def _rectified_pair(slope: float, variance: float, covariance: float, mean: float) -> tuple[float, float] | None:
    even, odd = (1 - slope) / 2, (1 + slope) / 2
    if not even:
        return covariance + mean * mean, 1.0
    if mean:
        return None
    # Of `f(z) = odd z + even |z|`; the root is exact where the correlation is close to one.
    root = math.sqrt(max((variance - covariance) * (variance + covariance), 0.0))
    angle = math.atan2(covariance, root) if variance else math.pi / 2
    absolute = 2 / math.pi * (root + covariance * angle)
    return odd**2 * covariance + even**2 * absolute, odd**2 + even**2 * 2 / math.pi * angle


def _exponential(variance: float, mean: float) -> tuple[float, float, float]:
    square = _exp(2 * mean + 2 * variance)
    return _exp(mean + variance / 2), square, square


def _exponential_pair(variance: float, covariance: float, mean: float) -> tuple[float, float]:
    product = _exp(2 * mean + variance + covariance)
    return product, product


def _sine(variance: float, mean: float) -> tuple[float, float, float]:
    square, slope = _sine_pair(variance, variance, mean)
    return math.sin(mean) * math.exp(-variance / 2), square, slope


def _sine_pair(variance: float, covariance: float, mean: float) -> tuple[float, float]:
    apart, together = math.exp(covariance - variance), math.exp(-covariance - variance)
    # The difference of the two, halved, without cancelling where both are near one: so near zero too.
    half = math.copysign(math.exp(abs(covariance) - variance) * -math.expm1(-2 * abs(covariance)) / 2, covariance)
    return half + together * math.sin(mean) ** 2, (apart + together * math.cos(2 * mean)) / 2


def _exp(exponent: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(exponent))
