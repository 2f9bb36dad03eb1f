"""How the matrices of a weight lie in it, and what the schemes share that set them as a whole.

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

from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.fans import Axes
from keras_autoinit.schemes.base import AxesScheme


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


class MatrixScheme(AxesScheme):
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
