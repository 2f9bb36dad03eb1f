"""Larger maps: how large they are, and how much of a gradient each old entry gets, where neighbours agree.

256 samples of maps with 64 channels: a second moment is known to about a per cent.
"""

import keras
import numpy as np
import pytest
from both_ways import at_every_call
from keras import layers, ops

SIDE, CHANNELS, SAMPLES = 6, 64, 256


def convolved(x):
    x = layers.Conv2D(CHANNELS, 3, padding="same", kernel_initializer="he_normal", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


RESIZED = {
    "repeated": lambda x: layers.UpSampling2D(2)(x),
    "lines": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "unequal sides": lambda x: layers.UpSampling2D((1, 3), interpolation="bilinear")(x),
    "resizing": lambda x: layers.Resizing(15, 10)(x),
    "smaller": lambda x: layers.Resizing(4, 4)(x),
    "nearest": lambda x: layers.Resizing(9, 12, interpolation="nearest")(x),
    "operation": lambda x: ops.image.resize(x, (2 * SIDE, 2 * SIDE)),
    "twice": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(layers.UpSampling2D(2)(x)),
}


@pytest.mark.parametrize("name", RESIZED)
def test_a_resized_map_is_as_large_as_measured_and_hands_back_as_much(name):
    """Behind a convolution neighbours agree, and the gradients of what is resized do."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, CHANNELS))
    model = keras.Model(inputs, RESIZED[name](convolved(inputs)))
    source = np.random.default_rng(0)
    rows = at_every_call(model, source.normal(size=(SAMPLES, *model.input_shape[1:])).astype("float32"), source)
    assert abs(rows[-1].off) < 0.04
    assert max(abs(row.off_back) for row in rows) < 0.06


def test_gradients_of_a_decoder_agree_between_neighbours():
    """A larger map, convolved and made larger again, as in a U-Net: independent gradients would be half as large."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, CHANNELS))
    hidden = layers.UpSampling2D(4, interpolation="bilinear")(convolved(inputs))
    outputs = layers.UpSampling2D(4, interpolation="bilinear")(convolved(hidden))
    source = np.random.default_rng(0)
    batch = source.normal(size=(32, SIDE, SIDE, CHANNELS)).astype("float32")
    rows = at_every_call(keras.Model(inputs, outputs), batch, source)
    # A rectifier's mean, two fifths of its square, is what one draw of 64 units makes of it: to 0.4 sqrt(2 / 64), 7 %.
    assert max(abs(row.off) for row in rows) < 3 * 0.07
    assert max(abs(row.off_back) for row in rows) < 4 * 0.07


def test_cut_maps_are_measured():
    inputs = keras.Input((8, 6, 4))
    model = keras.Model(inputs, layers.Resizing(4, 4, crop_to_aspect_ratio=True)(inputs))
    source = np.random.default_rng(0)
    rows = at_every_call(model, source.normal(size=(SAMPLES, 8, 6, 4)).astype("float32"), source)
    assert abs(rows[-1].off) < 0.1
