"""A function that is called on a symbol tells what it is made of, and nobody may notice that it was called."""

import keras
import pytest
from keras import ops

from keras_autoinit.traces import operation_of


def test_one_operation_is_found_with_its_arguments():
    operation = operation_of(lambda x: keras.activations.gelu(x, approximate=True))
    assert (type(operation).__name__, operation.approximate) == ("Gelu", True)


def refusing(x):
    raise RuntimeError("no symbols, please")


@pytest.mark.parametrize(
    "function",
    [lambda x: x, lambda x: 2.0, lambda x: ops.tanh(ops.tanh(x)), lambda x: x * ops.tanh(x), refusing],
    ids=["identity", "constant", "two", "gate", "refusing"],
)
def test_anything_else_is_none(function):
    assert operation_of(function) is None


def test_what_is_made_of_another_symbol_is_none():
    other = keras.KerasTensor((2, 2))
    assert operation_of(lambda x: ops.tanh(other)) is None


def test_no_name_is_taken_and_no_node_is_left():
    def next_number():
        return int(keras.layers.Dense(2).name.rpartition("_")[2])

    layer = keras.layers.Dense(2)
    layer.build((2, 2))
    before = next_number()
    operation_of(lambda x: ops.tanh(layer(x)))
    assert next_number() == before + 1
    assert (layer._inbound_nodes, layer._outbound_nodes) == ([], [])
