"""Orthogonal matrices: they keep every length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.schemes.base import register
from keras_autoinit.schemes.matrices import MatrixScheme, convolution_taps
from keras_autoinit.schemes.rotations import orthogonal_matrices


@register("orthogonal")
class Orthogonal(MatrixScheme):
    """Orthogonal matrices: keep the length of every signal, and of every gradient, exactly.

    When to use: deep networks with odd activations (tanh), recurrent kernels.

    Formula: `W^T W = gain^2 I` where the inputs (taps of a convolution among them) are at least
    as many as the outputs, `W W^T = gain^2 I` otherwise, drawn uniformly (Saxe et al. 2014,
    arXiv 1312.6120). Blocks, and the channels of a depthwise kernel, are orthogonal each by
    itself. With strides in a transposed convolution the gain is multiplied by the square root of
    `fan_divisor`, so that the output's second moment is that of the input. Computed in double
    precision and cast, so half precision works; in float64 the last bits depend on how many threads
    the linear algebra library uses, in all other types they do not show.

    Args:
        gain: multiplies the matrices; a number, or the name of an activation, which stands for
            `1 / sqrt(E f(z)^2)`.
        input_axes: axes that are inputs; those of a dense or convolution kernel when not given.
        output_axes: axes that are outputs, likewise.
        fan_divisor: the product of the strides of a transposed convolution.
        blocks: independent matrices packed along the last axis (gates, groups), a count.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: the weight is a vector or lacks an axis.

    Example:
        >>> w = np.asarray(Orthogonal(seed=1)((6, 4)))
        >>> bool(np.allclose(w.T @ w, np.eye(4), atol=1e-6))
        True
    """

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the orthogonal weight."""
        lie = self.matrices(shape)
        taps = lie.lengths(lie.taps)
        stack = orthogonal_matrices(lie.number, math.prod(taps) * lie.rows, lie.columns, seed, dtype)
        return self._scaled(lie.weight(stack.reshape(lie.number, *taps, lie.rows, lie.columns)))


@register("delta_orthogonal")
class DeltaOrthogonal(MatrixScheme):
    """An orthogonal matrix at the centre tap of a convolution, zero elsewhere.

    When to use: very deep plain convolutional networks; each layer then maps every position by
    itself and keeps its length. With odd activations such stacks of 10,000 layers train.

    Formula: the centre tap is orthogonal times `gain`, the other taps are zero (Xiao et al.
    2018, arXiv 1806.05393, algorithm 1). The paper asks for at least as many outputs as inputs,
    so that no length is lost; with fewer, the rows of the centre tap are projected.

    Args:
        gain: multiplies the matrix; a number, or the name of an activation.
        input_axes: axes that are inputs, taps among them; a convolution's when not given.
        output_axes: axes that are outputs, taps among them, likewise.
        fan_divisor: the product of the strides of a transposed convolution.
        blocks: groups of a grouped convolution, a count.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: the weight is no convolution kernel, or a side of it is even.

    Example:
        >>> kernel = np.asarray(DeltaOrthogonal(seed=1)((3, 3, 4, 4)))
        >>> int(np.count_nonzero(np.abs(kernel).sum((2, 3))))
        1
    """

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the kernel."""
        lie = self.matrices(shape)
        taps = convolution_taps(self, lie)
        if any(length % 2 == 0 for length in taps):
            raise SchemeError(
                f"Expected a kernel with odd sides, which has a centre. Received the shape {shape}: use "
                "'autoinit>orthogonal', or an odd `kernel_size`."
            )
        stack = np.zeros((lie.number, math.prod(taps), lie.rows, lie.columns), dtype)
        stack[:, math.prod(taps) // 2] = orthogonal_matrices(lie.number, lie.rows, lie.columns, seed, dtype)
        return self._scaled(lie.weight(stack))
