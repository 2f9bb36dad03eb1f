"""Averages of signals: over whole axes, and over windows whose entries agree by their distance."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_autoinit.signals import FARTHEST, Signal


def averaged(signal: Signal, sizes: Mapping[int, float], apart: Sequence[int] = ()) -> float:
    """Returns the second moment of an average of this many entries on each of some axes.

    Of two averages, the product, if they stand apart on other axes.
    """
    sizes = {axis: size for axis, size in sizes.items() if size > 1}
    known = signal.near.axes if signal.near is not None and set(apart) <= {0} else ()
    near = [axis for axis in sizes if axis in known]
    # Most often all pairs go by their distance.
    ways = [] if near and sizes.keys() <= {0, *near} else _differing(sizes, apart)
    total = 0.0
    for share, axes in ways:
        if not near or not axes <= {0, *near}:
            total += share * signal.agreement(axes)
    return total + (_averaged_near(signal, sizes, near, 0 in apart) if near else 0.0)


def _differing(sizes: Mapping[int, float], apart: Sequence[int]) -> list[tuple[float, frozenset[int]]]:
    """Returns the axes on which two entries of a window may differ, beside some given ones, each with its share."""
    ways = [(1.0, frozenset(apart))]
    for axis, size in sizes.items():
        same = 1 / size
        ways = [way for share, axes in ways for way in ((share * same, axes), (share * (1 - same), axes | {axis}))]
    return ways


def _averaged_near(signal: Signal, sizes: Mapping[int, float], near: Sequence[int], apart: bool) -> float:
    """Returns the part of an average's second moment that pairs make whose agreement goes with their distance."""
    window = {axis: sizes[axis] for axis in near}
    rest = math.prod(1 / size for axis, size in sizes.items() if axis not in near and axis != 0)
    same = 0.0 if apart else 1 / sizes.get(0, 1.0)
    return rest * sum(
        share * in_window(signal, window, other) for share, other in ((same, False), (1 - same, True)) if share
    )


def in_window(signal: Signal, sizes: Mapping[int, float], other: bool = False) -> float:
    """Returns how far two entries of a window agree, on average, by their distances on axes that `near` knows."""
    near = signal.near
    assert near is not None
    far = signal.agreement({*sizes, 0} if other else sizes)
    found = (near.other if other else near.same) - far
    for axis in reversed(near.axes):
        length = found.shape[-1]
        found = found @ _distances(sizes[axis])[:length] if axis in sizes else found[..., 0]
    return far + float(found)


@functools.lru_cache(maxsize=256)
def _distances(size: float) -> np.ndarray:
    """Returns how many pairs of a run of this length are how far apart: `size - d`, either way round."""
    distances = np.arange(max(math.ceil(size), FARTHEST))
    pairs = np.maximum(size - distances, 0.0) * np.where(distances > 0, 2.0, 1.0)
    return np.asarray(pairs / pairs.sum())


def averaged_signal(signal: Signal, sizes: Mapping[int, float]) -> Signal:
    """Returns the average of entries on some axes, with all axes kept."""
    along = tuple(averaged(signal, sizes, (axis,)) for axis in range(len(signal.along)))
    apart = tuple(averaged(signal, sizes, (0, axis)) for axis in range(len(signal.apart)))
    return Signal(averaged(signal, sizes), signal.mean, along, apart=apart)
