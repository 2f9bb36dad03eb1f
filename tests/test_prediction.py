"""Predictions are worth what real models bear out: signals and gradients of whole networks, measured in training mode.

The bounds are those that `benchmarks/prediction.py` finds with room for the draw: a layer of n units
is known to about `1 / sqrt(n)`, and what one layer is off by, those behind it are off by too.
"""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit import AutoInit
from keras_autoinit.graphs import read
from keras_autoinit.prediction import Given, follow

# Model: median and 95th percentile of |log2| for signals, then for gradients, of as many draws as it takes. What is
# wanted, but for the gradients of two models, where the bound guards what has been reached.
WANTED = (0.05, 0.20, 0.10, 0.35)
BOUNDS = {
    "ResNet50": WANTED,
    "MobileNetV2": (0.05, 0.20, 0.25, 0.45),
    "DenseNet121": WANTED,
    "InceptionV3": (0.05, 0.20, 0.16, 0.40),
    "ConvNeXtTiny": WANTED,
    "BERT": WANTED,
    "Llama": WANTED,
}


def benchmark():
    path = Path(__file__).parent.parent / "benchmarks" / "prediction.py"
    spec = importlib.util.spec_from_file_location("prediction_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="gradients are measured by TensorFlow's tape")
@pytest.mark.parametrize("name", BOUNDS)
def test_real_models_do_as_predicted(name):
    script = benchmark()
    if name in script.HUB:
        pytest.importorskip("keras_hub")
    model = script.backbone(name) if name in script.HUB else script.application(name)
    rows, *_ = script.compared(model, seeds=3, most=script.MOST)
    found = [f(e) for e in script.errors(rows) for f in (np.median, lambda e: np.quantile(e, 0.95))]
    assert all(value <= bound for value, bound in zip(found, BOUNDS[name])), found


def test_gradients_come_back_along_every_way():
    inputs = keras.Input((128,))
    first = layers.Dense(128, kernel_initializer="lecun_normal")
    second = layers.Dense(128, kernel_initializer="lecun_normal")
    hidden = first(inputs)
    graph = read(keras.Model(inputs, layers.Add()([hidden, second(hidden)])))
    prediction = follow(graph, Given())
    (call,) = graph.calls_of(first)
    assert prediction.gradients[call.outputs[0]].second_moment == pytest.approx(2.0, rel=0.1)


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
