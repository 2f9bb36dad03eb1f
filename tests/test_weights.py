"""What a weight holds against what it should: by numbers counted by hand, and nothing where nothing is known."""

import math

import keras
import numpy as np
import pytest
from keras import layers
from keras.initializers import GlorotUniform, HeNormal
from models import drawn

from keras_autoinit.graphs import read
from keras_autoinit.subjects import subjects_of
from keras_autoinit.weights import Gradients, weight_readings

NONE = Gradients({}, None, False)


def readings(model, gradients=NONE, trained=False, brief=False):
    graph = read(model)
    found = weight_readings(graph, subjects_of(graph), gradients, trained, brief)
    return {reading.path: reading for reading in found.values()}


def dense(units=64, inputs=48, **options):
    options = {"kernel_initializer": HeNormal(seed=1), **options}
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(units, "relu", name="dense", **options)])


def reading(model, *options, **keywords):
    (found,) = readings(model, *options, **keywords).values()
    return found


def test_a_kernel_from_hes_initializer_is_what_it_means_to_be():
    found = reading(dense())
    assert (found.path, found.role, found.shape) == ("dense/kernel", "kernel", (48, 64))
    assert found.initializer == "HeNormal"
    expected = math.sqrt(2 / 48)
    assert (found.expected_std, found.counted_std, found.suggested_std) == pytest.approx([expected] * 3)
    assert found.suggestion.startswith("autoinit>he_normal")
    # Five standard errors of the spread of 48 * 64 numbers.
    assert found.std == pytest.approx(expected, rel=5 / math.sqrt(2 * 48 * 64))
    assert (found.finite, found.distinct, found.constant, found.equal_to) == (True, 1.0, None, None)


def test_fans_that_keras_counts_are_set_beside_those_of_the_role():
    depthwise = layers.DepthwiseConv2D(3, depthwise_initializer=GlorotUniform(seed=1), name="depthwise")
    found = reading(keras.Sequential([keras.Input((8, 8, 16)), depthwise]))
    # An output meets nine numbers; Keras reads (3, 3, 16, 1) as sixteen channels in and one out.
    assert found.expected_std == pytest.approx(math.sqrt(1 / 9))
    assert found.counted_std == pytest.approx(math.sqrt(2 / (9 * 16 + 9)))


@pytest.mark.parametrize("initializer", ["orthogonal", "random_normal", "zeros"])
def test_an_initializer_that_counts_no_fans_means_no_spread_of_theirs(initializer):
    found = reading(dense(kernel_initializer=initializer))
    assert (found.expected_std, found.counted_std) == (None, None)
    assert found.suggested_std == pytest.approx(math.sqrt(2 / 48))


def test_trained_weights_are_not_held_against_initializers():
    found = reading(dense(), trained=True)
    assert (found.expected_std, found.counted_std, found.suggested_std, found.suggestion) == (None, None, None, "")
    assert found.std is not None


def test_constants_equal_units_and_numbers_that_are_none():
    half = np.ones((48, 64), "float32")
    half[0, :32] = np.arange(32)
    model = dense()
    for values, constant, distinct, finite in (
        (np.full((48, 64), 0.5, "float32"), 0.5, 1 / 64, True),
        # 0, 1, ..., 31 and 32 ones, of which one is a 1 as well.
        (half, None, 32 / 64, True),
        (np.where(half > 30, np.nan, half), None, None, False),
    ):
        model.layers[0].kernel.assign(values)
        found = reading(model)
        assert (found.constant, found.distinct, found.finite) == (constant, distinct, finite)
        assert (found.std is None) == (not finite)


def test_equal_units_with_biases_of_their_own_go_different_ways():
    model = dense(kernel_initializer="ones", bias_initializer=keras.initializers.RandomNormal(seed=1))
    assert reading(model).distinct == 1.0
    model.layers[0].bias.assign(np.arange(64) // 2)
    assert reading(model).distinct == 0.5


def test_twins_are_found_to_the_bit_and_not_compared_in_brief():
    def model():
        hidden = [
            layers.Dense(8, kernel_initializer=HeNormal(seed=seed), name=f"d{i}") for i, seed in enumerate((1, 1, 2))
        ]
        return keras.Sequential([keras.Input((8,)), *hidden])

    assert [one.equal_to for one in readings(model()).values()] == [None, "d0/kernel", None]
    assert [(one.equal_to, one.distinct) for one in readings(model(), brief=True).values()] == [(None, None)] * 3


@pytest.mark.parametrize(
    "layer",
    [
        layers.Embedding(8, 4, embeddings_initializer="ones"),
        layers.Dense(8, kernel_initializer=keras.initializers.Identity()),
    ],
    ids=["a table", "an identity"],
)
def test_weights_that_may_repeat_are_not_compared(layer):
    inputs = keras.Input((8,), dtype="int32" if isinstance(layer, layers.Embedding) else None)
    assert reading(keras.Model(inputs, layer(inputs))).distinct is None


RATE = 0.01
STEPS = {
    "adam": lambda gradient, square: RATE / math.sqrt(square),
    # Its first average of squares is a tenth of the square.
    "rmsprop": lambda gradient, square: RATE / math.sqrt(0.1 * square),
    "sgd": lambda gradient, square: RATE * math.sqrt(gradient / square),
}


@pytest.mark.parametrize("name", STEPS)
def test_an_update_is_what_the_optimizer_first_does(name):
    model = dense()
    variable = model.layers[0].kernel
    before = keras.ops.convert_to_numpy(variable)
    gradient = np.random.default_rng(0).normal(size=before.shape).astype("float32")
    optimizer = keras.optimizers.get({"class_name": name, "config": {"learning_rate": RATE}})
    found = reading(model, Gradients({id(variable): gradient}, optimizer, True))
    assert found.gradient == pytest.approx(np.mean(gradient**2))
    square = np.mean(before**2)
    assert found.update_ratio == pytest.approx(STEPS[name](found.gradient, square), rel=1e-5)
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    step = keras.ops.convert_to_numpy(variable) - before
    # Where a gradient is as small as the optimizer's epsilon its step is smaller.
    assert found.update_ratio == pytest.approx(math.sqrt(np.mean(step**2) / square), rel=1e-3)


def test_where_an_update_has_no_known_size_nothing_is_said():
    model = dense()
    at = {id(model.layers[0].kernel): np.ones((48, 64), "float32")}
    sgd, unknown = keras.optimizers.SGD(RATE), keras.optimizers.Ftrl(RATE)
    # A gradient that was drawn has no size that means anything; Adam's step has one all the same.
    assert reading(model, Gradients(at, sgd, False)).update_ratio is None
    assert reading(model, Gradients(at, keras.optimizers.Adam(RATE), False)).update_ratio is not None
    assert reading(model, Gradients(at, unknown, True)).update_ratio is None
    assert reading(model, Gradients({}, sgd, True)).update_ratio is None
    assert reading(model, Gradients(at, None, True)).update_ratio is None


def test_every_weight_that_a_plan_draws_is_read_once():
    shared = layers.Dense(8, name="shared")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.LSTM(4, name="lstm")(keras.ops.stack([shared(shared(inputs)), inputs], axis=1)))
    paths = {f"{p.path}/{s.weight}" for p in read(model).places for s in p.slots if drawn(s)}
    assert set(readings(model)) == paths
