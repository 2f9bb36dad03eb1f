"""Fixed points of the map that a layer makes of the variance of its input.

A layer with weight variance `w / fan_in` and bias variance `b` makes of a pre-activation variance `q`
the next one, `w E f(z)^2 + b` for `z` of variance `q`; it multiplies the squared gradient by
`chi = w E f'(z)^2`. The edge of chaos is where `q` is a fixed point and `chi` is one (Poole et al.
2016, Schoenholz et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

# Variance -> `E f^2`, `E f'^2`.
VarianceMap = Callable[[float], "tuple[float, float]"]

# The variances that are searched: beyond, float32 networks overflow or vanish within a layer or two.
SMALLEST, LARGEST, FACTOR = 2.0**-20, 2.0**20, 1.5
# Half of the digits of a double are kept where a step of the search is compared with zero.
CLOSE = 1e-9


@dataclass(frozen=True)
class EdgeOfChaos:
    """Where a deep stack neither forgets its input nor tears neighbours apart.

    Attributes:
        weight_variance: times `fan_in`: the `sigma_w^2` of the literature.
        variance: of the pre-activations: the fixed point `q*`; 0 where the signal shrinks towards it.
        variance_slope: of the variance map there. Below 1 the variance is drawn to the fixed point,
            above 1 it leaves it (SiLU, GELU with a small bias); 1 where any variance is a fixed point.
    """

    weight_variance: float
    variance: float
    variance_slope: float


def find_edge(moments: VarianceMap, bias_variance: float) -> EdgeOfChaos | None:
    """Returns the edge of chaos with the smallest variance, or `None` where there is none.

    Solves `q = E f^2 / E f'^2 + bias_variance`: then `1 / E f'^2` is the weight variance.
    """

    def lacking(variance: float) -> float:
        second_moment, slope = moments(variance)
        return variance - bias_variance - second_moment / slope if slope > 0 else -math.inf

    if all(abs(lacking(variance) + bias_variance) <= CLOSE * variance for variance in (0.25, 1.0, 4.0)):
        # A rectifier: every variance is a fixed point without bias, and none is with one.
        return None if bias_variance else EdgeOfChaos(1 / moments(1.0)[1], 1.0, 1.0)
    second_moment, slope = moments(0.0)
    if bias_variance == 0 and second_moment <= CLOSE**2 and slope > CLOSE:
        # Zero at zero: its slope there decides.
        return EdgeOfChaos(1 / slope, 0.0, 1.0)
    variance = find_root(lacking, max(bias_variance, SMALLEST))
    return None if variance is None else _edge_at(moments, variance)


def find_spread(second_moment: Callable[[float], float]) -> float | None:
    """Returns the standard deviation at which the second moment is one, or `None` where there is none."""
    variance = find_root(lambda variance: second_moment(variance) - 1.0, SMALLEST)
    return None if variance is None else math.sqrt(variance)


def find_root(function: Callable[[float], float], start: float) -> float | None:
    """Returns the first number from `start` on at which a function that starts below zero reaches it."""
    low = start
    value = function(low)
    if value >= 0:
        return low if value <= CLOSE * low else None
    while low < LARGEST:
        high = low * FACTOR
        value = function(high)
        if not math.isfinite(value):
            return None
        if value >= 0:
            return _bisect(function, low, high)
        low = high
    return None


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Halves in the logarithm until nothing is left between."""
    for _ in range(60):
        middle = math.sqrt(low * high)
        if not low < middle < high:
            break
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return high


def _edge_at(moments: VarianceMap, variance: float) -> EdgeOfChaos:
    step = 1e-4
    above, below = moments(variance * (1 + step))[0], moments(variance * (1 - step))[0]
    weight_variance = 1 / moments(variance)[1]
    return EdgeOfChaos(weight_variance, variance, weight_variance * (above - below) / (2 * step * variance))
