"""What cannot be promised is said, in a plan's notes."""

import keras
from keras import layers
from models import stack

from keras_autoinit import AutoInit, Theory


def relu_squared(x):
    return keras.ops.square(keras.ops.relu(x))


def test_hopeless_stretches_are_named():
    plan = AutoInit("theory", seed=0).plan(stack(60, relu_squared, width=8))
    (note,) = [note for note in plan.notes if note.startswith("No scale can help")]
    assert "relu_squared" in note
    assert "60 layers" in note


def test_a_layer_of_few_units_that_all_samples_have_in_common_is_named():
    """An average over 256 rectified positions is the same for every sample: four units of it are four numbers."""
    inputs = keras.Input((16, 16, 8))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3, activation="relu", name="many")(inputs))
    model = keras.Model(inputs, layers.Dense(4, name="few")(hidden))
    # Mirrored, the average of its pairs would have no mean.
    plan = AutoInit(Theory(linear_start=False), seed=0).plan(model)
    (note,) = [note for note in plan.notes if "one draw" in note]
    assert note.endswith("in few.")
