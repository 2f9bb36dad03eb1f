"""Zeros around a map, and what is cut off at its sides: each hands back what the other does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_autoinit.joined import part_of
from keras_autoinit.rules.base import Context, Effect, Gradients, for_layers, for_operations
from keras_autoinit.signals import Near, Shape, Signal


@for_layers("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
@for_operations("Pad")
def pad(context: Context) -> Effect:
    """Sets zeros around a signal, and remembers where: the next window counts them."""
    given, made, signal = context.shape_in(), context.shape_out(), context.signal
    if not given or not made:
        return Effect((signal,), lambda gradients: gradients)
    zeros = _sides(context, len(given))

    def backward(gradients: Gradients) -> Gradients:
        gradient = _between(gradients[0], given, zeros)
        # Where there are zeros, there is nothing that the gradient could go with.
        return (gradient and gradients[0] and dataclasses.replace(gradient, radial=gradients[0].radial),)

    return Effect((_among_zeros(signal, given, zeros),), backward)


@for_layers("Cropping1D", "Cropping2D", "Cropping3D")
def crop(context: Context) -> Effect:
    """Takes off what is at the sides: of a signal among zeros, perhaps some of these."""
    given, made, signal = context.shape_in(), context.shape_out(), context.signal
    if not given or not made:
        return Effect((signal,), lambda gradients: gradients)
    sides = _sides(context, len(given))
    kept = _between(signal, made, sides)
    assert kept is not None
    return Effect(
        (dataclasses.replace(kept, bent=signal.bent),),
        lambda gradients: (gradients[0] and _among_zeros(gradients[0], made, sides),),
    )


def _among_zeros(signal: Signal, shape: Shape, sides: Sequence[tuple[int, int]]) -> Signal:
    """Returns a signal with so many zeros at the sides of each axis."""
    share = 1.0
    profile = list(signal.profile or (None,) * len(shape))
    for axis, (before, after) in enumerate(sides):
        if before or after:
            held = shape[axis] / (before + shape[axis] + after)
            share *= held
            inside = np.ones(shape[axis]) if profile[axis] is None else profile[axis]
            profile[axis] = np.pad(inside, (before, after)) / held
    return Signal(
        signal.second_moment * share,
        signal.mean * share,
        tuple(value * share for value in signal.along),
        signal.bent,
        tuple(profile),
        apart=tuple(value * share for value in signal.apart),
        patterns=signal.patterns,
        near=signal.near and _near_padded(signal.near.times(share), shape, sides),
    )


def _between(signal: Signal | None, shape: Shape, sides: Sequence[tuple[int, int]]) -> Signal | None:
    """Returns what stands between the sides of each axis."""
    for axis, (before, after) in enumerate(sides):
        if before or after:
            signal = part_of(signal, axis, before, before + shape[axis])
    return signal


def _near_padded(near: Near, shape: Shape, sides: Sequence[tuple[int, int]]) -> Near:
    """Returns how neighbours agree: as they did, and where there are zeros, with nothing."""
    found = []
    for place, axis in enumerate(near.axes):
        pull = near.pulls[place] if near.pulls and len(near.pulls[place]) == shape[axis] else np.ones(shape[axis])
        whole = np.pad(pull, sides[axis])
        found.append(whole / max(whole.mean(), 1e-30))
    return dataclasses.replace(near, pulls=tuple(found))


def _sides(context: Context, rank: int) -> tuple[tuple[int, int], ...]:
    """Returns how much an operation adds or takes off before and behind each axis."""
    if type(context.layer).__name__ == "Pad":
        width = context.layer.pad_width
        width = ((width, width),) * rank if isinstance(width, int) else width
        return tuple((int(before), int(after)) for before, after in width)
    padding = context.option("padding") or context.option("cropping")
    sides = [tuple(padding)] if isinstance(padding[0], int) else [tuple(side) for side in padding]
    first = getattr(context.layer, "data_format", None) == "channels_first"
    return ((0, 0), (0, 0), *sides) if first else ((0, 0), *sides, (0, 0))
