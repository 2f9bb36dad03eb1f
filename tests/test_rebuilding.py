"""A layer's first values come from a copy of it, and users write layers in ways that barely allow one."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit.rebuilding import own_seed_generators, own_weights, starting_values


class Plain(layers.Layer):
    """Written like a first custom layer: no keywords, no configuration."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], self.units), initializer="glorot_uniform")


class NeedsFunction(layers.Layer):
    """A function among its arguments, and weights from its constructor on."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function
        self.level = self.add_weight(shape=(64,), initializer="random_normal", name="level")

    def get_config(self):
        return {**super().get_config(), "function": self.function}


class FromArray(layers.Layer):
    """Holds a variable that is made from numbers, beside one that is drawn."""

    def build(self, shape):
        self.table = keras.Variable(np.arange(3.0), name="table")
        self.drawn = self.add_weight(shape=(50,), initializer="random_normal", name="drawn")


class Holder(keras.Model):
    """A model that must be given something, holds layers in lists, and owns a weight itself."""

    def __init__(self, units):
        super().__init__()
        self.units = units
        self.parts = [layers.Dense(units), layers.Dense(units)]
        self.token = self.add_weight(shape=(units,), initializer="random_normal", name="token")

    def call(self, x):
        for part in self.parts:
            x = part(x) + self.token
        return x


class Assigned(layers.Layer):
    """Writes into its weight after it has made it."""

    def build(self, shape):
        self.ramp = self.add_weight(shape=(4,), initializer="zeros", name="ramp")
        self.ramp.assign(np.arange(4.0))


def built(layer, *shape):
    layer.build(shape or (None, 8))
    return layer


def first_values(layer, seed=1):
    return [np.array(keras.ops.convert_to_numpy(value)) for _, value in starting_values(layer, seed)]


class Sharing(layers.Layer):
    """Says that it can be made again, and hands out itself."""

    def build(self, shape):
        self.level = self.add_weight(shape=(4,), initializer="zeros")

    @classmethod
    def from_config(cls, config):
        return ORIGINAL[0]


class Outer(layers.Layer):
    """Makes a layer that cannot tell its arguments, in its constructor or when it is built."""

    def __init__(self, late, **options):
        super().__init__(**options)
        self.late = late
        self.first = None if late else Secretive(object())

    def build(self, shape):
        self.first = self.first or Secretive(object())
        self.first.build(shape)


class Secretive(layers.Layer):
    def __init__(self, thing):
        super().__init__()

    def build(self, shape):
        self.level = self.add_weight(shape=(64,), initializer="random_normal")


ORIGINAL = []
CASES = {
    "dense": lambda: built(layers.Dense(4)),
    "no keywords": lambda: built(Plain(4)),
    "a function": lambda: NeedsFunction(lambda x: x),
    "a lambda for an activation": lambda: built(layers.Dense(4, activation=lambda x: x + 1)),
    "a function for an initializer": lambda: built(
        layers.Dense(4, kernel_initializer=lambda shape, dtype=None: keras.random.normal(shape, dtype=dtype))
    ),
    "an initializer that asks NumPy": lambda: built(
        layers.Dense(4, kernel_initializer=lambda shape, dtype=None: np.random.normal(size=shape))
    ),
    "from an array": lambda: built(FromArray()),
    "a model": lambda: Holder(8),
    "convolutional LSTM cell": lambda: built(layers.ConvLSTM2D(2, 3), None, 3, 8, 8, 2).cell,
    "spectral": lambda: built(layers.SpectralNormalization(layers.Dense(4))),
    "low rank": lambda: built(layers.Dense(4, lora_rank=2)),
}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_values_fit_the_weights_and_follow_the_seed_alone(make):
    layer = make()
    before = [np.array(keras.ops.convert_to_numpy(weight)) for weight in own_weights(layer)]
    first, _, again, other = first_values(layer), keras.random.normal((2,)), first_values(layer), first_values(layer, 2)
    assert [value.shape for value in first] == [value.shape for value in before]
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))
    after = [np.array(keras.ops.convert_to_numpy(weight)) for weight in own_weights(layer)]
    assert all(map(np.array_equal, before, after))


def test_a_seed_that_an_initializer_carries_is_not_used():
    layer = built(layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(seed=3)))
    assert not np.array_equal(first_values(layer, 1)[0], first_values(layer, 2)[0])
    assert layer.kernel_initializer.seed == 3


def test_what_build_assigns_is_a_first_value():
    np.testing.assert_array_equal(first_values(built(Assigned()))[0], np.arange(4.0))


@pytest.mark.parametrize("late", [False, True])
def test_a_layer_that_cannot_be_made_is_found_in_a_copy_of_its_holder(late):
    outer = built(Outer(late))
    with pytest.raises(ValueError, match="thing"):
        starting_values(outer.first, 1)
    drawn = [keras.ops.convert_to_numpy(starting_values(outer, seed, (0,))[0][1]) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_what_is_no_copy_is_refused():
    ORIGINAL[:] = [built(Sharing())]
    with pytest.raises(ValueError, match="the same weights"):
        starting_values(ORIGINAL[0], 1)


def test_a_variable_from_an_array_has_it_again():
    layer = built(FromArray())
    layer.table.assign(np.ones(3))
    np.testing.assert_array_equal(first_values(layer)[own_weights(layer).index(layer.table)], np.arange(3.0))


def test_weights_of_inner_layers_are_not_the_layers_own():
    model = Holder(8)
    model(np.ones((1, 8), "float32"))
    assert own_weights(model) == [model.token]
    spectral = built(layers.SpectralNormalization(layers.Dense(4)))
    assert own_weights(spectral) == [spectral.vector_u]


class Noisy(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.one = keras.random.SeedGenerator(1)
        self.more = [keras.random.SeedGenerator(2), self.one]


def test_seed_generators_are_found_in_lists_too_each_once():
    layer = Noisy()
    assert set(map(id, own_seed_generators(layer))) == {id(layer.one), id(layer.more[0])}
    assert len(own_seed_generators(layer)) == 2
    assert own_seed_generators(keras.Sequential([layers.Dropout(0.5)])) == []


def test_it_leaves_no_warning_about_lambdas(recwarn):
    layer = built(layers.Dense(4, activation=lambda x: x))
    recwarn.clear()
    starting_values(layer, 1)
    assert not [warning for warning in recwarn if "lambda" in str(warning.message)]
