"""Normalizations that a model writes out by hand: a signal times one over the root of its own mean square."""

from __future__ import annotations

import dataclasses
import math

from keras_autoinit.graphs import Call
from keras_autoinit.rules.arithmetic import divide, multiply
from keras_autoinit.rules.base import Context, Effect, Gradients, axes_of, for_layers, for_operations, scale
from keras_autoinit.rules.normalizations import normalized

_SQUARES = ("Multiply", "Power", "Square")
_BETWEEN = ("Add", "Cast", "Copy", "Identity", "Maximum")


@for_layers("Multiply")
@for_operations("Multiply")
def multiply_or_normalize(context: Context) -> Effect:
    """Multiplies; what a signal's own square divides it by is no independent factor."""
    return _normalized(context, "Rsqrt") or multiply(context)


@for_operations("Divide", "TrueDivide")
def divide_or_normalize(context: Context) -> Effect:
    """Divides; by the root of a signal's own square, or of the sum of its squares, as one vector of unit length."""
    return _normalized(context, "Sqrt") or divide(context)


def _normalized(context: Context, root: str) -> Effect | None:
    """Returns what a normalization does, if the second factor is the root of the first one's squares.

    The gradient through the divisor takes off what goes with the signal: it comes back by the
    signal itself, with none left for the divisor.
    """
    found = _divided_by(context, root)
    if found is None:
        return None
    axes, summed = found
    effect = normalized(context, axes, centred=False)
    count = math.prod(context.shape_in()[axis] for axis in axes) if summed and context.shape_in() else 1

    def backward(gradients: Gradients) -> Gradients:
        return (*(scale(one, 1 / count) for one in effect.backward(gradients)), None)

    made = effect.outputs[0]
    return Effect((dataclasses.replace(made.times(1 / math.sqrt(count)), sizes=made.sizes),), backward)


def _divided_by(context: Context, name: str) -> tuple[tuple[int, ...], bool] | None:
    """Returns the axes over which the first factor is normalized by the second one, and whether by a sum."""
    if len(context.call.inputs) != 2:
        return None
    source, divisor = context.call.inputs
    root = context.graph.maker(divisor)
    if root is not None and type(root.operation).__name__ == "Reciprocal" and name == "Rsqrt":
        root, name = context.graph.maker(root.inputs[0]), "Sqrt"
    if root is None or type(root.operation).__name__ != name:
        return None
    mean = _before(context, root)
    if mean is None or type(mean.operation).__name__ not in ("Mean", "Sum"):
        return None
    square = _before(context, mean)
    if square is None or type(square.operation).__name__ not in _SQUARES or set(square.inputs) != {source}:
        return None
    axis = mean.kwargs.get("axis", getattr(mean.operation, "axis", None))
    return axes_of(axis, len(context.signal.along)), type(mean.operation).__name__ == "Sum"


def _before(context: Context, call: Call) -> Call | None:
    """Returns the call whose result another one takes, with at most a number added to it between them."""
    maker = context.graph.maker(call.inputs[0])
    while maker is not None and type(maker.operation).__name__ in _BETWEEN and len(maker.inputs) == 1:
        maker = context.graph.maker(maker.inputs[0])
    return maker
