"""Matrices of few numbers that are not zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_autoinit import draws
from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.schemes.base import count, register
from keras_autoinit.schemes.matrices import MatrixScheme


@register("sparse")
class Sparse(MatrixScheme):
    """A given number of non-zero inputs per unit.

    When to use: very wide layers, to keep units apart from one another.

    Formula: each unit reads `nonzeros` inputs chosen at random, with normal weights of variance
    `gain^2 / nonzeros`, so that a unit second moment is kept. Martens 2010 (Deep learning via
    Hessian-free optimization, section 5), where the count is 15 and the variance 1.

    Args:
        nonzeros: inputs that each unit reads, a count.
        gain: multiplies the standard deviation; a number, or the name of an activation.
        input_axes: axes that are inputs; those of a dense or convolution kernel when not given.
        output_axes: axes that are outputs, likewise.
        fan_divisor: the product of the strides of a transposed convolution.
        blocks: independent matrices packed along the last axis (gates, groups), a count.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: the weight is a vector, or a unit has fewer inputs than `nonzeros`.

    Example:
        >>> kernel = np.asarray(Sparse(nonzeros=3, seed=1)((10, 4)))
        >>> np.count_nonzero(kernel, axis=0).tolist()
        [3, 3, 3, 3]
    """

    def __init__(
        self,
        nonzeros: int = 15,
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        fan_divisor: float = 1.0,
        blocks: int = 1,
        seed: Any = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, fan_divisor, blocks, seed)
        self.nonzeros = count("nonzeros", nonzeros)

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the weight."""
        lie = self.matrices(shape)
        taps = lie.lengths(lie.taps)
        inputs = math.prod(taps) * lie.rows
        if self.nonzeros > inputs:
            raise SchemeError(
                f"Expected units with at least {self.nonzeros} inputs. Received the shape {shape}, whose units have "
                f"{inputs}: give `nonzeros` of at most that."
            )
        size = (lie.number, inputs, lie.columns)
        words = (seed,) if isinstance(seed, int) else seed
        order = np.argpartition(draws.uniform(size, (*words, 1), dtype=dtype), self.nonzeros - 1, axis=1)
        # NumPy leaves open in which order a partition returns the smallest.
        read = np.sort(order[:, : self.nonzeros], axis=1)
        values = draws.normal((lie.number, self.nonzeros, lie.columns), (*words, 0), dtype=dtype)
        stack = np.zeros(size, dtype)
        np.put_along_axis(stack, read, values / math.sqrt(self.nonzeros), axis=1)
        return self._scaled(lie.weight(stack.reshape(lie.number, *taps, lie.rows, lie.columns)))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {"nonzeros": self.nonzeros, **super().get_config()}
