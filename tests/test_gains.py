"""A weight has the power that is asked for, from whatever it is drawn."""

import keras
import numpy as np
import pytest
from keras import layers
from models import normal, second_moment

from keras_autoinit import AutoInit, Theory
from keras_autoinit.gains import DISTRIBUTIONS, multiplied, recipe_of_power
from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes.base import make
from keras_autoinit.slots import slots_of


def built(layer, *shape):
    layer.build((None, *shape))
    (slot,) = [slot for slot in slots_of(layer) if slot.role not in ("bias",)]
    return slot, tuple(slot.variable(layer).shape)


SLOTS = {
    "narrowing": lambda: built(layers.Dense(128), 256),
    "widening": lambda: built(layers.Dense(256), 128),
    "convolution": lambda: built(layers.Conv2D(64, 3), 8, 8, 64),
    "widening convolution": lambda: built(layers.Conv2D(512, 3), 8, 8, 16),
}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("kind", SLOTS)
def test_the_power_is_fan_in_times_the_second_moment(kind, distribution):
    slot, shape = SLOTS[kind]()
    fan_in, _ = slot.axes.fans(shape)
    values = make(recipe_of_power(distribution, slot, shape, 3.0), 1)(shape)
    # Six standard errors of the mean square of as many normal numbers; that of all others is smaller.
    assert fan_in * second_moment(values) == pytest.approx(3.0, rel=6 * np.sqrt(2 / np.prod(shape)))


def test_at_the_centre_alone_the_power_is_as_large():
    slot, shape = built(layers.Conv2D(64, 3), 8, 8, 16)
    recipe = recipe_of_power("orthogonal", slot, shape, 3.0, centred=True)
    values = keras.ops.convert_to_numpy(make(recipe, 1)(shape))
    assert recipe.name == "autoinit>delta_orthogonal"
    # Orthogonal: exact but for the six digits of its gain, and float32.
    assert 16 * second_moment(values[1, 1]) == pytest.approx(3.0, rel=1e-5)
    assert np.count_nonzero(np.abs(values).sum((2, 3))) == 1


def test_without_power_there_are_zeros_and_an_unknown_shape_is_not_orthogonal():
    slot, shape = built(layers.Dense(8), 8)
    assert recipe_of_power("orthogonal", slot, shape, 0.0) == Recipe("autoinit>zeros")
    assert recipe_of_power("orthogonal", slot, None, 1.0).name == "autoinit>variance_scaling"


def test_a_gain_is_multiplied_and_one_is_not_written():
    half = multiplied(Recipe("autoinit>orthogonal"), 0.5)
    assert half == Recipe("autoinit>orthogonal", {"gain": 0.5})
    assert multiplied(half, 2.0) == Recipe("autoinit>orthogonal")


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_distribution_changes_no_scale(distribution):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(256, "relu"), layers.Dense(128, "relu")])
    AutoInit(Theory(distribution=distribution), seed=0).apply(model)
    # Half of a unit signal's second moment passes a ReLU.
    assert second_moment(model(normal((256, 64)))) == pytest.approx(0.5, rel=0.25)
