"""Pooling, reductions over axes, and up-sampling."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from keras_autoinit.activations import Activation, known
from keras_autoinit.averages import averaged_signal, in_window
from keras_autoinit.axes import sum_over
from keras_autoinit.bending import activated
from keras_autoinit.maxima import MOST_SHARED, Maximum, being_largest, maximum, uneven
from keras_autoinit.rectified import RELU, law_of
from keras_autoinit.responses import hermite_grid
from keras_autoinit.rules.base import Context, Effect, Gradients, axes_of, for_layers, for_operations, scale
from keras_autoinit.signals import FARTHEST, Near, Shape, Signal
from keras_autoinit.sizes import to_power
from keras_autoinit.sums import blended
from keras_autoinit.taps import by_distance, taps_met

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
    held = _held(context)
    windows = {axis: float(one.sum(1).mean()) for axis, one in held.items()}
    made = _near_averages(context, averaged_signal(context.signal, windows), held)
    # A gradient is shared out among the entries of its window.
    share = math.prod(float((1 / _counts(one)).mean()) for one in held.values())

    def backward(gradients: Gradients) -> Gradients:
        # Each entry is in as many windows as `count` times the outputs to the inputs: in fewer than one where windows
        # leave some out.
        gradient = scale(gradients[0], share * context.growth)
        if gradient is None:
            return (None,)
        back = _same_in_windows(gradient, windows, context.shape_in())
        squares = {axis: one / _counts(one) ** 2 for axis, one in held.items()}
        return (dataclasses.replace(back, profile=_shared_out(gradient, squares)),)

    return Effect((made,), backward)


def _near_averages(context: Context, made: Signal, held: dict[int, np.ndarray]) -> Signal:
    """Says how far averages agree by the distance of their windows: those that overlap have entries in common."""
    if len(context.shape_out()) != len(made.along) or not held:
        return made
    same, other = (_pairs_of(context.signal, held, apart) for apart in (False, True))
    along = (float(other.ravel()[0]), *made.along[1:])
    made = dataclasses.replace(made, second_moment=float(same.ravel()[0]), along=along)
    near = Near(tuple(held), same, other, _pulls(context.signal, held))
    profile = _seen(context.signal, held)
    return dataclasses.replace(made, near=near, profile=profile, patterns=context.signal.patterns)


def _pulls(signal: Signal, held: dict[int, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Returns how far windows agree with the mean of all: as what they hold does."""
    near = signal.near
    if near is None or near.axes != tuple(held):
        return ()
    found = []
    for windows, pull in zip(held.values(), near.pulls):
        known = pull if len(pull) == windows.shape[1] else np.ones(windows.shape[1])
        means = windows @ known / _counts(windows)[:, 0]
        found.append(means / means.mean())
    return tuple(found)


def _seen(signal: Signal, held: dict[int, np.ndarray]) -> tuple[Any, ...]:
    """Returns the profile of what is made of windows: the mean of what they hold."""
    found = list(signal.profile)
    for axis, windows in held.items():
        if found and found[axis] is not None:
            means = windows @ found[axis] / _counts(windows)[:, 0]
            found[axis] = means / means.mean()
    return tuple(found)


def _shared_out(gradient: Signal, shares: dict[int, np.ndarray]) -> tuple[Any, ...]:
    """Returns the profile of a gradient of whose square each entry of a window gets a share: some are in two."""
    found: list[Any] = list(gradient.profile or (None,) * len(gradient.along))
    for axis, windows in shares.items():
        known = np.ones(len(windows)) if found[axis] is None else found[axis]
        if len(known) == len(windows):
            whole = known @ windows
            found[axis] = whole / whole.mean() if np.ptp(whole) > 0 else None
    return tuple(found)


def _counts(windows: np.ndarray) -> np.ndarray:
    """Returns how many entries each window holds, as a column; one for those that hold nothing."""
    return np.asarray(np.maximum(windows.sum(1, keepdims=True), 1.0))


def _pairs_of(signal: Signal, held: dict[int, np.ndarray], other: bool = False) -> np.ndarray:
    """Returns how far the entries of two windows agree, on average, by the windows' distance on each axis."""
    shares = [_pairs(one.shape, one.tobytes()) for one in held.values()]
    found = signal.by_distance(list(held), [np.arange(one.shape[1]) for one in shares], other)
    for axis, one in enumerate(shares):
        found = np.moveaxis(np.moveaxis(found, axis, -1) @ one.T, -1, axis)
    return np.asarray(found)


@functools.lru_cache(maxsize=256)
def _pairs(shape: tuple[int, int], held: bytes) -> np.ndarray:
    """Returns, for two windows by their distance, how many pairs of their entries are how far apart.

    Args:
        shape: how many windows there are, on how many entries.
        held: for each window, one for the entries in it.
    """
    windows = np.frombuffer(held).reshape(shape)
    windows = windows / _counts(windows)
    found = []
    for distance in range(shape[1]):
        pairs = windows[:, : shape[1] - distance] @ windows[:, distance:].T
        found.append(by_distance(pairs + pairs.T if distance else pairs)[:FARTHEST])
    return np.stack(found, 1)


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
    """Takes the largest of each window; of signals side by side, each on its own."""
    joined = context.signal.joined
    if joined is None or not context.shape_out():
        return _largest(context, _windows(context))
    axis, parts = joined
    counts = [count for count, _ in parts]
    effects = [
        _largest(dataclasses.replace(context, signals=(dataclasses.replace(one, joined=None),)), _windows(context))
        for _, one in parts
    ]
    each = [effect.outputs[0] for effect in effects]
    made = blended(each, [count / sum(counts) for count in counts])
    whole = np.repeat([one.second_moment for one in each], counts)
    profile = [None if i != axis or whole.mean() <= 0 else whole / whole.mean() for i in range(len(made.along))]
    made = dataclasses.replace(made, profile=tuple(profile), joined=(axis, tuple(zip(counts, each))))

    def backward(gradients: Gradients) -> Gradients:
        found = [effect.backward(gradients)[0] for effect in effects]
        tilts = [one.tilt * count / sum(counts) for one, count in zip(found, counts) if one is not None]
        return (found[0] and dataclasses.replace(found[0], tilt=sum(tilts)),)

    return Effect((made,), backward)


@for_layers(*_names("GlobalMaxPooling"))
def global_max(context: Context) -> Effect:
    """Takes the largest over all positions."""
    axes, shape = _positions(context), context.shape_in()
    effect = _largest(context, {axis: float(shape[axis]) if shape else 2.0 for axis in axes})
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
    effect = _largest(context, {axis: float(shape[axis]) if shape else 2.0 for axis in axes})
    kept = bool(context.option("keepdims", False))
    return Effect((effect.outputs[0] if kept else _without(effect.outputs[0], axes),), effect.backward)


def _largest(context: Context, windows: dict[int, float]) -> Effect:
    """Takes the largest of several entries that agree in part.

    The entries are a monotone function of Gaussians with a common part: the largest is that
    function of the common part and the largest of the rest.
    """
    signal = context.signal
    function, source = signal.bent or _of_law(signal) or (_LINEAR, _without_zeros(signal))
    # How far entries agree that are of the same size.
    alike = source.alike()
    source = dataclasses.replace(source, near=source.near and source.near.changed(lambda values: values / alike))
    positions = source.along[1:-1] or source.along[:1]
    whole = max(round(math.prod(windows.values())), 1)
    far = min(max(min(positions, default=0.0) - source.mean**2, 0.0), source.variance)
    common = min(max(_in_windows(source, windows) - source.mean**2, far), source.variance)
    least = max(_in_windows(source, windows, other=True) - source.mean**2, 0.0)
    largest = maximum(function, source.mean, source.variance, common, whole)
    mean, second_moment = largest.mean, largest.second_moment
    along = [float(largest.between(least)), *[float(largest.between(far))] * max(len(signal.along) - 2, 0), mean**2]
    made = Signal(second_moment, mean, tuple(along[: len(signal.along)]))
    made = dataclasses.replace(made, near=_near_largest(context, source, largest))
    held = _held(context)
    if made.near is not None:
        made = dataclasses.replace(made, profile=_seen(signal, held), patterns=signal.patterns)
    if function == RELU or signal.law is not None:
        made = dataclasses.replace(made, law=law_of(largest.quantiles, made.pairs, made.near))
    agreement = round(common / source.variance, 3) if source.variance > 1e-24 else 0.0
    sizes = _sizes(source, held)
    moments = (function, round(source.mean, 6), float(f"{source.variance:.4g}"), agreement)
    made, wins = _unevenly(made, sizes, moments, whole) if sizes else (made, held)

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None:
            return (None,)
        squares = gradient.second_moment
        if held:
            squares += max(gradient.agreement(held), 0.0) * won_by_two(held)
        back = Signal(squares * context.growth, 0.0, (0.0,) * len(signal.along))
        if wins:
            shares = {axis: one / np.maximum(one.sum(1, keepdims=True), 1e-12) for axis, one in wins.items()}
            back = dataclasses.replace(back, profile=_shared_out(gradient, shares))
        # The activation in front is met where the signal is large: a rectifier is open more often than not.
        return (dataclasses.replace(back, tilt=being_largest(agreement, whole)),)

    return Effect((made,), backward)


def won_by_two(held: dict[int, np.ndarray]) -> float:
    """Returns in how many other windows, on average, the largest entry of a window is the largest, too.

    Of entries that are alike, each of the two windows' together is as likely the largest of all as another, and then
    it is that of both if it lies in both. What comes back to it is the sum of two gradients.

    Args:
        held: for each axis and window, one for the entries in it.
    """
    return _won_by_two(tuple(one.shape for one in held.values()), tuple(one.tobytes() for one in held.values()))


@functools.lru_cache(maxsize=256)
def _won_by_two(shapes: tuple[tuple[int, int], ...], held: tuple[bytes, ...]) -> float:
    tables = [np.frombuffer(one).reshape(shape) for one, shape in zip(held, shapes)]
    shared = [by_distance(one @ one.T) for one in tables]
    often = [np.where(np.arange(len(one)) > 0, 2.0, 1.0) * np.arange(len(one), 0, -1) / len(one) for one in shared]
    both, pairs = (functools.reduce(np.multiply.outer, several) for several in (shared, often))
    whole = 2 * both.ravel()[0] - both
    return float((pairs * both / whole).sum() - 1) if both.ravel()[0] > 0 else 0.0


def _sizes(source: Signal, held: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Returns, for each axis, how large the entries of each window are, zero for those that it does not hold.

    None where no axis has entries of different size.
    """
    known = {axis: source.profile[axis] if source.profile else None for axis in held}
    if any(one is not None and len(one) != held[axis].shape[1] for axis, one in known.items()):
        return {}
    sizes = {axis: windows * (1.0 if known[axis] is None else known[axis]) for axis, windows in held.items()}
    return sizes if any(one is not None for one in known.values()) else {}


def _unevenly(
    made: Signal, sizes: dict[int, np.ndarray], moments: Any, count: int
) -> tuple[Signal, dict[int, np.ndarray]]:
    """Returns the largest of windows whose entries are of different size, and how often each entry is it."""
    wins, profile = {}, list(made.profile or (None,) * len(made.along))
    for axis, rows in sizes.items():
        side = max(round(float((rows > 0).sum(1).mean())), 1)
        others = max(round(count / side), 1)
        even = uneven(*moments, (1.0,) * side, others)
        found = [uneven(*moments, tuple(row[row > 0].round(2).tolist()), others) for row in rows]
        wins[axis] = np.zeros(rows.shape)
        wins[axis][rows > 0] = np.concatenate([one[2] for one in found])
        means, squares = (np.array([one[i] / even[i] for one in found]) for i in (0, 1))
        made, profile[axis] = _grown(made, axis, means, squares), squares / squares.mean()
    return dataclasses.replace(made, profile=tuple(profile)), wins


def _grown(made: Signal, axis: int, means: np.ndarray, squares: np.ndarray) -> Signal:
    """Returns a signal whose squares grow from place to place on an axis."""
    roots = np.sqrt(squares)
    growth, apart = float(squares.mean()), float(roots.mean() ** 2)
    along = tuple((apart if i == axis else growth) * value for i, value in enumerate(made.along))
    near = made.near
    if near is not None and axis in near.axes:
        place = near.axes.index(axis)
        pairs = by_distance(np.outer(roots, roots))[: near.same.shape[place]]
        shape = [-1 if i == place else 1 for i in range(near.same.ndim)]
        near = near.changed(lambda values: values * pairs.reshape(shape))
        pulls = [roots / roots.mean() if i == place else one for i, one in enumerate(near.pulls)]
        near = dataclasses.replace(near, pulls=tuple(pulls))
    square, mean = growth * made.second_moment, float(means.mean()) * made.mean
    return dataclasses.replace(made, second_moment=square, mean=mean, along=along, near=near)


def _near_largest(context: Context, source: Signal, largest: Maximum) -> Near | None:
    """Returns how far windows agree by their distance: those that overlap have entries in common."""
    held, sides = _held(context), _sides(context)
    count = math.prod(size for size, _ in sides.values())
    if not held or len(context.shape_out()) != len(source.along) or count > MOST_SHARED:
        return None
    pairs = _pairs_of(source, held)
    overlaps = [
        np.maximum(size - stride * np.arange(length), 0) for length, (size, stride) in zip(pairs.shape, sides.values())
    ]
    # At borders windows hold fewer entries, and share as many fewer.
    most = len(largest.within)
    shared = np.minimum(np.rint(math.prod(np.ix_(*overlaps)) * most / count).astype(int), most - 1)
    # Beside the entries that are in both, which are counted on their own.
    alike = shared / most**2
    common = np.maximum((pairs - alike * source.second_moment) / (1 - alike) - source.mean**2, 0.0)
    same = largest.between(common, shared)
    same.ravel()[0] = largest.second_moment
    other = largest.between(np.maximum(_pairs_of(source, held, other=True) - source.mean**2, 0.0))
    return Near(tuple(held), same, other, _pulls(source, held))


def _in_windows(source: Signal, windows: dict[int, float], other: bool = False) -> float:
    """Returns how far two entries of a window agree, on average, or of windows of different samples."""
    count = math.prod(windows.values())
    if source.near is None or count <= 1 or not set(windows) <= set(source.near.axes):
        return source.covariance if other else min(source.along[1:-1] or source.along[:1], default=0.0)
    if other:
        return in_window(source, windows, other)
    return (count * in_window(source, windows) - source.second_moment) / (count - 1)


def _of_law(signal: Signal) -> tuple[Activation, Signal] | None:
    """Returns the function of a Gaussian that the signal of a trunk is, and that one."""
    law = signal.law
    if law is None:
        return None
    values, rank = law.values, len(signal.along)
    function = Activation("trunk", (), lambda z: np.interp(z, hermite_grid()[0], values))
    return function, Signal(1.0, 0.0, law.correlations[:rank], apart=law.correlations[rank:], near=law.near)


def _without_zeros(signal: Signal) -> Signal:
    """Returns what stands between zeros that pad a signal: of these, windows hold fewer, not smaller, entries."""
    held = math.prod(float((one > 0).mean()) for one in signal.profile if one is not None)
    along = tuple(value / held for value in signal.along)
    return Signal(signal.second_moment / held, signal.mean / held, along) if 0 < held < 1 else signal


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


def _sides(context: Context) -> dict[int, tuple[int, int]]:
    """Returns, for each axis of positions, how long a window is and how far the next one lies; none for whole axes."""
    size, axes = context.option("pool_size"), _positions(context)
    if size is None:
        return {}
    sides = (size,) * len(axes) if isinstance(size, int) else tuple(size)
    strides = context.option("strides") or sides
    strides = (strides,) * len(axes) if isinstance(strides, int) else tuple(strides)
    return {axis: (int(side), int(stride)) for axis, side, stride in zip(axes, sides, strides)}


def _windows(context: Context) -> dict[int, float]:
    """Returns how many entries of each axis a window holds, on average."""
    return {axis: float(one.sum(1).mean()) for axis, one in _held(context).items()}


def _held(context: Context) -> dict[int, np.ndarray]:
    """Returns, for each axis, which entries each window holds."""
    shape, made, padding = context.shape_in(), context.shape_out(), context.option("padding", "valid")
    found = {}
    for axis, (side, stride) in _sides(context).items():
        if not shape or not made:
            found[axis] = np.ones((1, side))
            continue
        met, *_ = taps_met(shape[axis], made[axis], side, stride, 1, padding)
        profile = context.signal.profile[axis] if context.signal.profile else None
        # Zeros around the signal are no entries of it.
        found[axis] = ((met > 0) & (True if profile is None else profile > 0)).astype(float)
    return found
