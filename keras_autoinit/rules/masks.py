"""Masks: which keys a soft-max may look at, worked out for samples without padding.

What masks are made of depends on few numbers: on constants, on masks that a model is given, and on which words
are padding. With all of these one, so that nothing is padding, it is computed; it is no part of the signal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import tree

from keras_autoinit.graphs import Call, Graph, Ref
from keras_autoinit.rules.base import Context, is_numbers, numbers_in
from keras_autoinit.signals import Shape

# What is added to a logit to bar it: of what is beyond, a soft-max leaves nothing.
BARRED = -50.0
# How many counts of keys stand for those of all queries.
SHOWN = 32
# Through these a mask that was added before goes on to the soft-max.
_PASSING = {"Add", "Subtract", "Where", "Reshape", "Cast", "Dropout", "Concatenate", "ExpandDims", "Squeeze", "Maximum"}


def numbers_of(graph: Graph, value: Any) -> np.ndarray | None:
    """Returns the numbers of an argument of a call; `None` for a tensor that depends on a signal or a weight."""
    if isinstance(value, Ref):
        return graph.numbers.get(value.number)
    return np.asarray(numbers_in(value)) if is_numbers(value) else None


def bars(graph: Graph, value: Any) -> bool:
    """Whether an argument is a mask to add to logits: numbers of which some are far below all others."""
    numbers = numbers_of(graph, value)
    return numbers is not None and bool((numbers <= BARRED).any() and (numbers > BARRED).any())


def bars_all(graph: Graph, value: Any) -> bool:
    """Whether an argument is what is put in the place of logits to bar them."""
    numbers = numbers_of(graph, value)
    return numbers is not None and numbers.size > 0 and bool((numbers <= BARRED).all())


def open_keys(context: Context, shape: Shape) -> tuple[int, ...] | None:
    """Returns how many keys queries see, behind the masks that a soft-max's input has met; `None` for all.

    Args:
        context: the soft-max.
        shape: of the logits, with the keys on the last axis.
    """
    return _counted(_open_before(context.graph, context.call.inputs[0]), shape)


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


def _open_before(graph: Graph, number: int) -> Any:
    """Returns which entries are open in a tensor that a mask was added to on its way; `None` for all."""
    seen: set[int] = set()
    # Each tensor with the way from it to the soft-max: a call, what that takes, and the rest of the way.
    left: list[tuple[int, Any]] = [(number, None)]
    while left:
        number, way = left.pop()
        call = graph.maker(number)
        if number in seen or call is None or type(call.operation).__name__ not in _PASSING:
            continue
        seen.add(number)
        flat = tree.flatten((call.args, call.kwargs))
        put_in = type(call.operation).__name__ == "Where"
        mask = next((one for one in flat if bars(graph, one) or (put_in and bars_all(graph, one))), None)
        if mask is not None:
            return _carried(graph, _open_in(graph, call, mask), way)
        left += [(one.number, (call, one, way)) for one in reversed(flat) if isinstance(one, Ref)]
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


def _carried(graph: Graph, open_: Any, way: Any) -> Any:
    """Returns what is open at the end of a way: calls that only move entries move what is open, too."""
    while way is not None and open_ is not None:
        call, value, way = way
        name, spec = type(call.operation).__name__, graph.specs.get(call.outputs[0])
        if name == "Reshape" and spec is not None:
            open_ = np.broadcast_to(open_, graph.specs[value.number].shape).reshape(spec.shape)
        elif name == "Concatenate" and spec is not None:
            more = max(spec.shape[-1] - open_.shape[-1], 0)
            open_ = np.pad(open_, [*[(0, 0)] * (open_.ndim - 1), (0, more)], constant_values=True)
    return open_
