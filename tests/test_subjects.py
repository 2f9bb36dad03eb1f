"""Which calls get a row, under which name, with which weights, and what their output is said to meet first."""

import keras
import pytest
from keras import layers, ops
from models import everything

from keras_autoinit.graphs import read
from keras_autoinit.subjects import subjects_of


def subjects(model):
    return subjects_of(read(model))


def rows(model):
    return [(one.path, one.activation, one.feeds, tuple(held.path for held in one.weights)) for one in subjects(model)]


def test_weighted_layers_and_activations_get_a_row_and_nothing_else_does():
    inner = [layers.Dense(8, "relu", name="a"), layers.Dropout(0.5), layers.Reshape((2, 4)), layers.Flatten()]
    end = [layers.Dense(8, name="b"), layers.LeakyReLU(name="leaky"), layers.Dense(2, "softmax", name="head")]
    assert rows(keras.Sequential([keras.Input((8,)), *inner, *end])) == [
        ("a", "relu", "other", ("a/kernel",)),
        ("b", "", "activation", ("b/kernel",)),
        ("leaky", "leaky_relu", "other", ()),
        ("head", "softmax", "output", ("head/kernel",)),
    ]


def test_a_bias_and_the_scale_of_a_normalization_are_no_subject():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="dense"), layers.BatchNormalization()])
    assert rows(model) == [("dense", "", "normalization", ("dense/kernel",))]


@pytest.mark.parametrize(
    ("behind", "feeds"),
    [
        (lambda x, y: layers.Add()([x, y]), "merge"),
        (lambda x, y: layers.LayerNormalization()(x) + y, "normalization"),
        (lambda x, y: layers.ReLU()(x), "output"),
        (lambda x, y: layers.Dense(3)(layers.ReLU()(x)), "activation"),
        (lambda x, y: layers.Dense(3)(layers.Dropout(0.5)(x)), "other"),
        (lambda x, y: layers.Flatten()(x), "output"),
        (lambda x, y: x, "output"),
    ],
)
def test_what_an_output_meets_first(behind, feeds):
    inputs = keras.Input((8,))
    x = layers.Dense(8, name="first")(inputs)
    model = keras.Model(inputs, behind(x, inputs))
    assert subjects(model)[0].feeds == feeds


def test_a_layer_that_is_called_again_gets_a_number():
    shared = layers.Dense(4, "tanh", name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(shared(shared(inputs))))
    assert [path for path, *_ in rows(model)] == ["shared", "shared#2", "shared#3"]
    first, second, _ = subjects(model)
    assert first.weights == second.weights
    assert first.call is not second.call


class Block(keras.layers.Layer):
    """Computes with a weight of its own, and with a layer inside."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(4, name="inner")

    def build(self, shape):
        self.table = self.add_weight(shape=(4, 4), initializer="he_normal", name="table")
        self.inner.build(shape)

    def call(self, x):
        return ops.relu(self.inner(ops.matmul(x, self.table)))


def test_inside_a_layer_its_operations_get_rows_under_its_path():
    model = keras.Sequential([keras.Input((4,)), Block(name="block")], name="model")
    assert rows(model) == [
        ("block", "", "other", ("block/table",)),
        ("block/inner", "", "output", ("block/inner/kernel",)),
        ("block/relu", "relu", "output", ()),
    ]
    (held,) = subjects(model)[0].weights
    assert held.variable is model.layers[0].table


def test_of_a_recurrent_layer_no_activation_is_said():
    model = keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, name="lstm"), layers.Dense(1, name="head")])
    assert rows(model) == [
        ("lstm", "", "other", ("lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel")),
        ("head", "", "output", ("head/kernel",)),
    ]


def test_every_row_has_a_name_of_its_own():
    paths = [path for path, *_ in rows(everything())]
    assert len(set(paths)) == len(paths)
    assert {"picture/stem/grouped", "sentence/embedding", "shared", "shared#2", "head"} <= {*paths}
