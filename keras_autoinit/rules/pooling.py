"""Averages over windows and over axes."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from keras_autoinit.averages import averaged_signal
from keras_autoinit.bending import activated
from keras_autoinit.rules.base import (
    Context,
    Effect,
    Gradients,
    axes_of,
    for_layers,
    for_operations,
    positions_of,
    scale,
)
from keras_autoinit.signals import FARTHEST, Near, Shape, Signal, evened, powers_at
from keras_autoinit.sizes import to_power
from keras_autoinit.taps import by_distance, taps_met

_D = ("1D", "2D", "3D")


def names_of(*stems: str) -> tuple[str, ...]:
    """Returns the names of layers of one, two and three dimensions."""
    return tuple(stem + rank for stem in stems for rank in _D)


@for_layers(*names_of("GlobalAveragePooling"))
def global_average(context: Context) -> Effect:
    """Averages over all positions."""
    return reduced(context, positions_of(context), bool(context.layer.keepdims), mean=True)


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
    made = whole if keepdims else without_axes(whole, axes)
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


def without_axes(signal: Signal, axes: tuple[int, ...]) -> Signal:
    """Returns a signal without some of its axes."""
    return signal.with_axes([value for axis, value in enumerate(signal.along) if axis not in axes])


def _spread_over(gradient: Signal, axes: tuple[int, ...], rank: int, kept: bool) -> Signal:
    """Returns a gradient that is the same at every place of some axes."""
    rest = iter([value for axis, value in enumerate(gradient.along) if not (kept and axis in axes)])
    return gradient.with_axes([gradient.second_moment if axis in axes else next(rest, 0.0) for axis in range(rank)])


@for_layers(*names_of("AveragePooling"))
@for_operations("AveragePool")
def average_pooling(context: Context) -> Effect:
    """Averages over windows; those at the border hold fewer entries."""
    held = met_by(context)
    windows = {axis: float(one.sum(1).mean()) for axis, one in held.items()}
    made = _near_averages(context, averaged_signal(context.signal, windows), held)
    own, both = _shared_back(held)

    def backward(gradients: Gradients) -> Gradients:
        if gradients[0] is None:
            return (None,)
        # What the windows of one entry agree in adds up there.
        alike = max(gradients[0].agreement(held), 0.0) / max(gradients[0].second_moment, 1e-300) if held else 0.0
        gradient = gradients[0].times(math.sqrt(own + (both - own) * alike))
        back = _same_in_windows(gradient, windows, context.shape_in())
        squares = {axis: one / counts_of(one) ** 2 for axis, one in held.items()}
        return (dataclasses.replace(back, profile=shared_out(gradient, squares)),)

    return Effect((made,), backward)


def _shared_back(held: dict[int, np.ndarray]) -> tuple[float, float]:
    """Returns the factors on a squared gradient that windows share out among what they hold.

    If an entry's windows have nothing in common, and if they all have the same gradient.
    """
    shares = [one / counts_of(one) for one in held.values()]
    own = math.prod(float((one**2).sum(0).mean()) for one in shares)
    return own, math.prod(float((one.sum(0) ** 2).mean()) for one in shares)


def _near_averages(context: Context, made: Signal, held: dict[int, np.ndarray]) -> Signal:
    """Says how far averages agree by the distance of their windows: those that overlap have entries in common."""
    if len(context.shape_out()) != len(made.along) or not held:
        return made
    # Entries at faint places agree the less; among them, zeros around a signal are entries like others.
    source = dataclasses.replace(context.signal, near=evened(context.signal))
    roots = powers_at(context.signal, tuple(held), 0.5) if context.signal.profile else (np.ones(1),) * len(held)
    shares = shares_of({axis: one * root for (axis, one), root in zip(held.items(), roots)}, held)
    same, other = (pairs_of(source, shares, apart) for apart in (False, True))
    mean = math.prod(float(one.sum(1).mean() / root.mean()) for one, root in zip(shares.values(), roots)) * made.mean
    along = [float(other.ravel()[0]), *made.along[1:]]
    for place, axis in enumerate(held):
        along[axis] = _over_distances(np.moveaxis(same, place, -1).reshape(-1, same.shape[place])[0], len(held[axis]))
    made = dataclasses.replace(made, second_moment=float(same.ravel()[0]), mean=mean, along=tuple(along))
    near = Near(tuple(held), same, other, pulls_of(context.signal, held))
    profile = seen_by(context.signal, held)
    return dataclasses.replace(made, near=near, profile=profile, patterns=context.signal.patterns)


def _over_distances(table: np.ndarray, count: int) -> float:
    """Returns the mean over all pairs of this many places, by a table of their distances; of one, that of itself."""
    distances = np.arange(min(1, count - 1), count)
    return float(np.average(table[np.minimum(distances, len(table) - 1)], weights=count - distances))


def pulls_of(signal: Signal, held: dict[int, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Returns how far windows agree with the mean of all: as what they hold does."""
    near = signal.near
    if near is None or near.axes != tuple(held):
        return ()
    found = []
    for windows, pull in zip(held.values(), near.pulls):
        known = pull if len(pull) == windows.shape[1] else np.ones(windows.shape[1])
        means = windows @ known / counts_of(windows)[:, 0]
        found.append(means / means.mean())
    return tuple(found)


def seen_by(signal: Signal, held: dict[int, np.ndarray]) -> tuple[Any, ...]:
    """Returns the profile of what is made of windows: the mean of what they hold."""
    found = list(signal.profile)
    for axis, windows in held.items():
        if found and found[axis] is not None:
            means = windows @ found[axis] / counts_of(windows)[:, 0]
            found[axis] = means / means.mean()
    return tuple(found)


def shared_out(gradient: Signal, shares: dict[int, np.ndarray]) -> tuple[Any, ...]:
    """Returns the profile of a gradient of whose square each entry of a window gets a share: some are in two."""
    found: list[Any] = list(gradient.profile or (None,) * len(gradient.along))
    for axis, windows in shares.items():
        known = np.ones(len(windows)) if found[axis] is None else found[axis]
        if len(known) == len(windows):
            whole = known @ windows
            found[axis] = whole / whole.mean() if np.ptp(whole) > 0 else None
    return tuple(found)


def shares_of(entries: dict[int, np.ndarray], held: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Returns what each window's average has of each entry, for windows that hold so many."""
    return {axis: one / counts_of(held[axis]) for axis, one in entries.items()}


def counts_of(windows: np.ndarray) -> np.ndarray:
    """Returns how many entries each window holds, as a column; one for those that hold nothing."""
    return np.asarray(np.maximum(windows.sum(1, keepdims=True), 1.0))


def pairs_of(signal: Signal, shares: dict[int, np.ndarray], other: bool = False) -> np.ndarray:
    """Returns how far what two windows take of their entries agrees, by the windows' distance on each axis."""
    pairs = [_pairs(one.shape, one.tobytes()) for one in shares.values()]
    found = signal.by_distance(list(shares), [np.arange(one.shape[1]) for one in pairs], other)
    for axis, one in enumerate(pairs):
        found = np.moveaxis(np.moveaxis(found, axis, -1) @ one.T, -1, axis)
    return np.asarray(found)


@functools.lru_cache(maxsize=256)
def _pairs(shape: tuple[int, int], shares: bytes) -> np.ndarray:
    """Returns, for two windows by their distance, how many pairs of their entries are how far apart.

    Args:
        shape: how many windows there are, on how many entries.
        shares: for each window, what it takes of each entry.
    """
    windows = np.frombuffer(shares).reshape(shape)
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


def sides_of(context: Context) -> dict[int, tuple[int, int]]:
    """Returns, for each axis of positions, how long a window is and how far the next one lies; none for whole axes."""
    size, axes = context.option("pool_size"), positions_of(context)
    if size is None:
        return {}
    sides = (size,) * len(axes) if isinstance(size, int) else tuple(size)
    strides = context.option("strides") or sides
    strides = (strides,) * len(axes) if isinstance(strides, int) else tuple(strides)
    return {axis: (int(side), int(stride)) for axis, side, stride in zip(axes, sides, strides)}


def windows_of(context: Context) -> dict[int, float]:
    """Returns how many entries of each axis a window holds, on average."""
    return {axis: float(one.sum(1).mean()) for axis, one in held_by(context).items()}


def held_by(context: Context) -> dict[int, np.ndarray]:
    """Returns, for each axis, which entries each window holds: zeros around the signal are no entries of it."""
    found = met_by(context)
    for axis, one in found.items():
        profile = context.signal.profile[axis] if context.signal.profile else None
        if profile is not None and len(profile) == one.shape[1]:
            found[axis] = one * (profile > 0)
    return found


def met_by(context: Context) -> dict[int, np.ndarray]:
    """Returns, for each axis, which entries each window meets."""
    shape, made, padding = context.shape_in(), context.shape_out(), context.option("padding", "valid")
    found = {}
    for axis, (side, stride) in sides_of(context).items():
        if not shape or not made:
            found[axis] = np.ones((1, side))
            continue
        met, *_ = taps_met(shape[axis], made[axis], side, stride, 1, padding)
        found[axis] = (met > 0).astype(float)
    return found
