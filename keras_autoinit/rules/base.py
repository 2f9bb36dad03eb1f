"""What every rule shares: what it is given, what it returns, and how it is found."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import keras
import numpy as np
from keras import tree

from keras_autoinit.axes import aligned
from keras_autoinit.graphs import Call, Graph, Ref
from keras_autoinit.recipes import Recipe
from keras_autoinit.signals import Shape, Signal, constant
from keras_autoinit.slots import Slot
from keras_autoinit.variables import Variable

Gradients = tuple[Signal | None, ...]


Backward = Callable[[Gradients], Gradients]

# Tables of positions have no more rows than this; those of words, which are looked up by what a model is given, do.
MOST_ROWS = 2**14


@dataclass(frozen=True)
class Mirrored:
    """What a weight has to do with mirrored pairs of units.

    Attributes:
        reads: whether it reads both units of a pair with opposite signs.
        makes: whether it makes pairs.
    """

    reads: bool = False
    makes: bool = False


def mirrored_by(recipe: Recipe | None, slot: Slot) -> Mirrored:
    """Returns what a weight of this recipe has to do with pairs; a depthwise kernel leaves them as they are."""
    if recipe is None or recipe.name != "autoinit>mirrored" or slot.role == "depthwise":
        return Mirrored()
    return Mirrored(recipe.config.get("pairs_in") is not None, recipe.config.get("pairs_out") is not None)


class Weights(Protocol):
    """Knows, or decides, how large each weight is."""

    @property
    def orthogonal(self) -> bool:
        """Whether matrices are orthogonal, as far as is known."""

    def power(self, owner: Any, slot: Slot, base: float) -> float:
        """Returns fan-in times the second moment of a layer's weight.

        Args:
            owner: the layer.
            slot: the weight.
            base: the second moment of what the weight makes if its power is one.
        """

    def centred(self, owner: Any, slot: Slot) -> bool:
        """Whether of a convolution's taps only the one in the centre is not zero."""

    def mirrored(self, owner: Any, slot: Slot) -> Mirrored:
        """Returns whether a weight reads mirrored pairs of units, and whether it makes them."""

    def variable(self, variable: Any, base: float) -> float | None:
        """Returns the second moment of a variable's entries, or `None` to have it read."""


@dataclass(frozen=True)
class Effect:
    """What a call makes of the signals that it takes.

    Attributes:
        outputs: one signal for each tensor that it makes.
        backward: from the gradients at its outputs to those at its inputs.
        before: the signal inside a layer, before the layer's own activation.
        note: a sentence on what could not be told.
    """

    outputs: tuple[Signal, ...]
    backward: Backward
    before: Signal | None = None
    note: str | None = None


@dataclass(frozen=True)
class Operand:
    """One argument that is computed with: a tensor, a weight or a number.

    Attributes:
        signal: its moments.
        shape: its shape; empty where that is not known.
        number: of a tensor.
        value: what stands among the arguments.
    """

    signal: Signal
    shape: Shape
    number: int | None
    value: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Context:
    """What a rule is given.

    Attributes:
        call: the call.
        graph: the graph that it stands in.
        signals: what the call takes, in the order of `call.inputs`.
        weights: how large the weights are.
        differences: asks for the signals of what mirrored pairs of units differ in, scaled so that they
            count as signals of as many units; `None` where that cannot be told.
    """

    call: Call
    graph: Graph
    signals: tuple[Signal, ...]
    weights: Weights = field(repr=False)
    differences: Callable[[], tuple[Signal, ...] | None] = field(default=lambda: None, repr=False)

    @property
    def layer(self) -> Any:
        """The layer or operation."""
        return self.call.operation

    @property
    def signal(self) -> Signal:
        """The first signal that the call takes."""
        return self.signals[0]

    def read_by(self, slot: Slot) -> Signal:
        """Returns what a weight sums up: the first signal, or what its mirrored pairs differ in."""
        differences = self.differences() if self.weights.mirrored(self.layer, slot).reads else None
        return self.signal if differences is None else differences[0]

    def shape_in(self, index: int = 0) -> Shape:
        """The shape of an input; empty where it is not known."""
        spec = self.graph.specs.get(self.call.inputs[index])
        return () if spec is None else spec.shape

    def shape_out(self, index: int = 0) -> Shape:
        """The shape of an output; empty where it is not known."""
        spec = self.graph.specs.get(self.call.outputs[index])
        return () if spec is None else spec.shape

    @property
    def growth(self) -> float:
        """How many entries come out for each that goes in; one where shapes are not known."""
        given, made = self.shape_in(), self.shape_out()
        if not given or not made:
            return 1.0
        # Sample by sample: the reader closes the batch as it likes.
        return float(np.prod(made[1:])) / max(float(np.prod(given[1:])), 1.0)

    def option(self, name: str, default: Any = None) -> Any:
        """Returns what an operation was made with, or called with, under a name."""
        if name in self.call.kwargs:
            return self.call.kwargs[name]
        return getattr(self.layer, name, default)

    @functools.cached_property
    def operands(self) -> tuple[Operand, ...]:
        """What is computed with, in order; what is neither tensor nor number is left out."""
        given = dict(zip(self.call.inputs, self.signals))
        found = []
        for value in tree.flatten((self.call.args, self.call.kwargs)):
            if isinstance(value, Ref):
                spec = self.graph.specs.get(value.number)
                found.append(Operand(given[value.number], spec.shape if spec else (), value.number, value))
            elif isinstance(value, Variable):
                found.append(Operand(self.of_variable(value), tuple(value.shape), None, value))
            elif not isinstance(value, bool) and is_numbers(value):
                signal = self._of_table(value) or constant(numbers_in(value))[0]
                found.append(Operand(signal, np.shape(value), None, value))
        return tuple(found)

    def of_variable(self, variable: Any, base: float = 1.0) -> Signal:
        """Returns the signal of a weight that an operation takes."""
        second_moment = self.weights.variable(variable, base)
        if second_moment is not None:
            return Signal(second_moment, 0.0, (0.0,) * len(variable.shape))
        return constant(numbers_in(variable))[0]

    def _of_table(self, value: Any) -> Signal | None:
        """Returns the signal of a table that a layer has read before it met a symbol, as of positions; else `None`.

        What the weight holds now stands among the arguments: it may be drawn anew from something else.
        """
        rank = len(getattr(value, "shape", ()))
        if rank < 2 or self.call.within is None:
            return None
        # Of several that are all zeros yet, the one that had to be repeated least.
        for variable in sorted(self.call.within.weights, key=lambda one: -math.prod(one.shape)):
            shape = tuple(variable.shape)
            if len(shape) >= 2 and _repeats(value, variable):
                return aligned(self.of_variable(variable), shape, tuple(value.shape))
            rows = _rows_taken(value, variable)
            if rows is not None:
                return self._of_rows(variable, rows)
        return None

    def _of_rows(self, variable: Any, rows: np.ndarray) -> Signal:
        """Returns the signal of rows of a table, by their numbers: those taken again agree wholly."""
        table = self.of_variable(variable)
        along = []
        for axis, count in enumerate(rows.shape):
            equal = (np.expand_dims(rows, axis) == np.expand_dims(rows, axis + 1)).mean() if rows.size else 1.0
            again = (equal * count - 1) / (count - 1) if count > 1 else 1.0
            along.append(again * table.second_moment + (1 - again) * table.along[-2])
        return Signal(table.second_moment, table.mean, (*along, table.along[-1]))


def _repeats(value: Any, variable: Any) -> bool:
    """Whether a tensor holds the numbers of a variable, repeated along axes of length one or new ones at most."""
    wanted, given = tuple(value.shape), tuple(variable.shape)
    ends = wanted[len(wanted) - len(given) :]
    if len(given) > len(wanted) or any(one not in (1, other) for one, other in zip(given, ends)):
        return False
    return bool(np.array_equal(numbers_in(value), np.broadcast_to(numbers_in(variable), wanted)))


def _rows_taken(value: Any, variable: Any) -> np.ndarray | None:
    """Returns which row of a table each row of a tensor is; `None` where one is of no such table."""
    if len(variable.shape) < 2 or tuple(value.shape)[-1] != tuple(variable.shape)[-1]:
        return None
    if math.prod(variable.shape[:-1]) > MOST_ROWS:
        return None
    table = np.ascontiguousarray(numbers_in(variable)).reshape(-1, variable.shape[-1])
    rows = np.ascontiguousarray(numbers_in(value))
    flat = rows.reshape(-1, rows.shape[-1])
    if not len(flat) or not (table == flat[0]).all(1).any():
        return None
    places = {row.tobytes(): number for number, row in enumerate(table)}
    found = [places.get(row.tobytes(), -1) for row in flat]
    return None if min(found) < 0 else np.array(found).reshape(rows.shape[:-1])


_NUMBERS = (int, float, np.number, np.ndarray)


def is_numbers(value: Any) -> bool:
    """Whether an argument is a number, or an array or a tensor of them."""
    return isinstance(value, _NUMBERS) or keras.ops.is_tensor(value)


def numbers_in(value: Any) -> Any:
    """Returns the numbers of an argument or a variable, in NumPy's hands."""
    if isinstance(value, _NUMBERS):
        return value
    return keras.ops.convert_to_numpy(value)


Rule = Callable[[Context], Effect | None]


OPERATIONS: dict[str, Rule] = {}


@functools.singledispatch
def layer_rule(layer: Any, context: Context) -> Effect | None:
    """Returns what a layer does, or `None` where no rule is known."""
    return None


AnyRule = TypeVar("AnyRule", bound=Rule)


def for_layers(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Registers a rule for layers of Keras, by the names of their classes: older versions lack some."""

    def decorate(rule: AnyRule) -> AnyRule:
        for name in names:
            kind = getattr(keras.layers, name, None)
            if kind is not None:
                layer_rule.register(kind, lambda layer, context: rule(context))
        return rule

    return decorate


def for_operations(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Registers a rule for operation classes, which Keras does not export, by their names."""

    def decorate(rule: AnyRule) -> AnyRule:
        OPERATIONS.update(dict.fromkeys(names, rule))
        return rule

    return decorate


def same(context: Context) -> Effect:
    """Hands the signal on as it is."""
    return Effect((context.signal,) * len(context.call.outputs), lambda gradients: (_first(gradients),))


def _first(gradients: Gradients) -> Signal | None:
    return next((one for one in gradients if one is not None), None)


def scaled(context: Context, number: float) -> Effect:
    """Multiplies by a number."""
    return Effect((context.signal.times(number),), lambda gradients: (scale(gradients[0], number**2),))


def scale(gradient: Signal | None, factor: float) -> Signal | None:
    """Returns a gradient whose squares have grown by a factor."""
    if gradient is None:
        return None
    along, apart = (tuple(value * factor for value in values) for values in (gradient.along, gradient.apart))
    near = gradient.near and gradient.near.times(factor)
    return Signal(gradient.second_moment * factor, 0.0, along, profile=gradient.profile, apart=apart, near=near)


def axes_of(value: Any, rank: int) -> tuple[int, ...]:
    """Returns axes as numbers from zero on; all of them for `None`."""
    if value is None:
        return tuple(range(rank))
    several: Sequence[int] = (value,) if isinstance(value, int) else tuple(value)
    return tuple(int(axis) % rank for axis in several) if rank else ()


def positions_of(context: Context) -> tuple[int, ...]:
    """Returns the axes of positions."""
    rank = len(context.signal.along)
    first = getattr(context.layer, "data_format", None) == "channels_first"
    return tuple(range(2, rank)) if first else tuple(range(1, rank - 1))
