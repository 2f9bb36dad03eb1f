"""How the windows of a convolution or a pooling lie on the entries of an axis, and what they have in common."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

# For one axis: how much of each output's taps meets each input, which share of the taps two outputs both have
# inside, and by which share of them two inputs both are read.
Taps = tuple[np.ndarray, np.ndarray, np.ndarray]


def overlap_of(axes: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> float:
    """Returns how many entries two windows in different places both meet, on average over all such pairs.

    Args:
        axes: for each, the squares that each tap of each window meets, their places, and the axis's length.
    """
    shared, own, positions = 1.0, 1.0, 1
    for squares, places, size in axes:
        entries = _entries(squares, places, size)
        # Over all pairs of windows, those of a window with itself among them, and over these alone.
        shared, own = shared * float((entries.sum(0) ** 2).sum()), own * float((entries**2).sum())
        positions *= len(squares)
    return (shared - own) / (positions * (positions - 1)) if positions > 1 else 0.0


def _entries(squares: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Returns what each window of an axis meets of each entry."""
    entries = np.zeros((len(squares), size))
    met = np.nonzero(squares)
    np.add.at(entries, (met[0], places[met]), squares[met])
    return entries


def other_readers(axes: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> float:
    """Returns how many other windows read an entry that one window reads, on average."""
    found = [(_entries(*one) > 0).sum(0) for one in axes]
    return math.prod(float((one**2).sum() / max(one.sum(), 1)) for one in found) - 1


def by_distance(pairs: np.ndarray) -> np.ndarray:
    """Returns the mean of what is known of pairs, by the distance of the two."""
    places = np.arange(len(pairs))
    distances = np.abs(places[:, None] - places).ravel()
    return np.asarray(np.bincount(distances, pairs.ravel()) / np.bincount(distances))


def stride_of(matrix: np.ndarray) -> int:
    """Returns how far the second window ends behind the first."""
    ends = [int(np.flatnonzero(row)[-1]) if row.any() else 0 for row in matrix[:2]]
    return max(ends[-1] - ends[0], 1)


def positions_lost(taps: dict[int, Taps]) -> float:
    """Returns how many positions go in for each that comes out."""
    return math.prod(matrix.shape[1] / max(len(matrix), 1) for matrix, *_ in taps.values())


def in_common(commons: list[np.ndarray]) -> tuple[float, float | None]:
    """Returns how many taps of a window another one has too, and of how many patterns borders are made.

    Both windows meet a constant signal with the taps `C` that they have in common. Its pattern over
    positions is a Gaussian of covariance `H C H`, `H` taking off the mean, and the number of its
    directions that count is `(tr H C)^2 / tr (H C)^2`.
    """
    positions = math.prod(len(one) for one in commons)
    trace = math.prod(float(np.trace(one)) for one in commons)
    if positions < 2 or trace <= 0:
        return 1.0, None
    whole = math.prod(float(one.sum()) for one in commons)
    squares = math.prod(float((one**2).sum()) for one in commons)
    rows = math.prod(float((one.sum(0) ** 2).sum()) for one in commons)
    # Of two windows in different places: those in the same one go off.
    left = (whole - trace) / (positions - 1) / (trace / positions) / positions
    spread = trace - whole / positions
    energy = squares - 2 * rows / positions + (whole / positions) ** 2
    return left, spread**2 / energy if spread > 1e-9 * trace and energy > 0 else None


@functools.lru_cache(maxsize=1024)
def taps_met(
    size: int,
    made: int,
    taps: int,
    stride: int,
    rate: int,
    padding: str,
    held: tuple[bool, ...] | None = None,
) -> Taps:
    """Returns, for each window along one axis, the share of its taps that meets each entry.

    Args:
        size: length of the axis.
        made: how many windows there are.
        taps: how many taps each has.
        stride: from one window to the next.
        rate: from one tap to the next.
        padding: `"same"`, `"valid"` or `"causal"`.
        held: where the signal is not zero, if that is not everywhere.

    Returns:
        The shares; for two windows, the share of taps that are inside in both; for two entries, the
        share of taps that meet both.

    Example:
        >>> taps_met(4, 4, taps=3, stride=1, rate=1, padding="same")[0].sum(1).round(2).tolist()
        [0.67, 1.0, 1.0, 0.67]
    """
    places, inside = windows(size, made, taps, stride, rate, padding)
    matrix, meets = np.zeros((made, size)), np.zeros((size, taps))
    rows, columns = met = np.nonzero(inside)
    np.add.at(matrix, (rows, places[met]), 1 / taps)
    meets[places[met], columns] = 1.0
    if held is not None:
        inside = inside & np.array(held)[np.clip(places, 0, size - 1)]
    return matrix, inside.astype(float) @ inside.T / taps, meets @ meets.T / taps


def windows(size: int, made: int, taps: int, stride: int, rate: int, padding: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the place of each window's taps along an axis, and whether it is inside."""
    reach = (taps - 1) * rate + 1
    before = {"same": max((made - 1) * stride + reach - size, 0) // 2, "causal": reach - 1}.get(padding, 0)
    places = np.arange(made)[:, None] * stride + np.arange(taps)[None] * rate - before
    return places, (places >= 0) & (places < size)
