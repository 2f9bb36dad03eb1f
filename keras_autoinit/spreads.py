"""The spread of tensors, measured where they lie and piece by piece, so that none is copied whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

# Elements that are squared at once while a spread is measured: room for a tenth of a large tensor, not for all.
PIECES = 8
SMALL = 1 << 20
# Numbers that a core's cache holds; few enough for their sum to lose nothing that matters in single precision.
CACHED = 1 << 15


def pooled_std(outputs: Sequence[Any]) -> float:
    """Returns the standard deviation of all the numbers in several tensors together.

    Example:
        >>> round(pooled_std([np.array([0.0, 2.0]), np.array([4.0])]), 4)
        1.633
    """
    made = [each for each in tree.flatten(list(outputs)) if each is not None]
    tensors = [each for each in map(ops.convert_to_tensor, made) if _is_float(each)]
    number = sum(math.prod(each.shape) for each in tensors)
    if not number:
        return math.nan
    mean = sum(_sum(piece, 0.0, 1) for each in tensors for piece in _pieces(each)) / number
    square = sum(_sum(piece, mean, 2) for each in tensors for piece in _pieces(each)) / number
    return math.sqrt(square) if math.isfinite(square) else math.nan


def _sum(piece: Any, shift: float, power: int) -> float:
    """Returns the sum of the powers of what numbers differ from `shift` by."""
    if isinstance(piece, np.ndarray):
        with np.errstate(all="ignore"):
            shifted = piece - piece.dtype.type(shift) if shift else piece
            return float(np.vdot(shifted, shifted) if power == 2 else np.sum(piece))
    shifted = ops.subtract(ops.cast(piece, "float32"), shift)
    return float(ops.sum(ops.square(shifted) if power == 2 else shifted))


def _pieces(tensor: Any) -> Iterable[Any]:
    """Cuts a large tensor, so that no second one of its size is needed.

    One that the processor holds is an array already, and nothing is compiled for its shape.
    """
    if "cpu" in str(getattr(tensor, "device", "")).lower():
        array = np.ravel(ops.convert_to_numpy(tensor))
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
        return (array[start : start + CACHED] for start in range(0, array.size, CACHED))
    length = tensor.shape[0] if len(tensor.shape) else 1
    if math.prod(tensor.shape) <= SMALL or length < PIECES:
        return (tensor,)
    step = -(-length // PIECES)
    return (tensor[start : start + step] for start in range(0, length, step))


def _is_float(tensor: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
