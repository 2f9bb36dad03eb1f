"""The numbers that describe one tensor: what a unit does over a batch, and how alike the samples are."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_autoinit.readings import Histogram

# Lower and upper bound of the activations that have both.
BOUNDS: dict[str, tuple[float, float]] = {
    "hard_sigmoid": (0.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "softsign": (-1.0, 1.0),
    "sparse_sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
}
# Activations that put out nothing for what is far enough below zero; and how much that nothing may be:
# a GELU is there at -3, where its slope is a hundredth too.
RECTIFIERS: dict[str, float] = {
    "relu": 0.0, "relu6": 0.0, "relu_squared": 0.0, "gelu": 0.01, "hard_silu": 0.01, "mish": 0.01, "silu": 0.01,
}  # fmt: skip
# How near to a bound an output counts as stuck there, as a share of the way between the bounds.
NEAR_BOUND = 0.01
# Numbers of a tensor that its histogram counts: a thousand a bin show its shape.
COUNTED, BINS = 1 << 14, 24
# Bits that a sum in single precision has over: tensors are summed in pieces of this many numbers.
PIECE = 1 << 16


def array_of(tensor: Any) -> np.ndarray:
    """Returns a tensor as an array of float32 or float64, without a copy where it is one."""
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def sums(array: np.ndarray) -> tuple[float, float]:
    """Returns the mean and the mean square of all numbers.

    Example:
        >>> sums(np.array([1.0, 3.0]))
        (2.0, 5.0)
    """
    flat = array.reshape(-1)
    if not flat.size:
        return math.nan, math.nan
    with np.errstate(all="ignore"):
        pieces = [flat[start : start + PIECE] for start in range(0, flat.size, PIECE)]
        total = sum(map(_sum, pieces))
        square = sum(_square(piece) for piece in pieces)
    return total / flat.size, square / flat.size


def _sum(piece: np.ndarray) -> float:
    """Returns the sum, in double precision where single would overflow."""
    found = float(piece.sum())
    return found if math.isfinite(found) else float(piece.sum(dtype=np.float64))


def _square(piece: np.ndarray) -> float:
    """Returns the sum of squares, in double precision where single would overflow or lose all."""
    found = float(np.vdot(piece, piece))
    if found == 0 or not math.isfinite(found):
        piece = piece.astype(np.float64)
        found = float(np.vdot(piece, piece))
    return found


def second_moment(array: np.ndarray) -> float:
    """Returns the mean square of all numbers."""
    flat = array.reshape(-1)
    if not flat.size:
        return math.nan
    with np.errstate(all="ignore"):
        return sum(_square(flat[start : start + PIECE]) for start in range(0, flat.size, PIECE)) / flat.size


def dead_share(array: np.ndarray, axis: int = -1, nothing: float = 0.0) -> float:
    """Returns the share of units along an axis that are zero everywhere, or next below it.

    Args:
        array: what a rectifier puts out.
        axis: where its units lie.
        nothing: how far below zero counts as zero.

    Example:
        >>> dead_share(np.array([[0.0, 1.0], [0.0, 0.0]]))
        0.5
    """
    others = tuple(each for each in range(array.ndim) if each != axis % array.ndim)
    if not nothing:
        return float(np.mean(~array.any(axis=others)))
    return float(np.mean((array.max(axis=others) <= 0) & (array.min(axis=others) > -nothing)))


def saturated_share(array: np.ndarray, bounds: tuple[float, float]) -> float:
    """Returns the share of numbers near a bound.

    Example:
        >>> saturated_share(np.array([-1.0, 0.0, 0.999, 0.5]), (-1.0, 1.0))
        0.5
    """
    low, high = bounds
    near = NEAR_BOUND * (high - low)
    return float(np.mean((array <= low + near) | (array >= high - near)))


def likeness(array: np.ndarray) -> tuple[float, float] | None:
    """Returns the effective rank of the samples and the mean cosine between two of them.

    Formula: with `G` the products of the samples, `(tr G)^2 / tr G^2`, the participation ratio: `n`
    for samples at right angles to each other, one for samples along a line.

    Returns:
        `None` for one sample, or where a sample is zero, not finite, or a single number, which has no direction.

    Example:
        >>> rank, cosine = likeness(np.eye(4))
        >>> round(rank, 6), round(cosine, 6)
        (4.0, 0.0)
    """
    samples = len(array)
    if samples < 2 or array.size <= samples:
        return None
    flat = array.reshape(samples, -1)
    with np.errstate(all="ignore"):
        products = (flat @ flat.T).astype(np.float64)
        lengths = np.sqrt(np.diag(products))
        if not (np.isfinite(products).all() and (lengths > 0).all()):
            return None
        cosines = products / np.outer(lengths, lengths)
        rank = np.trace(products) ** 2 / np.sum(products**2)
    return float(rank), float((cosines.sum() - samples) / (samples * (samples - 1)))


def histogram_of(array: np.ndarray) -> Histogram | None:
    """Returns the histogram of a sample of the numbers; `None` where none of them is finite."""
    flat = array.reshape(-1)
    flat = flat[:: max(1, flat.size // COUNTED)].astype(np.float64)
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return None
    low, high = float(flat.min()), float(flat.max())
    if not high > low:
        return Histogram(low, high, (int(flat.size),))
    with np.errstate(all="ignore"):
        places = np.minimum(((flat - low) / (high - low) * BINS).astype(int), BINS - 1)
    return Histogram(low, high, tuple(int(count) for count in np.bincount(places, minlength=BINS)))


def distinct_share(array: np.ndarray, units: tuple[int, ...]) -> float | None:
    """Returns the share of units whose incoming weights no other unit has, counting one of each set of equals.

    Args:
        array: a weight.
        units: its axes along which the units lie.

    Returns:
        `None` where there is one unit only, or no axis besides.

    Example:
        >>> distinct_share(np.array([[1.0, 1.0, 2.0, 3.0]]), (1,))
        0.75
    """
    others = tuple(axis for axis in range(array.ndim) if axis not in units)
    rows = int(np.prod([array.shape[axis] for axis in others]))
    columns = np.transpose(array, (*others, *units)).reshape(rows, -1)
    if columns.shape[1] < 2 or not others:
        return None
    # Units with equal weights have an equal product with any vector, to rounding.
    vector = np.random.default_rng(0).normal(size=rows).astype(array.dtype)
    with np.errstate(all="ignore"):
        products = np.sort(vector @ columns)
    size = float(np.abs(products).max())
    if not math.isfinite(size):
        return None
    candidates = int(np.sum(np.diff(products) <= 1e-6 * size))
    if not candidates:
        return 1.0
    return len({column.tobytes() for column in np.ascontiguousarray(columns.T)}) / columns.shape[1]
