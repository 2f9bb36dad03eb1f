"""An activation written out by hand must be found, and known for what it is."""

import math

import keras
import pytest
from keras import layers, ops

from keras_autoinit.compositions import composed_activation, composition_at, raised_at
from keras_autoinit.graphs import read


def gelu_by_tanh(x):
    return 0.5 * x * (1.0 + ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * ops.power(x, 3))))


def found(function):
    inputs = keras.Input((4,))
    graph = read(keras.Model(inputs, layers.Dense(2)(function(inputs))))
    composition = composition_at(graph, graph.inputs[0])
    return None if composition is None else composed_activation(composition)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x * ops.sigmoid(x), "silu"),
        (gelu_by_tanh, "gelu"),
        (lambda x: 0.5 * x * (1.0 + ops.erf(x / math.sqrt(2))), "gelu"),
        (lambda x: x * ops.tanh(ops.softplus(x)), "mish"),
        (lambda x: ops.maximum(x, 0.3 * x), "function ending in maximum"),
        (lambda x: x + ops.relu(x), "function ending in add"),
    ],
)
def test_functions_written_out_by_hand(function, name):
    assert str(found(function)) == name


@pytest.mark.parametrize(
    "function",
    [
        ops.relu,
        lambda x: x * ops.sigmoid(layers.Dense(4)(x)),
        lambda x: x + layers.Dense(4)(ops.relu(x)),
        lambda x: x * ops.mean(x, -1, keepdims=True),
        lambda x: ops.concatenate([ops.relu(x), ops.tanh(x)]),
    ],
)
def test_what_is_no_function_of_one_tensor(function):
    assert found(function) is None


def test_an_unknown_one_is_measured():
    assert found(lambda x: ops.maximum(x, 0.3 * x)).gain == pytest.approx(math.sqrt(2 / 1.09), rel=1e-5)


def raised(function, width=4):
    inputs = keras.Input((width,))
    graph = read(keras.Model(inputs, layers.Dense(2)(function(inputs))))
    return raised_at(graph, graph.inputs[0])


def test_an_activation_of_a_signal_that_a_number_was_added_to_is_one_function():
    whole = raised(lambda x: layers.ReLU(6.0)(x + 3.0) * (1 / 6))
    assert [type(call.operation).__name__ for call in whole.calls] == ["Add", "ReLU", "Multiply"]
    gate, values = composed_activation(whole), [-4.0, -1.0, 0.5, 4.0]
    assert [float(gate.function(value)) for value in values] == pytest.approx([0.0, 1 / 3, 3.5 / 6, 1.0], abs=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 3.0,
        layers.ReLU(6.0),
        lambda x: ops.relu(x * 3.0),
        lambda x: ops.relu(x + layers.Dense(4)(x)),
        lambda x: ops.relu(x + 3.0) * x,
    ],
)
def test_what_no_number_is_added_to_or_nothing_bends_is_none(function):
    assert raised(function) is None
