"""Maps made larger or smaller: entries repeated, or lines drawn between neighbours."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from keras_autoinit.axes import sum_over
from keras_autoinit.rules.base import Context, Effect, Gradients, for_layers, for_operations, positions_of
from keras_autoinit.signals import FARTHEST, Near, Signal

LINES, REPEATED = "bilinear", "nearest"


@for_layers("UpSampling1D", "UpSampling2D", "UpSampling3D", "Resizing")
@for_operations("Resize")
def resize(context: Context) -> Effect | None:
    """Sums neighbours by where a new entry lies between them; what agrees more at small distances is larger there."""
    matrices = _matrices(context)
    if matrices is None:
        return None
    signal = _through(context.signal, matrices)
    lines = context.option("interpolation", REPEATED) == LINES

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None:
            return (None,)
        growth = {axis: len(one) / one.shape[1] for axis, one in matrices.items()}
        summed = sum_over(gradient, growth)
        found = _through(gradient, {axis: one.T for axis, one in matrices.items()})
        return (dataclasses.replace(summed, second_moment=found.second_moment, near=found.near),)

    if not lines:
        # Repeated entries are what they were.
        signal = dataclasses.replace(context.signal, near=signal.near, profile=signal.profile)
    return Effect((signal,), backward)


def _matrices(context: Context) -> dict[int, np.ndarray] | None:
    """Returns, for each axis, with what weights each new entry sums up the old ones; `None` where that is not known."""
    given, made = context.shape_in(), context.shape_out()
    how = context.option("interpolation", REPEATED)
    cut = any(context.option(name) for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"))
    if not given or len(given) != len(made) or how not in (LINES, REPEATED) or cut:
        return None
    sides = [axis for axis in range(1, len(given)) if axis in positions_of(context)]
    return {axis: _weights(given[axis], made[axis], how == LINES) for axis in sides}


@functools.lru_cache(maxsize=256)
def _weights(given: int, made: int, lines: bool) -> np.ndarray:
    """Returns a row for each new entry, with its weights on the old ones: centres lie on each other, borders hold."""
    places = (np.arange(made) + 0.5) * given / made - (0.5 if lines else 0.0)
    below = np.clip(np.floor(places), 0, given - 1).astype(int)
    found = np.zeros((made, given))
    share = np.clip(places - below, 0.0, 1.0) if lines else np.zeros(made)
    np.add.at(found, (np.arange(made), below), 1 - share)
    np.add.at(found, (np.arange(made), np.minimum(below + 1, given - 1)), share)
    return found


def _through(signal: Signal, matrices: dict[int, np.ndarray]) -> Signal:
    """Returns what weighted sums over each axis make of a signal."""
    axes = tuple(matrices)
    distances = [np.arange(one.shape[1]) for one in matrices.values()]
    given = [signal.by_distance(axes, distances, apart) for apart in (False, True)]
    profile, share = _profile(signal, matrices, given[0])
    same, other = (share * _carried(one, list(matrices.values())) for one in given)
    near = Near(axes, same, other)
    return dataclasses.replace(
        signal, second_moment=float(same.flat[0]), near=near, bent=None, law=None, joined=None, profile=profile
    )


def _carried(table: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Returns `E x x'` of sums by their distances, from that of what is summed by theirs."""
    for axis, matrix in enumerate(matrices):
        pairs = _pairs(matrix.tobytes(), matrix.shape)
        table = np.moveaxis(np.tensordot(pairs, np.moveaxis(table, axis, 0), 1), 0, axis)
    return table


@functools.lru_cache(maxsize=256)
def _pairs(matrix: bytes, shape: tuple[int, int]) -> np.ndarray:
    """Returns by what weight pairs of old entries at each distance count in pairs of new ones at each distance."""
    weights = np.frombuffer(matrix).reshape(shape)
    rows, columns = shape
    distance = np.abs(np.subtract.outer(np.arange(columns), np.arange(columns))).ravel()
    found = []
    for apart in range(min(rows, FARTHEST + 1)):
        pairs = weights[: rows - apart].T @ weights[apart:] / (rows - apart)
        found.append(np.bincount(distance, pairs.ravel(), columns))
    return np.array(found)


def _profile(signal: Signal, matrices: dict[int, np.ndarray], table: np.ndarray) -> tuple[tuple[Any, ...], float]:
    """Returns how sums are spread over each axis, and how much larger they are for counting large entries more.

    Where a line ends there is one neighbour less to average with.
    """
    found, share = list(signal.profile or (None,) * len(signal.along)), 1.0
    for place, (axis, matrix) in enumerate(matrices.items()):
        own = found[axis]
        known = own is not None and len(own) == matrix.shape[1]
        roots = np.sqrt(own) if known and own is not None else np.ones(matrix.shape[1])
        alike = np.moveaxis(table, place, 0).reshape(len(roots), -1)[:, 0] / max(table.flat[0], 1e-300)
        pairs = alike[np.abs(np.subtract.outer(np.arange(len(roots)), np.arange(len(roots))))]
        new, even = (((matrix @ one) * matrix).sum(1) for one in (pairs * np.outer(roots, roots), pairs))
        share *= float(new.mean() / even.mean()) if even.mean() > 0 else 1.0
        found[axis] = new / new.mean() if new.mean() > 0 and np.ptp(new) > 1e-6 * new.mean() else None
    return tuple(found) if any(one is not None for one in found) else (), share
