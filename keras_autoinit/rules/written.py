"""Normalizations that a model writes out by hand: a signal times one over the root of its own mean square."""

from __future__ import annotations

from keras_autoinit.graphs import Call
from keras_autoinit.rules.base import Context, Effect, Gradients, axes_of, for_layers, for_operations
from keras_autoinit.rules.elementwise import multiply
from keras_autoinit.rules.normalizations import normalized

_ROOTS = ("Rsqrt",)
_SQUARES = ("Multiply", "Power", "Square")
_BETWEEN = ("Add", "Cast", "Copy", "Identity", "Maximum")


@for_layers("Multiply")
@for_operations("Multiply")
def multiply_or_normalize(context: Context) -> Effect:
    """Multiplies; what a signal's own square divides it by is no independent factor.

    The gradient through the divisor takes off what goes with the signal: it comes back by the
    signal itself, with none left for the divisor.
    """
    axes = _axes_divided(context)
    if axes is None:
        return multiply(context)
    effect = normalized(context, axes, centred=False)

    def backward(gradients: Gradients) -> Gradients:
        return (*effect.backward(gradients), None)

    return Effect(effect.outputs, backward)


def _axes_divided(context: Context) -> tuple[int, ...] | None:
    """Returns the axes over which the first factor is normalized by the second one; `None` where it is not."""
    if len(context.call.inputs) != 2:
        return None
    source, divisor = context.call.inputs
    root = _maker(context, divisor)
    if root is None or type(root.operation).__name__ not in _ROOTS:
        return None
    mean = _before(context, root)
    if mean is None or type(mean.operation).__name__ != "Mean":
        return None
    square = _before(context, mean)
    if square is None or type(square.operation).__name__ not in _SQUARES or set(square.inputs) != {source}:
        return None
    axis = mean.kwargs.get("axis", getattr(mean.operation, "axis", None))
    return axes_of(axis, len(context.signal.along))


def _before(context: Context, call: Call) -> Call | None:
    """Returns the call whose result another one takes, with at most a number added to it between them."""
    maker = _maker(context, call.inputs[0])
    while maker is not None and type(maker.operation).__name__ in _BETWEEN and len(maker.inputs) == 1:
        maker = _maker(context, maker.inputs[0])
    return maker


def _maker(context: Context, number: int) -> Call | None:
    return context.graph.maker(number)
