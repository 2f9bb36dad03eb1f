"""Masks: which keys a soft-max may look at, worked out for samples without padding.

What masks are made of depends on few numbers: on constants, on masks that a model is given, and on which words
are padding. With all of these one, so that nothing is padding, it is computed; it is no part of the signal.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from keras_autoinit.graphs import Call, Graph, Ref
from keras_autoinit.rules.base import Context
from keras_autoinit.signals import Shape

# What is added to a logit to bar it: of what is beyond, a soft-max leaves nothing.
BARRED = -50.0
# How many counts of keys stand for those of all queries.
SHOWN = 32
# Through these a mask that was added before goes on to the soft-max.
_PASSING = {"Add", "Subtract", "Where", "Reshape", "Cast", "Dropout", "Concatenate", "ExpandDims", "Squeeze", "Maximum"}


def numbers_of(graph: Graph, value: Any) -> np.ndarray | None:
    """Returns the numbers of an argument of a call, if they follow from constants and from masks of ones alone."""
    if not isinstance(value, Ref):
        known = isinstance(value, (int, float, bool, np.number, np.ndarray)) or keras.ops.is_tensor(value)
        return np.asarray(value if np.isscalar(value) else keras.ops.convert_to_numpy(value)) if known else None
    if value.number not in graph.worked_out:
        graph.worked_out[value.number] = None
        _work_out(graph, value.number)
    found: np.ndarray | None = graph.worked_out[value.number]
    return found


def _work_out(graph: Graph, number: int) -> None:
    spec, call = graph.specs.get(number), graph.maker(number)
    if number in graph.constants:
        graph.worked_out[number] = keras.ops.convert_to_numpy(graph.constants[number])
    elif number in graph.inputs and spec is not None and ("int" in spec.dtype or spec.dtype == "bool"):
        graph.worked_out[number] = np.ones(spec.shape, spec.dtype)
    elif call is not None and not isinstance(call.operation, keras.Layer) and not call.variables:
        _compute(graph, call)


def _compute(graph: Graph, call: Call) -> None:
    values = {number: numbers_of(graph, Ref(number)) for number in call.inputs}
    if any(value is None for value in values.values()):
        return
    args, kwargs = tree.map_structure(
        lambda one: keras.ops.convert_to_tensor(values[one.number]) if isinstance(one, Ref) else one,
        (call.args, call.kwargs),
    )
    try:
        made = tree.flatten(call.operation(*args, **kwargs))
    except Exception:
        # Whatever an operation raises on shapes that were assumed: what it makes is not known, then.
        return
    graph.worked_out.update((number, keras.ops.convert_to_numpy(one)) for number, one in zip(call.outputs, made))


def bars(graph: Graph, value: Any) -> bool:
    """Whether an argument is a mask to add to logits: numbers of which some are far below all others."""
    numbers = numbers_of(graph, value)
    return numbers is not None and bool((numbers <= BARRED).any() and (numbers > BARRED).any())


def bars_all(graph: Graph, value: Any) -> bool:
    """Whether an argument is what is put in the place of logits to bar them."""
    numbers = numbers_of(graph, value)
    return numbers is not None and numbers.size > 0 and bool((numbers <= BARRED).all())


def open_keys(context: Context, index: int, shape: Shape) -> tuple[int, ...] | None:
    """Returns how many keys queries see, behind the masks that a soft-max's input has met; `None` for all.

    Args:
        context: the call.
        index: of the tensor, among what the call takes.
        shape: of the logits, with the keys on the last axis.
    """
    return _counted(_barred_before(context.graph, context.call.inputs[index]), shape)


def keys_of_mask(context: Context, mask: Any, shape: Shape) -> tuple[int, ...] | None:
    """Returns how many keys each query sees that a mask leaves, an argument of the call; `None` for all."""
    numbers = numbers_of(context.graph, mask)
    if numbers is None and isinstance(mask, Ref) and mask.number in context.graph.specs:
        return _by_shape(context.graph.specs[mask.number].shape, shape)
    return _counted(numbers if numbers is None or numbers.dtype == bool else numbers > 0, shape)


def added_keys(context: Context, bias: Any, shape: Shape) -> tuple[int, ...] | None:
    """Returns how many keys each query sees that an argument leaves which is added to logits; `None` for all."""
    numbers = numbers_of(context.graph, bias)
    return _counted(None if numbers is None else numbers > BARRED, shape)


def _by_shape(mask: Shape, shape: Shape) -> tuple[int, ...] | None:
    """Returns what queries see by a mask of unknown numbers: if it tells them apart, what came before each."""
    apart = len(mask) > 1 and len(shape) > 1 and mask[-2] == shape[-2] > 1 and mask[-1] == shape[-1]
    return causal(shape) if apart else None


def causal(shape: Shape) -> tuple[int, ...]:
    """Returns how many keys each query sees that sees itself and what came before."""
    return _some(np.minimum(np.arange(shape[-2]) + 1, shape[-1]))


def _some(counts: np.ndarray) -> tuple[int, ...]:
    """Returns at most so many counts that stand for all, in rising order."""
    places = np.linspace(0, len(counts) - 1, min(len(counts), SHOWN)).round().astype(int)
    return tuple(np.sort(counts)[places].tolist())


def _counted(open_: Any, shape: Shape) -> tuple[int, ...] | None:
    """Returns how many keys are open to each query."""
    if open_ is None or not open_.ndim or open_.shape[-1] != shape[-1] or open_.all():
        return None
    counts = open_.sum(-1).ravel()
    return _some(counts[counts > 0]) or None


def _barred_before(graph: Graph, number: int) -> Any:
    """Returns which entries are open in a tensor that a mask was added to on its way; `None` for all."""
    call = graph.maker(number)
    if call is None or type(call.operation).__name__ not in _PASSING:
        return None
    flat = tree.flatten((call.args, call.kwargs))
    for value in flat:
        if bars(graph, value) or (type(call.operation).__name__ == "Where" and bars_all(graph, value)):
            return _open_in(graph, call, value)
    for value in flat:
        if isinstance(value, Ref) and (found := _barred_before(graph, value.number)) is not None:
            return _carried(call, value, found, graph)
    return None


def _open_in(graph: Graph, call: Call, value: Any) -> Any:
    """Returns what stays open where a call bars by an argument: adds it, or puts it in where something is so."""
    numbers = numbers_of(graph, value)
    assert numbers is not None
    if type(call.operation).__name__ != "Where":
        return numbers > BARRED
    condition, first, *_ = tree.flatten((call.args, call.kwargs))
    where = numbers_of(graph, condition)
    return None if where is None else ~where.astype(bool) if first is value else where.astype(bool)


def _carried(call: Call, value: Ref, open_: Any, graph: Graph) -> Any:
    """Returns what is open behind a call that only moves entries: the same numbers run through it."""
    name, spec = type(call.operation).__name__, graph.specs.get(call.outputs[0])
    if spec is None or name not in ("Reshape", "Concatenate"):
        return open_
    if name == "Reshape":
        given = graph.specs[value.number].shape
        return np.broadcast_to(open_, given).reshape(spec.shape)
    more = spec.shape[-1] - open_.shape[-1]
    return np.pad(open_, [*[(0, 0)] * (open_.ndim - 1), (0, max(more, 0))], constant_values=True)
