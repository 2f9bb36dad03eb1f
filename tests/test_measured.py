"""What nobody has a rule for is run forward and back on numbers that agree as the signal does."""

import keras
import numpy as np
import pytest
from both_ways import at_every_call
from keras import layers, ops

from keras_autoinit import AutoInit, Theory
from keras_autoinit.graphs import read
from keras_autoinit.prediction import Given, follow
from keras_autoinit.rules.measured import drawn
from keras_autoinit.signals import Signal

SAMPLES = 128


@pytest.mark.parametrize("along", [(0.0, 0.0, 0.0), (0.2, 0.6, 0.0), (0.9, 0.1, 0.3), (-0.1, 0.5, 0.5)])
def test_numbers_agree_along_each_axis_as_they_are_told_to(along):
    numbers = drawn(Signal(2.0, 0.0, tuple(2 * one for one in along)), (60, 50, 40), np.random.default_rng(0))
    assert np.mean(numbers**2) == pytest.approx(2.0, rel=0.15)
    for axis, wanted in enumerate(along):
        pairs = np.mean(np.take(numbers, range(1, numbers.shape[axis]), axis) * np.delete(numbers, -1, axis))
        assert pairs == pytest.approx(2 * max(wanted, 0.0), abs=0.25)


@keras.saving.register_keras_serializable(package="test_measured")
class Unseen(layers.Layer):
    """Refuses symbols, as layers that call their backend do: a block whose inside nobody sees."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.wide, self.back = layers.Dense(128, "relu"), layers.Dense(64)

    def build(self, shape):
        self.wide.build(shape)
        self.back.build((*shape[:-1], 128))

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError("numbers only")
        return x + self.back(self.wide(x))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_the_inside_of_a_layer_is_run_with_the_weights_that_the_plan_will_draw():
    """What they are now, ten times too small, is not what anybody will train."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 64))
    hidden = layers.Dense(64)(inputs)
    model = keras.Model(inputs, layers.Dense(64, name="last")(Unseen(name="unseen")(hidden)))
    model.get_layer("unseen").back.kernel.assign(model.get_layer("unseen").back.kernel * 0.1)
    before = {row.path: row for row in AutoInit(Theory(), seed=0).plan(model)}
    after = {row.path: row for row in AutoInit(Theory(), seed=0).apply(model)}
    again = {row.path: row for row in AutoInit(Theory(), seed=1, overwrite=True).plan(model)}
    for path, row in before.items():
        assert row.new == after[path].new
        if row.gradient_factor is not None:
            assert again[path].gradient_factor == pytest.approx(row.gradient_factor, rel=0.1)
    source = np.random.default_rng(0)
    rows = at_every_call(model, source.normal(size=(SAMPLES, 6, 64)).astype("float32"), source)
    assert max(abs(row.off) for row in rows) < 0.1
    assert max(abs(row.off_back) for row in rows) < 0.2


def test_gradients_come_back_through_what_has_no_rule():
    inputs = keras.Input((32,))
    model = keras.Model(inputs, ops.flip(ops.cumsum(layers.Identity()(inputs), axis=1), axis=1))
    source = np.random.default_rng(0)
    rows = at_every_call(model, source.normal(size=(2048, 32)).astype("float32"), source)
    assert max(abs(row.off) for row in rows) < 0.2
    assert max(abs(row.off_back) for row in rows) < 0.2


def test_a_gradient_is_said_to_be_where_it_is():
    """Only the first half of what is summed up is heard of."""
    inputs = keras.Input((8, 32))
    weights = np.repeat([1.0, 0.0], 4)[None, :, None].astype("float32")
    model = keras.Model(inputs, ops.cumsum(layers.Identity()(inputs), axis=2) * weights)
    graph = read(model)
    (call,) = (call for call in graph.calls if call.name == "identity")
    profile = follow(graph, Given()).gradients[call.outputs[0]].profile
    assert profile == () or np.ptp(profile[1]) < 1
    hidden = layers.Identity()(inputs)
    graph = read(keras.Model(inputs, ops.sort(hidden, axis=2)[:, :4]))
    gradient = follow(graph, Given()).gradients[graph.calls[0].outputs[0]]
    assert gradient.second_moment == pytest.approx(0.5, rel=0.1)
