"""Operations that nobody has a rule for: run once on random input of the predicted moments."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_autoinit.graphs import Ref
from keras_autoinit.rules.base import Context, Effect, Gradients
from keras_autoinit.signals import Signal, constant
from keras_autoinit.traces import untraced

SAMPLES = 16


def measure(context: Context) -> Effect:
    """Runs an operation on random numbers and reads its output's moments.

    The gradient is taken to grow as it would through independent weights of the same power.
    """
    name = context.call.name
    try:
        outputs = tuple(_signal(value) for value in _run(context))
        note = f"{name!r} has no rule: its output was measured on random input of the predicted moments."
    except Exception as error:
        # Whatever foreign code raises: the signal is taken to pass, and the note says so.
        rank = len(context.shape_out())
        source = context.signals[0] if context.signals else Signal(1.0)
        outputs = (Signal(source.second_moment, source.mean, (0.0,) * rank),) * len(context.call.outputs)
        reason = " ".join(str(error).split())[:120]
        note = f"{name!r} has no rule and could not be run on random input ({reason}): taken to pass its input on."
    outputs = (*outputs, *[Signal(1.0, 0.0, (0.0,))] * len(context.call.outputs))[: len(context.call.outputs)]

    def backward(gradients: Gradients) -> Gradients:
        found = next((one for one in gradients if one is not None), None)
        return tuple(_shared(context, index, outputs[0], found) for index in range(len(context.call.inputs)))

    return Effect(outputs, backward, note=note)


def _shared(context: Context, index: int, made: Signal, gradient: Signal | None) -> Signal | None:
    if gradient is None:
        return None
    given, rank = context.signals[index], len(context.shape_in(index))
    counts = math.prod(context.shape_out()), math.prod(context.shape_in(index))
    growth = counts[0] / counts[1] if all(counts) else 1.0
    power = made.second_moment / given.second_moment if given.second_moment > 0 else 1.0
    return Signal(gradient.second_moment * power * growth, 0.0, (0.0,) * rank)


def _run(context: Context) -> list[Any]:
    source = np.random.default_rng(0)
    values: dict[int, Any] = {}
    for number, signal in zip(context.call.inputs, context.signals):
        spec = context.graph.specs[number]
        shape = (SAMPLES, *spec.shape[1:]) if spec.shape else ()
        if "int" in spec.dtype or spec.dtype == "bool":
            values[number] = np.ones(shape, spec.dtype)
        else:
            values[number] = (signal.mean + math.sqrt(signal.variance) * source.standard_normal(shape)).astype(
                "float32"
            )

    def fill(value: Any) -> Any:
        return keras.ops.convert_to_tensor(values[value.number]) if isinstance(value, Ref) else value

    args, kwargs = tree.map_structure(fill, (context.call.args, context.call.kwargs))
    # What a layer keeps of its first call, as a table of steps, is not to be kept of this one.
    with untraced([place.layer for place in context.graph.places]):
        return list(tree.flatten(context.layer(*args, **kwargs)))


def _signal(value: Any) -> Signal:
    return constant(keras.ops.convert_to_numpy(value))[0]
