"""Which weights a layer owns, the argument that initializes each, and its axes."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.errors import SchemeError
from keras_autoinit.fans import Axes, default_axes
from keras_autoinit.recipes import Recipe, measured
from keras_autoinit.variables import Variable, is_learned, own_variables, role_by_name, values_of


@dataclass(frozen=True)
class Slot:
    """One weight of a layer.

    Attributes:
        role: `kernel`, `recurrent`, `depthwise`, `pointwise`, `embeddings`, ...
        weight: where the layer holds the variable: an attribute, or an entry of one (`experts.0`).
        argument: the layer's attribute that holds its initializer; `None` where none does.
        axes: which axes are inputs and which outputs; `None` where nobody can tell.
        activation: what the layer itself does to what this weight makes; `None` for nothing.
        activated: whether `activation` is known to be all that follows inside the layer. It is
            not for the first of two kernels, nor for a gate.
        shared: whether other weights are drawn from the same argument, which is then left as it is.
    """

    role: str
    weight: str
    argument: str | None
    axes: Axes | None
    activation: Any = None
    activated: bool = True
    shared: bool = False

    @property
    def stores(self) -> bool:
        """Whether the layer keeps an initializer for this weight alone, from which a copy is drawn."""
        return self.argument is not None and not self.shared

    def variable(self, layer: keras.Layer) -> keras.Variable | None:
        """Returns the variable, or `None` while there is none of its own, and none of floating point."""
        value = getattr(layer, self.weight, None)
        if not isinstance(value, Variable):
            value = own_variables(layer).get(self.weight)
        return value if value is not None and "float" in str(value.dtype) else None

    def initializer(self, layer: keras.Layer) -> Any:
        """Returns what the layer's argument holds, or `None` where it has none."""
        return None if self.argument is None else getattr(layer, self.argument)

    def recipe(self, layer: keras.Layer) -> Recipe:
        """Returns what the weight is drawn from now, as far as can be told."""
        if self.argument is not None:
            return Recipe.of(self.initializer(layer))
        variable = self.variable(layer)
        return Recipe("unknown") if variable is None else measured(values_of(variable))


Slots = tuple[Slot, ...]


def slots_of(layer: keras.Layer) -> Slots:
    """Returns the weights of a layer, but not of the layers inside it.

    Those that its class declares (see `register_slots`), and every other weight of two dimensions
    or more that the layer trains: none is left out, though of some nothing is known but their values.
    """
    declared = declared_slots(layer)
    taken = {name for slot in declared for name in (slot.weight, f"_{slot.weight}")}
    known = {id(vars(layer).get(name)) for name in taken}
    if all(id(variable) in known or len(variable.shape) < 2 for variable in layer.weights):
        # As of most layers: names need not be found.
        return declared
    others = {
        name: variable
        for name, variable in own_variables(layer).items()
        if name not in taken and len(variable.shape) >= 2 and is_learned(layer, variable)
    }
    return (*declared, *(_found_slot(layer, name, variable, len(others)) for name, variable in others.items()))


@functools.singledispatch
def declared_slots(layer: keras.Layer) -> Slots:
    """Returns the weights that a layer's class is known to own."""
    return ()


def register_slots(kind: type) -> Callable[[Callable[[Any], Slots]], Callable[[Any], Slots]]:
    """Teaches the package which weights a custom layer owns.

    When to use: for a layer whose weights have no `x_initializer` argument (then a slot's argument
    is `None`), or whose axes are not those of a dense or convolution kernel. Other weights of the
    layer have rows all the same.

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
    return declared_slots.register(kind)


# --- Weights that no class declares ---


def _found_slot(layer: keras.Layer, name: str, variable: keras.Variable, number: int) -> Slot:
    """Returns the slot of a weight that was found on the layer: one of so many."""
    argument, rank = _argument_of(layer, name, number), len(variable.shape)
    role = role_by_name(name)
    if role == "embeddings" and argument is None:
        # A patch embedding, say, is a kernel, and nothing here tells the two apart.
        role = None
    if role in ("embeddings", "positions", "token"):
        return Slot(role, name, argument, _looked_up(rank), activated=False)
    if role is not None:
        return Slot(role, name, argument, None)
    if argument is None:
        return Slot("unknown", name, None, None)
    if Recipe.of(getattr(layer, argument)).name.rpartition(">")[2].lower() in ("zeros", "ones", "constant"):
        return Slot("constant", name, argument, None)
    return _kernel_slot(layer, name, argument, rank)


def _kernel_slot(layer: Any, name: str, argument: str, rank: int) -> Slot:
    """Returns the slot of a weight that has an argument of its own, and so the axes that Keras assumes."""
    stem = argument.removesuffix("_initializer")
    role = "kernel" if argument == "initializer" else stem
    axes, recurrent = default_axes(rank), getattr(layer, "recurrent_kernel", None)
    if not isinstance(recurrent, Variable) or name not in ("kernel", "recurrent_kernel"):
        return Slot(role, name, argument, axes, getattr(layer, "activation", None))
    # A recurrent kernel turns a state into gates of its size; what is no multiple of it has one.
    gates, rest = divmod(recurrent.shape[-1], recurrent.shape[-2])
    blocks = Axes(axes.inputs, axes.outputs, blocks=gates if rest == 0 else 1)
    return Slot("input" if name == "kernel" else "recurrent", name, argument, blocks, activated=False)


def _argument_of(layer: keras.Layer, name: str, number: int) -> str | None:
    """Returns the argument that a weight is named like, or the only argument of the only weight."""
    stem = name.lstrip("_")
    # `recurrent_initializer`, say, belongs to `recurrent_kernel`.
    candidates = [f"{stem}_initializer", f"{stem.removesuffix('_kernel')}_initializer"]
    candidates += ["initializer"] if number == 1 else []
    return next((each for each in candidates if vars(layer).get(each) is not None), None)


def _looked_up(rank: int) -> Axes:
    """Returns the axes of a table whose rows are looked up: that sums nothing, so its fan-in is one."""
    return Axes((), (rank - 1,))


# --- Keras's own layers ---


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
    # Reversible embeddings, those of Keras and those of Keras Hub, say whether one table serves input and output.
    ties = getattr(layer, "tie_weights", None)
    if ties is None:
        return (Slot("embeddings", "embeddings", "embeddings_initializer", _looked_up(2), activated=False),)
    if ties:
        return (Slot("tied", "embeddings", "embeddings_initializer", Axes((1,), (0,)), activated=False),)
    names = (("embeddings", "embeddings", _looked_up(2)), ("reverse", "reverse_embeddings", Axes((0,), (1,))))
    return tuple(
        Slot(role, weight, "embeddings_initializer", axes, activated=False, shared=True) for role, weight, axes in names
    )


@register_slots(keras.layers.PReLU)
def _prelu(layer: keras.layers.PReLU) -> Slots:
    # Of one dimension where there is one slope a unit, and then like a bias.
    alpha = getattr(layer, "alpha", None)
    return (Slot("slope", "alpha", "alpha_initializer", None),) if alpha is not None and len(alpha.shape) >= 2 else ()


if hasattr(keras.layers, "STFTSpectrogram"):

    @register_slots(keras.layers.STFTSpectrogram)
    def _spectrogram(layer: Any) -> Slots:
        kernels = {name: getattr(layer, name, None) for name in ("real_kernel", "imag_kernel")}
        learned = [name for name, each in kernels.items() if each is not None and is_learned(layer, each)]
        return tuple(Slot("fourier", name, None, None) for name in learned)


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


@register_slots(sys.modules[keras.layers.ConvLSTM2D.__mro__[1].__module__].ConvLSTMCell)
def _convolutional_recurrent_cell(layer: Any) -> Slots:
    # Keras exports the layers of this cell but not the cell.
    axes = default_axes(layer.rank + 2)
    gates = Axes(axes.inputs, axes.outputs, blocks=_GATES[keras.layers.LSTMCell])
    return (
        Slot("input", "kernel", "kernel_initializer", gates, layer.activation, activated=False),
        Slot("recurrent", "recurrent_kernel", "recurrent_initializer", gates, layer.activation, activated=False),
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
