"""An activation written out by hand must be found, and known for what it is."""

import math

import keras
import pytest
from keras import layers, ops

from keras_autoinit.compositions import composed_activation, composition_at
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
