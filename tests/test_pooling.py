"""Windows and their averages and maxima: beside zeros, at borders, over again, and what comes back through them.

64 samples of maps with 128 channels, of which each has a pattern of its own at every place: a second moment is known
to about `sqrt(2 / 128 / places)`, a few per cent where there are few places.
"""

import keras
import numpy as np
import pytest
from both_ways import at_every_call, named
from keras import layers

SIDE, CHANNELS, SAMPLES = 8, 128, 64


def convolved(x, taps=3):
    """Maps whose neighbours agree, with faint borders: what a convolution makes of rectified numbers."""
    for _ in range(2):
        x = layers.Conv2D(CHANNELS, taps, padding="same", kernel_initializer="he_normal", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    return layers.BatchNormalization()(layers.Conv2D(CHANNELS, 1, kernel_initializer="he_normal")(x))


def met(function, side=SIDE):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((side, side, CHANNELS))
    model = keras.Model(inputs, function(convolved(inputs)))
    source = np.random.default_rng(1)
    return at_every_call(model, source.normal(size=(SAMPLES, side, side, CHANNELS)).astype("float32"), source)


def twice(x):
    return layers.Add()([layers.AveragePooling2D(3, 1, "same")(x), layers.AveragePooling2D(3, 1, "same")(x)])


def shifted(x):
    """As NASNet makes a map smaller: every other entry, from the second on."""
    x = layers.ReLU()(x)
    return layers.AveragePooling2D(1, 2)(layers.Cropping2D(((1, 0), (1, 0)))(layers.ZeroPadding2D(((0, 1), (0, 1)))(x)))


WINDOWS = {
    "averages": layers.AveragePooling2D(3, 1, "same"),
    "averages among zeros": lambda x: layers.AveragePooling2D(3, 2)(layers.ZeroPadding2D(1)(x)),
    "the same averages twice": twice,
    "every other entry of a shifted map": shifted,
    "maxima": layers.MaxPooling2D(3, 2, "same"),
    "maxima among zeros": lambda x: layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(x)),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_as_large_as_measured_and_hand_back_as_much(name):
    rows = met(WINDOWS[name])
    assert abs(rows[-1].off) < 0.06
    behind = named(rows, "batch_normalization")[-1]
    assert abs(behind.off_back) < 0.08


def test_what_a_maximum_makes_stays_skewed_behind_a_normalization():
    """A rectifier makes a tenth more of it than of a Gaussian, as in a DenseNet; and passes back less."""

    def hidden(x):
        x = layers.MaxPooling2D(3, 2, "same")(layers.ReLU()(x))
        return layers.ReLU()(layers.BatchNormalization()(x))

    rows = met(hidden)
    # Few units of one sample at two by two places are one draw more or less: to a per cent of what is made of all.
    assert rows[-1].signal > 0.53
    assert abs(rows[-1].off) < 0.03
    assert abs(named(rows, "batch_normalization")[-1].off_back) < 0.04


def test_maps_side_by_side_hand_back_what_agrees_in_each_of_them():
    """Averages over nearly all of a map agree at all places, and so do the gradients that a rectifier lets through."""

    def cell(x):
        whole = layers.AveragePooling2D(3, 1, "same")(x)
        hidden = layers.ReLU()(layers.Concatenate()([x, layers.Add()([whole, whole])]))
        return layers.GlobalAveragePooling2D()(hidden)

    rows = met(cell, side=2)
    assert abs(named(rows, "batch_normalization")[-1].off_back) < 0.1
