"""Schemes that set a weight's matrices as a whole: orthogonal, identity, sparse.

A weight holds one or more matrices (inputs by outputs): one per channel in a depthwise kernel,
one per gate or group where blocks are packed along the last axis, one in all others, taps of a
convolution counting as inputs. `Matrices` says how many, how large, and puts them back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_autoinit import draws
from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.fans import Axes
from keras_autoinit.schemes.base import AxesScheme, count, register

ROUNDING = 2.0**28


@dataclass(frozen=True)
class Matrices:
    """How the matrices of a weight lie in it.

    Attributes:
        shape: shape of the weight.
        batch: axes along which matrices are independent.
        taps: axes of the positions of a convolution.
        inputs: axes that are summed over, without the taps.
        outputs: axes that are made, without the taps.
        blocks: matrices packed along the last output axis.
    """

    shape: tuple[int, ...]
    batch: tuple[int, ...]
    taps: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    blocks: int

    @classmethod
    def of(cls, shape: Sequence[int], axes: Axes) -> Matrices:
        """Sorts the axes of a weight by what they are."""
        taps = tuple(axis for axis in axes.inputs if axis in axes.outputs)
        inputs = tuple(axis for axis in axes.inputs if axis not in taps)
        outputs = tuple(axis for axis in axes.outputs if axis not in taps)
        batch = tuple(axis for axis in range(len(shape)) if axis not in (*taps, *inputs, *outputs))
        return cls(tuple(shape), batch, taps, inputs, outputs, axes.blocks)

    def lengths(self, axes: Sequence[int]) -> tuple[int, ...]:
        """Returns the lengths of these axes."""
        return tuple(self.shape[axis] for axis in axes)

    @property
    def rows(self) -> int:
        """Length of the input side without taps."""
        return math.prod(self.lengths(self.inputs))

    @property
    def columns(self) -> int:
        """Length of the output side of one matrix."""
        return math.prod(self.lengths(self.outputs)) // self.blocks

    @property
    def number(self) -> int:
        """How many matrices there are for each tap."""
        return math.prod(self.lengths(self.batch)) * self.blocks

    def weight(self, stack: np.ndarray) -> np.ndarray:
        """Puts matrices, of shape (number, taps, rows, columns), back into a weight."""
        batch, taps, inputs, outputs = map(self.lengths, (self.batch, self.taps, self.inputs, self.outputs))
        split = (*outputs[:-1], outputs[-1] // self.blocks if outputs else 1)
        spread = stack.reshape(*batch, self.blocks, *taps, *inputs, *split)
        at = len(batch)
        spread = np.moveaxis(spread, at, -2)
        merged = spread.reshape(*batch, *taps, *inputs, *outputs)
        order = (*self.batch, *self.taps, *self.inputs, *self.outputs)
        return np.ascontiguousarray(merged.transpose(np.argsort(order)))


class _MatrixScheme(AxesScheme):
    """A scheme that needs at least a matrix."""

    def matrices(self, shape: tuple[int, ...]) -> Matrices:
        """Returns how the matrices lie in a weight of this shape, or raises `SchemeError`."""
        if len(shape) < 2:
            raise SchemeError(
                f"Expected a weight of two or more dimensions, which {type(self).__name__} fills with matrices. "
                f"Received the shape {shape}: use a scheme such as 'autoinit>zeros' or 'autoinit>random_normal'."
            )
        return Matrices.of(shape, self.axes(shape))

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the whole weight."""
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns the weight; a slice of it costs as much as the whole."""
        return self.whole(shape, seed, options.get("dtype", np.float32))[options.get("part") or ...]

    def _scaled(self, weight: np.ndarray) -> np.ndarray:
        """Applies the gain; a transposed convolution's taps are shared out among its strides."""
        scale = self.gain_value * math.sqrt(self.fan_divisor)
        return weight if scale == 1 else weight * weight.dtype.type(scale)


def orthogonal_matrices(number: int, rows: int, columns: int, seed: Seed, dtype: Any) -> np.ndarray:
    """Returns independent matrices with orthonormal columns, or rows where those are fewer.

    Uniform over all such matrices: the QR factors of Gaussian ones, with positive diagonal of R.
    """
    tall, thin = max(rows, columns), min(rows, columns)
    # NumPy decomposes in double precision anyway.
    q, r = np.linalg.qr(draws.normal((number, tall, thin), seed, dtype=dtype).astype(np.float64))
    q *= np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)[:, None, :]
    if dtype == np.float32:
        # The last bits of a double depend on how many threads LAPACK used and on the processor:
        # rounded to what float32 can tell of a typical entry, they do not show.
        q = (np.round(q * ROUNDING) / ROUNDING).astype(np.float32)
    return q if rows >= columns else q.transpose(0, 2, 1)


@register("orthogonal")
class Orthogonal(_MatrixScheme):
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

    def __init__(
        self,
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        fan_divisor: float = 1.0,
        blocks: int = 1,
        seed: Any = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, fan_divisor, blocks, seed)

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the orthogonal weight."""
        lie = self.matrices(shape)
        taps = lie.lengths(lie.taps)
        stack = orthogonal_matrices(lie.number, math.prod(taps) * lie.rows, lie.columns, seed, dtype)
        return self._scaled(lie.weight(stack.reshape(lie.number, *taps, lie.rows, lie.columns)))


@register("delta_orthogonal")
class DeltaOrthogonal(_MatrixScheme):
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

    def __init__(
        self,
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        fan_divisor: float = 1.0,
        blocks: int = 1,
        seed: Any = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, fan_divisor, blocks, seed)

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


@register("identity")
class Identity(_MatrixScheme):
    """The identity: what goes in comes out.

    When to use: recurrent kernels of ReLU networks (Le et al. 2015, arXiv 1504.00941), and
    layers that should start by passing their input on.

    Formula: `W = gain I`; where the sides differ, the surplus rows or columns are zero. Each
    block is an identity by itself.

    Args:
        gain: the number on the diagonal, or the name of an activation.
        input_axes: axes that are inputs; those of a dense kernel when not given.
        output_axes: axes that are outputs, likewise.
        blocks: matrices packed along the last axis (gates), a count.

    Raises:
        SchemeError: the weight is no matrix (for convolutions there is `dirac`).

    Example:
        >>> bool((np.asarray(Identity()((3, 3))) == np.eye(3)).all())
        True
    """

    def __init__(
        self,
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        blocks: int = 1,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, 1.0, blocks, seed=0)

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the identity."""
        lie = self.matrices(shape)
        if lie.taps:
            raise SchemeError(
                f"Expected a matrix. Received the shape {shape} of a convolution kernel: use 'autoinit>dirac'."
            )
        stack = np.broadcast_to(np.eye(lie.rows, lie.columns, dtype=dtype), (lie.number, lie.rows, lie.columns))
        return self._scaled(lie.weight(stack))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return without(super().get_config(), "fan_divisor", "seed")


@register("dirac")
class Dirac(_MatrixScheme):
    """The identity of a convolution: one at the centre tap, channel by channel.

    When to use: convolutions that should start by passing their input on.

    Formula: `K[centre, i, i] = gain`, zero elsewhere (Zagoruyko and Komodakis 2017, arXiv
    1706.00388); within each group, if there are several. With an even side the tap that Keras's
    `padding="same"` lays over the pixel itself counts as the centre.

    Args:
        gain: the number at the centre, or the name of an activation.
        groups: groups of the convolution, a count.
        input_axes: axes that are inputs, taps among them; a convolution's when not given.
        output_axes: axes that are outputs, taps among them, likewise.

    Raises:
        SchemeError: the weight is no convolution kernel (for matrices there is `identity`).

    Example:
        >>> kernel = np.asarray(Dirac()((3, 3, 2, 2)))
        >>> bool((kernel[1, 1] == np.eye(2)).all()), float(kernel.sum())
        (True, 2.0)
    """

    def __init__(
        self,
        gain: float | str = 1.0,
        groups: int = 1,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, 1.0, count("groups", groups), seed=0)

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the kernel."""
        lie = self.matrices(shape)
        taps = convolution_taps(self, lie)
        stack = np.zeros((lie.number, *taps, lie.rows, lie.columns), dtype)
        centre: Any = (slice(None), *((length - 1) // 2 for length in taps))
        stack[centre] = np.eye(lie.rows, lie.columns, dtype=dtype)
        return self._scaled(lie.weight(stack))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {"groups": self.blocks, **without(super().get_config(), "fan_divisor", "blocks", "seed")}


@register("sparse")
class Sparse(_MatrixScheme):
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


def convolution_taps(scheme: AxesScheme, lie: Matrices) -> tuple[int, ...]:
    """Returns the sides of a convolution kernel, or raises `SchemeError`."""
    if not lie.taps:
        raise SchemeError(
            f"Expected the kernel of a convolution, of three or more dimensions, for {type(scheme).__name__}. "
            f"Received the shape {lie.shape}: use 'autoinit>orthogonal' or 'autoinit>identity'."
        )
    return lie.lengths(lie.taps)


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """Returns a configuration without these entries."""
    return {key: value for key, value in config.items() if key not in names}
