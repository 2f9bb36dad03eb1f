"""The odd part of an activation: what a mirrored pair of units computes, and how far it is a line."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from keras_autoinit.activations import Activation
from keras_autoinit.moments import activation_moments

# What counts as zero beside one in a Gaussian integral that is exact to 1e-9.
NOTHING = 1e-6


@dataclass(frozen=True)
class OddPart:
    """What a mirrored pair computes: `g(z) = f(z) - f(-z)`, for a Gaussian `z` of some variance.

    Attributes:
        slope: `sqrt(E g(z)^2 / E z^2)`: the factor on the signal's size; the line's slope where `g` is one.
        residual: the share of `E g(z)^2` that is not on the nearest line, from 0 (ReLU, GELU, SiLU) to 1.
        even: `E (f(z) + f(-z))^2 / E g(z)^2`: what mirroring takes away, 0 for an odd activation.
    """

    slope: float
    residual: float
    even: float


@functools.cache
def odd_part(met: Activation, variance: float = 1.0) -> OddPart:
    """Measures the odd part of an activation that does not mix units.

    Example:
        >>> from keras_autoinit.activations import activation
        >>> odd = odd_part(activation("gelu"))
        >>> round(odd.slope, 6), round(odd.residual, 6)
        (1.0, 0.0)
    """
    function = met.function
    assert function is not None

    def second_moment(sign: float, line: float = 0.0) -> float:
        def part(z: Any) -> Any:
            return function(z) + sign * function(-z) + line * z

        return activation_moments(part, variance, met.precision).second_moment

    odd, even = second_moment(-1.0), second_moment(1.0)
    if odd <= NOTHING * even or odd <= 0:
        return OddPart(0.0, 1.0, math.inf)
    line = (second_moment(-1.0, 1.0) - odd - variance) / (2 * variance)
    left = second_moment(-1.0, -line)
    return OddPart(math.sqrt(odd / variance), min(left / odd, 1.0), even / odd)
