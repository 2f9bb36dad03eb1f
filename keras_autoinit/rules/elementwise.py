"""Functions of one number: activations, powers, clipping, scales; and what leaves a signal as it is."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import keras
import numpy as np

from keras_autoinit.activations import Activation
from keras_autoinit.bending import activated
from keras_autoinit.graphs import activation_of
from keras_autoinit.responses import chance_of
from keras_autoinit.rules.base import (
    Context,
    Effect,
    for_layers,
    for_operations,
    same,
    scale,
    scaled,
)
from keras_autoinit.signals import Shape, Signal, constant, independent
from keras_autoinit.sizes import with_chance
from keras_autoinit.sums import chance_between

# What a model does to its inputs itself, to numbers that whoever built it knew.
SCALINGS = (keras.layers.Rescaling, keras.layers.Normalization)


def activation(context: Context) -> Effect | None:
    """Bends every entry by the activation that a call applies, if it is one of one entry."""
    met = activation_of(context.call)
    return None if met is None or met.function is None else bent(context, met)


def bent(context: Context, function: Activation) -> Effect:
    """Bends every entry."""
    made, back = activated(context.signal, function)
    made = unevenly_bent(context, function, context.signal, made)
    return Effect((made,), lambda gradients: (back(gradients[0]),))


def unevenly_bent(context: Context, function: Activation, signal: Signal, made: Signal) -> Signal:
    """Returns what a function makes, with samples that are uneven by chance: the fewer entries, the more.

    Args:
        context: the call.
        function: bends.
        signal: what it is given.
        made: what it makes.
    """
    variance = _chance(signal, context.shape_out(), function)
    if variance <= 0:
        return made
    return dataclasses.replace(made, sizes=with_chance(made.sizes or {}, (id(context.call), "bent"), variance))


def _chance(signal: Signal, shape: Shape, function: Activation) -> float:
    if function.linear or function.function is None or len(shape) < 2 or signal.variance <= 0:
        return 0.0
    mean, variance = (float(f"{one:.3g}") for one in (signal.mean, signal.variance))
    uneven = chance_of(function, mean, variance, signal.channels)
    return uneven * chance_between(signal, shape)


def function_named(name: str) -> Activation:
    """Returns a function that is no activation, by the name of its operation."""
    return Activation(name, (), _FUNCTIONS[name])


_FUNCTIONS: dict[str, Any] = {
    "Absolute": np.abs,
    "Arctan": np.arctan,
    "Cos": np.cos,
    "Erf": np.vectorize(math.erf, otypes=[float]),
    "Expm1": np.expm1,
    "Log": lambda z: np.log(np.maximum(z, 1e-30)),
    "Log1p": lambda z: np.log(np.maximum(1 + z, 1e-30)),
    "Reciprocal": lambda z: 1 / np.where(np.abs(z) < 1e-6, 1e-6, z),
    "Rsqrt": lambda z: 1 / np.sqrt(np.maximum(z, 1e-12)),
    "Sign": np.sign,
    "Sqrt": lambda z: np.sqrt(np.maximum(z, 0)),
    "Square": np.square,
}


@for_operations(*_FUNCTIONS)
def function_of_one(context: Context) -> Effect:
    """Bends every entry by a function that is no activation."""
    return bent(context, function_named(type(context.layer).__name__))


@for_operations("Power")
def power(context: Context) -> Effect:
    """Raises to a constant power."""
    exponent = context.operands[-1].signal.mean if len(context.operands) > 1 else 1.0
    return bent(context, _power(exponent))


@functools.cache
def _power(exponent: float) -> Activation:
    whole = float(exponent).is_integer() and exponent > 0
    return Activation(f"power({exponent:g})", (), lambda z: z**exponent if whole else np.maximum(z, 1e-12) ** exponent)


@for_operations("Negative")
def negative(context: Context) -> Effect:
    """Changes the sign."""
    return scaled(context, -1.0)


@for_operations("Clip")
def clip(context: Context) -> Effect:
    """Clips to a range."""
    low, high = (context.option(name, default) for name, default in (("x_min", -math.inf), ("x_max", math.inf)))
    return bent(context, _clip(float(low), float(high)))


@functools.cache
def _clip(low: float, high: float) -> Activation:
    return Activation(f"clip({low:g}, {high:g})", (), lambda z: np.clip(z, low, high))


@for_operations("ZerosLike")
def zeros(context: Context) -> Effect:
    """Makes nothing of anything."""
    return Effect((context.signal.times(0.0),), lambda gradients: (None,))


@for_layers("Rescaling")
def rescaling(context: Context) -> Effect:
    """Multiplies by one number and adds another; what a model scales its inputs by makes them a unit signal."""
    factor, shift = (constant(value)[0] for value in (context.layer.scale, context.layer.offset))
    if _scales_inputs(context, context.call.inputs[0]):
        made = independent(context.shape_out() or (1,) * len(context.signal.along))
        return Effect((made,), lambda gradients: (scale(gradients[0], factor.second_moment),))
    number = math.copysign(math.sqrt(factor.second_moment), factor.mean)
    signal = context.signal.times(number)
    cross = 2 * signal.mean * shift.mean + shift.second_moment
    along = tuple(value + cross for value in signal.along)
    made = Signal(signal.second_moment + cross, signal.mean + shift.mean, along)
    return Effect((made,), lambda gradients: (scale(gradients[0], factor.second_moment),))


def _scales_inputs(context: Context, number: int) -> bool:
    """Whether a tensor is an input of the model, or one that has only been scaled."""
    while (maker := context.graph.maker(number)) is not None and isinstance(maker.operation, SCALINGS):
        number = maker.inputs[0]
    return number in context.graph.inputs


for_layers("ActivityRegularization", "AlphaDropout", "Identity", "Masking")(same)
for_operations("Cast", "Copy", "Identity")(same)


@for_operations("StopGradient")
def stop_gradient(context: Context) -> Effect:
    """Hands the signal on, and no gradient back."""
    return Effect((context.signal,), lambda gradients: (None,))
