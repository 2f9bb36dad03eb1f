"""Calls layers and functions on symbols and leaves no trace of it: no node, no name, no loss, no state."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
from keras import tree
from keras.src.backend.common import global_state
from keras.src.layers import layer as keras_layer
from keras.src.ops import operation as keras_operation
from keras.src.ops.node import Node

from keras_autoinit.variables import Variable

# Lists and sets of a layer that a call adds to in place.
_GROWING = ("_inbound_nodes", "_outbound_nodes", "_losses", "_loss_ids", "_metrics")
_NAMES = "object_name_uids"
# Where a call of a layer is recorded: by the layer itself; in older Keras, such as 3.9, by its base class.
_RECORDER: Any = keras_layer if hasattr(keras_layer, "Node") else keras_operation


@contextlib.contextmanager
def untraced(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Puts back, at its end, what calls of these layers on symbols have left on them and in Keras.

    Variables are not written to meanwhile: a seed generator that a call asks for numbers, say,
    keeps its state.
    """
    before = [(layer, dict(vars(layer)), _contents(layer)) for layer in layers]
    for layer, *_ in before:
        # Forgotten with everything else at the end. Keras takes no symbol for a loss.
        vars(layer).update(compute_output_spec=functools.partial(_output_spec, layer), add_loss=_ignore)
    names = global_state.get_global_attribute(_NAMES)
    names_before = None if names is None else dict(names)
    try:
        with keras.StatelessScope(), _lenient_keras(), warnings.catch_warnings():
            # What a layer warns of on symbols, it has warned of when it was built.
            warnings.simplefilter("ignore")
            yield
    finally:
        for layer, attributes, contents in before:
            _restore(layer, attributes, contents)
        if names is not None and names_before is not None:
            names.clear()
            names.update(names_before)


def _output_spec(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Returns what a layer puts out, by its own account or, where that knows less than its `call`, by the latter."""
    try:
        spec = type(layer).compute_output_spec(layer, *args, **kwargs)
    except TypeError:
        return keras.Operation.compute_output_spec(layer, *args, **kwargs)
    if isinstance(layer, keras.layers.EinsumDense) and None in spec.shape:
        return _einsum_spec(layer.equation, args[0] if args else kwargs["inputs"], spec)
    return spec


def _einsum_spec(equation: str, given: Any, spec: Any) -> Any:
    """Returns the output of an `EinsumDense` with the lengths that its input tells.

    Keras gives those that were known when the layer was built.
    """
    source, _, rest = equation.replace(" ", "").partition(",")
    output = rest.partition("->")[2]
    # Letters after an ellipsis are counted from the end, and what it stands for from the start.
    known: dict[Any, Any] = dict(zip(reversed(source.rpartition("...")[2]), reversed(given.shape)))
    free = len(spec.shape) - len(output.replace("...", ""))
    letters = [*range(free), *output.replace("...", "")] if "..." in output else [*output]
    known.update(enumerate(given.shape[:free]))
    told = tuple(known.get(letter) if size is None else size for letter, size in zip(letters, spec.shape))
    return keras.KerasTensor(told, dtype=spec.dtype)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Does nothing."""


@contextlib.contextmanager
def _lenient_keras() -> Iterator[None]:
    """Lets Keras record two things that it computes but refuses to record.

    `variable * symbol`, which it hands to the backend, is recorded as `symbol * variable` is; and a
    layer may put out `None` beside tensors. Nothing changes for whoever computes meanwhile.
    """
    kept = {name: getattr(Variable, name) for name in _OPERATORS}
    for name, operation in _OPERATORS.items():
        setattr(Variable, name, _recording(kept[name], operation))
    strict, _RECORDER.Node = _RECORDER.Node, _node_of_tensors
    try:
        yield
    finally:
        _RECORDER.Node = strict
        for name, method in kept.items():
            setattr(Variable, name, method)


def _node_of_tensors(operation: Any, call_args: Any, call_kwargs: Any, outputs: Any) -> Node:
    tensors = [value for value in tree.flatten(outputs) if isinstance(value, keras.KerasTensor)]
    return Node(operation, call_args, call_kwargs, tensors)


def _recording(method: Callable[[Any, Any], Any], operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @functools.wraps(method)
    def operator(variable: Any, other: Any) -> Any:
        return (operation if isinstance(other, keras.KerasTensor) else method)(variable, other)

    return operator


_OPERATORS = {
    "__add__": keras.ops.add,
    "__matmul__": keras.ops.matmul,
    "__mul__": keras.ops.multiply,
    "__sub__": keras.ops.subtract,
    "__truediv__": keras.ops.divide,
}


def operation_of(function: Callable[[Any], Any]) -> Any:
    """Returns the one operation that a function applies to a symbol, or `None` where it does anything else."""
    with untraced(()):
        symbol = keras.KerasTensor((2, 2))
        try:
            nodes = _nodes_before(function(symbol))
        except Exception:  # Whatever a function's own code raises on symbols: it takes none.
            return None
        forget_nodes(nodes)
    alone = len(nodes) == 1 and [tensor is symbol for tensor in nodes[0].arguments.keras_tensors] == [True]
    return nodes[0].operation if alone else None


def _nodes_before(made: Any) -> list[Any]:
    """Returns the nodes that one tensor is made by."""
    found: list[Any] = []
    waiting = [made]
    while waiting:
        history = getattr(waiting.pop(), "_keras_history", None)
        # A symbol that nothing has made has no operation.
        if history is not None and history.operation is not None:
            node = history.operation._inbound_nodes[history.node_index]
            if node not in found:
                found.append(node)
                waiting.extend(node.arguments.keras_tensors)
    return found


def forget_nodes(nodes: Iterable[Any]) -> None:
    """Removes nodes from operations that the model does not own, such as layers that a function holds."""
    for node in nodes:
        for end in (node.operation._inbound_nodes, *(o._outbound_nodes for o in _operations_before(node))):
            if node in end:
                end.remove(node)


def _operations_before(node: Any) -> list[Any]:
    histories = [getattr(tensor, "_keras_history", None) for tensor in node.arguments.keras_tensors]
    return [history.operation for history in histories if history is not None and history.operation is not None]


def _contents(layer: Any) -> dict[str, Any]:
    return {name: list(value) for name in _GROWING if (value := vars(layer).get(name))}


def _restore(layer: Any, attributes: dict[str, Any], contents: dict[str, Any]) -> None:
    """Writes past `__setattr__`, which would track what is put back as if it were new."""
    now = vars(layer)
    for name in now.keys() - attributes.keys():
        del now[name]
    now.update(attributes)
    for name in _GROWING:
        value, held = now.get(name), contents.get(name, ())
        if isinstance(value, list) and len(value) != len(held):
            value[:] = held
        elif isinstance(value, set) and len(value) != len(held):
            value.intersection_update(held)
