"""Writes a model out as one flat list of calls.

Functional and Sequential models have recorded their nodes. What records none, a subclassed model or
a layer that calls others, is called once on symbols through its own `call`, which records them.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import tree

from keras_autoinit.graphs.operations import ATTENTION
from keras_autoinit.graphs.records import Call, Opaque, Ref, Spec
from keras_autoinit.traces import forget_nodes

# Stand in for what a shape leaves open: a batch of two, as one alone would be broadcast; sequences
# of six, which fit the tables of positions of very small models too.
BATCH, LENGTH = 2, 6

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class UnreadableError(Exception):
    """A layer cannot be called on symbols."""


class Reader:
    """Collects calls while nested models and composite layers are written out in place.

    Args:
        paths: where each layer stands, by its `id`.
        runnable: whether the calls are to be computed with other weights than the model has: what a
            layer turns into numbers before it meets a symbol is then no part of them.
        batch: stands in for the size of the batch where a shape leaves it open.
    """

    def __init__(self, paths: dict[int, str], runnable: bool = False, batch: int = BATCH) -> None:
        self.calls: list[Call] = []
        self.opaque: list[Opaque] = []
        self.specs: dict[int, Spec] = {}
        self.expanded: dict[int, tuple[int, ...]] = {}
        self.constants: dict[int, Any] = {}
        self._paths = paths
        self._runnable = runnable
        self._batch = batch
        self._within: Any = None
        self._fresh = itertools.count()

    def tensor(self, spec: Spec | None = None) -> Ref:
        """Returns a reference to a new tensor."""
        ref = Ref(next(self._fresh))
        if spec is not None:
            self.specs[ref.number] = spec
        return ref

    def expand(
        self, operation: Any, arguments: Arguments, outputs: list[Any] | None = None, exact: bool = False
    ) -> list[Ref]:
        """Adds what an operation does with these arguments.

        Args:
            operation: a model, a layer or an operation.
            arguments: with a `Ref` for each tensor.
            outputs: the symbolic tensors that it has put out where it was recorded, or `None`.
            exact: whether their shapes hold now, but for the size of the batch.

        Returns:
            Its output tensors, in the order of `keras.tree.flatten`.
        """
        functional = functional_of(operation)
        if functional is not None:
            return self._remember(operation, self.nodes(functional, _inputs_given(functional, arguments)))
        if isinstance(operation, keras.Sequential):
            return self.chain(operation, arguments)
        if is_composite(operation):
            made = self._composite(operation, arguments, outputs)
            if made is not None:
                return self._remember(operation, made)
        return self._leaf(operation, arguments, outputs, exact)

    def chain(self, model: keras.Sequential, arguments: Arguments) -> list[Ref]:
        """Adds the layers of a Sequential model that is not built."""
        for layer in model.layers:
            arguments = (tuple(self.expand(layer, arguments)), {})
        return [value for value in arguments[0] if isinstance(value, Ref)]

    def nodes(self, model: Any, given: list[Any]) -> list[Ref]:
        """Adds the nodes that a Functional model has recorded, on these input tensors."""
        given = [self._of_rank(tensor, ref) for tensor, ref in zip(model.inputs, given)]
        symbols = dict(zip(map(id, model.inputs), given))
        exact = all(self._fits(tensor, ref) for tensor, ref in zip(model.inputs, given))
        exact = exact and all(is_told(tensor) for tensor in model.outputs)
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    self._node(node, symbols, exact)
        return [symbols[id(tensor)] for tensor in model.outputs if id(tensor) in symbols]

    def _node(self, node: Any, symbols: dict[int, Any], exact: bool) -> None:
        made = self.expand(node.operation, filled(node.arguments, symbols), node.outputs, exact)
        symbols.update(zip(map(id, node.outputs), made))

    def _of_rank(self, tensor: Any, ref: Any) -> Any:
        """Returns an input with a last axis of one more or less, where a Functional model adds or drops that."""
        spec = self.specs.get(ref.number) if isinstance(ref, Ref) else None
        rank = len(tensor.shape)
        if spec is not None and len(spec.shape) == rank - 1 and tensor.shape[-1] == 1:
            shape = (*spec.shape, 1)
        elif spec is not None and len(spec.shape) == rank + 1 and spec.shape[-1] == 1:
            shape = spec.shape[:-1]
        else:
            return ref
        return self._leaf(keras.layers.Reshape(shape[1:], name="rank"), ((ref,), {}), None, False)[0]

    def _fits(self, tensor: Any, ref: Any) -> bool:
        """Whether a tensor has the shape that a model was made for, but for the size of the batch."""
        spec = self.specs.get(ref.number) if isinstance(ref, Ref) else None
        return spec is not None and spec.shape[1:] == tuple(tensor.shape)[1:]

    def _outputs_now(self, operation: Any, arguments: Arguments) -> list[Any] | None:
        """Returns what an operation puts out for these arguments, where Keras can tell."""
        try:
            args, kwargs = self._symbols(arguments)
            made = list(tree.flatten(operation.compute_output_spec(*args, **kwargs)))
            if isinstance(operation, keras.layers.EinsumDense) and not all(map(is_told, made)):
                # Its own account leaves open what the shape it was made with does.
                made = list(tree.flatten(keras.Operation.compute_output_spec(operation, *args, **kwargs)))
            return made
        except Exception:
            # Whatever a layer's own code raises on symbols: the shapes it recorded must do.
            return None

    def _composite(self, layer: Any, arguments: Arguments, outputs: list[Any] | None) -> list[Ref] | None:
        """Adds what a composite's `call` does; `None` where it refuses symbols."""
        before, within = (len(self.calls), len(self.opaque)), self._within
        try:
            args, kwargs = self._symbols(arguments)
            refs = {id(t): ref for t, ref in _pairs((args, kwargs), arguments)}
            made = tree.flatten(layer.call(*args, **_accepted(layer, kwargs)))
            self._within = layer
            refs_made = self._recorded(layer, _expected(made, outputs), refs)
            if self._runnable and not layers_called(layer) and self._has_baked(layer, before[0]):
                raise UnreadableError("What its weights hold now would be taken for constants.")
            return refs_made
        except Exception as error:
            # Whatever a layer's own code raises on symbols: it stays one call, and a note says so.
            del self.calls[before[0] :], self.opaque[before[1] :]
            # A layer alone that is not built has a note of its own.
            if not isinstance(error, UnreadableError) or layers_called(layer):
                self.opaque.append(Opaque(self._path(layer), " ".join(str(error).split())[:200]))
            return None
        finally:
            self._within = within

    def _recorded(self, layer: Any, made: list[Any], refs: dict[int, Any]) -> list[Ref]:
        """Adds the nodes that lead from the inputs `refs` to the outputs `made`."""
        symbols = dict(refs)
        outputs = [tensor for tensor in made if isinstance(tensor, keras.KerasTensor)]
        if not outputs and layers_called(layer):
            raise UnreadableError("Its outputs do not depend on its inputs.")
        nodes = recorded_nodes(outputs, refs)
        try:
            for node in nodes:
                self._node(node, symbols, exact=True)
        finally:
            forget_nodes(nodes)
        return [symbols.get(id(tensor)) or self._constant(tensor) for tensor in made]

    def _has_baked(self, layer: Any, first: int) -> bool:
        """Whether a layer has turned weights of its own into numbers before they met a symbol."""
        used = {id(variable) for call in self.calls[first:] for variable in call.variables}
        return any(id(weight) not in used for weight in layer.weights if len(weight.shape) >= 2)

    def _constant(self, value: Any) -> Ref:
        shape = getattr(value, "shape", ())
        ref = self.tensor(Spec(tuple(shape), keras.backend.standardize_dtype(getattr(value, "dtype", None))))
        self.constants[ref.number] = value
        return ref

    def _leaf(self, operation: Any, arguments: Arguments, outputs: list[Any] | None, exact: bool) -> list[Ref]:
        given = tuple(ref.number for ref in refs_in(arguments))
        holds = exact and outputs is not None and all(map(is_told, outputs)) and self._keep_batch(given)
        if not holds or type(operation).__name__ in _MERGING:
            outputs = self._outputs_now(operation, arguments) or outputs
        made = [self.tensor()] if outputs is None else [self.tensor(closed(each, self._batch)) for each in outputs]
        self.calls.append(Call(operation, given, tuple(ref.number for ref in made), *arguments, self._within))
        return made

    def _keep_batch(self, tensors: Iterable[int]) -> bool:
        """Whether the first axis of these tensors is the batch, and no axis that holds it and more."""
        shapes = (self.specs[number].shape for number in tensors if number in self.specs)
        return all(shape[:1] == (self._batch,) for shape in shapes)

    def _symbols(self, arguments: Arguments) -> Arguments:
        """Returns the arguments with a fresh symbolic tensor for each `Ref`, one for each number."""
        made: dict[int, Any] = {}

        def symbol(value: Any) -> Any:
            if not isinstance(value, Ref):
                return value
            spec = self.specs.get(value.number)
            if spec is None:
                raise UnreadableError("The shape of its input is not known: the model is not built.")
            return made.setdefault(value.number, keras.KerasTensor(spec.shape, dtype=spec.dtype))

        args, kwargs = tree.map_structure(symbol, arguments)
        return args, kwargs

    def _remember(self, operation: Any, made: list[Ref]) -> list[Ref]:
        earlier = self.expanded.get(id(operation), ())
        self.expanded[id(operation)] = (*earlier, *(ref.number for ref in made))
        return made

    def _path(self, layer: Any) -> str:
        return self._paths.get(id(layer), layer.name)


def functional_of(operation: Any) -> Any:
    """Returns the model that has recorded its nodes and computes by them, or `None`."""
    if isinstance(operation, keras.Sequential):
        return operation._functional
    return operation if is_functional(operation) else None


def is_functional(operation: Any) -> bool:
    """Whether an operation is a model that has recorded its nodes, and computes by them."""
    if not isinstance(operation, keras.Function) or not isinstance(operation, keras.Model):
        return False
    return type(operation).call.__module__.startswith("keras.")


def is_composite(operation: Any) -> bool:
    """Whether a layer is to be looked into: a subclassed model, or a layer that is no kind of Keras's own.

    A subclass of `Conv2D` is a `Conv2D`, and stays one call.
    """
    if not isinstance(operation, keras.Layer) or isinstance(operation, tuple(_WHOLE)):
        return False
    own = next(kind for kind in type(operation).__mro__ if kind.__module__.startswith("keras."))
    return own in _BARE or issubclass(own, _LOOKED_INTO) or _is_arithmetic(operation, own)


def _is_arithmetic(layer: keras.Layer, own: type) -> bool:
    """Whether a layer of an application of Keras only computes, as the scaled sums of InceptionResNetV2 do."""
    return ".applications." in own.__module__ and not layer.weights and not layer._call_has_training_arg


def keep_whole(kind: type) -> None:
    """Has layers of a class stay one call, whatever is inside: somebody says what they do."""
    _WHOLE.add(kind)


_WHOLE: set[type] = set()
_BARE = (keras.Layer, *keras.Layer.__bases__, keras.Model, *keras.Model.__mro__)
_LOOKED_INTO = (*ATTENTION, keras.layers.Lambda, keras.layers.Attention, keras.layers.AdditiveAttention)

# Operations that may merge the batch into another axis, so that `None` stands for more than the batch.
_MERGING = frozenset({"Reshape", "Ravel", "Transpose", "Swapaxes", "Moveaxis", "Concatenate", "BroadcastTo"})


def layers_called(layer: Any) -> bool:
    """Whether a layer holds others."""
    return any(True for _ in layer._flatten_layers(recursive=False, include_self=False))


def is_told(tensor: Any) -> bool:
    """Whether a symbolic tensor's shape leaves nothing open but the size of the batch."""
    return None not in tuple(tensor.shape)[1:]


def closed(tensor: Any, batch: int = BATCH) -> Spec:
    """Returns the shape of a symbolic tensor with what it leaves open filled in."""
    shape = tuple(tensor.shape)
    sizes = tuple((LENGTH if axis else batch) if size is None else size for axis, size in enumerate(shape))
    return Spec(sizes, keras.backend.standardize_dtype(tensor.dtype))


def filled(arguments: Any, symbols: dict[int, Any]) -> Arguments:
    """Returns a node's arguments with what stands for each of its tensors."""
    single = arguments._single_positional_tensor
    if single is not None:
        return (symbols.get(id(single)),), {}

    def fill(value: Any) -> Any:
        return symbols.get(id(value)) if isinstance(value, keras.KerasTensor) else value

    args, kwargs = arguments.convert(fill)
    return tuple(args), kwargs


def refs_in(structure: Any) -> list[Ref]:
    """Returns the tensors among arguments, in order."""
    return [value for value in tree.flatten(structure) if isinstance(value, Ref)]


def recorded_nodes(outputs: Iterable[Any], known: dict[int, Any]) -> list[Any]:
    """Returns the nodes that lead to `outputs`, each after those it depends on; iterative, for deep models."""
    ordered: list[Any] = []
    state: dict[int, bool] = {}
    stack = [(node, False) for tensor in outputs for node in _node_before(tensor, known)][::-1]
    while stack:
        node, ready = stack.pop()
        if ready:
            state[id(node)] = True
            ordered.append(node)
        elif id(node) not in state:
            state[id(node)] = False
            stack.append((node, True))
            before = [one for tensor in node.arguments.keras_tensors for one in _node_before(tensor, known)]
            stack.extend((one, False) for one in reversed(before) if id(one) not in state)
    return ordered


def _node_before(tensor: Any, known: dict[int, Any]) -> Iterator[Any]:
    history = getattr(tensor, "_keras_history", None)
    if id(tensor) not in known and history is not None and history.operation is not None:
        yield history.operation._inbound_nodes[history.node_index]


def _inputs_given(model: Any, arguments: Arguments) -> list[Any]:
    """Returns what a Functional model's inputs are given, in the order of `model.inputs`."""
    args, kwargs = arguments
    given = args[0] if args else kwargs.get("inputs", next(iter(kwargs.values()), None))
    expected = model._inputs_struct
    if isinstance(given, dict) and isinstance(expected, dict):
        given = {name: given.get(name) for name in expected}
    elif isinstance(given, dict):
        given = [given.get(tensor.name) for tensor in model.inputs]
    return list(tree.flatten(given))


def _pairs(symbols: Any, arguments: Any) -> Iterator[tuple[Any, Ref]]:
    for symbol, ref in zip(tree.flatten(symbols), tree.flatten(arguments), strict=True):
        if isinstance(ref, Ref):
            yield symbol, ref


def _accepted(layer: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments for `call`: what is done in training only seldom takes symbols."""
    if "training" in inspect.signature(layer.call).parameters:
        return {"training": False, **kwargs}
    # Keras takes it from every caller and hands it on to those who want it.
    return {name: value for name, value in kwargs.items() if name != "training"}


def _expected(made: list[Any], outputs: list[Any] | None) -> list[Any]:
    """Returns those of the things that a layer put out that were recorded as its outputs."""
    something = [value for value in made if value is not None]
    tensors = [value for value in something if isinstance(value, keras.KerasTensor)]
    for values in (something, tensors):
        if outputs is None or len(values) == len(outputs):
            return values
    raise UnreadableError(f"It put out {len(outputs or ())} tensors when it was recorded, and {len(something)} now.")
