"""Every activation that Keras exports, and a few more, as functions of NumPy arrays in float64.

Definitions of our own, so that a gain is the same on every backend and costs no compilation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
    return np.logaddexp(0, z)


def _gelu(z: np.ndarray, approximate: bool = False) -> np.ndarray:
    if approximate:
        return 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    # NumPy has no error function; a few hundred nodes do not ask for a faster one.
    return 0.5 * z * (1 + np.array([math.erf(x / math.sqrt(2)) for x in z.ravel()]).reshape(z.shape))


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
