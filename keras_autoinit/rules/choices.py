"""Choices: the largest of several, and which they were, as experts are chosen in a mixture."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from keras_autoinit.graphs import Call
from keras_autoinit.rules.base import Context, Effect, Gradients, for_operations, scale
from keras_autoinit.signals import Signal

# Draws over which the average over rows is taken; fixed, so that every plan is the same.
DRAWS = 4096
# What is chosen passes through these as it is.
_PASSING = {"Cast", "StopGradient"}


@for_operations("TopK")
def top_k(context: Context) -> Effect:
    """Takes the largest few of a row: of Gaussians, or of positive numbers such as a soft-max makes."""
    signal, shape, few = context.signal, context.shape_in(), context.layer.k
    count = shape[-1] if shape else few
    spread = math.sqrt(signal.variance)
    ratio = spread / signal.mean if _is_positive(context) and signal.mean > 0 else 0.0
    mean, square, pair = _largest(count, few, round(ratio, 4))
    size, shift = (signal.mean, 0.0) if ratio else (spread, signal.mean)
    moments = [size**2 * one + 2 * size * shift * mean + shift**2 for one in (square, pair)]
    middle = size * mean + shift
    along = (*[middle**2] * (len(signal.along) - 1), moments[1])
    values = Signal(moments[0], middle, along)
    places = Signal(count**2 / 3, count / 2, (count**2 / 4,) * len(signal.along))

    def backward(gradients: Gradients) -> Gradients:
        return (scale(gradients[0], few / count), *[None] * (len(context.call.inputs) - 1))

    return Effect((values, places), backward)


@functools.lru_cache(maxsize=256)
def _largest(count: int, few: int, ratio: float) -> tuple[float, float, float]:
    """Returns the mean of the largest few of a row, their mean square, and the mean product of two of them.

    Args:
        count: how many there are.
        few: how many are taken.
        ratio: of positive ones with mean one, the standard deviation; zero for unit Gaussians.
    """
    rows = np.random.default_rng(0).standard_normal((DRAWS, count))
    if ratio:
        spread = math.sqrt(math.log1p(ratio**2))
        rows = np.exp(spread * rows - spread**2 / 2)
    rows = np.sort(rows, axis=1)[:, count - few :]
    square = float((rows**2).mean())
    pair = float(((rows.sum(1) ** 2).mean() / few - square) / (few - 1)) if few > 1 else square
    return float(rows.mean()), square, pair


@for_operations("OneHot")
def one_hot(context: Context) -> Effect:
    """Marks one of several, each as often as any other; of different choices in one row, never the same twice."""
    shape = context.shape_out()
    classes = context.layer.num_classes
    axis = context.option("axis", -1) % max(len(shape), 1)
    other = 1 / classes**2
    along = [0.0 if place == axis else other for place in range(len(shape))]
    row = _row_axis(context)
    if row is not None and along:
        # The mark's own axis stands before or behind that of the chosen.
        along[row + (axis <= row)] = 0.0
    nothing: Any = (None,) * len(context.call.inputs)
    return Effect((Signal(1 / classes, 1 / classes, tuple(along), sizes={}),), lambda gradients: nothing)


def _row_axis(context: Context) -> int | None:
    """Returns the axis over which indices differ because they are of different places; `None` if they may repeat."""
    maker = _made_by(context)
    return len(context.shape_in()) - 1 if maker is not None and type(maker.operation).__name__ == "TopK" else None


def _made_by(context: Context) -> Call | None:
    """Returns the call that has made what a choice is given."""
    call = context.graph.maker(context.call.inputs[0])
    while call is not None and type(call.operation).__name__ in _PASSING:
        call = context.graph.maker(call.inputs[0])
    return call


def _is_positive(context: Context) -> bool:
    """Whether a choice is among weights that a soft-max or a sigmoid has made: their logarithms are Gaussians."""
    call = _made_by(context)
    name = "" if call is None else getattr(getattr(call.operation, "activation", None), "__name__", call.name)
    return name in ("softmax", "sigmoid")
