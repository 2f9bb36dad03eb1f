"""What each layer or operation does to the moments that pass through it, and to the gradient.

Layers are found by their class, so that a subclass of `Conv2D` is a `Conv2D`; Keras's operation
classes, which it does not export, by their names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_autoinit.graphs import keep_whole

# Importing a family registers its rules.
from keras_autoinit.rules import (  # noqa: F401
    arithmetic,
    choices,
    dropping,
    largest,
    linear,
    normalizations,
    padding,
    pooling,
    products,
    recurrent,
    resizing,
    shapes,
    written,
)
from keras_autoinit.rules.base import OPERATIONS, Backward, Context, Effect, Gradients, Weights, layer_rule, scale
from keras_autoinit.rules.elementwise import activation
from keras_autoinit.rules.measured import measure
from keras_autoinit.signals import Signal

__all__ = ["Backward", "Context", "Effect", "Gradients", "Weights", "apply_rule", "register_rule"]

UserRule = Callable[..., Any]
# Whose errors are theirs.
_USERS: set[Callable[..., Any]] = set()


def apply_rule(context: Context) -> Effect:
    """Returns what a call makes of the signals that it takes."""
    if not context.signals and not context.operands:
        return measure(context)
    operation = context.call.operation
    if layer_rule.dispatch(type(operation)) in _USERS:
        return layer_rule(operation, context) or measure(context)
    try:
        return _own(operation, context) or measure(context)
    except (ArithmeticError, IndexError, ValueError) as error:
        # No model may be refused for what our rules do not foresee: axes without length, numbers beyond all bounds.
        effect = measure(context)
        reason = " ".join(str(error).split())[:120]
        return dataclasses.replace(effect, note=f"The rule of {context.call.name!r} failed ({reason}). {effect.note}")


def _own(operation: Any, context: Context) -> Effect | None:
    """Returns what our rules say, if there is one."""
    effect = activation(context)
    if effect is None and isinstance(operation, keras.Layer):
        return layer_rule(operation, context)
    rule = OPERATIONS.get(type(operation).__name__)
    return rule(context) if effect is None and rule is not None else effect


def register_rule(kind: type) -> Callable[[UserRule], UserRule]:
    """Teaches the theory what a custom layer does to a signal.

    When to use: for a layer that computes by other means than Keras's layers and operations;
    without a rule it is measured on random input, and a note says so. A layer with a rule is not
    looked into.

    Args:
        kind: the layer's class; its subclasses are served too.

    Returns:
        A decorator for a function that takes the layer and one `Signal` for each tensor of its
        input and returns the `Signal` of its output, or a pair of that and the factor by which it
        multiplies the squares of a gradient on the way back. Without the factor the gradient is
        taken to grow as the signal does.

    Example:
        >>> class Halve(keras.layers.Layer):
        ...     def call(self, x):
        ...         return x / 2
        >>> @register_rule(Halve)
        ... def halve(layer, signal):
        ...     return signal.times(0.5), 0.25
    """

    def decorate(rule: UserRule) -> UserRule:
        keep_whole(kind)

        def apply(layer: Any, context: Context) -> Effect:
            return _effect(context, rule(layer, *context.signals))

        _USERS.add(layer_rule.register(kind, apply))
        return rule

    return decorate


def _effect(context: Context, result: Any) -> Effect:
    """Returns the effect that a user's rule describes."""
    made, factor = result if isinstance(result, tuple) else (result, None)
    rank = len(context.shape_out())
    made = Signal(made.second_moment, made.mean, tuple([*made.along, *[0.0] * rank][: rank or None]))
    given = context.signal.second_moment
    if factor is None:
        factor = made.second_moment / given * context.growth if given else 1.0
    return Effect((made,) * len(context.call.outputs), lambda gradients: _to_all(context, gradients, factor))


def _to_all(context: Context, gradients: Gradients, factor: float) -> Gradients:
    gradient = scale(next((one for one in gradients if one is not None), None), factor)
    if gradient is None:
        return (None,) * len(context.call.inputs)
    return tuple(
        gradient.with_axes([*gradient.along, *[0.0] * len(signal.along)][: len(signal.along)])
        for signal in context.signals
    )
