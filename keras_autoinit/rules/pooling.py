"""Pooling, reductions over axes, and up-sampling.

Windows are taken as apart: what two overlapping ones share is not counted as agreement.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from keras_autoinit.activations import Activation, known
from keras_autoinit.functions import error_function
from keras_autoinit.responses import hermite_grid
from keras_autoinit.rules.base import Context, Effect, Gradients, activated, axes_of, for_layers, for_operations, scale
from keras_autoinit.rules.linear import taps_met
from keras_autoinit.signals import Shape, Signal, averaged_signal, sum_over
from keras_autoinit.sizes import to_power

_D = ("1D", "2D", "3D")
_LINEAR = known("linear", {})


def _names(*stems: str) -> tuple[str, ...]:
    return tuple(stem + rank for stem in stems for rank in _D)


@for_layers(*_names("GlobalAveragePooling"))
def global_average(context: Context) -> Effect:
    """Averages over all positions."""
    return reduced(context, _positions(context), bool(context.layer.keepdims), mean=True)


@for_operations("Mean", "Sum")
def reduction(context: Context) -> Effect:
    """Averages or sums over axes."""
    axes = axes_of(context.option("axis"), len(context.signal.along))
    return reduced(context, axes, bool(context.option("keepdims", False)), type(context.layer).__name__ == "Mean")


def reduced(context: Context, axes: tuple[int, ...], keepdims: bool, mean: bool) -> Effect:
    """Averages, or sums, over whole axes."""
    shape = context.shape_in()
    sizes = {axis: float(shape[axis]) if shape else 1.0 for axis in axes}
    count = math.prod(sizes.values())
    whole = averaged_signal(context.signal, sizes)
    power = _power_of_average(context.signal, whole, sizes)
    whole = whole if mean else whole.times(count)
    whole = dataclasses.replace(whole, sizes=to_power(context.signal.sizes or {}, power))
    made = whole if keepdims else _without(whole, axes)
    factor = count**-2 if mean else 1.0
    rank = len(context.signal.along)

    def backward(gradients: Gradients) -> Gradients:
        gradient = scale(gradients[0], factor)
        return (None if gradient is None else _spread_over(gradient, axes, rank, keepdims),)

    return Effect((made,), backward)


def _power_of_average(signal: Signal, whole: Signal, sizes: dict[int, float]) -> float:
    """Returns the power of a sample's square with which that of its average goes: the mean may grow faster."""
    if signal.bent is None or not signal.sizes or whole.second_moment <= 0 or 0 in sizes:
        return 1.0
    function, source = signal.bent
    step = 1.1
    more = dataclasses.replace(source.times(math.sqrt(step)), channels=source.channels, sizes=source.sizes)
    bases = [activated(one, function)[0] for one in (source, more)]
    before, after = (averaged_signal(one, sizes).second_moment for one in bases)
    squares = bases[1].second_moment / bases[0].second_moment
    return math.log(after / before) / math.log(squares) if min(after, before) > 0 and squares > 1 else 1.0


def _without(signal: Signal, axes: tuple[int, ...]) -> Signal:
    return signal.with_axes([value for axis, value in enumerate(signal.along) if axis not in axes])


def _spread_over(gradient: Signal, axes: tuple[int, ...], rank: int, kept: bool) -> Signal:
    """Returns a gradient that is the same at every place of some axes."""
    rest = iter([value for axis, value in enumerate(gradient.along) if not (kept and axis in axes)])
    return gradient.with_axes([gradient.second_moment if axis in axes else next(rest, 0.0) for axis in range(rank)])


@for_layers(*_names("AveragePooling"))
@for_operations("AveragePool")
def average_pooling(context: Context) -> Effect:
    """Averages over windows; those at the border hold fewer entries."""
    windows = _windows(context)
    made = averaged_signal(context.signal, windows)
    count = math.prod(windows.values())

    def backward(gradients: Gradients) -> Gradients:
        # Each entry is in as many windows as `count` times the outputs to the inputs: in fewer than one where windows
        # leave some out.
        gradient = scale(gradients[0], context.growth / count)
        return (gradient and _same_in_windows(gradient, windows, context.shape_in()),)

    return Effect((made,), backward)


def _same_in_windows(gradient: Signal, windows: dict[int, float], shape: Shape) -> Signal:
    """Returns a gradient that is the same for all entries of a window: for some of those that differ in their place."""
    along = list(gradient.along)
    for axis, held in windows.items():
        near = (held - 1) / (shape[axis] - 1) if shape and shape[axis] > 1 else 0.0
        along[axis] += min(max(near, 0.0), 1.0) * (gradient.second_moment - along[axis])
    return gradient.with_axes(along)


@for_layers(*_names("MaxPooling"))
@for_operations("MaxPool")
def max_pooling(context: Context) -> Effect:
    """Takes the largest of each window."""
    effect = _largest(context, math.prod(_windows(context).values()))

    def backward(gradients: Gradients) -> Gradients:
        (gradient,) = effect.backward(gradients)
        return (gradient and dataclasses.replace(gradient, profile=_shared_out(context, gradients[0])),)

    return dataclasses.replace(effect, backward=backward)


def _shared_out(context: Context, gradient: Signal | None) -> tuple[Any, ...]:
    """Returns the profile of a gradient that each window hands to one of its entries: some are in two, some in none."""
    profile: list[Any] = [None] * len(context.signal.along)
    for axis, met in _entries_met(context).items():
        shares = met / np.maximum(met.sum(1, keepdims=True), 1e-12)
        known = gradient.profile[axis] if gradient is not None and gradient.profile else None
        found = shares.T @ (np.ones(len(met)) if known is None else known)
        profile[axis] = found / found.mean() if np.ptp(found) > 0 else None
    return tuple(profile) if any(one is not None for one in profile) else ()


@for_layers(*_names("GlobalMaxPooling"))
def global_max(context: Context) -> Effect:
    """Takes the largest over all positions."""
    axes, shape = _positions(context), context.shape_in()
    effect = _largest(context, math.prod(shape[axis] for axis in axes) if shape else 4)
    made = effect.outputs[0] if context.layer.keepdims else _without(effect.outputs[0], axes)
    rank = len(context.signal.along)

    def backward(gradients: Gradients) -> Gradients:
        (gradient,) = effect.backward(gradients)
        return (None if gradient is None else gradient.with_axes([0.0] * rank),)

    return Effect((made,), backward)


@for_operations("Max", "Amax")
def largest_over(context: Context) -> Effect:
    """Takes the largest over axes."""
    axes, shape = axes_of(context.option("axis"), len(context.signal.along)), context.shape_in()
    effect = _largest(context, math.prod(shape[axis] for axis in axes) if shape else 4)
    kept = bool(context.option("keepdims", False))
    return Effect((effect.outputs[0] if kept else _without(effect.outputs[0], axes),), effect.backward)


def _largest(context: Context, count: float) -> Effect:
    """Takes the largest of several entries that agree in part.

    The entries are a monotone function of Gaussians with a common part: the largest is that
    function of the common part and the largest of the rest.
    """
    signal = context.signal
    function, source = signal.bent or (_LINEAR, _without_zeros(signal))
    positions = source.along[1:-1] or source.along[:1]
    common = min(max(min(positions, default=0.0) - source.mean**2, 0.0), source.variance)
    least = min(max(source.covariance - source.mean**2, 0.0), common)
    whole = max(round(count), 1)
    mean, second_moment, within, between = _maximum(function, source.mean, source.variance, common, least, whole)
    along = [between, *[within] * max(len(signal.along) - 2, 0), mean**2][: len(signal.along)]
    agreement = round(common / source.variance, 3) if source.variance > 1e-24 else 0.0

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None:
            return (None,)
        back = Signal(gradient.second_moment * context.growth, 0.0, (0.0,) * len(signal.along))
        # The activation in front is met where the signal is large: a rectifier is open more often than not.
        return (dataclasses.replace(back, tilt=_being_largest(agreement, whole)),)

    return Effect((Signal(second_moment, mean, tuple(along)),), backward)


def _without_zeros(signal: Signal) -> Signal:
    """Returns what stands between zeros that pad a signal: of these, windows hold fewer, not smaller, entries."""
    held = math.prod(float((one > 0).mean()) for one in signal.profile if one is not None)
    along = tuple(value / held for value in signal.along)
    return Signal(signal.second_moment / held, signal.mean / held, along) if 0 < held < 1 else signal


@functools.lru_cache(maxsize=1024)
def _maximum(
    function: Activation, mean: float, variance: float, common: float, least: float, count: int
) -> tuple[float, float, float, float]:
    """Returns mean, second moment, and agreement between windows and between samples."""
    assert function.function is not None
    z, weights = _nodes()
    own = math.sqrt(variance - common)
    below = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    density = count * below ** (count - 1) * weights
    density /= density.sum()
    shared, shares = np.polynomial.hermite_e.hermegauss(31)
    shares = shares / shares.sum()
    level = mean + math.sqrt(common) * shared[:, None] + own * z[None]
    values = function.function(level.ravel()).reshape(level.shape)
    expected = values @ density
    first = float(shares @ expected)
    within = float(shares @ expected**2)
    # Linear in the share of the common part that samples have in common too.
    between = first**2 + (within - first**2) * (least / common if common > 1e-12 else 0.0)
    return first, float(shares @ (values**2 @ density)), within, between


@functools.lru_cache(maxsize=64)
def _being_largest(agreement: float, count: int) -> np.ndarray:
    """Returns how often an entry is the largest of so many, over how often any is, by its place on `hermite_grid`."""
    z, weights, _ = hermite_grid()
    shared, shares = np.polynomial.hermite_e.hermegauss(15)
    # What the entries have in common, given one of them, and what is left of that one.
    common = math.sqrt(agreement) * z[:, None] + math.sqrt(1 - agreement) * shared
    own = (z[:, None] - math.sqrt(agreement) * common) / math.sqrt(max(1 - agreement, 1e-6))
    often = (0.5 * (1 + error_function(own / math.sqrt(2)))) ** (count - 1) @ shares
    return np.asarray(often / (weights @ often))


@functools.cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    z = np.linspace(-8, 8, 801)
    weights = np.exp(-(z**2) / 2)
    return z, weights / weights.sum()


@for_layers(*_names("UpSampling"))
def up_sampling(context: Context) -> Effect:
    """Repeats entries, or draws lines between them: then neighbours are averaged."""
    layer, axes = context.layer, _positions(context)
    sides = dict(zip(axes, (layer.size,) * len(axes) if isinstance(layer.size, int) else layer.size))
    signal = context.signal
    if getattr(layer, "interpolation", "nearest") != "nearest":
        # The mean square of the weights of a line between two neighbours, 2/3 in the limit of many.
        share = math.prod(_line_share(int(size)) for size in sides.values())
        apart = min((signal.along[axis] for axis in axes), default=0.0)
        signal = Signal(apart + (signal.second_moment - apart) * share, signal.mean, signal.along)
    elif signal.profile:
        profile = [None if p is None else np.repeat(p, sides.get(a, 1)) for a, p in enumerate(signal.profile)]
        signal = dataclasses.replace(signal, profile=tuple(profile), bent=None)

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        return (None if gradient is None else sum_over(gradient, {a: float(s) for a, s in sides.items()}),)

    return Effect((signal,), backward)


def _line_share(size: int) -> float:
    places = (np.arange(size) + 0.5) / size - 0.5
    near = np.abs(places)
    return float(((1 - near) ** 2 + near**2).mean())


def _positions(context: Context) -> tuple[int, ...]:
    rank = len(context.signal.along)
    first = getattr(context.layer, "data_format", None) == "channels_first"
    return tuple(range(2, rank)) if first else tuple(range(1, rank - 1))


def _windows(context: Context) -> dict[int, float]:
    """Returns how many entries of each axis a window holds, on average."""
    sides = _sides(context)
    met = _entries_met(context)
    return {axis: side * float(met[axis].sum(1).mean()) if met else float(side) for axis, (side, _) in sides.items()}


def _sides(context: Context) -> dict[int, tuple[int, int]]:
    """Returns, for each axis of positions, how long a window is, and how far it is to the next one."""
    size, axes = context.option("pool_size"), _positions(context)
    sides = (size,) * len(axes) if isinstance(size, int) else tuple(size)
    strides = context.option("strides") or sides
    strides = (strides,) * len(axes) if isinstance(strides, int) else tuple(strides)
    return {axis: (int(side), int(stride)) for axis, side, stride in zip(axes, sides, strides)}


def _entries_met(context: Context) -> dict[int, np.ndarray]:
    """Returns, for each axis, the share of each window's places at which it meets each entry; none without shapes.

    Zeros around the signal are no entries of it.
    """
    shape, made, profile = context.shape_in(), context.shape_out(), context.signal.profile
    if not shape or not made:
        return {}
    found = {}
    for axis, (side, stride) in _sides(context).items():
        met, *_ = taps_met(shape[axis], made[axis], side, stride, 1, context.option("padding", "valid"))
        held = profile[axis] if profile else None
        found[axis] = met if held is None else met * (held > 0)
    return found
