"""A signal is passed on as it is: by the matrix, and by a real layer with taps, groups and padding."""

import inspect

import keras
import numpy as np
import pytest
from drawing import DEPTHWISE, TRANSPOSED, drawn, normal_images, output

from keras_autoinit import Dirac, Identity, SchemeError

# Before 3.15, Keras hands no axes over.
keras_hands_axes_over = pytest.mark.skipif(
    "input_axes" not in inspect.signature(keras.initializers.VarianceScaling).parameters,
    reason="This Keras hands no axes to initializers.",
)


# Identity


@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (6, 4)])
def test_a_dense_identity_has_ones_on_its_diagonal(shape):
    np.testing.assert_array_equal(drawn(Identity(), shape), np.eye(*shape))


def test_every_gate_is_an_identity():
    np.testing.assert_array_equal(drawn(Identity(gain=2.0, blocks=3), (4, 12)), np.tile(2 * np.eye(4), 3))


def test_a_dense_layer_passes_its_input_on():
    images = normal_images(5, 8)
    np.testing.assert_array_equal(output(keras.layers.Dense(8, kernel_initializer=Identity()), images), images)


@keras_hands_axes_over
def test_an_einsum_layer_passes_its_input_on():
    layer = keras.layers.EinsumDense("btd,ndh->btnh", (None, 2, 4), kernel_initializer=Identity())
    images = normal_images(3, 5, 8)
    np.testing.assert_array_equal(output(layer, images).reshape(3, 5, 8), images)


@keras_hands_axes_over
def test_an_attention_layer_takes_it():
    layer = keras.layers.MultiHeadAttention(2, 4, kernel_initializer="autoinit>identity")
    layer.build((None, 5, 8), (None, 5, 8))
    kernel = keras.ops.convert_to_numpy(layer.query_dense.kernel)
    np.testing.assert_array_equal(kernel.reshape(8, 8), np.eye(8))


def test_a_convolution_is_refused_by_the_identity():
    with pytest.raises(SchemeError, match=r"Expected a matrix.*\(3, 3, 4, 4\).*use 'autoinit>dirac'"):
        Identity()((3, 3, 4, 4))


# Dirac


def convolution(rank, groups=1, **config):
    kind = getattr(keras.layers, f"Conv{rank}D")
    return kind(8, padding="same", groups=groups, kernel_initializer=Dirac(groups=groups), **config)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5, (2, 3), (1, 4)])
def test_a_convolution_passes_its_input_on(kernel_size, groups):
    images = normal_images(2, 6, 7, 8)
    np.testing.assert_array_equal(output(convolution(2, groups, kernel_size=kernel_size), images), images)


@pytest.mark.parametrize("kernel_size", [3, 4])
@pytest.mark.parametrize(("rank", "shape"), [(1, (9, 8)), (3, (4, 3, 5, 8))])
def test_convolutions_of_one_and_three_dimensions_pass_their_input_on(rank, shape, kernel_size):
    images = normal_images(2, *shape)
    np.testing.assert_array_equal(output(convolution(rank, kernel_size=kernel_size), images), images)


def test_a_dilated_convolution_passes_its_input_on():
    images = normal_images(2, 9, 9, 8)
    np.testing.assert_array_equal(output(convolution(2, kernel_size=3, dilation_rate=2), images), images)


def test_a_depthwise_convolution_passes_its_input_on():
    layer = keras.layers.DepthwiseConv2D(3, padding="same", depthwise_initializer=Dirac(**DEPTHWISE))
    images = normal_images(2, 6, 7, 8)
    np.testing.assert_array_equal(output(layer, images), images)


def test_a_transposed_convolution_passes_its_input_on():
    layer = keras.layers.Conv2DTranspose(8, 3, padding="same", kernel_initializer=Dirac(**TRANSPOSED))
    images = normal_images(2, 6, 7, 8)
    np.testing.assert_array_equal(output(layer, images), images)


@pytest.mark.parametrize(("channels", "filters"), [(8, 6), (6, 8)])
def test_surplus_channels_are_left_out_or_zero(channels, filters):
    layer = keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer=Dirac(gain=2.0))
    images = normal_images(2, 5, 5, channels)
    shared = min(channels, filters)
    made = output(layer, images)
    np.testing.assert_array_equal(made[..., :shared], 2 * images[..., :shared])
    assert not made[..., shared:].any()


@pytest.mark.parametrize("groups", [0, 1.5])
def test_a_count_of_groups_is_a_count(groups):
    with pytest.raises(SchemeError) as caught:
        Dirac(groups=groups)
    assert all(word in str(caught.value) for word in ["`groups`", "integer of 1 or more", repr(groups)])


def test_groups_that_do_not_divide_the_outputs_are_refused():
    with pytest.raises(SchemeError, match=r"3 blocks of equal size.*\(3, 3, 4, 8\)"):
        Dirac(groups=3)((3, 3, 4, 8))
