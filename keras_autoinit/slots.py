"""Which weights a layer owns, the argument that initializes each, and its axes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.errors import SchemeError
from keras_autoinit.fans import Axes, default_axes

# Before Keras 3.8 the exported class is a subclass of the one that layers make.
Variable: Any = keras.Variable.__mro__[1] if keras.Variable.__module__.endswith("exports") else keras.Variable


@dataclass(frozen=True)
class Slot:
    """One weight of a layer.

    Attributes:
        role: `kernel`, `recurrent`, `depthwise`, `pointwise`, `embeddings`, ...
        weight: the layer's attribute that holds the variable.
        argument: the layer's attribute that holds its initializer.
        axes: which axes are inputs and which outputs; `None` while only the shape could tell.
        activation: what the layer itself does to what this weight makes; `None` for nothing.
        activated: whether `activation` is known to be all that follows inside the layer. It is
            not for the first of two kernels, nor for a gate.
    """

    role: str
    weight: str
    argument: str
    axes: Axes | None
    activation: Any = None
    activated: bool = True

    def variable(self, layer: keras.Layer) -> keras.Variable | None:
        """Returns the variable, or `None` while there is none of its own."""
        value = getattr(layer, self.weight, None) if layer.built else None
        return value if isinstance(value, Variable) else None

    def initializer(self, layer: keras.Layer) -> Any:
        """Returns what the layer's argument holds."""
        return getattr(layer, self.argument)


Slots = tuple[Slot, ...]


@functools.singledispatch
def slots_of(layer: keras.Layer) -> Slots:
    """Returns the weights of a layer, but not of the layers inside it.

    A layer that nobody registered is not guessed at: each of its attributes `x_initializer` whose
    variable `x` exists is a slot, with the axes that Keras assumes for a kernel of its rank.
    """
    names = [name.removesuffix("_initializer") for name in sorted(vars(layer)) if name.endswith("_initializer")]
    # `recurrent_initializer`, say, belongs to `recurrent_kernel`.
    found = [(name, each) for name in names if name[0] != "_" for each in (name, f"{name}_kernel")]
    return tuple(
        Slot(name, weight, f"{name}_initializer", default_axes(len(value.shape)), getattr(layer, "activation", None))
        for name, weight in found
        if isinstance(value := getattr(layer, weight, None), Variable) and len(value.shape) >= 2
    )


def register_slots(kind: type) -> Callable[[Callable[[Any], Slots]], Callable[[Any], Slots]]:
    """Teaches the package which weights a custom layer owns.

    When to use: for a layer whose weights have no `x_initializer` argument, or whose axes are not
    those of a dense or convolution kernel.

    Args:
        kind: the layer's class; its subclasses are served too.

    Returns:
        A decorator for a function that takes the layer and returns its slots.

    Example:
        >>> class LowRank(keras.layers.Layer):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.down_initializer = keras.initializers.get("glorot_uniform")
        >>> @register_slots(LowRank)
        ... def low_rank(layer):
        ...     return (Slot("kernel", "down", "down_initializer", Axes((0,), (1,))),)
        >>> slots_of(LowRank())[0].weight
        'down'
    """
    return slots_of.register(kind)


@register_slots(keras.layers.Dense)
def _dense(layer: keras.layers.Dense) -> Slots:
    return (Slot("kernel", "kernel", "kernel_initializer", Axes((0,), (1,)), layer.activation),)


@register_slots(keras.layers.EinsumDense)
def _einsum_dense(layer: keras.layers.EinsumDense) -> Slots:
    return (Slot("kernel", "kernel", "kernel_initializer", einsum_axes(layer.equation), layer.activation),)


@register_slots(keras.layers.Conv1D)
@register_slots(keras.layers.Conv2D)
@register_slots(keras.layers.Conv3D)
def _convolution(layer: Any) -> Slots:
    axes = default_axes(layer.rank + 2)
    grouped = Axes(axes.inputs, axes.outputs, blocks=layer.groups)
    return (Slot("kernel", "kernel", "kernel_initializer", grouped, layer.activation),)


@register_slots(keras.layers.Conv1DTranspose)
@register_slots(keras.layers.Conv2DTranspose)
@register_slots(keras.layers.Conv3DTranspose)
def _transposed_convolution(layer: Any) -> Slots:
    taps = tuple(range(layer.rank))
    axes = Axes(
        (*taps, layer.rank + 1), (*taps, layer.rank), divisor=float(math.prod(_each_side(layer.strides, layer)))
    )
    return (Slot("kernel", "kernel", "kernel_initializer", axes, layer.activation),)


@register_slots(keras.layers.DepthwiseConv1D)
@register_slots(keras.layers.DepthwiseConv2D)
def _depthwise_convolution(layer: Any) -> Slots:
    return (Slot("depthwise", "kernel", "depthwise_initializer", _per_channel(layer.rank), layer.activation),)


@register_slots(keras.layers.SeparableConv1D)
@register_slots(keras.layers.SeparableConv2D)
def _separable_convolution(layer: Any) -> Slots:
    return (
        Slot("depthwise", "depthwise_kernel", "depthwise_initializer", _per_channel(layer.rank), activated=False),
        Slot("pointwise", "pointwise_kernel", "pointwise_initializer", default_axes(layer.rank + 2), layer.activation),
    )


@register_slots(keras.layers.Embedding)
def _embedding(layer: keras.layers.Embedding) -> Slots:
    # A look-up sums nothing, so its fan-in is one.
    return (Slot("embeddings", "embeddings", "embeddings_initializer", Axes((), (1,)), activated=False),)


@register_slots(keras.layers.SimpleRNNCell)
@register_slots(keras.layers.GRUCell)
@register_slots(keras.layers.LSTMCell)
def _recurrent_cell(layer: Any) -> Slots:
    gates = next(count for kind, count in _GATES.items() if isinstance(layer, kind))
    axes = Axes((0,), (1,), blocks=gates)
    return (
        Slot("input", "kernel", "kernel_initializer", axes, layer.activation, activated=False),
        Slot("recurrent", "recurrent_kernel", "recurrent_initializer", axes, layer.activation, activated=False),
    )


_GATES = {keras.layers.LSTMCell: 4, keras.layers.GRUCell: 3, keras.layers.SimpleRNNCell: 1}


def einsum_axes(equation: str) -> Axes:
    """Returns the axes of an `EinsumDense` kernel from its equation.

    Letters that the input and the kernel share and the output lacks are summed over; letters
    that only kernel and output have are made; letters that all three have are neither.

    Example:
        >>> einsum_axes("abc,cde->abde")
        Axes(inputs=(0,), outputs=(1, 2), blocks=1, divisor=1.0)
    """
    left, arrow, output = equation.replace(" ", "").partition("->")
    source, comma, kernel = left.partition(",")
    if not (arrow and comma):
        raise SchemeError(f"Expected an equation such as 'abc,cd->abd'. Received: {equation!r}.")
    inputs = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    outputs = tuple(axis for axis, letter in enumerate(kernel) if letter in output and letter not in source)
    return Axes(inputs, outputs)


def _per_channel(rank: int) -> Axes:
    taps = tuple(range(rank))
    return Axes(taps, (*taps, rank + 1))


def _each_side(value: Any, layer: Any) -> tuple[int, ...]:
    return (value,) * layer.rank if isinstance(value, int) else tuple(value)
