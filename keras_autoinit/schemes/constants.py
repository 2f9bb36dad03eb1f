"""Schemes without chance: the same number everywhere.

Right for biases, for the scale of a normalization, and for the last weight of a residual branch.
Never for two weights of one kernel that must learn different things: equal units stay equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.schemes.base import Scheme, number, register


class _Filled(Scheme):
    """Fills a weight with `value`."""

    value: float | list[float]

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns an array that holds `value` everywhere."""
        # In double precision, which holds every integer that a weight might count with.
        return np.array(np.broadcast_to(np.asarray(self.value, np.float64), shape)[options.get("part") or ...])


@register("zeros")
class Zeros(_Filled, keras.initializers.Zeros):
    """Zero everywhere.

    When to use: biases, and the last weight of a residual branch (the branch then starts as the
    identity). A kernel of zeros passes neither signal nor gradient.

    Example:
        >>> float(np.asarray(Zeros()((2, 3))).sum())
        0.0
    """

    value = 0.0


@register("ones")
class Ones(_Filled, keras.initializers.Ones):
    """One everywhere.

    When to use: the scale of a normalization, the forget bias of an LSTM.

    Example:
        >>> float(np.asarray(Ones()((2, 3))).sum())
        6.0
    """

    value = 1.0


@register("constant")
class Constant(_Filled):
    """One given number everywhere, or given numbers along the last axis.

    When to use: a bias with a known start, such as the log odds of a rare class.

    Args:
        value: the number, or a list of them, one for each place along the weight's last axis.

    Raises:
        SchemeError: `value` is not a finite number or a list of them, or does not fit the weight.

    Example:
        >>> float(np.asarray(Constant(0.5)((2, 3))).sum())
        3.0
    """

    def __init__(self, value: float | Sequence[float] = 0.0) -> None:
        several = isinstance(value, (list, tuple, np.ndarray))
        self.value = [number("value", each) for each in np.ravel(value)] if several else number("value", value)

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns an array that holds the values."""
        given = np.asarray(self.value, np.float64)
        if given.ndim and given.size != math.prod(shape) and (not shape or given.size != shape[-1]):
            raise SchemeError(
                f"Expected {shape[-1:]} values, for a weight of the shape {shape}. Received {given.size}."
            )
        whole = given.reshape(shape) if given.ndim and given.size == math.prod(shape) else given
        return np.array(np.broadcast_to(whole, shape)[options.get("part") or ...])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {"value": self.value}
