"""Matrix schemes keep lengths, units apart, or the signal itself: exactly, matrix by matrix.

The claims are checked on the matrices and, where a layer lays them out (taps, groups, padding),
on the output of a real layer.
"""

import inspect
import math

import keras
import numpy as np
import pytest

from keras_autoinit import Axes, DeltaOrthogonal, Dirac, Identity, Orthogonal, SchemeError, Sparse
from keras_autoinit.schemes.matrices import Matrices, orthogonal_matrices

# A number rounded to float32 is off by 2^-24 of its size, so by Cauchy and Schwarz the product of
# two unit vectors by 2^-23; twice that leaves room for the rounding of the gain.
EXACT = 2**-22

# Before 3.15, Keras hands no axes over.
keras_hands_axes_over = pytest.mark.skipif(
    "input_axes" not in inspect.signature(keras.initializers.VarianceScaling).parameters,
    reason="This Keras hands no axes to initializers.",
)

DEPTHWISE = {"input_axes": [0, 1], "output_axes": [0, 1, 3]}
TRANSPOSED = {"input_axes": [0, 1, 3], "output_axes": [0, 1, 2]}


def drawn(scheme, shape):
    return scheme.array(shape, "float32").astype(np.float64)


def assert_orthogonal(matrix, gain=1.0):
    """Asserts that the shorter of rows and columns are orthogonal, of length `gain`."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(tall.T @ tall, gain**2 * np.eye(tall.shape[1]), rtol=0, atol=gain**2 * EXACT)


def output(layer, images):
    return keras.ops.convert_to_numpy(layer(images)).astype(np.float64)


def normal_images(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


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


NUMBER, SIDE = 4000, 4


def traces():
    return np.trace(orthogonal_matrices(NUMBER, SIDE, SIDE, 1, np.float64), axis1=1, axis2=2)


def test_orthogonal_matrices_have_no_preferred_sign():
    # Over all orthogonal matrices the trace has mean 0 and variance 1; five standard errors. Without
    # the correction of signs the mean is -0.84.
    assert abs(traces().mean()) < 5 / math.sqrt(NUMBER)


def test_traces_are_spread_as_over_all_orthogonal_matrices():
    # The fourth moment of the trace is 3 (from side 2 on), so its square has mean 1, variance 2.
    assert abs((traces() ** 2).mean() - 1) < 5 * math.sqrt(2 / NUMBER)


def test_rotations_and_reflections_are_as_frequent():
    # Without the correction of signs, three reflections make every determinant -1.
    signs = np.linalg.det(orthogonal_matrices(NUMBER, SIDE, SIDE, 1, np.float64))
    assert abs(signs.mean()) < 5 / math.sqrt(NUMBER)


@pytest.mark.parametrize("corner", [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_every_entry_has_mean_zero_and_the_same_spread(corner):
    entry = orthogonal_matrices(NUMBER, SIDE, SIDE, 2, np.float64)[:, corner[0], corner[1]]
    # An entry has variance 1/4 and, as a coordinate of a point on the sphere in four dimensions,
    # the fourth moment 3 / (4 * 6) = 1/8, hence 1/16 as variance of its square.
    assert abs(entry.mean()) < 5 * math.sqrt(1 / 4 / NUMBER)
    assert abs((entry**2).mean() - 1 / 4) < 5 * math.sqrt(1 / 16 / NUMBER)


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


# Sparse


@pytest.mark.parametrize("shape", [(40, 30), (3, 3, 8, 16), (5, 8, 16)])
def test_every_unit_reads_so_many_inputs(shape):
    kernel = drawn(Sparse(nonzeros=7, seed=1), shape).reshape(-1, shape[-1])
    assert (np.count_nonzero(kernel, axis=0) == 7).all()


def test_every_unit_of_every_channel_reads_so_many_taps():
    kernel = drawn(Sparse(nonzeros=4, **DEPTHWISE, seed=1), (3, 3, 8, 2))
    assert (np.count_nonzero(kernel, axis=(0, 1)) == 4).all()


def test_units_may_read_all_inputs():
    assert np.count_nonzero(drawn(Sparse(nonzeros=20, seed=1), (20, 30))) == 600


def test_units_read_different_inputs():
    patterns = drawn(Sparse(nonzeros=5, seed=1), (40, 30)) != 0
    # Two of the 658,008 ways to choose 5 of 40 are equal for one of the 435 pairs of 30 units with
    # a chance of 0.0007.
    assert len({tuple(column) for column in patterns.T}) == 30


def test_every_input_is_read_as_often():
    reads = np.count_nonzero(drawn(Sparse(nonzeros=5, seed=1), (20, 10_000)), axis=1)
    # Binomial: 10,000 units read an input with the chance 1/4.
    assert (np.abs(reads - 2500) < 5 * math.sqrt(10_000 * 1 / 4 * 3 / 4)).all()


def test_the_weights_that_are_read_have_the_stated_spread():
    kernel = drawn(Sparse(nonzeros=16, gain=3.0, seed=1), (50, 2000))
    second_moment = np.mean(kernel[kernel != 0] ** 2)
    # Normal numbers: five standard errors of the mean of their squares.
    assert second_moment == pytest.approx(9 / 16, rel=5 * math.sqrt(2 / (16 * 2000)))


def test_which_inputs_are_read_does_not_depend_on_how_a_partition_is_ordered(monkeypatch):
    # NumPy leaves open in which order a partition returns the smallest, and its code for AVX-512
    # returns another order than its code for AVX2.
    scheme, partition = Sparse(nonzeros=7, seed=1), np.argpartition

    def other_order(values, place, axis):
        order = partition(values, place, axis=axis)
        first, rest = np.split(order, [place + 1], axis)
        return np.concatenate([np.flip(first, axis), np.flip(rest, axis)], axis)

    expected = scheme.array((40, 30), "float32")
    monkeypatch.setattr(np, "argpartition", other_order)
    np.testing.assert_array_equal(scheme.array((40, 30), "float32"), expected)


# How the matrices lie


@pytest.mark.parametrize(
    ("shape", "axes", "number", "rows", "columns"),
    [
        ((5, 6), Axes((0,), (1,)), 1, 5, 6),
        ((5, 6), Axes((1,), (0,)), 1, 6, 5),
        ((5, 24), Axes((0,), (1,), blocks=4), 4, 5, 6),
        ((3, 3, 5, 6), Axes((0, 1, 2), (0, 1, 3)), 1, 5, 6),
        ((3, 3, 5, 6), Axes((0, 1), (0, 1, 3)), 5, 1, 6),
        ((2, 5, 6), Axes((1,), (0, 2)), 1, 5, 12),
        ((2, 5, 6), Axes((1,), (2,)), 2, 5, 6),
    ],
)
def test_a_weight_holds_so_many_matrices_of_such_a_size(shape, axes, number, rows, columns):
    lie = Matrices.of(shape, axes)
    assert (lie.number, lie.rows, lie.columns) == (number, rows, columns)


def test_matrices_are_put_where_the_axes_say():
    lie = Matrices.of((3, 4, 2, 10), Axes((0, 1, 2), (0, 1, 3), blocks=2))
    stack = np.arange(240.0).reshape(2, 12, 2, 5)
    weight = lie.weight(stack)
    assert weight.shape == (3, 4, 2, 10)
    for block, row, column in np.ndindex(2, 3, 4):
        tap = weight[row, column, :, 5 * block : 5 * block + 5]
        np.testing.assert_array_equal(tap, stack[block, 4 * row + column])


# Refusals

CONVOLUTIONAL = [DeltaOrthogonal, Dirac]


@pytest.mark.parametrize("shape", [(), (5,)])
@pytest.mark.parametrize("kind", [Orthogonal, DeltaOrthogonal, Identity, Dirac, Sparse])
def test_a_vector_is_refused(kind, shape):
    with pytest.raises(SchemeError) as caught:
        kind()(shape)
    assert all(word in str(caught.value) for word in ["two or more dimensions", kind.__name__, str(shape), "use"])


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_a_matrix_is_refused_by_schemes_for_convolutions(kind):
    with pytest.raises(SchemeError) as caught:
        kind()((4, 5))
    words = ["kernel of a convolution", kind.__name__, "(4, 5)", "'autoinit>orthogonal' or 'autoinit>identity'"]
    assert all(word in str(caught.value) for word in words)


def test_a_convolution_is_refused_by_the_identity():
    with pytest.raises(SchemeError, match=r"Expected a matrix.*\(3, 3, 4, 4\).*use 'autoinit>dirac'"):
        Identity()((3, 3, 4, 4))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (3, 4, 4, 4), (2, 4, 4)])
def test_a_kernel_without_a_centre_is_refused(shape):
    with pytest.raises(SchemeError) as caught:
        DeltaOrthogonal()(shape)
    assert all(word in str(caught.value) for word in ["odd sides", str(shape), "autoinit>orthogonal", "kernel_size"])


@pytest.mark.parametrize(("shape", "inputs"), [((14, 4), 14), ((3, 3, 1, 4), 9)])
def test_more_inputs_than_there_are_cannot_be_read(shape, inputs):
    with pytest.raises(SchemeError) as caught:
        Sparse(nonzeros=15)(shape)
    assert all(word in str(caught.value) for word in ["at least 15", str(shape), f"have {inputs}", "give `nonzeros`"])


@pytest.mark.parametrize("nonzeros", [0, -1, 1.5, True, None])
def test_a_count_of_inputs_is_a_count(nonzeros):
    with pytest.raises(SchemeError) as caught:
        Sparse(nonzeros=nonzeros)
    assert all(word in str(caught.value) for word in ["`nonzeros`", "integer of 1 or more", repr(nonzeros)])


@pytest.mark.parametrize("groups", [0, 1.5])
def test_a_count_of_groups_is_a_count(groups):
    with pytest.raises(SchemeError) as caught:
        Dirac(groups=groups)
    assert all(word in str(caught.value) for word in ["`groups`", "integer of 1 or more", repr(groups)])


def test_groups_that_do_not_divide_the_outputs_are_refused():
    with pytest.raises(SchemeError, match=r"3 blocks of equal size.*\(3, 3, 4, 8\)"):
        Dirac(groups=3)((3, 3, 4, 8))
