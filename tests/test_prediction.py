"""Predictions are worth what real models bear out: signals and gradients of whole networks, measured in training mode.

The bounds are those that `benchmarks/prediction.py` finds with room for the draw: a layer of n units
is known to about `1 / sqrt(n)`, and what one layer is off by, those behind it are off by too.
"""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from both_ways import at_every_call
from keras import layers

from keras_autoinit import AutoInit, Theory
from keras_autoinit.graphs import read
from keras_autoinit.laws import BATCH
from keras_autoinit.prediction import Given, follow

# What is wanted: median and 95th percentile of |log2| for signals, then for gradients, of as many draws as it takes.
BOUNDS = (0.05, 0.20, 0.10, 0.35)
# Others, that need more draws or are further off, are in docs/rules.md.
MODELS = ("ResNet50", "MobileNetV2", "DenseNet121", "Xception", "ViTBackbone", "LlamaBackbone")


def benchmark():
    path = Path(__file__).parent.parent / "benchmarks" / "prediction.py"
    spec = importlib.util.spec_from_file_location("prediction_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="gradients are measured by TensorFlow's tape")
@pytest.mark.parametrize("name", MODELS)
def test_real_models_do_as_predicted(name):
    script = benchmark()
    if name.endswith("Backbone"):
        pytest.importorskip("keras_hub")
    rows, *_ = script.compared(*script.built(name), seeds=3, most=script.MOST)
    found = [f(e) for e in script.errors(rows) for f in (np.median, lambda e: np.quantile(e, 0.95))]
    assert all(value <= bound for value, bound in zip(found, BOUNDS)), found


def test_gradients_come_back_along_every_way():
    inputs = keras.Input((128,))
    first = layers.Dense(128, kernel_initializer="lecun_normal")
    second = layers.Dense(128, kernel_initializer="lecun_normal")
    hidden = first(inputs)
    graph = read(keras.Model(inputs, layers.Add()([hidden, second(hidden)])))
    prediction = follow(graph, Given())
    (call,) = graph.calls_of(first)
    assert prediction.gradients[call.outputs[0]].second_moment == pytest.approx(2.0, rel=0.1)


def convolved(f):
    return layers.Conv2D(64, 3, padding="same", activation=f)


# Pairs of units that see z and -z, by what they pass between the weight that makes them and the one that reads them.
MIRRORED = {
    "dense": lambda f: [keras.Input((256,)), *(layers.Dense(256, f) for _ in range(20))],
    "normalized": lambda f: [
        keras.Input((256,)),
        *(one for _ in range(8) for one in (layers.Dense(256), layers.BatchNormalization(), layers.Activation(f))),
    ],
    "normalized behind": lambda f: [
        keras.Input((256,)),
        *(one for _ in range(8) for one in (layers.Dense(256, f), layers.BatchNormalization())),
    ],
    "averaged": lambda f: [
        *(keras.Input((8, 8, 32)), convolved(f), convolved(f), layers.AveragePooling2D(2), convolved(f)),
        *(layers.Flatten(), layers.Dense(128, f)),
    ],
    "enlarged": lambda f: [
        *(keras.Input((8, 8, 32)), convolved(f), layers.UpSampling2D(2), convolved(f)),
        *(layers.Conv2DTranspose(64, 2, strides=2, activation=f), layers.ZeroPadding2D(1)),
        *(layers.Conv2D(64, 3, strides=2, activation=f), layers.Flatten()),
    ],
}


@pytest.mark.parametrize("activation", ["relu", "gelu", "elu"])
@pytest.mark.parametrize("kind", MIRRORED)
def test_mirrored_pairs_of_units_do_as_predicted(kind, activation):
    model = keras.Sequential([*MIRRORED[kind](activation), layers.Dense(128)])
    AutoInit(Theory(linear_start=True), seed=0).apply(model)
    source = np.random.default_rng(0)
    batch = source.normal(size=(BATCH, *model.input_shape[1:])).astype("float32")
    rows = np.array([(one.signal, one.gradient, one.made, one.back) for one in at_every_call(model, batch, source)])
    # The gradients that come in are 32 samples of 128 numbers: five standard errors. What each layer is off by adds up.
    allowed = 5 * np.sqrt(2 / BATCH / 128) + 0.02 * len(model.layers)
    assert np.abs(np.log(rows[:, 2:] / rows[:, :2])).max() < allowed


def test_a_tensor_that_nothing_reads_gets_no_gradient():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, [layers.Dense(4)(inputs)])
    graph = read(model)
    assert graph.inputs[0] not in follow(graph, Given()).gradients


def test_positions_that_are_learned_are_the_same_for_every_sample():
    class Positions(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(1, *shape[1:]), initializer="random_normal", name="table")

        def call(self, x):
            return x + self.table

    inputs = keras.Input((6, 64))
    graph = read(keras.Model(inputs, Positions()(inputs)))
    signal = follow(graph, Given()).signals[graph.outputs[0]]
    assert signal.covariance == pytest.approx(0.05**2, rel=0.3)


class Looked(layers.Layer):
    """Looks its positions up without a symbol: what a call sees of the table is the numbers that it holds now."""

    def build(self, shape):
        self.table = layers.Embedding(shape[1], shape[2], embeddings_initializer="zeros", name="table")
        self.table.build((1, shape[1]))

    def call(self, x):
        return x + self.table(keras.ops.expand_dims(keras.ops.arange(x.shape[1]), 0))


def test_a_table_that_is_read_before_a_symbol_counts_with_what_it_is_to_hold():
    inputs = keras.Input((6, 64))
    hidden = Looked(name="looked")(inputs)
    model = keras.Model(inputs, layers.Dense(64, name="dense")(hidden))
    plan = AutoInit("theory", seed=0).plan(model)
    # The input's and the table's unit second moments together: the next weight halves them.
    assert plan["looked/table/embeddings"].new.name != "autoinit>zeros"
    assert plan["dense/kernel"].new.config["gain"] == pytest.approx(0.5**0.5)
