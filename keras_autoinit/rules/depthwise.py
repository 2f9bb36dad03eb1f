"""Depthwise convolutions: channels of few taps, which differ and are no Gaussians."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from keras_autoinit.activations import activation
from keras_autoinit.averages import averaged
from keras_autoinit.bending import slope_power
from keras_autoinit.channels import FEW, Channels, Met, Source, channels_of
from keras_autoinit.responses import SQUARES, hermite_grid, slope_beside
from keras_autoinit.rules.base import Context, Effect, Gradients, scale
from keras_autoinit.rules.windows import each, spatial, unit_axis
from keras_autoinit.signals import Signal
from keras_autoinit.sizes import with_chance
from keras_autoinit.sums import FAINT
from keras_autoinit.taps import other_readers, overlap_of, windows


def is_depthwise(layer: Any) -> bool:
    """Whether a convolution sums over taps alone, each channel for itself."""
    return type(layer).__name__.startswith("Depthwise") or 1 < getattr(layer, "groups", 1) == layer.filters


def channel_by_channel(context: Context, effect: Effect) -> Effect:
    """Says how much each channel of a depthwise convolution lets through, and passes back, and what it makes."""
    shape, channels = context.shape_out(), _channels(context)
    if channels is None or effect.before is None:
        return effect
    unit = unit_axis(context.layer) % len(shape)
    linear = effect.outputs[0] is effect.before

    def with_channels(made: Signal) -> Signal:
        sizes = with_chance(context.signal.sizes or {}, (id(context.call), "channels"), channels.chance / shape[unit])
        return dataclasses.replace(made.with_profile(unit, channels.through), channels=channels, sizes=sizes)

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        (back,) = effect.backward((scale(gradient, returned(gradient, unit, channels.returned)),))
        # What only makes a channel's entries larger does the same to what it makes.
        back = back and dataclasses.replace(back, radial=gradient.radial if gradient and linear else 1.0)
        return (back and gradient and _steered(back, gradient, context, channels),)

    before = with_channels(effect.before)
    outputs = (before,) if linear else effect.outputs
    return dataclasses.replace(effect, outputs=outputs, before=before, backward=backward)


def _steered(back: Signal, gradient: Signal, context: Context, channels: Channels) -> Signal:
    """Adds how what the taps that have read an entry hand back to it goes with how large that is.

    A tap `w` that meets a large entry `x` decides on the sign of what it makes, and so on how far the
    next activation lets the gradient through: `E w f'(z) = r E z f'(z)`, with `r` the correlation of
    `w` and `z`, one over the number of taps when squared. Two taps that have read the same entry then
    hand back what their positions' gradients have in common, to large entries more than to small ones.

    And it makes `z` large: where the next slope grows with it, by a power `p` of `z^2`, more comes back to
    what stands where entries are large, itself and the neighbours that the windows meet.
    """
    more = gradient.steered / gradient.second_moment * channels.together if gradient.second_moment > 0 else 0.0
    # Of one channel's windows, those let more of the gradient through that hand back more, too.
    power = slope_power(gradient)
    scaled = scale(back, (1 + max(more, 0.0)) * channels.larger**power)
    assert scaled is not None
    grown = dataclasses.replace(scaled, radial=back.radial)
    if context.signal.bent is None:
        return grown
    return dataclasses.replace(grown, tilt=_tilt(gradient, context, channels, max(more, 0.0)))


def _tilt(gradient: Signal, context: Context, channels: Channels, more: float) -> Any:
    """Returns how what comes back goes with the Gaussian that an entry was made from; `None` where it does not."""
    power = slope_power(gradient)
    if more == 0 and power == 0:
        return None
    function, source = context.signal.bent
    z, weights, polynomials = hermite_grid()
    entries = function.function(source.mean + math.sqrt(source.variance) * z)
    squares = (entries - weights @ entries) ** 2
    squares /= max(weights @ squares, 1e-24)
    tilt = np.ones_like(squares)
    if power != 0:
        steeper, made = gradient.bent
        alike = _neighbours_alike(context, source) ** np.arange(len(polynomials))
        around = (alike * (polynomials @ (weights * squares))) @ polynomials
        mean, variance = (float(f"{one:.2g}") for one in (made.mean, made.variance))
        tilt *= np.interp(squares, SQUARES, slope_beside(steeper, mean, variance, channels.parts))
        share = float(np.mean([share for share, _ in channels.parts]))
        tilt *= np.maximum(around, FAINT) ** (power * (1 - share))
    # Of what comes back, that much more goes with the squares themselves.
    return (tilt / (weights @ tilt) + more * squares) / (1 + more)


def _neighbours_alike(context: Context, source: Signal) -> float:
    """Returns the correlation of two Gaussians in one window, if they are not the same."""
    layer, axes = context.layer, tuple(spatial(context.layer))
    if source.variance <= 0:
        return 0.0
    sizes = {axis: float(size) for axis, size in zip(axes, each(layer.kernel_size, layer.rank)) if size > 1}
    share = 1 / math.prod(sizes.values())
    near = (averaged(source, sizes) - share * source.second_moment) / (1 - share) if share < 1 else 0.0
    return min(max((near - source.mean**2) / source.variance, 0.0), 1.0)


def _channels(context: Context) -> Channels | None:
    """Returns what the channels of a depthwise convolution do; `None` where they sum over many terms."""
    layer, made, signal = context.layer, context.shape_out(), context.signal
    axes = _windows_met(context)
    if not axes or signal.second_moment <= 0 or not 2 < math.prod(each(layer.kernel_size, layer.rank)) <= FEW:
        return None
    met: tuple[Met, ...] = tuple(tuple(map(tuple, np.sqrt(squares).round(3).tolist())) for squares, *_ in axes)
    unit, source = unit_axis(layer) % len(made), _source(signal, tuple(spatial(layer)))
    entries = math.prod(size for *_, size in axes)
    overlap, readers = (float(f"{one:.3g}") for one in (overlap_of(axes), other_readers(axes)))
    return channels_of(met, overlap, entries, readers, source, made[unit], unit)


def _windows_met(context: Context) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Returns, for each axis, how large what each tap of each window meets is, where that is, and the axis's length."""
    layer, shape, made, profile = context.layer, context.shape_in(), context.shape_out(), context.signal.profile
    if not shape or not made:
        return []
    sides = [each(value, layer.rank) for value in (layer.kernel_size, layer.strides, layer.dilation_rate)]
    found = []
    for axis, taps, stride, rate in zip(spatial(layer), *sides):
        places, inside = windows(shape[axis], made[axis], taps, stride, rate, layer.padding)
        held = np.ones(shape[axis]) if not profile or profile[axis] is None else profile[axis]
        found.append((np.where(inside, held[np.clip(places, 0, shape[axis] - 1)], 0.0), places, shape[axis]))
    return found


def _source(signal: Signal, axes: tuple[int, ...]) -> Source:
    """Returns what the taps of a depthwise convolution meet, rounded so that layers that are alike share their laws."""
    function, gaussian = signal.bent or (activation("linear"), signal)
    whole = signal.second_moment
    alike = (gaussian.agreement(axes) - gaussian.mean**2) / gaussian.variance if gaussian.variance > 0 else 0.0
    within, over, common = (signal.agreement(pair) / whole for pair in (axes, (0,), (0, *axes)))
    numbers = (gaussian.mean, math.sqrt(gaussian.variance), min(max(alike, 0.0), 1.0), within, over, common)
    return Source(function.function, *(float(f"{number:.2g}") for number in numbers))


def returned(gradient: Signal | None, unit: int, through: np.ndarray) -> float:
    """Returns what weights pass back that let so much through, over what they would if all were alike."""
    known = gradient.profile[unit] if gradient is not None and gradient.profile else None
    return 1.0 if known is None else float((known * through).mean())
