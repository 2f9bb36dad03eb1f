"""Orthogonal schemes keep lengths: exactly, matrix by matrix, and at the output of a real layer."""

import math

import keras
import numpy as np
import pytest
from drawing import DEPTHWISE, TRANSPOSED, drawn, normal_images, output

from keras_autoinit import DeltaOrthogonal, Orthogonal, SchemeError

# A number rounded to float32 is off by 2^-24 of its size, so by Cauchy and Schwarz the product of
# two unit vectors by 2^-23; twice that leaves room for the rounding of the gain.
EXACT = 2**-22


def assert_orthogonal(matrix, gain=1.0):
    """Asserts that the shorter of rows and columns are orthogonal, of length `gain`."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(tall.T @ tall, gain**2 * np.eye(tall.shape[1]), rtol=0, atol=gain**2 * EXACT)


# Orthogonal


@pytest.mark.parametrize("shape", [(20, 20), (30, 20), (20, 30), (1, 7), (7, 1), (1, 1)])
def test_a_dense_kernel_is_orthogonal(shape):
    assert_orthogonal(drawn(Orthogonal(seed=1), shape))


@pytest.mark.parametrize("gain", [0.25, 1.7, "relu"])
def test_the_gain_is_the_length_of_the_columns(gain):
    assert_orthogonal(drawn(Orthogonal(gain=gain, seed=1), (30, 20)), math.sqrt(2) if gain == "relu" else gain)


@pytest.mark.parametrize("blocks", [3, 4])
def test_every_gate_is_orthogonal(blocks):
    kernel = drawn(Orthogonal(blocks=blocks, seed=1), (20, 20 * blocks))
    gates = np.split(kernel, blocks, axis=1)
    for gate in gates:
        assert_orthogonal(gate)
    assert not np.allclose(gates[0], gates[1])


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (3, 3, 2, 64), (5, 8, 16)])
def test_a_convolution_is_orthogonal_with_its_taps_as_inputs(shape):
    assert_orthogonal(drawn(Orthogonal(seed=1), shape).reshape(-1, shape[-1]))


def test_every_group_is_orthogonal():
    kernel = drawn(Orthogonal(blocks=4, seed=1), (3, 3, 2, 32))
    for group in np.split(kernel, 4, axis=-1):
        assert_orthogonal(group.reshape(18, 8))


@pytest.mark.parametrize("multiplier", [1, 3])
def test_every_channel_of_a_depthwise_kernel_is_orthogonal(multiplier):
    kernel = drawn(Orthogonal(**DEPTHWISE, seed=1), (3, 3, 5, multiplier))
    for channel in range(5):
        assert_orthogonal(kernel[:, :, channel].reshape(9, multiplier))
    assert not np.allclose(kernel[:, :, 0], kernel[:, :, 1])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_transposed_kernel_is_orthogonal_from_its_last_axis(stride):
    scheme = Orthogonal(**TRANSPOSED, fan_divisor=float(stride**2), seed=1)
    kernel = drawn(scheme, (4, 4, 6, 5))
    assert_orthogonal(kernel.transpose(0, 1, 3, 2).reshape(80, 6), stride)


@pytest.mark.parametrize(
    ("shape", "inputs", "outputs"),
    [
        ((20, 3, 5), [0], [1, 2]),  # abc,cde->abde
        ((3, 5, 20), [0, 1], [2]),  # abcd,cde->abe
        ((3, 20, 5), [1], [0, 2]),  # btd,ndh->btnh
        ((4, 5, 6), [2, 0], [1]),
    ],
)
def test_an_einsum_kernel_is_orthogonal_along_its_axes(shape, inputs, outputs):
    kernel = drawn(Orthogonal(input_axes=inputs, output_axes=outputs, seed=1), shape)
    assert_orthogonal(kernel.transpose(*inputs, *outputs).reshape(math.prod(shape[axis] for axis in inputs), -1))


def test_an_einsum_kernel_is_orthogonal_for_each_index_of_a_batch_axis():
    # bnd,nde->bne: one matrix per n.
    kernel = drawn(Orthogonal(input_axes=[1], output_axes=[2], seed=1), (3, 8, 6))
    for matrix in kernel:
        assert_orthogonal(matrix)
    assert not np.allclose(kernel[0], kernel[1])


# Delta-orthogonal


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda scheme: keras.layers.Conv1D(12, 5, padding="same", kernel_initializer=scheme), (9, 8)),
        (lambda scheme: keras.layers.Conv2D(12, 3, padding="same", kernel_initializer=scheme), (6, 7, 8)),
        (lambda scheme: keras.layers.Conv2D(8, (1, 5), padding="same", kernel_initializer=scheme), (6, 7, 8)),
        (lambda scheme: keras.layers.Conv3D(12, 3, padding="same", kernel_initializer=scheme), (4, 3, 5, 8)),
    ],
    ids=["1D", "2D", "oblong", "3D"],
)
def test_a_delta_orthogonal_convolution_keeps_the_length_of_every_pixel(layer, shape):
    images = normal_images(2, *shape)
    lengths = np.linalg.norm(output(layer(DeltaOrthogonal(gain=2.0, seed=1)), images), axis=-1)
    # Sums of eight products in float32, so within 8 x 2^-24 of the sum of their sizes, which is at
    # most sqrt(8) times the length.
    np.testing.assert_allclose(lengths, 2 * np.linalg.norm(images, axis=-1), rtol=8 * 2**-24 * math.sqrt(8) * 2)


def test_only_the_centre_tap_is_set():
    kernel = drawn(DeltaOrthogonal(seed=1), (3, 5, 8, 8))
    assert_orthogonal(kernel[1, 2])
    assert np.count_nonzero(np.abs(kernel).sum((2, 3))) == 1


def test_with_fewer_outputs_the_centre_tap_is_a_projection():
    assert_orthogonal(drawn(DeltaOrthogonal(seed=1), (3, 3, 8, 3))[1, 1])


def test_every_group_has_a_centre_tap_of_its_own():
    kernel = drawn(DeltaOrthogonal(blocks=2, seed=1), (3, 3, 4, 8))
    for group in np.split(kernel[1, 1], 2, axis=-1):
        assert_orthogonal(group)


def test_a_delta_orthogonal_transposed_kernel_counts_its_strides():
    kernel = drawn(DeltaOrthogonal(**TRANSPOSED, fan_divisor=4.0, seed=1), (3, 3, 8, 6))
    assert_orthogonal(kernel[1, 1], 2.0)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (3, 4, 4, 4), (2, 4, 4)])
def test_a_kernel_without_a_centre_is_refused(shape):
    with pytest.raises(SchemeError) as caught:
        DeltaOrthogonal()(shape)
    assert all(word in str(caught.value) for word in ["odd sides", str(shape), "autoinit>orthogonal", "kernel_size"])
