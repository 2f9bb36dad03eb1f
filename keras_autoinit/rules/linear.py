"""Layers that mix their inputs with weights: dense, convolution, embedding."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import keras
import numpy as np

from keras_autoinit.activations import activation
from keras_autoinit.bending import activated, coherence
from keras_autoinit.laws import gaussian_places
from keras_autoinit.rules.base import Context, Effect, Gradients, for_layers, scale
from keras_autoinit.rules.depthwise import channel_by_channel, is_depthwise, returned
from keras_autoinit.rules.elementwise import unevenly_bent
from keras_autoinit.rules.products import weighted
from keras_autoinit.rules.windows import back_through_windows, taps_of, through_windows, transposed_taps_of, unit_axis
from keras_autoinit.signals import Signal, constant
from keras_autoinit.sizes import Sizes, with_chance
from keras_autoinit.slots import Slot, slots_of
from keras_autoinit.sums import chance_between
from keras_autoinit.taps import Taps, positions_lost

# Units of which one lets through more than another by less, in variance, are alike.
ALIKE = 0.004


@for_layers("Dense", "EinsumDense")
def dense(context: Context) -> Effect:
    """Sums over features: the second moment times the weight's power."""
    (slot, *_) = slots_of(context.layer)
    names = _letters(context) if isinstance(context.layer, keras.layers.EinsumDense) else None
    return _mixed(context, slot, names, {})


@for_layers("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D")
def convolution(context: Context) -> Effect:
    """Sums over taps and channels; a tap beyond the border meets nothing."""
    (slot, *_) = slots_of(context.layer)
    # Zeros beside the centre tap meet neither a neighbour nor a border.
    alone = context.layer.padding == "same" and context.weights.centred(context.layer, slot)
    effect = _mixed(context, slot, None, {} if alone else taps_of(context))
    return channel_by_channel(context, effect) if is_depthwise(context.layer) else effect


@for_layers("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed_convolution(context: Context) -> Effect:
    """Shares its taps out among the outputs; those beyond the border are lost."""
    (slot, *_) = slots_of(context.layer)
    return _mixed(context, slot, None, transposed_taps_of(context))


@for_layers("SeparableConv1D", "SeparableConv2D")
def separable_convolution(context: Context) -> Effect:
    """Mixes the taps of each channel, then the channels."""
    depthwise, pointwise = slots_of(context.layer)
    taps = taps_of(context)
    through = through_windows(context.read_by(pointwise), taps)
    first = context.weights.power(context.layer, depthwise, through.second_moment)
    between = dataclasses.replace(context, signals=(through.mixed(first, -1),), differences=lambda: None)
    effect = _mixed(between, pointwise, None, {})
    # The channels are mixed at the positions that come out, and the taps read back to those that went in.
    apart = positions_lost(taps)

    def backward(gradients: Gradients) -> Gradients:
        return (back_through_windows(scale(effect.backward(gradients)[0], first * apart), taps),)

    return dataclasses.replace(effect, backward=backward)


@for_layers("Embedding")
def embedding(context: Context) -> Effect:
    """Looks rows up: samples and positions hold different words."""
    slots = slots_of(context.layer)
    if context.call.kwargs.get("reverse"):
        return _read_back(context, slots[-1])
    entry = context.weights.power(context.layer, slots[0], 1.0) / _fan_in(context.layer, slots[0])
    # Two words are the same by chance, in a small vocabulary (two segments) often.
    same = entry / max(int(context.layer.input_dim), 1)
    along = (*[same] * max(len(context.shape_out()) - 1, 1), 0.0)
    return Effect((Signal(entry, 0.0, along),), lambda gradients: (None,))


def _read_back(context: Context, slot: Slot) -> Effect:
    """The transposed table, as the head of a language model: sums over its width."""
    width = context.shape_in()[-1] if context.shape_in() else 1
    power = context.weights.power(context.layer, slot, context.signal.second_moment) / _fan_in(context.layer, slot)
    power *= width
    return Effect((context.signal.mixed(power, -1),), lambda gradients: (_back(gradients[0], power * context.growth),))


def _fan_in(layer: Any, slot: Slot) -> float:
    variable = slot.variable(layer)
    return 1.0 if variable is None or slot.axes is None else slot.axes.fans(tuple(variable.shape))[0]


def _mixed(context: Context, slot: Slot, names: tuple[str, str] | None, taps: dict[int, Taps]) -> Effect:
    """Mixes with one kernel, adds the bias, and applies the layer's own activation.

    Args:
        context: the call.
        slot: the kernel.
        names: a letter for each axis of the input and of the output, where these differ.
        taps: for each axis of positions, how the inputs meet the outputs.
    """
    signal, rank, shape = through_windows(context.read_by(slot), taps), len(context.signal.along), context.shape_out()
    unit = unit_axis(context.layer)
    power = context.weights.power(context.layer, slot, signal.second_moment)
    made = signal.mixed(power, unit)
    if names is not None:
        made = _renamed(signal.times(math.sqrt(power)), *names)
    if shape and len(made.along) != len(shape):
        made = made.with_axes([*made.along[:1], *[0.0] * (len(shape) - 1)])
    before = dataclasses.replace(_with_bias(context.layer, made), sizes=_sizes_mixed(context, slot, made))
    through = None if names is not None else _through_units(context, slot, unit)
    if through is not None:
        before = before.with_profile(unit, through)
    after, back = _bent_inside(context, before)
    growth = context.growth * positions_lost(taps)
    makes_pairs = context.weights.mirrored(context.layer, slot).makes

    def backward(gradients: Gradients) -> Gradients:
        bent = gradient = back(gradients[0])
        if gradient is not None and makes_pairs:
            gradient = gradient.times(math.sqrt(coherence(gradient)))
        if gradient is not None and through is not None:
            gradient = scale(gradient, returned(gradient, unit, through))
        if gradient is not None and names is not None:
            mixed: Signal | None = _renamed(gradient.times(math.sqrt(power * growth)), names[1], names[0])
        else:
            mixed = back_through_windows(_back(gradient, power * growth, unit, rank), taps)
        # The layer's own activation is less steep in some samples than in others.
        return (mixed and bent and dataclasses.replace(mixed, sizes=bent.sizes),)

    return Effect((after,), backward, before)


def _sizes_mixed(context: Context, slot: Slot, made: Signal) -> Sizes:
    """Returns the sizes of samples behind a mixing: few units are uneven by chance.

    Of an orthogonal matrix, which keeps lengths, only if it has fewer columns than rows; of mirrored pairs,
    of which it keeps lengths through any activation, not at all.
    """
    sizes, shape = context.read_by(slot).sizes or {}, context.shape_out()
    if not _is_by_chance(context, slot):
        return sizes
    lost = 1.0
    if context.weights.orthogonal:
        lost = max(1 - shape[-1] / max(_fan_in(context.layer, slot), 1.0), 0.0)
    return with_chance(sizes, (id(context.call), "mixed"), 2 * lost * chance_between(made, shape))


def _is_by_chance(context: Context, slot: Slot) -> bool:
    """Whether every unit sums over many inputs by weights of its own: none that pairs share, or that taps are alone."""
    mirrored = context.weights.mirrored(context.layer, slot)
    alone = is_depthwise(context.layer) or mirrored.reads or mirrored.makes
    return len(context.shape_out()) >= 2 and not alone


def _through_units(context: Context, slot: Slot, unit: int) -> np.ndarray | None:
    """Returns how much each unit lets through, with mean one, in rising order; `None` where they are alike.

    It is the square of a unit's weights: of few inputs it is uneven by chance, of orthogonal columns if
    these are more than the rows. A normalization evens it out, and the weights take off again what that
    passes back of it.
    """
    shape = context.shape_out()
    if not _is_by_chance(context, slot):
        return None
    terms = max(_fan_in(context.layer, slot), 1.0)
    uneven = 2 / terms * (max(1 - terms / shape[unit], 0.0) if context.weights.orthogonal else 1.0)
    return None if uneven < ALIKE else _uneven(round(uneven, 3), shape[unit])


@functools.lru_cache(maxsize=256)
def _uneven(variance: float, count: int) -> np.ndarray:
    """Returns so many numbers of this variance, with mean one, in rising order: as a logarithm, they are Gaussian."""
    numbers = np.exp(math.sqrt(variance) * gaussian_places(count))
    return np.asarray(numbers / numbers.mean())


def _bent_inside(context: Context, signal: Signal) -> Any:
    """Applies the layer's own activation."""
    function = activation(getattr(context.layer, "activation", None))
    if function.name == "softmax":
        return weighted(signal, (len(signal.along) - 1,), context.shape_out())
    made, back = activated(signal, function)
    return unevenly_bent(context, function, signal, made), back


def _back(gradient: Signal | None, factor: float, unit: int = -1, rank: int | None = None) -> Signal | None:
    """Returns the gradient before a mixing: every square is shared out among what was mixed."""
    if gradient is None:
        return None
    made = gradient.mixed(factor, unit)
    return made if rank in (None, len(made.along)) else made.with_axes([*made.along[:1], *[0.0] * (rank - 1)])


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
    return Signal(
        signal.second_moment + bias.second_moment, signal.mean + bias.mean, tuple(along), profile=signal.profile
    )


def _letters(context: Context) -> tuple[str, str]:
    """Returns a letter for each axis of an einsum layer's input and output."""
    source, rest = context.layer.equation.replace(" ", "").split(",")
    output = rest.partition("->")[2]
    extra = max(len(context.signal.along) - len(source.replace("...", "")), 0)
    dots = "".join(chr(0x3B1 + i) for i in range(extra))
    return source.replace("...", dots), output.replace("...", dots)


def _renamed(signal: Signal, given: str, wanted: str) -> Signal:
    """Returns a signal with the axes that a mixing hands on; the others are made anew."""
    agreements, pairs = dict(zip(given, signal.along)), dict(zip(given, signal.apart))
    kept = bool(pairs) and given[0] == wanted[0]
    apart = tuple(pairs.get(letter, 0.0) for letter in wanted) if kept else ()
    return Signal(signal.second_moment, 0.0, tuple(agreements.get(letter, 0.0) for letter in wanted), apart=apart)
