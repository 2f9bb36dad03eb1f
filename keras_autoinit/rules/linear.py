"""Layers that mix their inputs with weights: dense, convolution, embedding."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import keras
import numpy as np

from keras_autoinit.activations import activation
from keras_autoinit.rules.base import Context, Effect, Gradients, activated, for_layers
from keras_autoinit.signals import Shape, Signal, constant
from keras_autoinit.slots import Slot, slots_of


@for_layers("Dense", "EinsumDense")
def dense(context: Context) -> Effect:
    """Sums over features: the second moment times the weight's power."""
    layer, (slot, *_) = context.layer, slots_of(context.layer)
    return _mixed(context, slot, _einsum_axes(context) if isinstance(layer, keras.layers.EinsumDense) else None, 1.0)


@for_layers("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D")
def convolution(context: Context) -> Effect:
    """Sums over taps and channels; a tap beyond the border meets nothing."""
    (slot, *_) = slots_of(context.layer)
    return _mixed(context, slot, None, _inside(context))


@for_layers("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed_convolution(context: Context) -> Effect:
    """Shares its taps out among the outputs; those beyond the border are lost."""
    (slot, *_) = slots_of(context.layer)
    layer, given, made = context.layer, context.shape_in(), context.shape_out()
    reached = 1.0
    for axis, stride in zip(_spatial(layer), _each(layer.strides, layer.rank)):
        if given and made:
            reached *= given[axis] * stride / made[axis]
    return _mixed(context, slot, None, reached)


@for_layers("SeparableConv1D", "SeparableConv2D")
def separable_convolution(context: Context) -> Effect:
    """Mixes the taps of each channel, then the channels."""
    depthwise, pointwise = slots_of(context.layer)
    inside = _inside(context)
    signal = _undiluted(context.signal, context.shape_in())
    first = context.weights.power(context.layer, depthwise, inside * signal.second_moment)
    between = signal.mixed(inside * first, -1)
    narrow = dataclasses.replace(context, signals=(dataclasses.replace(between, zeros=()),))
    effect = _mixed(narrow, pointwise, None, 1.0)
    return dataclasses.replace(effect, backward=functools.partial(_scaled_after, effect.backward, inside * first))


@for_layers("Embedding")
def embedding(context: Context) -> Effect:
    """Looks rows up: samples and positions hold different words."""
    (slot, *_) = slots_of(context.layer)
    if context.call.kwargs.get("reverse"):
        return _read_back(context, slot)
    power = context.weights.power(context.layer, slot, 1.0)
    return Effect((Signal(power, 0.0, (0.0,) * max(len(context.shape_out()), 1)),), lambda gradients: (None,))


def _read_back(context: Context, slot: Slot) -> Effect:
    """The transposed table, as the head of a language model: sums over its width."""
    width = context.shape_in()[-1] if context.shape_in() else 1
    power = context.weights.power(context.layer, slot, context.signal.second_moment * width) * width
    return Effect((context.signal.mixed(power, -1),), lambda gradients: (_back(gradients[0], power * context.growth),))


def _mixed(context: Context, slot: Slot, axes: tuple[float, ...] | None, inside: float) -> Effect:
    """Mixes with one kernel, adds the bias, and applies the layer's own activation.

    Args:
        context: the call.
        slot: the kernel.
        axes: for each axis of the output, the agreement that it takes over for each unit of power;
            those of the input when not given.
        inside: the share of taps that meet the signal.
    """
    signal = _undiluted(context.signal, context.shape_in())
    power = inside * context.weights.power(context.layer, slot, inside * signal.second_moment)
    made = signal.mixed(power, -1)
    if axes is not None:
        made = made.with_axes([power * value for value in axes])
    if len(made.along) != len(context.shape_out()) and context.shape_out():
        made = made.with_axes([made.along[0] if made.along else 0.0, *[0.0] * (len(context.shape_out()) - 1)])
    before = _with_bias(context.layer, made)
    after, back = activated(before, activation(getattr(context.layer, "activation", None)))
    rank = len(context.signal.along)

    def backward(gradients: Gradients) -> Gradients:
        return (_back(back(gradients[0]), power * context.growth, rank),)

    return Effect((after,), backward, before)


def _back(gradient: Signal | None, factor: float, rank: int | None = None) -> Signal | None:
    """Returns the gradient before a mixing: every square is shared out among what was mixed."""
    if gradient is None:
        return None
    along = [factor * value for value in gradient.along]
    if along:
        along[-1] = 0.0
    if rank is not None and rank != len(along):
        along = [*along[:1], *[0.0] * (rank - 1)]
    return Signal(gradient.second_moment * factor, 0.0, tuple(along))


def _scaled_after(backward: Any, factor: float, gradients: Gradients) -> Gradients:
    return tuple(None if one is None else one.mixed(factor) for one in backward(gradients))


def _with_bias(layer: Any, signal: Signal) -> Signal:
    """Adds a bias that does not start at zero."""
    bias = getattr(layer, "bias", None)
    initializer = getattr(layer, "bias_initializer", None)
    if bias is None or isinstance(initializer, (keras.initializers.Zeros, type(None))) or not layer.built:
        return signal
    added, _ = constant(keras.ops.convert_to_numpy(bias))
    return _shifted(signal, added)


def _shifted(signal: Signal, bias: Signal) -> Signal:
    """Adds what is the same for every sample and position, and differs between units."""
    along = [value + bias.second_moment for value in signal.along]
    if along:
        along[-1] = signal.along[-1] + bias.mean**2
    return Signal(signal.second_moment + bias.second_moment, signal.mean + bias.mean, tuple(along))


def _einsum_axes(context: Context) -> tuple[float, ...]:
    """Returns the agreement along each output axis: the input's where the letter comes from there."""
    source, rest = context.layer.equation.replace(" ", "").split(",")
    output = rest.partition("->")[2]
    shape, along = context.shape_out(), context.signal.along
    if "..." in source:
        extra = len(along) - len(source.replace("...", ""))
        dots = "".join(chr(0x3B1 + i) for i in range(max(extra, 0)))
        source, output = source.replace("...", dots), output.replace("...", dots)
    letters = {letter: along[axis] for axis, letter in enumerate(source) if axis < len(along)}
    return tuple(letters.get(letter, 0.0) for letter in output)[: len(shape) or None]


def _undiluted(signal: Signal, shape: Shape) -> Signal:
    """Returns the signal without the zeros that a padding has put around it."""
    if not signal.zeros or not shape:
        return signal
    share = math.prod((size - sum(zeros)) / size for size, zeros in zip(shape, signal.zeros))
    return dataclasses.replace(signal, second_moment=signal.second_moment / share, mean=signal.mean / share,
                               along=tuple(value / share for value in signal.along), zeros=())


def _inside(context: Context) -> float:
    """Returns the share of taps that meet the signal, over all output positions."""
    layer, shape, made = context.layer, context.shape_in(), context.shape_out()
    if not shape or not made:
        return 1.0
    zeros = context.signal.zeros or ((0, 0),) * len(shape)
    share = 1.0
    for i, axis in enumerate(_spatial(layer)):
        taps, stride, rate = (
            _each(value, layer.rank)[i] for value in (layer.kernel_size, layer.strides, layer.dilation_rate)
        )
        share *= share_inside(shape[axis], made[axis], taps, stride, rate, layer.padding, zeros[axis])
    return share


@functools.lru_cache(maxsize=1024)
def share_inside(
    size: int, made: int, taps: int, stride: int, rate: int, padding: str, zeros: tuple[int, int] = (0, 0)
) -> float:
    """Returns the share of a window's taps that meet the signal along one axis.

    Args:
        size: length of the axis, padding by an earlier layer included.
        made: how many windows there are.
        taps: how many taps each has.
        stride: from one window to the next.
        rate: from one tap to the next.
        padding: `"same"`, `"valid"` or `"causal"`.
        zeros: how many entries at either end an earlier layer has put there.

    Example:
        >>> share_inside(4, 4, taps=3, stride=1, rate=1, padding="same")
        0.8333333333333334
    """
    reach = (taps - 1) * rate + 1
    before = {"same": max((made - 1) * stride + reach - size, 0) // 2, "causal": reach - 1}.get(padding, 0)
    places = np.arange(made)[:, None] * stride + np.arange(taps)[None] * rate - before
    return float(((places >= zeros[0]) & (places < size - zeros[1])).mean())


def _spatial(layer: Any) -> range:
    """Returns the axes of the positions."""
    return range(2, 2 + layer.rank) if layer.data_format == "channels_first" else range(1, 1 + layer.rank)


def _each(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
