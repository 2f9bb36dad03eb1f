"""Operations that nobody has a rule for: run on random numbers of the predicted moments, forward and back."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_autoinit.execution import computed
from keras_autoinit.gradients import Pullback, is_float, pullback_of
from keras_autoinit.graphs import Ref
from keras_autoinit.rules.base import Backward, Context, Effect, Gradients
from keras_autoinit.signals import Shape, Signal, constant
from keras_autoinit.traces import untraced

# How many samples are run at least and at most: in between as many as hold so many numbers.
FEWEST, MOST, NUMBERS = 16, 512, 2**16


def measure(context: Context) -> Effect:
    """Runs an operation on random numbers and back on random gradients, and reads the moments of what it makes."""
    name = context.call.name
    try:
        outputs, backward = _measured(context)
        note = f"{name!r} has no rule: its output was measured on random input of the predicted moments."
    except Exception as error:
        # Whatever foreign code raises: the signal is taken to pass, and the note says so.
        outputs, backward = _passed_on(context)
        reason = " ".join(str(error).split())[:120]
        note = f"{name!r} has no rule and could not be run on random input ({reason}): taken to pass its input on."
    outputs = (*outputs, *[Signal(1.0, 0.0, (0.0,))] * len(context.call.outputs))[: len(context.call.outputs)]
    return Effect(outputs, backward, note=note)


def _passed_on(context: Context) -> tuple[tuple[Signal, ...], Backward]:
    """Takes the first signal for all outputs; gradients come back as large, for each entry as many as there are."""
    rank = len(context.shape_out())
    source = context.signals[0] if context.signals else Signal(1.0)

    def backward(gradients: Gradients) -> Gradients:
        found = next((one for one in gradients if one is not None), None)
        given = range(len(context.call.inputs))
        return tuple(found and _alone(found.second_moment * _growth(context, index), context, index) for index in given)

    return (Signal(source.second_moment, source.mean, (0.0,) * rank),) * len(context.call.outputs), backward


def _alone(second_moment: float, context: Context, index: int) -> Signal:
    return Signal(second_moment, 0.0, (0.0,) * len(context.shape_in(index)))


def _growth(context: Context, index: int) -> float:
    made, given = math.prod(context.shape_out()), math.prod(context.shape_in(index))
    return made / given if made and given else 1.0


def _measured(context: Context) -> tuple[tuple[Signal, ...], Backward]:
    """Returns what an operation makes, and what it hands back of the gradients at its outputs."""
    source = np.random.default_rng(0)
    arguments = _random_arguments(context, source)
    leaves, weights = tree.flatten(arguments), _random_weights(context, source)
    refs = tree.flatten((context.call.args, context.call.kwargs))
    places = [i for i, ref in enumerate(refs) if isinstance(ref, Ref) and is_float(leaves[i])]
    given = [leaves[place] for place in places]

    def function(tensors: list[Any]) -> list[Any]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors):
            filled[place] = tensor
        made = computed(context.layer, tree.pack_sequence_as(arguments, filled), weights, differentiable=True)
        return [one for one in tree.flatten(made) if one is not None]

    def run() -> tuple[list[Any], Pullback]:
        # What a layer keeps of its first call, as a table of steps, is not to be kept of this one.
        with untraced([place.layer for place in context.graph.places]):
            return pullback_of(function, given)

    def backward(gradients: Gradients) -> Gradients:
        made, pullback = run()
        random = np.random.default_rng(1)
        found = pullback([one and _tensor(drawn(one, tuple(at.shape), random)) for one, at in zip(gradients, made)])
        parts: dict[int, Any] = {}
        for place, one in zip(places, found):
            if one is not None:
                # A tensor that is given twice hears of both.
                number = refs[place].number
                parts[number] = parts.get(number, 0.0) + keras.ops.convert_to_numpy(one)
        known = {number: _spread_out(one) for number, one in parts.items()}
        return tuple(known.get(number) for number in context.call.inputs)

    made, _ = run()
    outputs = tuple(constant(keras.ops.convert_to_numpy(value))[0] for value in made)
    # What cannot be run back is to fail now, where a note can say so.
    backward(outputs)
    return outputs, backward


def _spread_out(numbers: np.ndarray) -> Signal:
    """Returns a gradient as measured: where on an axis it is larger than chance allows, it is said to be so."""
    squares, profile = numbers.astype(np.float64) ** 2, []
    for axis in range(numbers.ndim):
        others = tuple(one for one in range(numbers.ndim) if one != axis)
        by_place = squares.mean(axis=others)
        chance = np.sqrt(2 * by_place.size / max(squares.size, 1)) * by_place.mean()
        uneven = axis > 0 and by_place.mean() > 0 and np.std(by_place) > 3 * chance
        profile.append(by_place / by_place.mean() if uneven else None)
    spread = tuple(profile) if any(one is not None for one in profile) else ()
    return dataclasses.replace(constant(numbers)[0], mean=0.0, profile=spread)


def drawn(signal: Signal, shape: Shape, source: np.random.Generator) -> np.ndarray:
    """Returns Gaussian numbers that agree along each axis as a signal does.

    What is the same along the axes on which entries agree most is added to what is the same along fewer: entries
    that differ on several agree as little as the least of these.
    """
    along = signal.along if len(signal.along) == len(shape) else (signal.mean**2,) * len(shape)
    levels = sorted(((min(value, signal.second_moment), axis) for axis, value in enumerate(along)), reverse=True)
    numbers = np.full(shape, signal.mean)
    left, size = signal.second_moment, list(shape)
    for value, axis in [*levels, (signal.mean**2, None)]:
        value = max(value, signal.mean**2)
        numbers = numbers + math.sqrt(max(left - value, 0.0)) * source.standard_normal(size)
        left = min(left, value)
        if axis is not None:
            size[axis] = 1
    return numbers


def _tensor(numbers: np.ndarray) -> Any:
    return keras.ops.convert_to_tensor(numbers.astype("float32"))


def _random_weights(context: Context, source: np.random.Generator) -> list[tuple[Any, Any]]:
    """Returns the weights inside a layer that are to be drawn anew, each with random numbers as large as those."""
    found = []
    for variable in context.layer.weights if isinstance(context.layer, keras.Layer) else ():
        square = context.weights.variable(variable, 1.0) if len(variable.shape) >= 2 else None
        if square is not None:
            numbers = math.sqrt(square) * source.standard_normal(tuple(variable.shape))
            found.append((variable, _tensor(numbers)))
    return found


def _random_arguments(context: Context, source: np.random.Generator) -> Any:
    """Returns a call's arguments with random numbers of the predicted moments for its tensors, ones for integers."""
    first = context.graph.specs.get(context.graph.inputs[0]) if context.graph.inputs else None
    batch = first.shape[0] if first is not None and first.shape else 0
    largest = max((math.prod(context.graph.specs[one].shape) for one in context.call.inputs), default=1)
    samples = min(max(NUMBERS * max(batch, 1) // max(largest, 1), FEWEST), MOST)
    values: dict[int, Any] = {}
    for number, signal in zip(context.call.inputs, context.signals):
        spec = context.graph.specs[number]
        more = batch and spec.shape and spec.shape[0] % batch == 0
        shape = (spec.shape[0] // batch * samples, *spec.shape[1:]) if more else spec.shape
        numbers = drawn(signal, shape, source) if "float" in spec.dtype else np.ones(shape)
        values[number] = keras.ops.convert_to_tensor(numbers.astype(spec.dtype))
    fill = lambda one: values[one.number] if isinstance(one, Ref) else one  # noqa: E731
    return tree.map_structure(fill, (context.call.args, context.call.kwargs))
