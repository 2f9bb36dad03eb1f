"""What a model looks like once it has been read: places, calls, and tensors known by number."""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_autoinit.slots import Slots
from keras_autoinit.variables import Variable


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor among the arguments of a call."""

    number: int


@dataclass(frozen=True)
class Spec:
    """A tensor's shape and dtype."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Place:
    """A layer where it stands.

    Attributes:
        layer: the layer itself.
        path: names of its containers and its own, joined by `/`.
        key: the path with automatic names (`dense_17`) replaced by class and ordinal, so that it
            is the same in every session.
        parent: the container.
        slots: the weights it owns.
        frozen: whether it or a container has `trainable=False`.
    """

    layer: keras.Layer
    path: str
    key: str
    parent: Any
    slots: Slots
    frozen: bool


@dataclass(frozen=True)
class Call:
    """One call of a layer or an operation that is not looked into: tensors in, tensors out.

    Attributes:
        operation: the layer or operation.
        inputs: numbers of the tensors that it takes, in the order of its arguments.
        outputs: numbers of the tensors that it makes.
        args: its positional arguments, with a `Ref` for each tensor.
        kwargs: its keyword arguments, likewise.
        within: the composite whose `call` made this one; `None` at the model's own level.
    """

    operation: keras.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    args: tuple[Any, ...] = field(default=(), repr=False)
    kwargs: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)
    within: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What a row calls the operation: its class in snake case."""
        return snake_case(type(self.operation).__name__)

    @property
    def is_arithmetic(self) -> bool:
        """Whether it is an operation that no weight has a part in."""
        return not isinstance(self.operation, keras.Layer) and not self.variables

    @property
    def variables(self) -> list[Any]:
        """The variables among its arguments: weights that a custom layer hands to an operation."""
        if isinstance(self.operation, keras.Layer):
            return []
        flat = keras.tree.flatten((self.args, self.kwargs))
        return [value for value in flat if isinstance(value, Variable)]


@dataclass(frozen=True)
class Opaque:
    """A layer whose inside could not be seen.

    Attributes:
        path: where it stands.
        reason: what happened when it was called on symbols.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Graph:
    """A flat list of calls, and every place with weights.

    Attributes:
        places: every layer that owns weights or holds layers that do, in the order of the model.
        calls: in an order in which they can be computed.
        inputs: numbers of the model's input tensors.
        outputs: numbers of the model's output tensors.
        specs: shape and dtype of each tensor, by number; a tensor whose shape nothing tells, as in
            a model that is not built, has none.
        expanded: the output tensors of each layer that was looked into, by its `id`.
        opaque: layers that hold something and could not be looked into.
        constants: tensors that depend on no input, by number.
        losses: names of what the model was compiled to minimize; none where that is not known.
    """

    places: tuple[Place, ...]
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    specs: dict[int, Spec] = field(repr=False, compare=False)
    expanded: dict[int, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    opaque: tuple[Opaque, ...] = ()
    constants: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)
    losses: tuple[str, ...] = field(default=(), compare=False)
    _readers: dict[int, list[Call]] = field(init=False, repr=False, compare=False)
    _makers: dict[int, Call] = field(init=False, repr=False, compare=False)
    _calls_of: dict[int, list[Call]] = field(init=False, repr=False, compare=False)
    _uses: dict[int, list[Call]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("_readers", "_calls_of", "_uses"):
            object.__setattr__(self, name, defaultdict(list))
        object.__setattr__(self, "_makers", {})
        for call in self.calls:
            self._calls_of[id(call.operation)].append(call)
            for tensor in dict.fromkeys(call.inputs):
                self._readers[tensor].append(call)
            self._makers.update(dict.fromkeys(call.outputs, call))
            for variable in call.variables:
                self._uses[id(variable)].append(call)

    @functools.cached_property
    def numbers(self) -> dict[int, Any]:
        """The numbers of tensors that follow from constants and from integers that are all one: masks without padding.

        Found in one pass over the calls when somebody asks first. What a weight or a layer has a part in has none.
        """
        tensors = {number: one for number, one in self.constants.items() if keras.ops.is_tensor(one)}
        found = {number: keras.ops.convert_to_numpy(one) for number, one in tensors.items()}
        for number in self.inputs:
            spec = self.specs.get(number)
            if spec is not None and ("int" in spec.dtype or spec.dtype == "bool"):
                found[number] = np.ones(spec.shape, spec.dtype)
        for call in self.calls:
            if call.is_arithmetic and all(number in found for number in call.inputs):
                found.update(zip(call.outputs, _computed(call, found)))
        return found

    @functools.cached_property
    def firsts(self) -> dict[int, int]:
        """For each tensor that is made over again, the first one that holds the same numbers.

        Calls of one kind that are told the same make the same of the same tensors, where neither a weight nor
        chance has a part in it: NASNet averages one tensor by two layers, and adds them up.
        """
        found: dict[int, int] = {}
        alike: dict[Any, Call] = {}
        for call in self.calls:
            told = _told(call) if call.inputs and _is_determined(call) else None
            if told is not None:
                inputs = tuple(found.get(number, number) for number in call.inputs)
                first = alike.setdefault((type(call.operation), inputs, told), call)
                if first is not call:
                    found.update(zip(call.outputs, first.outputs))
        return found

    def readers(self, tensor: int) -> list[Call]:
        """Returns the calls that take a tensor."""
        return self._readers.get(tensor, [])

    def maker(self, tensor: int) -> Call | None:
        """Returns the call that makes a tensor; `None` for an input of the model and for a constant."""
        return self._makers.get(tensor)

    def calls_of(self, layer: keras.Layer) -> list[Call]:
        """Returns the calls of a layer."""
        return self._calls_of.get(id(layer), [])

    def uses(self, variable: Any) -> list[Call]:
        """Returns the operations that take a variable as an argument."""
        return self._uses.get(id(variable), [])

    def computing(self, place: Place, variable: Any) -> set[int]:
        """Returns the operations that compute with a weight, by `id`.

        Those it is handed to, its layer, or what holds that, where the inside of it was not seen.
        """
        found = {id(call.operation) for call in self.uses(variable)}
        places = {id(each.layer): each for each in self.places}
        holder: Place | None = place
        while holder is not None and not found:
            found = {id(call.operation) for call in self.calls_of(holder.layer)}
            if id(holder.layer) in self.expanded:
                break
            holder = places.get(id(holder.parent))
        return found

    def made_by(self, layer: keras.Layer) -> list[int]:
        """Returns the tensors that a layer puts out, whether it was looked into or not."""
        made = [tensor for call in self.calls_of(layer) for tensor in call.outputs]
        return made or list(self.expanded.get(id(layer), ()))


def _computed(call: Call, numbers: dict[int, Any]) -> list[Any]:
    """Returns the numbers that an operation makes of others; none where it refuses the shapes that were assumed."""
    args, kwargs = keras.tree.map_structure(
        lambda one: keras.ops.convert_to_tensor(numbers[one.number]) if isinstance(one, Ref) else one,
        (call.args, call.kwargs),
    )
    try:
        return [keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(call.operation(*args, **kwargs))]
    except Exception:
        # Whatever an operation raises: what it makes is not known, then.
        return []


def _is_determined(call: Call) -> bool:
    """Whether what a call makes follows from its tensors alone: one of Keras's own without weights or chance."""
    own = type(call.operation).__module__.startswith("keras.") and not isinstance(call.operation, keras.layers.Lambda)
    return own and not call.variables and not getattr(call.operation, "variables", ())


def _told(call: Call) -> str | None:
    """Returns what a call was told beside its tensors; `None` where that is not names and numbers alone."""
    plain = keras.tree.map_structure(lambda one: "" if isinstance(one, Ref) else one, (call.args, call.kwargs))
    try:
        config = call.operation.get_config()
        return json.dumps([plain, {key: one for key, one in config.items() if key != "name"}])
    except Exception:
        # Whatever an operation raises that cannot say how it was made, as of a function of somebody's own.
        return None


def snake_case(name: str) -> str:
    """Returns a class name as Keras writes it into automatic layer names."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
