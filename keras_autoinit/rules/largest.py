"""The largest of the entries of a window, or of all."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from keras_autoinit.activations import Activation, known
from keras_autoinit.averages import in_window
from keras_autoinit.maxima import MOST_SHARED, Maximum, being_largest, maximum, uneven
from keras_autoinit.rectified import law_of
from keras_autoinit.responses import hermite_grid
from keras_autoinit.rules.base import Context, Effect, Gradients, axes_of, for_layers, for_operations, positions_of
from keras_autoinit.rules.pooling import (
    held_by,
    names_of,
    pairs_of,
    pulls_of,
    seen_by,
    shared_out,
    shares_of,
    sides_of,
    windows_of,
    without_axes,
)
from keras_autoinit.signals import Near, Signal, evened, fainter
from keras_autoinit.sums import blended
from keras_autoinit.taps import by_distance

_LINEAR = known("linear", {})


@for_layers(*names_of("MaxPooling"))
@for_operations("MaxPool")
def max_pooling(context: Context) -> Effect:
    """Takes the largest of each window; of signals side by side, each on its own."""
    joined = context.signal.joined
    if joined is None or not context.shape_out():
        return _largest(context, windows_of(context))
    axis, parts = joined
    counts = [count for count, _ in parts]
    effects = [
        _largest(dataclasses.replace(context, signals=(dataclasses.replace(one, joined=None),)), windows_of(context))
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


@for_layers(*names_of("GlobalMaxPooling"))
def global_max(context: Context) -> Effect:
    """Takes the largest over all positions."""
    axes, shape = positions_of(context), context.shape_in()
    effect = _largest(context, {axis: float(shape[axis]) if shape else 2.0 for axis in axes})
    made = effect.outputs[0] if context.layer.keepdims else without_axes(effect.outputs[0], axes)
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
    return Effect((effect.outputs[0] if kept else without_axes(effect.outputs[0], axes),), effect.backward)


def _largest(context: Context, windows: dict[int, float]) -> Effect:
    """Takes the largest of several entries that agree in part.

    The entries are a monotone function of Gaussians with a common part: the largest is that
    function of the common part and the largest of the rest.
    """
    signal = context.signal
    function, source = signal.bent or _of_law(signal) or (_LINEAR, signal)
    # How far entries agree that are of the same size.
    source = dataclasses.replace(source, near=evened(source))
    source = _without_zeros(source) if function is _LINEAR else source
    positions = source.along[1:-1] or source.along[:1]
    whole = max(round(math.prod(windows.values())), 1)
    far = min(max(min(positions, default=0.0) - source.mean**2, 0.0), source.variance)
    common = min(max(_in_windows(source, windows) - source.mean**2, far), source.variance)
    least = max(_in_windows(source, windows, other=True) - source.mean**2, 0.0)
    largest = maximum(function, source.mean, source.variance, common, whole)
    mean, second_moment = largest.mean, largest.second_moment
    along = [float(largest.between(least)), *[float(largest.between(far))] * max(len(signal.along) - 2, 0), mean**2]
    made = Signal(second_moment, mean, tuple(along[: len(signal.along)]))
    near, shared = _near_largest(context, source, largest)
    made = dataclasses.replace(made, near=near)
    held = held_by(context)
    if made.near is not None:
        made = dataclasses.replace(made, profile=seen_by(signal, held), patterns=signal.patterns)
    law = law_of(largest.quantiles, made.pairs, made.near)
    made = dataclasses.replace(made, law=dataclasses.replace(law, shared=shared))
    agreement = round(common / source.variance, 3) if source.variance > 1e-24 else 0.0
    sizes = _sizes(source, held)
    moments = (function, round(source.mean, 6), float(f"{source.variance:.4g}"), agreement)
    alike = dataclasses.replace(made, near=fainter(made)), held
    made, wins = _unevenly(made, sizes, moments, whole) if sizes else alike

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
            back = dataclasses.replace(back, profile=shared_out(gradient, shares))
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
        held = np.maximum((rows > 0).sum(1), 1)
        others = max(round(count / float(held.mean())), 1)
        # Over windows that hold more or fewer, as `made` is.
        even = np.mean([uneven(*moments, (1.0,) * int(side), others)[:2] for side in held], 0)
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
        known = near.pulls or (np.ones(1),) * len(near.axes)
        pulls = [roots / roots.mean() if i == place else one for i, one in enumerate(known)]
        near = dataclasses.replace(near, pulls=tuple(pulls))
    square, mean = growth * made.second_moment, float(means.mean()) * made.mean
    return dataclasses.replace(made, second_moment=square, mean=mean, along=along, near=near)


def _near_largest(context: Context, source: Signal, largest: Maximum) -> tuple[Near, np.ndarray] | tuple[None, None]:
    """Returns how far windows agree by their distance, and the share of their entries that they have in common."""
    held, sides = held_by(context), sides_of(context)
    count = math.prod(size for size, _ in sides.values())
    if not held or len(context.shape_out()) != len(source.along) or count > MOST_SHARED:
        return None, None
    shares = shares_of(held, held)
    pairs = pairs_of(source, shares)
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
    other = largest.between(np.maximum(pairs_of(source, shares, other=True) - source.mean**2, 0.0))
    both = shared / most
    both.ravel()[0] = 1.0
    return Near(tuple(held), same, other, pulls_of(source, held)), both


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
    shares = [1.0 if one is None else float((one > 0).mean()) for one in signal.profile]
    held = math.prod(shares)
    if not 0 < held < 1:
        return signal
    return dataclasses.replace(
        signal,
        second_moment=signal.second_moment / held,
        mean=signal.mean / held,
        along=tuple(value / held for value in signal.along),
        apart=tuple(value / held for value in signal.apart),
        near=signal.near and signal.near.times(1 / held),
        profile=tuple(one if one is None else one * share for one, share in zip(signal.profile, shares)),
    )
