"""Weights are counted on every way, and few of them are found by what a model is, not by its name."""

import keras
import pytest
from keras import layers

from keras_autoinit.graphs import read
from keras_autoinit.slots import slots_of
from keras_autoinit.ways import SHALLOW, fading, logits_of_few, ways_of


def graph_of(model):
    """Its graph, and the calls that mix with a weight."""
    graph = read(model)
    return graph, [call for call in graph.calls if isinstance(call.operation, keras.Layer) and slots_of(call.operation)]


def names(graph, numbers):
    return [call.operation.name for call in graph.calls if id(call) in numbers]


def dense(depth, units=4, activation=None):
    hidden = [layers.Dense(16, "relu", name=f"hidden{i}") for i in range(depth)]
    return keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(units, activation, name="head")])


def unet(blocks=1, join="Concatenate", normalized=False, head=True):
    """A way through a pooling beside one that goes around it."""

    def convolved(x, name):
        for i in range(blocks):
            x = layers.Conv2D(8, 3, padding="same", activation="gelu", name=f"{name}{i}")(x)
        return layers.LayerNormalization()(x) if normalized else x

    inputs = keras.Input((8, 8, 1))
    high = convolved(inputs, "high")
    low = layers.Conv2DTranspose(8, 2, strides=2, name="up")(convolved(layers.AveragePooling2D(2)(high), "low"))
    x = convolved(getattr(layers, join)()([low, high]), "last")
    return keras.Model(inputs, layers.Conv2D(1, 1, name="map")(x) if head else x)


def test_weights_are_counted_on_the_shortest_way_and_on_the_longest():
    graph, mixing = graph_of(unet())
    ways = ways_of(graph, mixing)
    numbers = {call.operation.name: (ways.shortest[id(call)], ways.longest[id(call)]) for call in mixing}
    assert numbers == {"high0": (1, 1), "low0": (2, 2), "up": (3, 3), "last0": (2, 4), "map": (3, 5)}
    assert set(names(graph, ways.read)) == {"high0", "low0", "up", "last0"}


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_few_dense_layers_end_in_logits_and_more_do_not(activation):
    assert names(*with_logits(dense(SHALLOW - 2, activation=activation))) == ["head"]
    assert names(*with_logits(dense(SHALLOW - 1, activation=activation))) == []


def with_logits(model):
    graph, mixing = graph_of(model)
    return graph, logits_of_few(graph, mixing)


@pytest.mark.parametrize(
    "model",
    [
        dense(0),
        dense(2, units=1),
        dense(2, units=8),
        keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.BatchNormalization(), layers.Dense(4)]),
        keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(4)]),
        keras.Sequential([keras.Input((8,)), layers.Embedding(9, 8), layers.Flatten(), layers.Dense(4)]),
    ],
    ids=["one layer", "one number", "autoencoder", "normalized", "convolved", "embedded"],
)
def test_what_was_not_measured_is_no_network_of_few_dense_layers(model):
    assert names(*with_logits(model)) == []


@pytest.mark.parametrize(
    ("loss", "chooses"),
    [
        ("mse", False),
        (keras.losses.Huber(), False),
        (keras.losses.mean_absolute_error, False),
        ("sparse_categorical_crossentropy", True),
        (keras.losses.CategoricalCrossentropy(from_logits=True), True),
        (keras.losses.categorical_crossentropy, True),
        (["categorical_crossentropy"], True),
    ],
)
def test_a_model_compiled_with_another_loss_chooses_no_class(loss, chooses):
    model = dense(2)
    model.compile("adam", loss)
    assert names(*with_logits(model)) == ["head"] * chooses


def test_a_residual_network_is_none_either():
    inputs = keras.Input((16,))
    x = layers.Add()([inputs, layers.Dense(16, "relu")(inputs)])
    assert names(*with_logits(keras.Model(inputs, layers.Dense(10)(x)))) == []


def faded(model):
    graph, mixing = graph_of(model)
    return names(graph, fading(graph, mixing))


def test_a_signal_fades_where_a_way_is_joined_with_a_longer_one():
    assert sorted(faded(unet(2))) == ["high0", "high1", "last0", "last1", "low0", "low1", "up"]


@pytest.mark.parametrize("options", [{"join": "Add"}, {"normalized": True}, {"head": False}, {"blocks": 3}], ids=str)
def test_it_does_not_where_ways_are_added_normalized_or_long_or_make_no_map(options):
    assert faded(unet(**options)) == []


def test_ways_side_by_side_are_no_way_and_a_longer_one():
    inputs = keras.Input((8, 8, 1))
    ways = [layers.Conv2D(8, side, padding="same", activation="relu")(inputs) for side in (1, 3)]
    assert faded(keras.Model(inputs, layers.Conv2D(1, 1)(layers.Concatenate()(ways)))) == []
