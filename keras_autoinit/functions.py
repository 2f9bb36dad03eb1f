"""Every activation that Keras exports, and a few more, as functions of NumPy arrays in float64.

Definitions of our own, so that a gain is the same on every backend and costs no compilation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np


def _relu(
    z: np.ndarray, negative_slope: float = 0.0, max_value: float = math.inf, threshold: float = 0.0
) -> np.ndarray:
    above = np.minimum(np.where(z >= threshold, z, 0.0), max_value)
    return np.where(z < threshold, negative_slope * (z - threshold), above)


def _leaky_relu(z: np.ndarray, negative_slope: float = 0.2) -> np.ndarray:
    return np.where(z < 0, negative_slope * z, z)


def _elu(z: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(z < 0, alpha * np.expm1(np.minimum(z, 0)), z)


def _celu(z: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(z < 0, alpha * np.expm1(np.minimum(z, 0) / alpha), z)


def _selu(z: np.ndarray) -> np.ndarray:
    return 1.0507009873554805 * _elu(z, 1.6732632423543772)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(z / 2))


def _softplus(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _gelu(z: np.ndarray, approximate: bool = False) -> np.ndarray:
    if approximate:
        return 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    return 0.5 * z * (1 + error_function(z / math.sqrt(2)))


# NumPy has no error function. A polynomial about the nearest of these many points per unit is as exact
# as `math.erf`, and fifty times as fast.
ERROR_POINTS, ERROR_REACH = 128, 6


def error_function(z: np.ndarray) -> np.ndarray:
    """Returns the error function."""
    near = z.clip(-ERROR_REACH, ERROR_REACH)
    index = np.rint((near + ERROR_REACH) * ERROR_POINTS).astype(np.intp)
    away = near - (index / ERROR_POINTS - ERROR_REACH)
    coefficients = _error_table()
    total = coefficients[-1].take(index)
    for row in coefficients[-2::-1]:
        total = total * away + row.take(index)
    return total


@functools.cache
def _error_table() -> np.ndarray:
    """Returns the Taylor coefficients of the error function at each point, up to the fifth."""
    points = np.arange(2 * ERROR_REACH * ERROR_POINTS + 1) / ERROR_POINTS - ERROR_REACH
    slope = 2 / math.sqrt(math.pi) * np.exp(-points * points)
    hermite = [np.ones_like(points), 2 * points]
    for degree in range(1, 4):
        hermite.append(2 * points * hermite[degree] - 2 * degree * hermite[degree - 1])
    derivatives = [(-1) ** degree * slope * hermite[degree] for degree in range(5)]
    value = np.array([math.erf(point) for point in points])
    return np.stack([value, *(one / math.factorial(order) for order, one in enumerate(derivatives, 1))])


def _soft_shrink(z: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    return np.sign(z) * np.maximum(np.abs(z) - threshold, 0)


def _hard_shrink(z: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    return np.where(np.abs(z) > threshold, z, 0.0)


def _threshold(z: np.ndarray, threshold: float = 0.0, default_value: float = 0.0) -> np.ndarray:
    return np.where(z > threshold, z, default_value)


def _hard_sigmoid(z: np.ndarray) -> np.ndarray:
    return np.clip(z / 6 + 0.5, 0, 1)


def _sparse_plus(z: np.ndarray) -> np.ndarray:
    return np.where(z <= -1, 0.0, np.where(z < 1, (z + 1) ** 2 / 4, z))


def _squareplus(z: np.ndarray, b: float = 4.0) -> np.ndarray:
    return (z + np.sqrt(z * z + b)) / 2


# Every function that `keras.activations` exports, and a few that people write themselves.
# Functions rather than NumPy's own: those have no signature before NumPy 2.4.
# `None`: mixes units, so that no Gaussian integral over one unit describes it.
FUNCTIONS: dict[str, Callable[..., np.ndarray] | None] = {
    "celu": _celu,
    "elu": _elu,
    "exponential": lambda z: np.exp(z),
    "gelu": _gelu,
    "glu": None,
    "hard_shrink": _hard_shrink,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda z: z * _hard_sigmoid(z),
    "hard_tanh": lambda z: np.clip(z, -1, 1),
    "leaky_relu": _leaky_relu,
    "linear": lambda z: z,
    "log_sigmoid": lambda z: -_softplus(-z),
    "log_softmax": None,
    "mish": lambda z: z * np.tanh(_softplus(z)),
    "relu": _relu,
    "relu6": lambda z: np.clip(z, 0, 6),
    "relu_squared": lambda z: np.maximum(z, 0) ** 2,
    "selu": _selu,
    "sigmoid": _sigmoid,
    "silu": lambda z: z * _sigmoid(z),
    "sin": lambda z: np.sin(z),
    "soft_shrink": _soft_shrink,
    "softmax": None,
    "softplus": _softplus,
    "softsign": lambda z: z / (1 + np.abs(z)),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda z: np.clip(0.5 * (z + 1), 0, 1),
    "sparsemax": None,
    "squareplus": _squareplus,
    "tanh": lambda z: np.tanh(z),
    "tanh_shrink": lambda z: z - np.tanh(z),
    "threshold": _threshold,
}

ALIASES = {"exp": "exponential", "hard_swish": "hard_silu", "swish": "silu"}

# Where each bends or jumps: a number, or the parameter that says so. A name that is missing bends nowhere.
BREAKS: dict[str, tuple[float | str, ...]] = {
    "celu": (0.0,),
    "elu": (0.0,),
    "hard_shrink": ("-threshold", "threshold"),
    "hard_sigmoid": (-3.0, 3.0),
    "hard_silu": (-3.0, 3.0),
    "hard_tanh": (-1.0, 1.0),
    "leaky_relu": (0.0,),
    "relu": ("threshold", "max_value"),
    "relu6": (0.0, 6.0),
    "relu_squared": (0.0,),
    "selu": (0.0,),
    "soft_shrink": ("-threshold", "threshold"),
    "softsign": (0.0,),
    "sparse_plus": (-1.0, 1.0),
    "sparse_sigmoid": (-1.0, 1.0),
    "threshold": ("threshold",),
}

# How narrow a panel at the origin must be for 14 nodes to differentiate each to 1e-9: about two thirds of
# the distance to the nearest pole in the complex plane. A name that is missing is made of polynomials.
WIDTHS: dict[str, float] = {
    "celu": 1.0,
    "elu": 1.0,
    "gelu": 1.0,
    "log_sigmoid": 2.0,
    "mish": 1.5,
    "selu": 1.0,
    "sigmoid": 2.0,
    "silu": 2.0,
    "softplus": 2.0,
    "softsign": 0.7,
    "squareplus": 1.0,
    "tanh": 1.0,
    "tanh_shrink": 1.0,
}


def breaks_of(name: str, parameters: Mapping[str, float]) -> tuple[float, ...]:
    """Returns where an activation with these parameters, defaults among them, bends or jumps."""
    places = (_place(place, parameters) for place in BREAKS.get(name, ()))
    return tuple(sorted({place for place in places if math.isfinite(place)}))


def width_of(name: str, parameters: Mapping[str, float]) -> float:
    """Returns how narrow a panel at the origin must be; infinite for an activation made of polynomials."""
    width = WIDTHS.get(name, math.inf)
    if name == "celu":
        width *= abs(parameters["alpha"])
    if name == "squareplus":
        width *= math.sqrt(abs(parameters["b"])) / 2
    return max(width, 1e-6)


def _place(place: float | str, parameters: Mapping[str, float]) -> float:
    if isinstance(place, str):
        return -parameters[place[1:]] if place.startswith("-") else parameters[place]
    return place
