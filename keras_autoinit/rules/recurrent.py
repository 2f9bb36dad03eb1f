"""Recurrent layers: what a cell hands on, taken to its fixed point over the steps."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from keras_autoinit.activations import Activation, activation
from keras_autoinit.responses import Response, respond
from keras_autoinit.rules.base import Context, Effect, Gradients, for_layers, layer_rule, scale
from keras_autoinit.signals import Signal
from keras_autoinit.slots import slots_of

# Enough for a state to settle; a layer with fewer steps is followed for as many as it has.
STEPS = 32


@for_layers("SimpleRNN", "GRU", "LSTM")
def recurrent(context: Context) -> Effect:
    """Follows a cell from step to step until its state settles."""
    layer: Any = context.layer
    # A GRU's bias, which has two axes, is a third.
    kernel, recurrent_kernel = slots_of(layer.cell)[:2]
    shape = context.shape_in()
    steps = min(shape[1], STEPS) if len(shape) > 2 else STEPS
    given = context.weights.power(layer.cell, kernel, context.signal.second_moment)
    fed = given * context.signal.second_moment
    power = context.weights.power(layer.cell, recurrent_kernel, 1.0)
    state = memory = 0.0
    for _ in range(steps):
        state, memory = _step(layer.cell, fed + power * state, state, memory)
    rank = 3 if layer.return_sequences else 2
    made = Signal(state, 0.0, (0.0,) * rank)
    back = given * context.growth

    def backward(gradients: Gradients) -> Gradients:
        gradient = scale(gradients[0], back)
        return (None if gradient is None else gradient.with_axes((0.0,) * len(context.signal.along)),)

    return Effect((made,) * len(context.call.outputs), backward)


def _step(cell: Any, before: float, state: float, memory: float) -> tuple[float, float]:
    """Returns the second moments of a cell's state and memory one step later.

    Args:
        cell: the cell.
        before: second moment of what its gates and its candidate are made from.
        state: second moment of the state.
        memory: second moment of the memory.
    """
    candidate = _response(activation(cell.activation), 0.0, before).second_moment
    if isinstance(cell, keras.layers.LSTMCell):
        gate = _response(activation(cell.recurrent_activation), 0.0, before).second_moment
        kept = _response(activation(cell.recurrent_activation), float(cell.unit_forget_bias), before).second_moment
        memory = kept * memory + gate * candidate
        return gate * _response(activation(cell.activation), 0.0, memory).second_moment, memory
    if isinstance(cell, keras.layers.GRUCell):
        update = _response(activation(cell.recurrent_activation), 0.0, before)
        rest = 1 - 2 * update.mean + update.second_moment
        return update.second_moment * state + rest * candidate, memory
    return candidate, memory


def _response(function: Activation, mean: float, variance: float) -> Response:
    return respond(function, mean, float(f"{variance:.6g}"))


@for_layers("Bidirectional")
def bidirectional(context: Context) -> Effect:
    """Two readings of one sequence, side by side or merged."""
    forward, backward = context.layer.forward_layer, context.layer.backward_layer
    effects = [recurrent(_of(context, layer)) for layer in (forward, backward)]
    first, second = (effect.outputs[0] for effect in effects)
    factor = {"sum": 2.0, "ave": 0.5}.get(context.layer.merge_mode, 1.0)
    made = Signal((first.second_moment + second.second_moment) / 2 * factor, 0.0, first.along)
    return Effect((made,) * len(context.call.outputs), effects[0].backward)


@for_layers("RNN")
def any_cell(context: Context) -> Effect | None:
    """A recurrent layer around one of Keras's cells."""
    known = isinstance(context.layer.cell, (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell))
    return recurrent(context) if known else None


@for_layers("TimeDistributed")
def time_distributed(context: Context) -> Effect | None:
    """The layer inside, once for each step."""
    return layer_rule(context.layer.layer, _of(context, context.layer.layer))


def _of(context: Context, layer: Any) -> Context:
    """Returns the context as a wrapped layer sees it."""
    return dataclasses.replace(context, call=dataclasses.replace(context.call, operation=layer))
