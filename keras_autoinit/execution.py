"""Runs a flat graph on a batch, operation by operation, and lets each tensor go after its last reader.

Nothing is stored: every call runs in a stateless scope, so that moving averages, seed generators,
losses and metrics stay as they are. Normalizations by the batch use the batch's own statistics, as in
training; dropout and noise are off.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import tree

from keras_autoinit.errors import DataError
from keras_autoinit.graphs import Call, Graph, Ref

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Substitutes = Sequence[tuple[Any, Any]]
# Computes what calls of one operation put out, given the arguments of each.
Compute = Callable[[tuple[Call, ...], list[Arguments]], list[Any]]


def executed(
    graph: Graph, batch: Any, compute: Compute | None = None, groups: Iterable[Sequence[Call]] = ()
) -> Iterator[tuple[Call, list[Any]]]:
    """Yields each call of a graph and the tensors that it has put out, in the order of computation.

    When to use: to see, or to replace, what passes between the layers of a model. Peak memory is
    that of an ordinary forward pass: a tensor is let go after its last reader.

    Args:
        graph: read with this very batch, whose size is written into its shapes.
        batch: what the model is called on: an array, or a structure of arrays.
        compute: returns, for calls and the arguments of each, the structure of tensors that each
            puts out; `call_plainly` when not given.
        groups: calls that are to be computed together, none of which depends on another of them.

    Raises:
        DataError: the batch does not have the tensors that the graph was read with.

    Example:
        >>> import numpy as np
        >>> from keras_autoinit.graphs import read
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.ReLU()])
        >>> batch = np.ones((2, 3), "float32")
        >>> [(call.name, tuple(outputs[0].shape)) for call, outputs in executed(read(model, batch), batch)]
        [('dense', (2, 4)), ('re_lu', (2, 4))]
    """
    tensors = {**graph.constants, **_inputs(graph, batch)}
    steps = scheduled(graph, groups)
    waiting = Counter(number for step in steps for call in step for number in set(call.inputs))
    waiting.update(graph.outputs)
    for step in steps:
        arguments = [_filled(call, tensors) for call in step]
        made = (compute or call_plainly)(step, arguments)
        del arguments
        for call, outputs in zip(step, made):
            flat = [tensor for tensor in tree.flatten(outputs) if tensor is not None]
            tensors.update(zip(call.outputs, flat))
            yield call, flat
        del made, outputs, flat
        _let_go(tensors, step, waiting)


def call_plainly(calls: tuple[Call, ...], arguments: list[Arguments]) -> list[Any]:
    """Returns what the calls put out with the weights that the model has."""
    return [computed(call.operation, each) for call, each in zip(calls, arguments)]


def computed(operation: Any, arguments: Arguments, substitutes: Substitutes = (), differentiable: bool = False) -> Any:
    """Returns what an operation puts out, as in training but for dropout and noise; stores nothing.

    Args:
        operation: a layer or an operation.
        arguments: its arguments.
        substitutes: variables, and the value that each is to have meanwhile.
        differentiable: whether torch is to keep what it needs for gradients.
    """
    args, kwargs = arguments
    if isinstance(operation, keras.Layer) and _takes_training(type(operation).call):
        kwargs = {**kwargs, "training": normalizes_by_batch(operation)}
    with storing_nothing(substitutes, differentiable):
        return operation(*args, **kwargs)


@contextlib.contextmanager
def storing_nothing(substitutes: Substitutes = (), differentiable: bool = False) -> Iterator[keras.StatelessScope]:
    """Gives variables other values for a while; what is assigned to a variable meanwhile is forgotten."""
    with contextlib.ExitStack() as scopes, warnings.catch_warnings():
        # What a layer warns of here, it warns of in every other call.
        warnings.simplefilter("ignore")
        if keras.config.backend() == "torch":
            import torch

            scopes.enter_context(torch.enable_grad() if differentiable else torch.no_grad())
        scope = keras.StatelessScope(substitutes, collect_losses=True, initialize_variables=False)
        yield scopes.enter_context(scope)


def normalizes_by_batch(operation: Any) -> bool:
    """Whether an operation is a normalization whose statistics, in training, are those of the batch."""
    return isinstance(operation, keras.layers.BatchNormalization)


def scheduled(graph: Graph, groups: Iterable[Sequence[Call]] = ()) -> list[tuple[Call, ...]]:
    """Returns the calls of a graph in an order of computation, each group as one step.

    A group is computed when the inputs of its last member are; what only they need goes before it.
    """
    together = [tuple(group) for group in groups]
    while True:
        steps, tangled = _scheduled(graph, together)
        if tangled is None:
            return steps
        # Two groups each of which needs a member of the other first: one is taken apart.
        together = [group for group in together if group is not tangled]


def _scheduled(
    graph: Graph, groups: Sequence[tuple[Call, ...]]
) -> tuple[list[tuple[Call, ...]], tuple[Call, ...] | None]:
    """Returns the steps, or a group that stands in the way of finding them."""
    group_of = {id(call): group for group in groups for call in group}
    steps: list[tuple[Call, ...]] = []
    done: set[int] = set()
    entered: dict[int, tuple[Call, ...]] = {}
    stack = [(call, False) for call in reversed(graph.calls)]
    while stack:
        call, ready = stack.pop()
        members = group_of.get(id(call), (call,))
        if id(call) in done:
            continue
        if ready:
            steps.append(members)
            done.update(map(id, members))
            continue
        if id(call) in entered:
            return [], next(group for group in reversed(entered.values()) if len(group) > 1)
        entered.update((id(member), members) for member in members)
        stack.append((call, True))
        makers = (graph.maker(number) for member in members for number in member.inputs)
        stack.extend((maker, False) for maker in makers if maker is not None and id(maker) not in done)
    return steps, None


def peak_elements(graph: Graph) -> int:
    """Returns how many numbers are held at once, at most, between the calls of a graph."""
    sizes = {number: functools.reduce(lambda a, b: a * b, spec.shape, 1) for number, spec in graph.specs.items()}
    waiting = Counter(number for call in graph.calls for number in set(call.inputs))
    waiting.update(graph.outputs)
    held = sum(sizes.get(number, 0) for number in graph.inputs)
    peak = held
    for call in graph.calls:
        held += sum(sizes.get(number, 0) for number in call.outputs)
        peak = max(peak, held)
        waiting.subtract(set(call.inputs))
        gone = [number for number in {*call.inputs, *call.outputs} if waiting[number] <= 0]
        held -= sum(sizes.get(number, 0) for number in gone)
    return peak


def _inputs(graph: Graph, batch: Any) -> dict[int, Any]:
    """Returns the tensors of a batch, by number."""
    arrays = tree.flatten(batch)
    shapes = [graph.specs[number].shape if number in graph.specs else None for number in graph.inputs]
    given = [tuple(getattr(array, "shape", ())) for array in arrays]
    if given != shapes:
        raise DataError(
            f"Expected the batch that the model was read with, of the shapes {shapes}. Received the shapes {given}."
        )
    return {number: keras.ops.convert_to_tensor(array) for number, array in zip(graph.inputs, arrays)}


def _filled(call: Call, tensors: dict[int, Any]) -> Arguments:
    """Returns a call's arguments with its tensors, `None` for a tensor that nothing makes."""

    def fill(value: Any) -> Any:
        return tensors.get(value.number) if isinstance(value, Ref) else value

    args, kwargs = tree.map_structure(fill, (call.args, call.kwargs))
    return args, kwargs


def _let_go(tensors: dict[int, Any], step: tuple[Call, ...], waiting: Counter[int]) -> None:
    for call in step:
        waiting.subtract(set(call.inputs))
    for number in {number for call in step for number in (*call.inputs, *call.outputs)}:
        if waiting[number] <= 0:
            tensors.pop(number, None)


@functools.cache
def _takes_training(call: Callable[..., Any]) -> bool:
    return "training" in inspect.signature(call).parameters
