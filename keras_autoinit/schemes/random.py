"""Schemes with a spread given by hand, whatever the shape of the weight."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_autoinit import draws
from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.schemes.base import Scheme, checked_seed, number, register


@register("random_normal")
class RandomNormal(Scheme, keras.initializers.RandomNormal):
    """Normal numbers of a given mean and standard deviation.

    When to use: to repeat a published recipe with a fixed spread, such as GPT-2's 0.02.

    Args:
        mean: mean of the numbers.
        stddev: their standard deviation.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: an argument is not a finite number, or the spread is negative.

    Example:
        >>> RandomNormal(stddev=0.02, seed=1)((3, 4)).shape == (3, 4)
        True
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        super().__init__(number("mean", mean), _spread(stddev), checked_seed(seed))

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns normal numbers."""
        return draws.normal(shape, seed, self.mean, self.stddev, **options)


@register("truncated_normal")
class TruncatedNormal(Scheme, keras.initializers.TruncatedNormal):
    """Normal numbers, those beyond two standard deviations drawn again.

    When to use: as `RandomNormal`, where a rare large weight would hurt.

    Args:
        mean: mean of the numbers.
        stddev: their standard deviation before any is drawn again, as in Keras: that of the
            result is 0.8796 times as large.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: an argument is not a finite number, or the spread is negative.

    Example:
        >>> bool(np.abs(np.asarray(TruncatedNormal(stddev=0.1, seed=1)((99, 99)))).max() <= 0.2)
        True
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        super().__init__(number("mean", mean), _spread(stddev), checked_seed(seed))

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns truncated normal numbers."""
        return draws.truncated_normal(shape, seed, self.mean, self.stddev, **options)


@register("random_uniform")
class RandomUniform(Scheme, keras.initializers.RandomUniform):
    """Uniform numbers between two bounds.

    When to use: to repeat a published recipe with fixed bounds.

    Args:
        minval: lower bound.
        maxval: upper bound.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: a bound is not a finite number, or the lower is above the upper.

    Example:
        >>> bool(np.asarray(RandomUniform(0.0, 1.0, seed=1)((99, 99))).min() >= 0)
        True
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None) -> None:
        low, high = number("minval", minval), number("maxval", maxval)
        if low > high:
            raise SchemeError(f"Expected `minval` to be at most `maxval`. Received: minval={low}, maxval={high}.")
        super().__init__(low, high, checked_seed(seed))

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns uniform numbers."""
        return draws.uniform(shape, seed, self.minval, self.maxval, **options)


def _spread(stddev: float) -> float:
    if number("stddev", stddev) < 0:
        raise SchemeError(f"Expected `stddev` not to be negative. Received: {stddev!r}.")
    return float(stddev)
