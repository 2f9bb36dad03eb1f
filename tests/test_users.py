"""Who computes with a weight decides on its scale: one operation, several, a whole layer, or an output far away."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit import AutoInit
from keras_autoinit.graphs import read
from keras_autoinit.rewriting import match
from keras_autoinit.users import BY_OUTPUT, by_output, groups, is_reverse, parts, users


def looked_into(model):
    """A model's graph and the weights that are decided on."""
    graph = read(model)
    return graph, match(AutoInit("table", seed=0).plan(model), graph.places)


def paths(targets):
    return [target.row.path for target in targets]


class Hidden(keras.layers.Layer):
    """Cannot be called on symbols, so nobody sees what is inside."""

    def __init__(self, *inside, **options):
        super().__init__(**options)
        self.inside = list(inside)

    def build(self, shape):
        for layer in self.inside:
            layer.build(shape)

    def call(self, x):
        assert isinstance(keras.ops.convert_to_numpy(x), np.ndarray)
        for layer in self.inside:
            x = layer(x)
        return x

    def compute_output_shape(self, shape):
        return shape


def test_each_operation_has_the_weights_that_it_computes_with():
    inputs = keras.Input((3, 4))
    x = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    model = keras.Model(inputs, layers.LSTM(4, name="lstm")(x))
    graph, targets = looked_into(model)
    found = users(graph, targets)
    assert paths(found[id(model.get_layer("lstm"))]) == ["lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel"]
    used = sorted(path for each in found.values() for path in paths(each))
    assert used == sorted(paths(targets))
    assert len(found) == 5


def test_a_layer_that_is_not_seen_into_has_parts_and_one_that_computes_itself_has_none():
    dense, norm = layers.Dense(4, name="dense"), layers.BatchNormalization(name="norm")
    recurrent = layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both")
    hidden = Hidden(dense, recurrent, norm, name="hidden")
    inputs = keras.Input((3, 4))
    graph, targets = looked_into(keras.Model(inputs, layers.Dense(1, name="head")(hidden(inputs))))
    (key, inside), *rest = parts(graph, users(graph, targets)).items()
    assert (key, rest) == (id(hidden), [])
    # What belongs to one recurrent layer is met there at once; a normalization, for its statistics.
    assert [(layer, len(held)) for layer, held in inside] == [(dense, 1), (recurrent, 4), (norm, 0)]


class Adapted(layers.Dense):
    """A dense layer with a second one beside its own kernel, not seen into."""

    def build(self, shape):
        super().build(shape)
        self.beside = layers.Dense(self.units, name="beside")
        self.beside.build(shape)

    def call(self, x):
        assert isinstance(keras.ops.convert_to_numpy(x), np.ndarray)
        return super().call(x) + self.beside(x)


def test_a_layer_with_weights_of_its_own_beside_those_inside_has_no_parts():
    adapted = Adapted(4, name="adapted")
    inputs = keras.Input((4,))
    graph, targets = looked_into(keras.Model(inputs, adapted(inputs)))
    assert paths(users(graph, targets)[id(adapted)]) == ["adapted/kernel", "adapted/beside/kernel"]
    assert parts(graph, users(graph, targets)) == {}


def test_calls_that_do_not_depend_on_each_other_are_measured_together():
    shared, once = layers.Dense(4, name="shared"), layers.Dense(4, name="once")
    left, right = keras.Input((4,)), keras.Input((4,))
    graph = read(keras.Model([left, right], once(shared(shared(left)) + shared(right))))
    (group,) = groups(graph, [id(shared), id(once)])
    assert [call.inputs for call in group] == [(number,) for number in graph.inputs]
    chain = read(keras.Model(left, shared(shared(left))))
    assert groups(chain, [id(shared)]) == []


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="an older Keras has no ReversibleEmbedding")
def test_the_output_decides_on_a_table_that_it_reads_back_and_on_what_is_added():
    words = keras.Input((6,), dtype="int32")
    table, beside = layers.ReversibleEmbedding(30, 16, name="table"), layers.Embedding(2, 16, name="beside")
    x = layers.Dense(16, name="dense")(layers.Add()([table(words), beside(words)]))
    graph, targets = looked_into(keras.Model(words, table(x, reverse=True)))
    assert by_output(graph, targets) == {
        "table/embeddings": BY_OUTPUT["tied"],
        "beside/embeddings": BY_OUTPUT["beside_tied"],
    }
    assert [is_reverse(call) for call in graph.calls_of(table)] == [False, True]
