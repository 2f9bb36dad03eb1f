"""ICNR starts without checkerboards, and the linear start is linear: on the output of real layers."""

import keras
import numpy as np
import pytest

from keras_autoinit import ICNR, HeNormal, Mirrored, Orthogonal, SchemeError, VarianceScaling

needs_depth_to_space = pytest.mark.skipif(
    not hasattr(keras.ops, "depth_to_space"), reason="This Keras has no keras.ops.depth_to_space."
)

TRANSPOSED = {"input_axes": [0, 1, 3], "output_axes": [0, 1, 2]}


def drawn(scheme, shape):
    return scheme.array(shape, "float32").astype(np.float64)


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def output(layer, inputs):
    return keras.ops.convert_to_numpy(layer(inputs)).astype(np.float64)


def assert_close(actual, expected, terms):
    """Asserts equality up to rounding, for sums of so many products in float32.

    A sum of n products is off by at most n 2^-24 times the lengths of the two vectors: a kernel's
    column, here about 1, and a signal of n numbers, here about sqrt(n) times the largest output.
    Where layers follow one another, `terms` is the sum of their n.
    """
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=terms**1.5 * 2**-24 * scale)


# ICNR


@needs_depth_to_space
@pytest.mark.parametrize("factor", [2, 3])
def test_a_pixel_shuffle_starts_as_nearest_neighbour_upsampling(factor):
    filters = 2 * factor**2
    scheme = ICNR("he_normal", factor=factor, seed=1)
    convolution = keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer=scheme)
    small = keras.layers.Conv2D(2, 3, padding="same")
    images = normal(2, 6, 7, 3)
    small.build(images.shape)
    made = output(convolution, images)
    small.kernel.assign(convolution.kernel[..., :2])
    shuffled = keras.ops.depth_to_space(keras.ops.convert_to_tensor(made), factor, data_format="channels_last")
    repeated = output(keras.layers.UpSampling2D(factor), output(small, images))
    assert_close(keras.ops.convert_to_numpy(shuffled), repeated, 27)


@needs_depth_to_space
def test_without_it_a_pixel_shuffle_starts_with_a_checkerboard():
    convolution = keras.layers.Conv2D(8, 3, padding="same", kernel_initializer=HeNormal(seed=1))
    shuffled = keras.ops.depth_to_space(convolution(normal(2, 6, 7, 3)), 2, data_format="channels_last")
    pixels = keras.ops.convert_to_numpy(shuffled)
    # Neighbours are independent: their difference has twice the variance.
    assert np.var(pixels[:, ::2] - pixels[:, 1::2]) > np.var(pixels)


@pytest.mark.parametrize(
    ("kind", "shape", "kernel_size"),
    [
        (keras.layers.Conv1DTranspose, (7, 4), 4),
        (keras.layers.Conv2DTranspose, (5, 6, 4), 4),
        (keras.layers.Conv2DTranspose, (5, 6, 4), (2, 6)),
        (keras.layers.Conv3DTranspose, (3, 4, 3, 4), 2),
    ],
)
def test_a_strided_transposed_convolution_has_blocks_of_equal_values(kind, shape, kernel_size):
    rank = len(shape) - 1
    taps = list(range(rank))
    axes = {"input_axes": [*taps, rank + 1], "output_axes": [*taps, rank], "fan_divisor": 2.0**rank}
    scheme = ICNR(factor=2, transposed=True, **axes, seed=1)
    made = output(kind(3, kernel_size, strides=2, padding="valid", kernel_initializer=scheme), normal(2, *shape))
    for axis in range(1, rank + 1):
        even, odd = (np.take(made, range(start, made.shape[axis], 2), axis) for start in (0, 1))
        # At most 36 taps by 4 channels are summed.
        assert_close(odd, even, 144)
    # Of one block and the next, no two values are equal.
    assert np.abs(np.diff(made[:, ::2], axis=1)).min() > 0


@pytest.mark.parametrize(
    ("scheme", "shape", "fan_in"),
    [
        (ICNR("lecun_normal", factor=2, seed=1), (3, 3, 40, 256), 9 * 40),
        (ICNR("lecun_normal", factor=3, seed=1), (3, 3, 40, 9 * 64), 9 * 40),
        (ICNR("lecun_normal", 2, True, **TRANSPOSED, fan_divisor=4.0, seed=1), (6, 6, 64, 40), 9 * 40),
        (ICNR("lecun_normal", 2, True, seed=1), (6, 6, 64, 40), 9 * 40),
    ],
)
def test_the_small_kernel_has_the_spread_of_its_own_fans(scheme, shape, fan_in):
    # 9 x 40 x 64 independent numbers, each repeated; five standard errors of the mean of their
    # squares, of which a normal, truncated or not, spreads by sqrt(2) at most.
    tolerance = 5 * np.sqrt(2 / (9 * 40 * 64))
    assert np.mean(drawn(scheme, shape) ** 2) == pytest.approx(1 / fan_in, rel=tolerance)


def test_the_gain_multiplies_the_kernel():
    np.testing.assert_array_equal(drawn(ICNR(gain=2.0, seed=1), (3, 3, 4, 8)), 2 * drawn(ICNR(seed=1), (3, 3, 4, 8)))


# The linear start: kernels


def test_the_first_layer_makes_pairs():
    first, second = np.split(drawn(Mirrored(pairs_out=12, seed=1), (8, 12)), 2, axis=1)
    np.testing.assert_array_equal(first, -second)


def test_the_last_layer_reads_pairs_with_opposite_signs():
    first, second = np.split(drawn(Mirrored(pairs_in=12, seed=1), (12, 8)), 2, axis=0)
    np.testing.assert_array_equal(first, -second)


def test_a_layer_between_does_both():
    kernel = drawn(Mirrored(pairs_in=12, pairs_out=8, seed=1), (12, 8))
    a = kernel[:6, :4]
    np.testing.assert_array_equal(kernel, np.block([[a, -a], [-a, a]]))
    # Orthonormal columns, up to rounding to float32.
    np.testing.assert_allclose(a.T @ a, np.eye(4), rtol=0, atol=2**-22)


def test_pairs_repeat_block_by_block():
    kernel = drawn(Mirrored(pairs_out=4, seed=1), (8, 12))
    for block in np.split(kernel, 3, axis=1):
        np.testing.assert_array_equal(block[:, :2], -block[:, 2:])


def test_in_a_block_of_odd_length_the_last_unit_has_no_partner():
    kernel = drawn(Mirrored(pairs_out=5, seed=1), (8, 10))
    for block in np.split(kernel, 2, axis=1):
        np.testing.assert_array_equal(block[:, :2], -block[:, 2:4])
        assert block[:, 4].any()


def test_without_pairs_it_is_its_base():
    kernel = drawn(Mirrored(seed=1), (12, 8))
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(8), rtol=0, atol=2**-22)


@pytest.mark.parametrize("groups", [2, 4])
def test_pairs_lie_within_a_group(groups):
    kernel = drawn(Mirrored(pairs_in=4, pairs_out=6, blocks=groups, seed=1), (3, 3, 4, 6 * groups))
    parts = np.split(kernel, groups, axis=-1)
    for part in parts:
        np.testing.assert_array_equal(part[..., :3], -part[..., 3:])
        np.testing.assert_array_equal(part[:, :, :2], -part[:, :, 2:])
    assert (parts[0] != parts[1]).any()


@pytest.mark.parametrize(("block", "multiplier"), [(8, 1), (4, 2), (16, 1)])
def test_a_depthwise_kernel_is_equal_within_each_pair(block, multiplier):
    kernel = drawn(Mirrored("lecun_normal", pairs_in=block, **DEPTHWISE, seed=1), (3, 3, 16, multiplier))
    for part in np.split(kernel, 16 // block, axis=2):
        first, second = np.split(part, 2, axis=2)
        np.testing.assert_array_equal(first, second)
    assert len(np.unique(kernel)) == kernel.size // 2
    # Nine taps, normal: five standard errors of a mean of squares.
    assert np.mean(kernel**2) == pytest.approx(1 / 9, rel=5 * np.sqrt(2 / (kernel.size / 2)))


def test_a_depthwise_unit_without_a_partner_has_taps_of_its_own():
    kernel = drawn(Mirrored("lecun_normal", pairs_in=5, **DEPTHWISE, seed=1), (3, 3, 5, 1))
    np.testing.assert_array_equal(kernel[:, :, :2], kernel[:, :, 2:4])
    assert len(np.unique(kernel)) == 27


# The linear start: networks


def stack(*layers, inputs):
    return keras.Sequential([keras.Input(inputs), *layers])


def dense_stack(widths, activation="relu", gain=1.0, outputs=16):
    """Returns a network of mirrored dense layers: entry, middle and end."""
    layers, pairs = [], None
    for index, width in enumerate(widths):
        scheme = Mirrored(pairs_in=pairs, pairs_out=width, gain=gain if index else 1.0, seed=index)
        layers += [keras.layers.Dense(width, kernel_initializer=scheme), keras.layers.Activation(activation)]
        pairs = width
    end = Mirrored(pairs_in=pairs, gain=gain if widths else 1.0, seed=99)
    return stack(*layers, keras.layers.Dense(outputs, kernel_initializer=end), inputs=(8,))


def assert_linear(model, shape, terms):
    """Asserts f(-x) = -f(x) and f(2 x + y) = 2 f(x) + f(y), up to rounding of so many terms."""
    x, y = normal(2, 16, *shape)
    f_x, f_y = output(model, x), output(model, y)
    assert np.abs(f_x).max() > 0.1
    assert_close(output(model, -x), -f_x, terms)
    assert_close(output(model, 2 * x + y), 2 * f_x + f_y, terms)


STACKS = {"entry and end": (32,), "one middle": (32, 32), "many": (32, 48, 24, 64, 32)}


@pytest.mark.parametrize("widths", STACKS.values(), ids=STACKS)
def test_a_stack_of_dense_layers_is_linear(widths):
    assert_linear(dense_stack(widths), (8,), 8 + sum(widths))


@pytest.mark.parametrize("widths", [(33,), (33, 33), (33, 32, 35)], ids=["entry and end", "one middle", "mixed"])
def test_a_stack_of_odd_widths_is_linear(widths):
    assert_linear(dense_stack(widths), (8,), 8 + sum(widths))


def test_without_mirrors_a_stack_is_far_from_linear():
    layers = [keras.layers.Dense(32, "relu", kernel_initializer=Orthogonal(seed=index)) for index in range(3)]
    model = stack(*layers, inputs=(8,))
    x = normal(16, 8)
    assert np.abs(output(model, x) + output(model, -x)).max() > 0.1 * np.abs(output(model, x)).max()


@pytest.mark.parametrize(
    ("activation", "gain"),
    [("relu", 1.0), ("gelu", 1.0), ("silu", 1.0), (keras.layers.LeakyReLU(negative_slope=0.25), 1 / 1.25)],
    ids=["relu", "gelu", "silu", "leaky relu"],
)
def test_a_stack_keeps_every_length_and_angle(activation, gain):
    # Widths that never fall below twice the dimensions of the input lose nothing.
    model = dense_stack((32, 32, 48, 64), activation, gain, outputs=40)
    x = normal(16, 8)
    made = output(model, x)
    assert_close(made @ made.T, x.astype(np.float64) @ x.T, 8 + 32 + 32 + 48 + 64)


def test_a_deep_stack_keeps_every_length():
    model = dense_stack((32,) * 50)
    x = normal(4, 8)
    lengths = np.linalg.norm(output(model, x), axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(x, axis=1), rtol=50 * 32**1.5 * 2**-24)


@pytest.mark.parametrize("filters", [6, 8])
def test_pairs_of_a_feature_map_are_found_after_flattening(filters):
    model = stack(
        keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer=Mirrored(pairs_out=filters, seed=1)
        ),
        keras.layers.Flatten(),
        keras.layers.Dense(10, kernel_initializer=Mirrored(pairs_in=filters, seed=2)),
        inputs=(5, 4, 3),
    )
    assert_linear(model, (5, 4, 3), 27 + 20 * filters)


def test_pairs_across_the_whole_flattened_map_are_not_pairs():
    model = stack(
        keras.layers.Conv2D(8, 3, activation="relu", kernel_initializer=Mirrored(pairs_out=8, seed=1)),
        keras.layers.Flatten(),
        keras.layers.Dense(10, kernel_initializer=Mirrored(pairs_in=48, seed=2)),
        inputs=(5, 4, 3),
    )
    x = normal(16, 5, 4, 3)
    assert np.abs(output(model, x) + output(model, -x)).max() > 0.1 * np.abs(output(model, x)).max()


@pytest.mark.parametrize("base", ["orthogonal", "delta_orthogonal", "he_normal"])
def test_a_stack_of_convolutions_is_linear(base):
    model = stack(
        *(
            keras.layers.Conv2D(
                8,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=Mirrored(base, pairs_in=8 if index else None, pairs_out=8, seed=index),
            )
            for index in range(3)
        ),
        keras.layers.Conv2D(4, 3, kernel_initializer=Mirrored(base, pairs_in=8, seed=9)),
        inputs=(6, 5, 3),
    )
    assert_linear(model, (6, 5, 3), 27 + 3 * 72)


def test_a_grouped_convolution_is_linear():
    model = stack(
        keras.layers.Conv2D(
            16, 3, groups=2, activation="relu", kernel_initializer=Mirrored(pairs_out=8, blocks=2, seed=1)
        ),
        keras.layers.Conv2D(4, 3, groups=2, kernel_initializer=Mirrored(pairs_in=8, blocks=2, seed=2)),
        inputs=(6, 6, 4),
    )
    assert_linear(model, (6, 6, 4), 18 + 72)


def test_a_transposed_convolution_is_linear():
    kind = keras.layers.Conv2DTranspose
    model = stack(
        kind(8, 3, 2, activation="relu", kernel_initializer=Mirrored(pairs_out=8, **TRANSPOSED, seed=1)),
        kind(4, 3, kernel_initializer=Mirrored(pairs_in=8, **TRANSPOSED, seed=2)),
        inputs=(5, 4, 3),
    )
    assert_linear(model, (5, 4, 3), 27 + 72)


def test_a_transposed_convolution_shares_its_taps_out_among_its_strides():
    plain = drawn(Mirrored(pairs_out=8, **TRANSPOSED, seed=1), (4, 4, 8, 3))
    strided = drawn(Mirrored(pairs_out=8, **TRANSPOSED, fan_divisor=4.0, seed=1), (4, 4, 8, 3))
    np.testing.assert_array_equal(strided, 2 * plain)


# Bases


@pytest.mark.parametrize(
    "base",
    [
        "he_normal",
        "autoinit>he_normal",
        HeNormal(seed=3),
        HeNormal,
        {"class_name": "autoinit>he_normal", "config": {}},
        keras.initializers.serialize(HeNormal(seed=4)),
    ],
    ids=["name", "full name", "instance", "class", "configuration", "serialized"],
)
@pytest.mark.parametrize("kind", [ICNR, Mirrored])
def test_a_base_may_be_given_in_any_form_and_its_seed_is_not_used(kind, base):
    expected = kind(HeNormal(seed=5), seed=1).array((3, 3, 4, 8), "float32")
    np.testing.assert_array_equal(kind(base, seed=1).array((3, 3, 4, 8), "float32"), expected)


@pytest.mark.parametrize("kind", [ICNR, Mirrored])
def test_the_base_keeps_its_arguments(kind):
    scheme = kind(VarianceScaling(gain=2.0, distribution="uniform"), seed=1)
    # The small kernel of ICNR has as many inputs as the whole.
    bound = 2 * np.sqrt(3 / 36)
    assert 0.9 * bound < np.abs(drawn(scheme, (3, 3, 4, 64))).max() <= bound * (1 + 2**-23)


@pytest.mark.parametrize("kind", [ICNR, Mirrored])
@pytest.mark.parametrize(
    "base",
    ["zeros", "random_normal", "no_such_name", None, 3, "mirrored", "icnr", "GlorotUniform", {"class_name": "x"}],
)
def test_a_base_that_is_no_scheme_of_matrices_is_refused(kind, base):
    with pytest.raises(SchemeError) as caught:
        kind(base)
    assert all(word in str(caught.value) for word in ["Expected `base`", "such as", "he_normal", "Received"])


def test_the_bases_that_a_refusal_names_are_bases():
    with pytest.raises(SchemeError) as caught:
        Mirrored("zeros")
    named = str(caught.value).split("such as ")[1].split(". Received")[0].split(", ")
    assert len(named) > 3
    for name in named:
        Mirrored(name)


# Refusals


@pytest.mark.parametrize("shape", [(5,), (8, 4)])
def test_icnr_refuses_what_is_no_convolution(shape):
    with pytest.raises(SchemeError) as caught:
        ICNR()(shape)
    assert all(word in str(caught.value) for word in ["kernel of a convolution", "ICNR", str(shape), "use the base"])


@pytest.mark.parametrize(
    ("scheme", "shape", "words"),
    [
        (ICNR(factor=2), (3, 3, 4, 6), ["outputs divisible by 4", "factor 2", "(3, 3, 4, 6)"]),
        (ICNR(factor=3), (3, 3, 4, 12), ["outputs divisible by 9", "factor 3", "(3, 3, 4, 12)"]),
        (ICNR(factor=2, transposed=True), (4, 3, 8, 6), ["kernel sides divisible by 2", "factor 2", "(4, 3, 8, 6)"]),
    ],
)
def test_icnr_refuses_what_its_factor_does_not_divide(scheme, shape, words):
    with pytest.raises(SchemeError) as caught:
        scheme(shape)
    assert all(word in str(caught.value) for word in words)


def test_mirrored_refuses_a_vector():
    with pytest.raises(SchemeError, match=r"two or more dimensions for Mirrored.*\(5,\)"):
        Mirrored()((5,))


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        (Mirrored(pairs_in=8), ["blocks of 8 units", "(12, 20)", "it has 12"]),
        (Mirrored(pairs_out=8), ["blocks of 8 units", "(12, 20)", "it has 20"]),
        (Mirrored(pairs_out=20, blocks=2), ["blocks of 20 units", "(12, 20)", "it has 10"]),
    ],
)
def test_mirrored_refuses_blocks_that_do_not_fit(scheme, words):
    with pytest.raises(SchemeError) as caught:
        scheme((12, 20))
    assert all(word in str(caught.value) for word in words)


DEPTHWISE = {"input_axes": [0, 1], "output_axes": [0, 1, 3]}


@pytest.mark.parametrize("pairs", [{}, {"pairs_out": 8}, {"pairs_in": 8, "pairs_out": 8}])
def test_mirrored_refuses_a_depthwise_kernel_that_should_make_pairs(pairs):
    with pytest.raises(SchemeError) as caught:
        Mirrored(**pairs, **DEPTHWISE)((3, 3, 8, 1))
    assert all(word in str(caught.value) for word in ["(3, 3, 8, 1)", "(2,)", "depthwise", "use"])


@pytest.mark.parametrize("value", [0, -2, 1.5, True, "all"])
@pytest.mark.parametrize(
    ("kind", "argument"), [(Mirrored, "pairs_in"), (Mirrored, "pairs_out"), (Mirrored, "blocks"), (ICNR, "factor")]
)
def test_a_block_size_is_a_count(kind, argument, value):
    with pytest.raises(SchemeError) as caught:
        kind(**{argument: value})
    assert all(word in str(caught.value) for word in [f"`{argument}`", "integer of 1 or more", repr(value)])
