"""Sizes of samples against drawn ones: what a layer does to the logarithms, and what goes with them."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit.graphs import read
from keras_autoinit.prediction import Given, follow
from keras_autoinit.signals import blended, independent
from keras_autoinit.sizes import BATCH, covariance, larger_together, log_mean, of_sum, shift_where, typical_batch

DRAWS = 20_000


def drawn(sizes, chances):
    """Logarithms of batches of samples, less the mean."""
    return sum(value * chances[key] for key, value in sizes.items())


@pytest.fixture(scope="module")
def chances():
    source = np.random.default_rng(0)
    return {key: source.standard_normal((DRAWS, BATCH)) for key in "abc"}


def test_a_typical_batch_is_a_unit_gaussian():
    places, shares = typical_batch()
    assert shares.sum() == pytest.approx(1.0)
    assert shares @ places == pytest.approx(0.0, abs=1e-12)
    assert shares @ places**2 == pytest.approx(1.0)


@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0])
def test_the_mean_of_a_batch_is_what_half_of_all_batches_exceed(chances, variance):
    means = np.log(np.exp(math.sqrt(variance) * chances["a"]).mean(1))
    # The groups of the batch blur its second largest samples: a tenth of what the logarithm itself goes to.
    assert log_mean(variance) == pytest.approx(np.median(means), abs=0.1 * math.sqrt(variance))


def test_what_is_large_in_the_same_samples_is_larger_together(chances):
    first, second = {"a": 0.8, "b": 0.3}, {"a": 0.5, "c": 0.4}
    one, other = (np.exp(drawn(sizes, chances)) for sizes in (first, second))
    ratios = (one * other).mean(1) / one.mean(1) / other.mean(1)
    assert larger_together(first, second) == pytest.approx(np.median(ratios), rel=0.05)
    shifts = (one * drawn(second, chances)).mean(1) / one.mean(1)
    assert shift_where(second, first) == pytest.approx(np.median(shifts), rel=0.1)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_sum_is_as_uneven_as_its_parts_make_it(chances, share):
    first, second = {"a": 0.7, "b": 0.5}, {"a": 0.9, "c": 0.6}
    parts = [np.exp(drawn(one, chances) - covariance(one, one) / 2) for one in (first, second)]
    logs = np.log(share * parts[0] + (1 - share) * parts[1])
    found = of_sum([first, second], [share, 1 - share])
    # Ten per cent are left of what a sum of log-normal numbers is not log-normal.
    assert covariance(found, found) == pytest.approx(logs.var(), rel=0.1)
    assert covariance(found, {"a": 1.0}) == pytest.approx(np.mean(logs * chances["a"]), rel=0.1)


def stack(x, depth, width):
    for _ in range(depth):
        x = layers.Activation("swish")(layers.BatchNormalization()(layers.Dense(width)(x)))
    return x


def test_samples_grow_apart_behind_swish():
    """Three layers of width 64, 40 networks: each is one draw of all chances, for 32 samples."""
    inputs = keras.Input((64,))
    model = keras.Model(inputs, stack(inputs, 3, 64))
    graph = read(model)
    sizes = follow(graph, Given()).signals[graph.outputs[0]].sizes
    found = []
    for seed in range(40):
        keras.utils.set_random_seed(seed)
        model = keras.models.clone_model(model)
        batch = np.random.default_rng(seed).normal(size=(BATCH, 64)).astype("float32")
        made = keras.ops.convert_to_numpy(model(batch, training=True)).astype(float)
        found.append(np.log((made**2).mean(1)).var(ddof=1))
    # Five standard errors.
    assert covariance(sizes, sizes) == pytest.approx(np.mean(found), abs=5 * np.std(found) / math.sqrt(len(found)))


def test_a_normalization_written_by_hand_makes_samples_alike():
    inputs = keras.Input((64,))
    hidden = stack(inputs, 3, 64)
    scaled = hidden * keras.ops.rsqrt(keras.ops.mean(keras.ops.square(hidden), axis=-1, keepdims=True) + 1e-6)
    graph = read(keras.Model(inputs, scaled))
    assert not follow(graph, Given()).signals[graph.outputs[0]].sizes


def test_dropped_samples_get_no_gradient_and_the_others_more():
    """Of a branch that is dropped in half of the samples, the trunk's and the branch's gradients go together."""
    drop = layers.Dropout(0.5, noise_shape=(None, 1), seed=0)
    inputs = keras.Input((256,))
    graph = read(keras.Model(inputs, drop(layers.Dense(256)(inputs))))
    prediction = follow(graph, Given())
    signal, gradient = prediction.signals[graph.outputs[0]], prediction.gradients[graph.calls[0].outputs[0]]
    assert covariance(signal.sizes, gradient.sizes) == pytest.approx(math.log(2), rel=0.1)


def test_signals_side_by_side_count_by_how_much_of_the_whole_they_are():
    few, many = (dataclasses.replace(independent((2, 8)), sizes={key: 1.0}) for key in ("few", "many"))
    sizes = blended([few, many], [0.125, 0.875]).sizes
    assert sizes["many"] / sizes["few"] == pytest.approx(7)


def test_a_trunk_keeps_its_samples_sizes_where_it_is_rectified_again():
    inputs = keras.Input((4, 4, 16))
    trunk = layers.Activation("relu")(layers.Conv2D(16, 3, padding="same")(inputs))
    dropped = layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(layers.Conv2D(16, 3, padding="same")(trunk))
    again = layers.Activation("relu", name="again")
    graph = read(keras.Model(inputs, again(layers.Add()([trunk, dropped]))))
    signals = follow(graph, Given()).signals
    (call,) = graph.calls_of(again)
    added, bent = (signals[number].sizes for number in (call.inputs[0], call.outputs[0]))
    assert any("dropped" in key for key in added)
    assert added.items() <= bent.items()
