"""What keeps a unit and its mirror image a pair, operation by operation, against what the operation computes."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit.activations import activation
from keras_autoinit.graphs import read
from keras_autoinit.pairs import NEARLY_LINEAR, Narrower, Pairs, bent, holds_attention, kept

UNITS = 8


def pairs(axis, block=UNITS, **options):
    return Pairs(axis, block, ((1, "kernel"),), **options)


def only_call(operation, shape, several=1):
    inputs = [keras.Input(shape) for _ in range(several)]
    given = inputs if several > 1 else inputs[0]
    model = keras.Model(given, operation(given))
    graph = read(model)
    (call,) = graph.calls
    return model, graph, call


KEEPING = [
    (layers.Dropout(0.5), (4, 4, UNITS)),
    (layers.GaussianNoise(0.5), (4, 4, UNITS)),
    (layers.AveragePooling2D(2), (4, 4, UNITS)),
    (layers.AveragePooling1D(2), (4, UNITS)),
    (layers.GlobalAveragePooling2D(), (4, 4, UNITS)),
    (layers.GlobalAveragePooling2D(keepdims=True), (4, 4, UNITS)),
    (layers.GlobalAveragePooling1D(), (4, UNITS)),
    (layers.Flatten(), (3, 5, UNITS)),
    (layers.ZeroPadding2D(1), (4, 4, UNITS)),
    (layers.Cropping2D(1), (4, 4, UNITS)),
    (layers.UpSampling2D(2), (4, 4, UNITS)),
    (layers.UpSampling2D(2, interpolation="bilinear"), (4, 4, UNITS)),
    (layers.Reshape((-1, UNITS)), (4, 4, UNITS)),
    (layers.Reshape((2, 2 * UNITS)), (4, UNITS)),
    (layers.RepeatVector(3), (UNITS,)),
    (layers.Permute((2, 1)), (4, UNITS)),
    (layers.BatchNormalization(), (4, UNITS)),
    (layers.LayerNormalization(), (4, UNITS)),
    (layers.UnitNormalization(), (4, UNITS)),
    (layers.GroupNormalization(4), (4, UNITS)),
    (layers.GroupNormalization(1), (4, UNITS)),
    (lambda x: keras.ops.transpose(x, (0, 2, 1)), (4, UNITS)),
    (lambda x: keras.ops.reshape(x, (-1, 2, 2, UNITS)), (4, UNITS)),
]


@pytest.mark.parametrize(("operation", "shape"), KEEPING)
def test_what_keeps_pairs_keeps_them_where_it_says(operation, shape):
    model, graph, call = only_call(operation, shape)
    z = np.random.default_rng(0).standard_normal((2, *shape[:-1], UNITS // 2)).astype("float32")
    made = keras.ops.convert_to_numpy(model(np.concatenate([z, -z], -1)))
    fate = kept(graph, call, [pairs(len(shape))])
    assert isinstance(fate, Pairs)
    blocks = np.moveaxis(made, fate.axis, -1).reshape(-1, fate.block)
    first, second = np.split(blocks, 2, axis=1)
    np.testing.assert_allclose(first, -second, atol=1e-5)


ENDING = [
    (layers.MaxPooling2D(2), (4, 4, UNITS), "takes the largest"),
    (layers.GlobalMaxPooling2D(), (4, 4, UNITS), "takes the largest"),
    (layers.Softmax(), (4, UNITS), "softmax"),
    (layers.BatchNormalization(axis=1), (4, UNITS), "along another axis"),
    (layers.LayerNormalization(beta_initializer="random_normal"), (4, UNITS), "differ within a pair"),
    (lambda x: keras.ops.square(x), (4, UNITS), "square does not keep"),
    (lambda x: x + 1.0, (4, UNITS), "without pairs"),
]


@pytest.mark.parametrize(("operation", "shape", "why"), ENDING)
def test_what_ends_pairs_says_why(operation, shape, why):
    _, graph, call = only_call(operation, shape)
    assert why in kept(graph, call, [pairs(len(shape))])


def test_blocks_must_be_whole():
    _, graph, call = only_call(layers.Reshape((2 * UNITS, 2)), (4, UNITS))
    assert kept(graph, call, [pairs(2)]) == Narrower(2)
    _, graph, call = only_call(layers.GroupNormalization(3), (4, 12))
    assert kept(graph, call, [pairs(2, 12)]) == Narrower(4)
    _, graph, call = only_call(layers.Reshape((-1, 1)), (4, UNITS))
    assert "tears a pair apart" in kept(graph, call, [pairs(2)])


def test_signals_are_joined_where_they_are_alike_in_pairs():
    _, graph, call = only_call(layers.Add(), (4, UNITS), 2)
    joined = kept(graph, call, [pairs(2), Pairs(2, UNITS, ((2, "kernel"),))])
    assert joined.origins == ((1, "kernel"), (2, "kernel"))
    assert joined.variance == 2
    assert kept(graph, call, [pairs(2), pairs(2, 4)]) == Narrower(4)
    assert "another kind" in kept(graph, call, [pairs(2), pairs(2, slope=1.0)])
    assert "without pairs" in kept(graph, call, [pairs(2), None])
    _, graph, call = only_call(layers.Concatenate(), (4, UNITS), 2)
    assert kept(graph, call, [pairs(2), pairs(2)]).variance == 1


@pytest.mark.parametrize(
    ("name", "slope"), [("relu", 1), ("leaky_relu", 1.2), ("gelu", 1), ("silu", 1), ("softplus", 1), ("hard_silu", 1)]
)
def test_the_slope_of_activations_whose_odd_part_is_a_line(name, slope):
    for variance in (0.25, 1.0):
        made = bent(pairs(1, variance=variance), activation(name))
        assert made.slope == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("name", ["mish", "elu", "selu", "sigmoid"])
def test_the_slope_of_others_keeps_the_second_moment(name):
    z = np.random.default_rng(0).standard_normal(100_000)
    f = activation(name).function
    made = bent(pairs(1), activation(name))
    # A mean of squares over a hundred thousand samples is off by a percent at most.
    assert made.slope == pytest.approx(np.sqrt(np.mean((f(z) - f(-z)) ** 2) / np.mean(z**2)), rel=0.01)
    assert made.spread == pytest.approx(np.std(f(z)), rel=0.02)


@pytest.mark.parametrize(
    ("name", "why"),
    [("tanh", "odd"), ("softsign", "odd"), ("hard_tanh", "odd"), ("exponential", "no line"), ("softmax", "mixes")],
)
def test_activations_that_end_pairs(name, why):
    assert why in bent(pairs(1), activation(name))


def test_an_activation_meets_a_pair_once():
    assert bent(pairs(1), activation("linear")) == pairs(1)
    assert "bent already" in bent(pairs(1, slope=1.0), activation("relu"))


def test_the_threshold_lies_in_a_gap():
    """Below it every activation that the documentation names, above it the next by a wide margin."""
    shares = {
        name: activation(name).odd_part().residual
        for name in ("mish", "elu", "selu", "sigmoid", "exponential", "relu_squared")
    }
    assert max(shares[name] for name in ("mish", "elu", "selu", "sigmoid")) < 0.8 * NEARLY_LINEAR
    assert min(shares["exponential"], shares["relu_squared"]) > 5 * NEARLY_LINEAR


def test_a_normalization_after_the_activation_divides_the_slope_by_the_spread():
    _, graph, call = only_call(layers.BatchNormalization(), (UNITS,))
    made = kept(graph, call, [pairs(1, slope=1.0, spread=0.5)])
    assert (made.slope, made.spread, made.variance) == (2.0, 1.0, 1.0)


def test_transformers_are_told_by_their_attention():
    inputs = keras.Input((4, UNITS))
    assert holds_attention(read(keras.Model(inputs, layers.MultiHeadAttention(2, 4)(inputs, inputs))))
    assert not holds_attention(read(keras.Model(inputs, layers.Dense(3)(inputs))))
