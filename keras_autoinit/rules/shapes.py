"""What moves entries about and changes none: reshaping, slicing, joining."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_autoinit.axes import aligned, reshaped, sum_over, summed_back
from keras_autoinit.joined import part_of, side_by_side
from keras_autoinit.rules.base import Context, Effect, Gradients, Operand, for_layers, for_operations, scale
from keras_autoinit.signals import Shape, Signal
from keras_autoinit.sums import blended


@for_layers("Flatten", "Reshape")
@for_operations("Reshape", "Ravel", "Squeeze", "ExpandDims", "SpaceToDepth", "DepthToSpace")
def reshape(context: Context) -> Effect:
    """Splits and joins axes."""
    given, made = context.shape_in(), context.shape_out()
    signal = reshaped(context.signal, given, made) if given and made else context.signal

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        return (None if gradient is None else reshaped(gradient, made, given),)

    return Effect((signal,), backward)


@for_layers("Permute")
@for_operations("Transpose", "Swapaxes", "Moveaxis")
def transpose(context: Context) -> Effect:
    """Puts the axes in another order."""
    order = _order(context)
    given = context.signal
    apart = [given.apart[axis] for axis in order] if given.apart and order[0] == 0 else []
    signal = given.with_axes([given.along[axis] for axis in order], apart)

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None:
            return (None,)
        return (gradient.with_axes([gradient.along[order.index(axis)] for axis in range(len(order))]),)

    return Effect((signal,), backward)


def _order(context: Context) -> list[int]:
    layer, rank = context.layer, len(context.signal.along)
    order = list(range(rank))
    name = type(layer).__name__
    if name == "Swapaxes":
        one, other = layer.axis1 % rank, layer.axis2 % rank
        order[one], order[other] = order[other], order[one]
        return order
    if name == "Moveaxis":
        return _moved(rank, layer.source, layer.destination)
    if name == "Transpose":
        return order[::-1] if layer.axes is None else [axis % rank for axis in layer.axes]
    return [0, *layer.dims]


def _moved(rank: int, source: Any, destination: Any) -> list[int]:
    shape = tuple(range(1, rank + 1))
    return [size - 1 for size in np.moveaxis(np.empty(shape, np.bool_), source, destination).shape]


@for_layers("Concatenate")
@for_operations("Concatenate", "Stack", "Hstack", "Vstack")
def concatenate(context: Context) -> Effect:
    """Sets signals side by side: each entry is one of them, by their lengths."""
    operands = [one for one in context.operands if one.shape or one.number is not None]
    sizes = [max(math.prod(one.shape), 1) for one in operands]
    signal = blended([one.signal for one in operands], [size / sum(sizes) for size in sizes])
    if type(context.layer).__name__ == "Stack":
        axis = context.layer.axis % (len(signal.along) + 1)
        signal = signal.with_axes([*signal.along[:axis], signal.mean**2, *signal.along[axis:]])
        return Effect((signal,), lambda gradients: (_dropped(gradients[0], axis),) * len(context.call.inputs))
    axis = context.layer.axis % len(signal.along) if signal.along and hasattr(context.layer, "axis") else None
    if axis is None or not context.shape_out() or any(len(one.shape) <= axis for one in operands):
        return Effect((signal,), lambda gradients: (gradients[0],) * len(context.call.inputs))
    return _side_by_side(operands, signal, axis)


def _side_by_side(operands: Sequence[Operand], signal: Signal, axis: int) -> Effect:
    """Joins signals, and remembers which part of the axis holds how much of the second moment."""
    ends = np.cumsum([one.shape[axis] for one in operands])
    sizes, signals = np.diff(ends, prepend=0), [one.signal for one in operands]

    def backward(gradients: Gradients) -> Gradients:
        parts = zip(operands, [0, *ends], ends)
        return tuple(part_of(gradients[0], axis, at, end) for one, at, end in parts if one.number is not None)

    made = side_by_side(signal, axis, list(zip(sizes.tolist(), signals)))
    made = dataclasses.replace(made, joined=_joined(operands, axis), bent=_bent_alike(signals, ends))
    return Effect((made,), backward)


def _bent_alike(signals: Sequence[Signal], ends: np.ndarray) -> Any:
    """Returns the activation that has made all of several signals, and what it was given; `None` if they differ."""
    bents = [one.bent for one in signals]
    if any(bent is None or bent[0] != bents[0][0] for bent in bents):
        return None
    return bents[0][0], blended([bent[1] for bent in bents], np.diff(ends, prepend=0) / ends[-1])


def _joined(operands: Sequence[Operand], axis: int) -> tuple[int, tuple[tuple[int, Signal], ...]]:
    """Returns the signals that stand side by side, those in which others do taken apart."""
    found: list[tuple[int, Signal]] = []
    for one in operands:
        inner = one.signal.joined if one.signal.joined is not None and one.signal.joined[0] == axis else None
        found += inner[1] if inner is not None else [(one.shape[axis], one.signal)]
    return axis, tuple(found)


def _dropped(gradient: Signal | None, axis: int) -> Signal | None:
    return gradient and gradient.with_axes([value for i, value in enumerate(gradient.along) if i != axis])


@for_operations("Split", "ArraySplit", "Unstack", "Chunk")
def split(context: Context) -> Effect:
    """Cuts a signal into parts of its kind."""
    signal = context.signal
    name = type(context.layer).__name__
    axis = context.layer.axis % len(signal.along) if signal.along else 0
    part = _dropped(signal, axis) if name == "Unstack" else signal
    assert part is not None

    def backward(gradients: Gradients) -> Gradients:
        known = [one for one in gradients if one is not None]
        if not known:
            return (None,)
        whole = blended(known, [1 / len(gradients)] * len(known))
        if name == "Unstack":
            whole = whole.with_axes([*whole.along[:axis], 0.0, *whole.along[axis:]])
        return (whole,)

    return Effect((dataclasses.replace(part, profile=()),) * len(context.call.outputs), backward)


@for_operations("GetItem")
def get_item(context: Context) -> Effect:
    """Takes a part of every axis."""
    key = context.call.args[1] if len(context.call.args) > 1 else context.call.kwargs.get("key")
    kept = _kept(key, len(context.signal.along))
    signal = context.signal
    made = signal.with_axes([signal.second_moment if axis is None else signal.along[axis] for axis in kept])
    share = context.growth

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None:
            return (None,)
        along = dict(zip(kept, gradient.along))
        found = [along.get(axis, 0.0) * share for axis in range(len(signal.along))]
        return (Signal(gradient.second_moment * share, 0.0, tuple(found), profile=_taken(key, context.shape_in())),)

    return Effect((made,), backward)


def _taken(key: Any, shape: Shape) -> tuple[Any, ...]:
    """Returns how a gradient is spread over each axis of which a subscript takes a part: all of it is there."""
    profile: list[Any] = []
    for part, size in zip(_parts(key, len(shape), made=False), shape):
        here = np.zeros(size)
        if isinstance(part, (int, np.integer, slice)):
            here[part] = 1.0
        profile.append(here / here.mean() if 0 < here.sum() < size else None)
    # What one sample hears and another does not is a matter of samples, not of places.
    return (None, *profile[1:]) if any(one is not None for one in profile[1:]) else ()


def _parts(key: Any, rank: int, made: bool = True) -> list[Any]:
    """Returns what a subscript says of each axis; with `None` for those that it makes, if they are wanted."""
    parts = list(key) if isinstance(key, tuple) else [key]
    used = sum(part is not None and part is not Ellipsis for part in parts)
    position = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts[position : position + 1] = [slice(None)] * (rank - used)
    return parts if made else [part for part in parts if part is not None]


def _kept(key: Any, rank: int) -> list[int | None]:
    """Returns the axes that a subscript keeps, in order; `None` for one that it makes."""
    kept: list[int | None] = []
    axis = 0
    for part in _parts(key, rank):
        if part is None:
            kept.append(None)
            continue
        if not isinstance(part, (int, np.integer)):
            kept.append(axis)
        axis += 1
    return kept


@for_operations("BroadcastTo", "Tile", "Repeat")
@for_layers("RepeatVector")
def repeat(context: Context) -> Effect:
    """Repeats entries: the copies agree wholly."""
    given, made = context.shape_in() if context.signals else (), context.shape_out()
    operand = context.operands[0]
    signal, shape = operand.signal, operand.shape or given
    if type(context.layer).__name__ == "RepeatVector" and len(signal.along) == 2:
        return Effect(
            (signal.with_axes([signal.along[0], signal.second_moment, signal.along[1]]),),
            lambda gradients: (_summed_middle(gradients[0], context.layer.n),),
        )
    result = aligned(signal, shape, made) if made else signal

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None or not context.call.inputs:
            return (None,) * len(context.call.inputs)
        # What is repeated next to itself, as the keys of grouped queries are.
        sides = [(axis, new / old) for axis, (new, old) in enumerate(zip(made, given)) if new > old > 1]
        folds = dict(sides) if len(made) == len(given) else {}
        whole = sum_over(summed_back(gradient, made, given), folds)
        return (whole, *[None] * (len(context.call.inputs) - 1))

    return Effect((result,), backward)


def _summed_middle(gradient: Signal | None, count: int) -> Signal | None:
    if gradient is None:
        return None
    square = count * gradient.second_moment + count * (count - 1) * gradient.along[1]
    return Signal(square, 0.0, (gradient.along[0] * count**2, gradient.along[2]))


@for_operations("Flip", "Roll", "Take", "TakeAlongAxis", "Slice")
def part(context: Context) -> Effect:
    """Keeps a part of the entries."""
    signal = dataclasses.replace(context.signal, profile=())
    rank = len(context.shape_out()) or len(signal.along)
    signal = signal.with_axes([*signal.along, *[0.0] * rank][:rank])
    back = len(context.signal.along)
    count = len(context.call.inputs)
    return Effect(
        (signal,),
        lambda gradients: (_padded(scale(gradients[0], context.growth), back), *[None] * (count - 1)),
    )


def _padded(gradient: Signal | None, rank: int) -> Signal | None:
    return gradient and gradient.with_axes([*gradient.along, *[0.0] * rank][:rank])
