"""What is chosen beforehand: linear stretches, that end as large as without them, and signals that fade."""

import math

import keras
import numpy as np
import pytest
from keras import layers
from models import normal, second_moment, stack
from test_by_theory import normalized

from keras_autoinit import AutoInit, Theory


def mirrored(plan):
    return [row.path for row in plan if row.new.name == "autoinit>mirrored"]


def test_long_stretches_start_linear_unless_they_are_not_to():
    long, short = stack(5, "gelu"), stack(4, "gelu")
    assert len(mirrored(AutoInit("theory", seed=0).plan(long))) == 6
    assert not mirrored(AutoInit(Theory(linear_start=False), seed=0).plan(long))
    assert not mirrored(AutoInit("theory", seed=0).plan(short))
    assert len(mirrored(AutoInit(Theory(linear_start=True), seed=0).plan(short))) == 5


def test_a_stretch_begins_with_the_scale_that_the_signal_asks_for():
    """A max-pooling makes more of a signal than the activation before it, which the table goes by."""
    images = keras.Sequential(
        [
            keras.Input((16, 16, 8)),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(4),
            keras.layers.Conv2D(64, 1, activation="relu", name="begins"),
            keras.layers.Conv2D(64, 1, activation="relu", name="inside"),
            keras.layers.Conv2D(64, 1, name="ends"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(32, 16, 16, 8)).astype("float32")
    made = keras.Model(images.inputs[0], images.get_layer("ends").output)
    several = []
    for seed in range(8):
        plan = AutoInit(Theory(linear_start=True), seed=seed).apply(images)
        several.append(np.mean(keras.ops.convert_to_numpy(made(x)) ** 2))
    assert plan["begins/kernel"].new.config["gain"] < 1
    # What all samples have in common is most of it, and meets 32 directions: three standard errors.
    assert np.mean(several) == pytest.approx(plan["ends/kernel"].output_std ** 2, rel=3 * np.sqrt(2 / 32 / 8))


def branch(x, i):
    return layers.BatchNormalization()(
        layers.Conv2D(32, 3, padding="same", name=f"end{i}")(normalized(x, 32, f"begin{i}"))
    )


def test_residual_branches_of_convolutions_start_linear_and_ways_side_by_side_do_not():
    inputs = keras.Input((8, 8, 32))
    x = inputs
    for i in range(2):
        x = layers.ReLU()(layers.Add()([x, branch(x, i)]))
    assert mirrored(AutoInit("theory", seed=0).plan(keras.Model(inputs, x))) == [
        f"{name}{i}/kernel" for i in range(2) for name in ("begin", "end")
    ]
    x = layers.Concatenate()([branch(inputs, 0), branch(inputs, 1)])
    assert not mirrored(AutoInit("theory", seed=0).plan(keras.Model(inputs, x)))


def test_a_linear_start_leaves_normalized_branches_their_share():
    inputs = keras.Input((32,))
    x = layers.Dense(32, name="stem")(inputs)
    for index in range(3):
        y = layers.Dense(64, "relu", name=f"up{index}")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(32, name=f"down{index}")(y)])
    model = keras.Model(inputs, layers.Dense(4, name="head")(x))
    plain = AutoInit(Theory(), seed=0).plan(model)
    mirrored = AutoInit(Theory(linear_start=True), seed=0).plan(model)
    assert mirrored["down1/kernel"].new.name == "autoinit>mirrored"
    assert mirrored["down1/kernel"].output_std == pytest.approx(plain["down1/kernel"].output_std, rel=0.02)


@pytest.mark.parametrize("linear_start", [True, False])
def test_a_map_that_a_model_puts_out_is_small(linear_start):
    images = keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            *(layers.Conv2D(64, 3, padding="same", activation="gelu", name=f"c{i}") for i in range(3)),
            layers.Conv2DTranspose(16, 2, strides=2, name="map"),
        ]
    )
    AutoInit(Theory(linear_start=linear_start), seed=0).apply(images)
    assert math.sqrt(second_moment(images(normal((32, 8, 8, 16))))) == pytest.approx(0.2, rel=0.25)
    bounded = keras.Sequential([keras.Input((8, 8, 16)), layers.Conv2D(64, 3, activation="tanh", name="bounded")])
    assert AutoInit("theory", seed=0).plan(bounded)["bounded/kernel"].output_std > 0.5


@pytest.mark.parametrize("linear_start", ["auto", False])
def test_signals_fade_on_the_way_to_a_map_and_the_map_is_as_large_as_ever(linear_start):
    def convolved(x, name):
        return layers.Conv2D(64, 3, padding="same", activation="gelu", name=name)(x)

    inputs = keras.Input((8, 8, 64))
    high = convolved(convolved(inputs, "first"), "second")
    low = layers.Conv2DTranspose(64, 2, strides=2, name="up")(convolved(layers.AveragePooling2D(2)(high), "low"))
    x = convolved(layers.Concatenate()([low, high]), "last")
    model = keras.Model(inputs, layers.Conv2D(4, 1, name="map")(x))
    plan = AutoInit(Theory(linear_start=linear_start), seed=0).apply(model)
    names = [layer.name for layer in model.layers if layer.weights]
    x = normal((32, 8, 8, 64))
    made = dict(zip(names, keras.Model(inputs, [model.get_layer(name).output for name in names])(x)))
    for name in names:
        assert ("signals fade" in plan[f"{name}/kernel"].reason) == (name != "map")
        spread = np.std(keras.ops.convert_to_numpy(made[name]))
        assert spread == pytest.approx(plan[f"{name}/kernel"].output_std, rel=0.2), name
    # Without it the longer way begins two or three times as large.
    assert second_moment(made["up"]) < second_moment(made["second"])
    assert math.sqrt(second_moment(made["map"])) == pytest.approx(0.2, rel=0.25)
