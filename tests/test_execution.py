"""Running the flat graph must give the model's own outputs, hold no more than it must, and change nothing."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import everything, samples, values

from keras_autoinit.errors import DataError
from keras_autoinit.execution import executed, peak_elements, scheduled
from keras_autoinit.graphs import read


class Gated(layers.Layer):
    """A composite with a constant, a weight in an operation, and layers of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(8, "relu")

    def build(self, shape):
        self.mix = self.add_weight(shape=(8, 4), initializer="glorot_uniform")
        self.inner.build(shape)

    def call(self, x):
        return ops.matmul(self.inner(x), self.mix) + ops.arange(4, dtype="float32")


class Table(layers.Layer):
    """Puts out a table that does not depend on its input, as position embeddings do."""

    def build(self, shape):
        self.table = self.add_weight(shape=(6, 8), initializer="uniform")

    def call(self, x):
        return ops.broadcast_to(ops.convert_to_tensor(self.table), ops.shape(x))

    def compute_output_shape(self, shape):
        return shape


def subclassed():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.gated, self.norm = Gated(), layers.BatchNormalization()

        def call(self, x, training=None):
            return {"out": self.norm(self.gated(x), training=training), "twice": x * 2}

    return Model()


def positioned():
    x = keras.Input((6, 8))
    y = layers.Add()([x, Table()(x)])
    return keras.Model(x, layers.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True))


MODELS = {
    "everything": (everything, lambda: samples()[0]),
    "subclassed": (subclassed, lambda: np.ones((5, 3), "float32") * np.arange(3, dtype="float32")),
    "positioned": (positioned, lambda: np.random.default_rng(0).normal(size=(3, 6, 8)).astype("float32")),
}


def outputs_of(graph, batch, **options):
    made = {}
    for call, outputs in executed(graph, batch, **options):
        made.update(zip(call.outputs, outputs))
    return [np.asarray(ops.convert_to_numpy(made[number])) for number in graph.outputs]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_model_in_training_and_nothing_is_stored(name):
    build, data = MODELS[name]
    model, batch = build(), data()
    model(batch)
    before = values(model.variables)
    made = outputs_of(read(model, batch), batch)
    assert all(map(np.array_equal, before, values(model.variables)))
    # This does move the averages.
    expected = keras.tree.flatten(model(batch, training=True))
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_allclose(one, ops.convert_to_numpy(other), atol=1e-5)


def test_dropout_is_off_and_its_seed_is_not_used_up():
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.9), layers.GaussianNoise(1.0)])
    batch = np.ones((2, 4), "float32")
    before = values(model.variables)
    assert np.array_equal(outputs_of(read(model, batch), batch)[0], batch)
    assert all(map(np.array_equal, before, values(model.variables)))


def test_what_a_caller_computes_goes_on():
    model = keras.Sequential([keras.Input((4,)), layers.ReLU(), layers.ReLU()])
    batch = np.ones((2, 4), "float32")
    assert outputs_of(read(model, batch), batch, compute=lambda calls, a: [a[0][0][0] * 2])[0].tolist() == [[4] * 4] * 2


def towers(swapped=False):
    """Two shared layers on two inputs: in the other order on the second, if swapped."""
    a, b = keras.Input((4,)), keras.Input((4,))
    first, second = layers.Dense(4, name="first"), layers.Dense(4, name="second")
    right = first(second(b)) if swapped else second(first(b))
    return keras.Model([a, b], layers.Add()([second(first(a)), right]))


@pytest.mark.parametrize("swapped", [False, True])
def test_groups_are_computed_together_unless_they_wait_for_each_other(swapped):
    model = towers(swapped)
    graph = read(model, [np.ones((2, 4), "float32")] * 2)
    groups = [tuple(graph.calls_of(model.get_layer(name))) for name in ("first", "second")]
    steps = scheduled(graph, groups)
    assert sorted(map(len, steps)) == ([1, 1, 1, 2] if swapped else [1, 2, 2])
    order = [id(call) for step in steps for call in step]
    for call in graph.calls:
        makers = [graph.maker(number) for number in call.inputs]
        assert all(order.index(id(maker)) < order.index(id(call)) for maker in makers if maker)


def test_tensors_are_let_go():
    deep = keras.Sequential([keras.Input((100,)), *(layers.ReLU() for _ in range(50))])
    graph = read(deep, np.ones((2, 100), "float32"))
    assert peak_elements(graph) == 400


def test_a_batch_of_another_size_is_refused():
    model = everything()
    with pytest.raises(DataError, match="Expected the batch that the model was read with"):
        list(executed(read(model, samples(4)[0]), samples(3)[0]))
