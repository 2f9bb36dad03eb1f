"""Signals as the windows of a convolution meet them, and gradients as these hand them back."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from keras_autoinit.rules.base import Context
from keras_autoinit.rules.pulls import beyond_distance, pulls_through
from keras_autoinit.signals import FARTHEST, Near, Signal
from keras_autoinit.taps import Taps, by_distance, in_common, stride_of, taps_met


def through_windows(signal: Signal, taps: dict[int, Taps]) -> Signal:
    """Returns the signal as the outputs' positions see it: with as much of it as their taps meet."""
    made, share = _met(signal, taps)
    return dataclasses.replace(made, near=_near_through(signal, taps, share))


def _met(signal: Signal, taps: dict[int, Taps]) -> tuple[Signal, float]:
    """Returns what taps meet of a signal, but for how neighbours agree, and how much of it that is."""
    profile = list(signal.profile or (None,) * len(signal.along))
    share = 1.0
    for axis, (matrix, *_) in taps.items():
        if not matrix.size:
            # Nothing comes out, or nothing goes in.
            continue
        known = profile[axis] is not None and len(profile[axis]) == matrix.shape[1]
        seen = matrix @ profile[axis] if known else matrix.sum(1)
        size = seen.mean()
        share *= float(size)
        profile[axis] = None if np.ptp(seen) == 0 else seen / size
    kept = tuple(profile) if any(one is not None for one in profile) else ()
    left, patterns = in_common([common for _, common, _ in taps.values()])
    along, apart = (
        tuple(share * value * (left if axis in taps else 1.0) for axis, value in enumerate(values))
        for values in (signal.along, signal.apart)
    )
    patterns = signal.patterns if patterns is None else patterns
    second_moment, mean = share * signal.second_moment, share * signal.mean
    return Signal(second_moment, mean, along, profile=kept, apart=apart, patterns=patterns), share


def _near_through(signal: Signal, taps: dict[int, Taps], share: float) -> Near | None:
    """Returns how far windows agree by their distance: as the entries that the same tap meets, if it is inside both."""
    known = {} if signal.near is None else dict(zip(signal.near.axes, signal.near.same.shape))
    both = {axis: by_distance(common)[:FARTHEST] for axis, (_, common, _) in taps.items()}
    if (not known and not both) or any(len(one) == 0 or one[0] <= 0 for one in both.values()):
        return None
    axes = sorted({*known, *both})
    # Entries are as far apart as the windows, times the stride.
    strides = {axis: stride_of(taps[axis][0]) for axis in both}
    distances = [np.arange(len(both.get(axis, range(known.get(axis, 0))))) * strides.get(axis, 1) for axis in axes]
    inside = math.prod(np.ix_(*(both[axis] / both[axis][0] if axis in both else np.ones(known[axis]) for axis in axes)))
    same, other = (share * inside * signal.by_distance(axes, distances, apart) for apart in (False, True))
    made = Near(tuple(axes), same, other, pulls_through(signal, taps, axes))
    if set(axes) != set(taps) or any(len(matrix) > len(matrix.T) for matrix, *_ in taps.values()):
        return made
    more = beyond_distance(signal, made, taps, share * np.asarray(inside), distances)
    return dataclasses.replace(made, other=other + more)


def back_through_windows(gradient: Signal | None, taps: dict[int, Taps]) -> Signal | None:
    """Returns the gradient as the inputs' positions get it."""
    if gradient is None or not taps:
        return gradient
    turned = {axis: (matrix.T, back, common) for axis, (matrix, common, back) in taps.items()}
    made, share = _met(gradient, turned)
    # How neighbours agree is followed from where a map was made larger: everywhere else the taps of a kernel,
    # which are independent, leave little of it.
    return made if gradient.near is None else dataclasses.replace(made, near=_near_through(gradient, turned, share))


def taps_of(context: Context) -> dict[int, Taps]:
    """Returns, for each axis of positions, the share of each output's taps that meets each input."""
    layer, shape, made = context.layer, context.shape_in(), context.shape_out()
    if not shape or not made:
        return {}
    kernel, strides, rates = (
        each(value, layer.rank) for value in (layer.kernel_size, layer.strides, layer.dilation_rate)
    )
    return {
        axis: taps_met(
            shape[axis], made[axis], kernel[i], strides[i], rates[i], layer.padding, _held(context.signal, axis)
        )
        for i, axis in enumerate(spatial(layer))
        if kernel[i] > 1 or strides[i] > 1
    }


def transposed_taps_of(context: Context) -> dict[int, Taps]:
    """The same for a transposed convolution, which is another one read backwards.

    An output meets `taps / stride` inputs on average: that many make up the fan-in.
    """
    layer, shape, made = context.layer, context.shape_in(), context.shape_out()
    if not shape or not made:
        return {}
    kernel, strides, rates = (
        each(value, layer.rank) for value in (layer.kernel_size, layer.strides, layer.dilation_rate)
    )
    found = {}
    for i, axis in enumerate(spatial(layer)):
        matrix, common, back = taps_met(made[axis], shape[axis], kernel[i], strides[i], rates[i], layer.padding)
        found[axis] = (matrix.T * strides[i], back, common)
    return found


def _held(signal: Signal, axis: int) -> tuple[bool, ...] | None:
    """Returns where along an axis a signal is not zero; `None` for everywhere."""
    profile = signal.profile[axis] if signal.profile else None
    return None if profile is None or profile.all() else tuple((profile > 0).tolist())


def spatial(layer: Any) -> range:
    """Returns the axes of the positions."""
    return range(2, 2 + layer.rank) if layer.data_format == "channels_first" else range(1, 1 + layer.rank)


def unit_axis(layer: Any) -> int:
    """Returns the axis of a layer's units."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def each(value: Any, rank: int) -> tuple[int, ...]:
    """Returns one number for each axis of positions."""
    return (value,) * rank if isinstance(value, int) else tuple(value)
