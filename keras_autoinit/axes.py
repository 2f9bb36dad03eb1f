"""Axes of signals: repeated by broadcasting, summed over, split and joined."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from keras_autoinit.averages import averaged, averaged_signal
from keras_autoinit.signals import Shape, Signal


def aligned(signal: Signal, shape: Shape, wanted: Shape) -> Signal:
    """Returns a signal as broadcasting repeats it: repeated entries agree wholly."""
    missing = len(wanted) - len(shape)
    repeated = [own == 1 and other != 1 for own, other in zip(shape, wanted[missing:])]
    along = [signal.second_moment if again else value for again, value in zip(repeated, signal.along)]
    profile = [None if again else one for again, one in zip(repeated, signal.profile)]
    # Samples of what is repeated over samples are one: what differs between them differs on the other axes alone.
    one_sample = missing > 0 or repeated[:1] == [True]
    pairs = (*[signal.second_moment] * missing, *along) if one_sample else ()
    apart = [signal.along[0] if again else value for again, value in zip(repeated, signal.apart)]
    return dataclasses.replace(
        signal,
        apart=pairs or tuple(apart),
        along=(*[signal.second_moment] * missing, *along),
        joined=None,
        near=None if missing or any(repeated) else signal.near,
        profile=(*[None] * missing, *profile) if profile else (),
    )


def summed_back(gradient: Signal, shape: Shape, wanted: Shape) -> Signal:
    """Returns the gradient of what broadcasting from `wanted` to `shape` has repeated: its sum."""
    missing = len(shape) - len(wanted)
    axes = [axis for axis, size in enumerate(shape) if size > 1 and (axis < missing or wanted[axis - missing] == 1)]
    whole = sum_over(gradient, {axis: shape[axis] for axis in axes})
    return dataclasses.replace(whole.with_axes(whole.along[missing:]), sizes=gradient.sizes)


def sum_over(signal: Signal, sizes: Mapping[int, float]) -> Signal:
    """Returns the sum of entries on some axes, with all axes kept."""
    return averaged_signal(signal, sizes).times(math.prod(sizes.values())) if sizes else signal


def reshaped(signal: Signal, shape: Shape, wanted: Shape) -> Signal:
    """Returns a signal whose axes are split and joined from one shape to another."""
    if len(signal.along) != len(shape) or shape == wanted:
        return signal
    along: list[float] = []
    apart: list[float] = []
    for old, new in _groups(shape, wanted):
        along += [_joined_axes(signal, shape, old)] * len(new)
        apart += [_joined_axes(signal, shape, old, (0,))] * len(new)
    # Samples that are cut up or put together are no samples any more.
    kept = shape[:1] == wanted[:1]
    return dataclasses.replace(
        signal,
        along=tuple(along),
        profile=(),
        joined=None,
        apart=tuple(apart) if kept and signal.apart else (),
        near=None,
    )


def _joined_axes(signal: Signal, shape: Shape, axes: Sequence[int], apart: Sequence[int] = ()) -> float:
    """Returns how far entries agree that differ on an axis made of others, and on those of `apart`."""
    if len(axes) == 1:
        return signal.agreement({*axes, *apart})
    sizes = {axis: float(shape[axis]) for axis in axes}
    count = math.prod(sizes.values())
    same = signal.agreement(apart) if apart else signal.second_moment
    return (count * averaged(signal, sizes, apart) - same) / (count - 1) if count > 1 else same


def _groups(shape: Shape, wanted: Shape) -> list[tuple[list[int], list[int]]]:
    """Returns runs of axes of two shapes that hold the same number of entries."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(shape) or j < len(wanted):
        old, new = [i] if i < len(shape) else [], [j] if j < len(wanted) else []
        held, asked = (shape[i] if old else 1), (wanted[j] if new else 1)
        i, j = i + len(old), j + len(new)
        while held != asked and (i < len(shape) or j < len(wanted)):
            if (held < asked and i < len(shape)) or j >= len(wanted):
                held, i = held * shape[i], i + 1
                old.append(i - 1)
            else:
                asked, j = asked * wanted[j], j + 1
                new.append(j - 1)
        groups.append((old, new))
    return groups
