"""How far what windows meet agrees with the mean of all: less at borders, where some taps meet nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_autoinit.averages import averaged
from keras_autoinit.signals import Near, Signal
from keras_autoinit.taps import Taps, stride_of


def pulls_through(signal: Signal, taps: Mapping[int, Taps], axes: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Returns how far each window agrees with the mean of all windows, along each of some axes."""
    return tuple(
        _normed(agreeing(taps[axis][0] * _pulls(signal, axis, taps[axis][0].shape[1])))
        if axis in taps
        else signal.pulls.get(axis, np.ones(1))
        for axis in axes
    )


def beyond_distance(
    signal: Signal, made: Near, taps: Mapping[int, Taps], inside: np.ndarray, distances: Sequence[np.ndarray]
) -> float:
    """Returns by how much more windows agree with all others than they would if that went by their distance alone.

    The mean of all windows has the square `sum_t (E m_t)^2`, of what each tap `t` meets. A tap that is beyond the
    border in some windows does not meet what is at the opposite border, where less agrees with the mean.

    Args:
        signal: that the windows meet.
        made: what is known of the windows.
        taps: for each axis of `made`, how the windows meet the entries.
        inside: by the windows' distance, how much is inside of what agrees.
        distances: those of the entries that the same tap meets.
    """
    matrices = [taps[axis][0] for axis in made.axes]
    given, after = ({axis: float(one.shape[i]) for axis, one in zip(made.axes, matrices)} for i in (1, 0))
    whole = averaged(signal, given, (0,))
    exact, alike = whole, []
    for axis, matrix, apart in zip(made.axes, matrices, distances):
        pull = _pulls(signal, axis, matrix.shape[1])
        # What stands between zeros agrees among itself.
        held = float((pull > 0).mean())
        exact *= held * float(agreeing(matrix * pull).mean()) / max(float(matrix.max(initial=0.0)), 1e-30)
        pairs, there = (np.correlate(one, one, "full")[len(one) - 1 :] for one in (held * pull, 1.0 * (pull > 0)))
        alike.append((pairs / np.maximum(there, 1))[np.minimum(apart, len(pull) - 1)])
    table = inside * whole * math.prod(np.ix_(*alike))
    by_distance = _over_pairs(made, table, after, float(table.ravel()[-1]))
    # Only pairs up to some distance are known one by one.
    known = _over_pairs(made, np.ones_like(table), after, 0.0)
    return (exact - by_distance) / known if known > 0 else 0.0


def agreeing(met: np.ndarray) -> np.ndarray:
    """Returns how far what each window's taps meet agrees with what the same taps meet in all windows.

    Of a transposed convolution, whose taps differ from window to window, as far as what they meet agrees with all.

    Args:
        met: for each window, and each entry, how far what a tap meets there agrees with the mean.

    Example:
        >>> agreeing(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])).round(2).tolist()
        [1.67, 2.33, 1.67]
    """
    if len(met) > met.shape[1] or not met.any():
        return np.asarray(met.sum(1))
    windows, entries = np.nonzero(met)
    values, taps = met[windows, entries], entries - stride_of(met) * windows
    taps -= taps.min()
    means = np.bincount(taps, values) / len(met)
    return np.bincount(windows, values * means[taps], len(met))


def _pulls(signal: Signal, axis: int, count: int) -> np.ndarray:
    """Returns how far each entry along an axis agrees with the mean of all."""
    pull = signal.pulls.get(axis)
    if pull is not None and len(pull) == count:
        return np.asarray(pull)
    profile = signal.profile[axis] if signal.profile else None
    # Zeros agree with nothing.
    return np.ones(count) if profile is None or len(profile) != count else _normed((profile > 0).astype(float))


def _over_pairs(made: Near, table: np.ndarray, sizes: Mapping[int, float], far: float) -> float:
    """Returns the mean over all pairs of windows, by a table of their distances, and what is beyond it."""
    rank = max(made.axes) + 1
    return averaged(
        Signal(0.0, 0.0, (0.0,) * rank, apart=(far,) * rank, near=made.changed(lambda _: table)), sizes, (0,)
    )


def _normed(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / values.mean()) if values.mean() > 0 else np.ones(1)
