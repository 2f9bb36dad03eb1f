"""One seeded initializer, handed to `add_weight` again and again, makes equal weights: they must not stay so."""

import keras
import numpy as np
import pytest

from keras_autoinit import AutoInit


@keras.saving.register_keras_serializable("tests")
class Hidden(keras.layers.Layer):
    """What its weights are for cannot be seen: it cannot be called on symbols."""

    def build(self, shape):
        draw = keras.initializers.RandomNormal(mean=0.5, stddev=0.3, seed=3)
        self.one = self.add_weight(shape=(40, 30), name="one", initializer=draw)
        self.two = self.add_weight(shape=(40, 30), name="two", initializer=draw)
        self.ones = self.add_weight(shape=(40, 30), name="ones", initializer="ones")
        self.more = self.add_weight(shape=(40, 30), name="more", initializer="ones")

    def call(self, x):
        if x.shape[0] is None:
            raise ValueError("no symbols")
        return keras.ops.matmul(x, self.one + self.ones) + keras.ops.matmul(x, self.two + self.more)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 30)


def build():
    return keras.Sequential([keras.Input((40,)), Hidden(name="hidden"), keras.layers.Dense(2, name="head")])


def values(model, name):
    return keras.ops.convert_to_numpy(getattr(model.get_layer("hidden"), name))


@pytest.mark.parametrize("method", ["table", "theory", "data"])
def test_equal_weights_of_unknown_use_are_drawn_apart_with_their_own_spread(method):
    model = build()
    one = values(model, "one")
    assert np.array_equal(one, values(model, "two"))
    data = np.random.default_rng(0).normal(size=(8, 40)).astype("float32")
    plan = AutoInit(method, seed=1).apply(model, data)
    assert "'hidden/one'" in plan["hidden/two"].reason
    assert np.array_equal(values(model, "one"), one)
    # Of 1,200 numbers: five standard errors of the mean, and of the spread.
    two, error = values(model, "two"), 0.3 / np.sqrt(1200)
    assert abs(two.mean() - one.mean()) < 5 * error
    assert abs(two.std() - one.std()) < 5 * error / np.sqrt(2)
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 5 / np.sqrt(1200)


def test_constants_stay_equal_and_what_is_left_out_stays_as_it_is():
    model = build()
    plan = AutoInit(seed=1).plan(model)
    assert not plan["hidden/more"].changed
    assert not AutoInit(exclude="hidden").plan(model)["hidden/two"].changed


def test_equal_seeds_draw_equal_numbers():
    first, second = build(), build()
    for model in (first, second):
        AutoInit(seed=1).apply(model)
    assert np.array_equal(values(first, "two"), values(second, "two"))
