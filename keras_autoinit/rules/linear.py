"""Layers that mix their inputs with weights: dense, convolution, embedding."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_autoinit.activations import activation
from keras_autoinit.channels import FEW, Channels, Met, Source, channels_of
from keras_autoinit.responses import SQUARES, hermite_grid, slope_beside
from keras_autoinit.rules.base import Context, Effect, Gradients, activated, coherence, for_layers, scale, slope_power
from keras_autoinit.rules.elementwise import unevenly_bent
from keras_autoinit.rules.products import weighted
from keras_autoinit.signals import FAINT, FARTHEST, Near, Signal, averaged, chance_between, constant
from keras_autoinit.sizes import Sizes, with_chance
from keras_autoinit.slots import Slot, slots_of

# Units of which one lets through more than another by less, in variance, are alike.
ALIKE = 0.004

# For one axis: how much of each output's taps meets each input, which share of the taps two outputs both have
# inside, and by which share of them two inputs both are read.
Taps = tuple[np.ndarray, np.ndarray, np.ndarray]


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
    effect = _mixed(context, slot, None, {} if alone else _taps(context))
    return _channel_by_channel(context, effect) if _is_depthwise(context.layer) else effect


def _is_depthwise(layer: Any) -> bool:
    return type(layer).__name__.startswith("Depthwise") or 1 < getattr(layer, "groups", 1) == layer.filters


def _channel_by_channel(context: Context, effect: Effect) -> Effect:
    """Says how much each channel of a depthwise convolution lets through, and passes back, and what it makes."""
    shape, channels = context.shape_out(), _channels(context)
    if channels is None or effect.before is None:
        return effect
    unit = _unit_axis(context.layer) % len(shape)

    def with_channels(made: Signal) -> Signal:
        sizes = with_chance(context.signal.sizes or {}, (id(context.call), "channels"), channels.chance / shape[unit])
        return dataclasses.replace(made.with_profile(unit, channels.through), channels=channels, sizes=sizes)

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        (back,) = effect.backward((scale(gradient, _returned(gradient, unit, channels.returned)),))
        return (back and gradient and _steered(back, gradient, context, channels),)

    before = with_channels(effect.before)
    outputs = (before,) if effect.outputs[0] is effect.before else effect.outputs
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
    signal, power = context.signal, slope_power(gradient)
    more = gradient.steered / gradient.second_moment * channels.together if gradient.second_moment > 0 else 0.0
    more = max(more, 0.0)
    if signal.bent is None or (more == 0 and power == 0):
        return scale(back, 1 + more) or back
    function, source = signal.bent
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
        tilt *= np.maximum(around, FAINT) ** (power * (1 - float(np.mean(channels.parts))))
    tilt = tilt / (weights @ tilt) + more * squares
    grown = scale(back, 1 + more)
    assert grown is not None
    return dataclasses.replace(grown, tilt=tilt / (1 + more))


def _neighbours_alike(context: Context, source: Signal) -> float:
    """Returns the correlation of two Gaussians in one window, if they are not the same."""
    layer, axes = context.layer, tuple(_spatial(context.layer))
    if source.variance <= 0:
        return 0.0
    sizes = {axis: float(size) for axis, size in zip(axes, _each(layer.kernel_size, layer.rank)) if size > 1}
    share = 1 / math.prod(sizes.values())
    near = (averaged(source, sizes) - share * source.second_moment) / (1 - share) if share < 1 else 0.0
    return min(max((near - source.mean**2) / source.variance, 0.0), 1.0)


def _channels(context: Context) -> Channels | None:
    """Returns what the channels of a depthwise convolution do; `None` where they sum over many terms."""
    layer, made, signal = context.layer, context.shape_out(), context.signal
    axes = _windows_met(context)
    if not axes or signal.second_moment <= 0 or not 2 < math.prod(_each(layer.kernel_size, layer.rank)) <= FEW:
        return None
    met: tuple[Met, ...] = tuple(tuple(map(tuple, np.sqrt(squares).round(3).tolist())) for squares, *_ in axes)
    unit, source = _unit_axis(layer) % len(made), _source(signal, tuple(_spatial(layer)))
    entries = math.prod(size for *_, size in axes)
    overlap, readers = (float(f"{one:.3g}") for one in (overlap_of(axes), _other_readers(axes)))
    return channels_of(met, overlap, entries, readers, source, made[unit], unit)


def _windows_met(context: Context) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Returns, for each axis, how large what each tap of each window meets is, where that is, and the axis's length."""
    layer, shape, made, profile = context.layer, context.shape_in(), context.shape_out(), context.signal.profile
    if not shape or not made:
        return []
    sides = [_each(value, layer.rank) for value in (layer.kernel_size, layer.strides, layer.dilation_rate)]
    found = []
    for axis, taps, stride, rate in zip(_spatial(layer), *sides):
        places, inside = windows(shape[axis], made[axis], taps, stride, rate, layer.padding)
        held = np.ones(shape[axis]) if not profile or profile[axis] is None else profile[axis]
        found.append((np.where(inside, held[np.clip(places, 0, shape[axis] - 1)], 0.0), places, shape[axis]))
    return found


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


def _other_readers(axes: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> float:
    """Returns how many other windows read an entry that one window reads, on average."""
    found = [(_entries(*one) > 0).sum(0) for one in axes]
    return math.prod(float((one**2).sum() / max(one.sum(), 1)) for one in found) - 1


def _source(signal: Signal, axes: tuple[int, ...]) -> Source:
    """Returns what the taps of a depthwise convolution meet, rounded so that layers that are alike share their laws."""
    function, gaussian = signal.bent or (activation("linear"), signal)
    whole = signal.second_moment
    alike = (gaussian.agreement(axes) - gaussian.mean**2) / gaussian.variance if gaussian.variance > 0 else 0.0
    within, over, common = (signal.agreement(pair) / whole for pair in (axes, (0,), (0, *axes)))
    numbers = (gaussian.mean, math.sqrt(gaussian.variance), min(max(alike, 0.0), 1.0), within, over, common)
    return Source(function.function, *(float(f"{number:.2g}") for number in numbers))


@for_layers("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed_convolution(context: Context) -> Effect:
    """Shares its taps out among the outputs; those beyond the border are lost."""
    (slot, *_) = slots_of(context.layer)
    return _mixed(context, slot, None, _taps_transposed(context))


@for_layers("SeparableConv1D", "SeparableConv2D")
def separable_convolution(context: Context) -> Effect:
    """Mixes the taps of each channel, then the channels."""
    depthwise, pointwise = slots_of(context.layer)
    taps = _taps(context)
    through = _through(context.read_by(pointwise), taps)
    first = context.weights.power(context.layer, depthwise, through.second_moment)
    between = dataclasses.replace(context, signals=(through.mixed(first, -1),), differences=lambda: None)
    effect = _mixed(between, pointwise, None, {})
    # The channels are mixed at the positions that come out, and the taps read back to those that went in.
    apart = _positions_lost(taps)

    def backward(gradients: Gradients) -> Gradients:
        return (_back_through(scale(effect.backward(gradients)[0], first * apart), taps),)

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
    signal, rank, shape = _through(context.read_by(slot), taps), len(context.signal.along), context.shape_out()
    unit = _unit_axis(context.layer)
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
    growth = context.growth * _positions_lost(taps)
    makes_pairs = context.weights.mirrored(context.layer, slot).makes

    def backward(gradients: Gradients) -> Gradients:
        gradient = back(gradients[0])
        if gradient is not None and makes_pairs:
            gradient = gradient.times(math.sqrt(coherence(gradient)))
        if gradient is not None and through is not None:
            gradient = scale(gradient, _returned(gradient, unit, through))
        if gradient is not None and names is not None:
            return (_renamed(gradient.times(math.sqrt(power * growth)), names[1], names[0]),)
        return (_back_through(_back(gradient, power * growth, unit, rank), taps),)

    return Effect((after,), backward, before)


def _sizes_mixed(context: Context, slot: Slot, made: Signal) -> Sizes:
    """Returns the sizes of samples behind a mixing: few units are uneven by chance.

    Of an orthogonal matrix, which keeps lengths, only if it has fewer columns than rows; of mirrored pairs,
    of which it keeps lengths through any activation, not at all.
    """
    sizes, shape = context.read_by(slot).sizes or {}, context.shape_out()
    mirrored = context.weights.mirrored(context.layer, slot)
    if len(shape) < 2 or _is_depthwise(context.layer) or mirrored.reads or mirrored.makes:
        return sizes
    lost = 1.0
    if context.weights.orthogonal:
        lost = max(1 - shape[-1] / max(_fan_in(context.layer, slot), 1.0), 0.0)
    return with_chance(sizes, (id(context.call), "mixed"), 2 * lost * chance_between(made, shape))


def _through_units(context: Context, slot: Slot, unit: int) -> np.ndarray | None:
    """Returns how much each unit lets through, with mean one, in rising order; `None` where they are alike.

    It is the square of a unit's weights: of few inputs it is uneven by chance, of orthogonal columns if
    these are more than the rows. A normalization evens it out, and the weights take off again what that
    passes back of it.
    """
    shape, mirrored = context.shape_out(), context.weights.mirrored(context.layer, slot)
    if len(shape) < 2 or _is_depthwise(context.layer) or mirrored.reads or mirrored.makes:
        return None
    terms = max(_fan_in(context.layer, slot), 1.0)
    uneven = 2 / terms * (max(1 - terms / shape[unit], 0.0) if context.weights.orthogonal else 1.0)
    return None if uneven < ALIKE else _uneven(round(uneven, 3), shape[unit])


@functools.lru_cache(maxsize=256)
def _uneven(variance: float, count: int) -> np.ndarray:
    """Returns so many numbers of this variance, with mean one, in rising order: as a logarithm, they are Gaussian."""
    z, weights, _ = hermite_grid()
    places = np.interp((np.arange(count) + 0.5) / count, np.cumsum(weights) - weights / 2, z)
    numbers = np.exp(math.sqrt(variance) * places)
    return np.asarray(numbers / numbers.mean())


def _returned(gradient: Signal | None, unit: int, through: np.ndarray) -> float:
    """Returns what weights pass back that let so much through, over what they would if all were alike."""
    known = gradient.profile[unit] if gradient is not None and gradient.profile else None
    return 1.0 if known is None else float((known * through).mean())


def _bent_inside(context: Context, signal: Signal) -> Any:
    """Applies the layer's own activation."""
    function = activation(getattr(context.layer, "activation", None))
    if function.name == "softmax":
        return weighted(signal, (len(signal.along) - 1,), context.shape_out())
    made, back = activated(signal, function)
    return unevenly_bent(context, function, signal, made), back


def _through(signal: Signal, taps: dict[int, Taps]) -> Signal:
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
    left, patterns = _in_common([common for _, common, _ in taps.values()])
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
    strides = {axis: _stride(taps[axis][0]) for axis in both}
    distances = [np.arange(len(both.get(axis, range(known.get(axis, 0))))) * strides.get(axis, 1) for axis in axes]
    inside = math.prod(np.ix_(*(both[axis] / both[axis][0] if axis in both else np.ones(known[axis]) for axis in axes)))
    same, other = (share * inside * signal.by_distance(axes, distances, apart) for apart in (False, True))
    pulls = {} if signal.near is None else dict(zip(signal.near.axes, signal.near.pulls))
    return Near(tuple(axes), same, other, tuple(_pull(pulls.get(axis), taps.get(axis)) for axis in axes))


def _pull(known: np.ndarray | None, taps: Taps | None) -> np.ndarray:
    """Returns how far windows agree with the mean of all: as far as what their taps meet does."""
    if taps is None:
        return np.ones(1) if known is None else known
    matrix = taps[0]
    seen = matrix @ (known if known is not None and len(known) == matrix.shape[1] else np.ones(matrix.shape[1]))
    return np.asarray(seen / seen.mean()) if seen.mean() > 0 else np.ones(1)


def by_distance(pairs: np.ndarray) -> np.ndarray:
    """Returns the mean of what is known of pairs, by the distance of the two."""
    places = np.arange(len(pairs))
    distances = np.abs(places[:, None] - places).ravel()
    return np.asarray(np.bincount(distances, pairs.ravel()) / np.bincount(distances))


def _stride(matrix: np.ndarray) -> int:
    """Returns how far the second window ends behind the first."""
    ends = [int(np.flatnonzero(row)[-1]) if row.any() else 0 for row in matrix[:2]]
    return max(ends[-1] - ends[0], 1)


def _positions_lost(taps: dict[int, Taps]) -> float:
    """Returns how many positions go in for each that comes out."""
    return math.prod(matrix.shape[1] / max(len(matrix), 1) for matrix, *_ in taps.values())


def _in_common(commons: list[np.ndarray]) -> tuple[float, float | None]:
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


def _back_through(gradient: Signal | None, taps: dict[int, Taps]) -> Signal | None:
    """Returns the gradient as the inputs' positions get it."""
    if gradient is None or not taps:
        return gradient
    turned = {axis: (matrix.T, back, common) for axis, (matrix, common, back) in taps.items()}
    # Of gradients, how neighbours agree is not followed.
    return _met(gradient, turned)[0]


def _back(gradient: Signal | None, factor: float, unit: int = -1, rank: int | None = None) -> Signal | None:
    """Returns the gradient before a mixing: every square is shared out among what was mixed."""
    if gradient is None:
        return None
    made = gradient.mixed(factor, unit)
    return made if rank in (None, len(made.along)) else made.with_axes([*made.along[:1], *[0.0] * (rank - 1)])


def _unit_axis(layer: Any) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


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


def _taps(context: Context) -> dict[int, Taps]:
    """Returns, for each axis of positions, the share of each output's taps that meets each input."""
    layer, shape, made = context.layer, context.shape_in(), context.shape_out()
    if not shape or not made:
        return {}
    kernel, strides, rates = (
        _each(value, layer.rank) for value in (layer.kernel_size, layer.strides, layer.dilation_rate)
    )
    return {
        axis: taps_met(
            shape[axis], made[axis], kernel[i], strides[i], rates[i], layer.padding, _held(context.signal, axis)
        )
        for i, axis in enumerate(_spatial(layer))
        if kernel[i] > 1 or strides[i] > 1
    }


def _taps_transposed(context: Context) -> dict[int, Taps]:
    """The same for a transposed convolution, which is another one read backwards.

    An output meets `taps / stride` inputs on average: that many make up the fan-in.
    """
    layer, shape, made = context.layer, context.shape_in(), context.shape_out()
    if not shape or not made:
        return {}
    kernel, strides, rates = (
        _each(value, layer.rank) for value in (layer.kernel_size, layer.strides, layer.dilation_rate)
    )
    found = {}
    for i, axis in enumerate(_spatial(layer)):
        matrix, common, back = taps_met(made[axis], shape[axis], kernel[i], strides[i], rates[i], layer.padding)
        found[axis] = (matrix.T * strides[i], back, common)
    return found


def _held(signal: Signal, axis: int) -> tuple[bool, ...] | None:
    """Returns where along an axis a signal is not zero; `None` for everywhere."""
    profile = signal.profile[axis] if signal.profile else None
    return None if profile is None or profile.all() else tuple((profile > 0).tolist())


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


def _spatial(layer: Any) -> range:
    """Returns the axes of the positions."""
    return range(2, 2 + layer.rank) if layer.data_format == "channels_first" else range(1, 1 + layer.rank)


def _each(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
