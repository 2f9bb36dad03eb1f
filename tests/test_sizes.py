"""Sizes of samples against drawn ones: what a layer does to the logarithms, and what goes with them."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit.graphs import read
from keras_autoinit.laws import BATCH, SIGNALS
from keras_autoinit.prediction import Given, follow
from keras_autoinit.signals import independent
from keras_autoinit.sizes import (
    CHANCES,
    NOTHING,
    Dropped,
    bounded,
    centred,
    covariance,
    floored,
    law_of,
    of_sum,
    power_lost,
    power_with,
    shift,
    together,
    variance_of,
)
from keras_autoinit.sums import blended, multiplied

DRAWS = 20_000


def drawn(sizes, chances):
    """Logarithms of batches of samples, less the mean."""
    return sum(value * chances[key] for key, value in sizes.items())


@pytest.fixture(scope="module")
def chances():
    source = np.random.default_rng(0)
    return {key: source.standard_normal((DRAWS, BATCH)) for key in "abc"}


def leaning(chance, variance):
    """Logarithms of this variance that lean to the right as they are said to."""
    most, half = SIGNALS
    lean = most * variance / (variance + half)
    raised = np.expm1(lean * chance) / lean * np.exp(-((lean * chance) ** 2) / 4)
    return math.sqrt(variance) * (raised - raised.mean()) / raised.std()


def test_what_is_large_in_the_same_samples_is_larger_together(chances):
    first, second = {"a": 0.4, "b": 0.15}, {"a": 0.25, "c": 0.2}
    one, other = (np.exp(drawn(sizes, chances)) for sizes in (first, second))
    ratios = (one * other).mean(1) / one.mean(1) / other.mean(1)
    signals = [dataclasses.replace(independent((2, 8)), sizes=sizes) for sizes in (first, second)]
    # These do not lean.
    assert multiplied(signals, (0.0, 1.0)).second_moment == pytest.approx(np.median(ratios), rel=0.02)
    assert multiplied(signals, more=1.0).second_moment == pytest.approx(1.0)
    slopes = np.polyfit(*(drawn(sizes, chances).ravel() for sizes in (first, second)), 1)
    # Five standard errors of a slope.
    assert power_with(first, second) == pytest.approx(slopes[0], abs=5 / math.sqrt(DRAWS * BATCH))


@pytest.mark.parametrize(("variance", "floor"), [(0.5, 0.1), (1.5, 0.05)])
def test_small_samples_are_so_no_more_where_the_same_is_added_to_all(chances, variance, floor):
    logs = leaning(chances["a"], variance)
    sizes = np.exp(logs) / np.exp(logs).mean(1, keepdims=True)
    slope = np.mean(logs * np.log(sizes + floor)) / np.mean(logs**2)
    power = floored({"a": math.sqrt(variance)}, floor, SIGNALS)["a"] / math.sqrt(variance)
    # Of a group, that of the mean is told: its least sample is the most of a floor's.
    assert slope < power < slope + (1 - slope) / 3


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_sum_goes_with_its_parts_as_straight_as_they_make_it(chances, share):
    first, second = {"a": 0.7, "b": 0.5}, {"a": 0.9, "c": 0.6}
    parts = [np.exp(drawn(one, chances) - covariance(one, one) / 2) for one in (first, second)]
    logs = np.log(share * parts[0] + (1 - share) * parts[1]).ravel()
    lines = np.stack([drawn(one, chances).ravel() for one in (first, second)], 1)
    powers = np.linalg.lstsq(lines, logs - logs.mean())[0]
    # These do not lean.
    found = of_sum([first, second], [share, 1 - share], leaning=(0.0, 1.0))
    # Seven groups of samples stand for all: where a part is small beside the other, its tail is coarse.
    assert covariance(found, found) == pytest.approx((lines @ powers).var(), rel=0.1)
    assert covariance(found, {"a": 1.0}) == pytest.approx(np.mean(lines @ powers * chances["a"].ravel()), rel=0.1)


def test_a_part_that_few_samples_have_counts_for_less_than_its_share():
    steady, uneven = {"a": 0.3}, {"b": 1.6}
    found = of_sum([steady, uneven], [0.5, 0.5])
    assert found["b"] / uneven["b"] < 0.4 < 0.6 < found["a"] / steady["a"]


@pytest.mark.parametrize("together", [0.0, 0.5])
def test_what_goes_as_the_signal_does_is_lost_where_both_are_large(chances, together):
    """Of drawn gradients `g - c x (g x)`, the squares that are left in each sample."""
    variance, share = 0.64, 0.02
    logs = leaning(chances["a"], variance)
    large, given = np.exp(logs), np.exp(together * logs)
    large, given = large / large.mean(1, keepdims=True), given / given.mean(1, keepdims=True)
    left = 1 - share * (2 * large / (given * large).mean(1, keepdims=True) - large / given)
    slope = np.mean(np.log(left) * logs) / np.mean(logs**2)
    signal = {"a": math.sqrt(variance)}
    found = power_lost({"a": together * math.sqrt(variance)}, signal, share)
    assert found < 0
    # Seven groups of samples stand for all.
    assert found == pytest.approx(slope, rel=0.2)
    assert power_lost({"b": 1.0}, signal, 0.0) == 0


def test_of_many_chances_the_largest_stand_for_all():
    fewest, most = CHANCES
    sizes = {key: 0.95**key for key in range(most + 1)}
    kept = bounded(sizes)
    assert list(kept) == list(range(fewest))
    assert covariance(kept, kept) == pytest.approx(covariance(sizes, sizes))
    assert bounded(kept) is kept


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


def test_an_activation_makes_samples_as_uneven_inside_a_layer_as_behind_it():
    inputs = keras.Input((64,))
    kernel = {"kernel_initializer": keras.initializers.Orthogonal(seed=0)}
    inside, behind = (
        read(keras.Model(inputs, made))
        for made in (
            layers.Dense(24, "swish", **kernel)(inputs),
            layers.Activation("swish")(layers.Dense(24, **kernel)(inputs)),
        )
    )
    found = [follow(graph, Given()).signals[graph.outputs[0]].sizes for graph in (inside, behind)]
    assert covariance(found[0], found[0]) == pytest.approx(covariance(found[1], found[1]))


@pytest.mark.parametrize("dense", [layers.Dense, lambda *a, **k: layers.EinsumDense("ab,bc->ac", *a, **k)])
def test_an_activation_makes_gradients_as_uneven_inside_a_layer_as_behind_it(dense):
    inputs = keras.Input((64,))
    graphs = []
    for inside in (True, False):
        keras.utils.set_random_seed(0)
        kernel = {"kernel_initializer": keras.initializers.Orthogonal(seed=0)}
        hidden = stack(inputs, 2, 64)
        made = dense(24, activation="sigmoid" if inside else None, **kernel)(hidden)
        graphs.append(read(keras.Model(inputs, made if inside else layers.Activation("sigmoid")(made))))
    inside, behind = (follow(graph, Given()).gradients[graph.calls[5].outputs[0]] for graph in graphs)
    # Steeper in small samples: what comes back goes with how large they are.
    assert len(inside.sizes) > 1
    assert covariance(inside.sizes, inside.sizes) == pytest.approx(covariance(behind.sizes, behind.sizes), rel=1e-3)


def test_a_normalization_written_by_hand_makes_samples_alike():
    inputs = keras.Input((64,))
    hidden = stack(inputs, 3, 64)
    scaled = hidden * keras.ops.rsqrt(keras.ops.mean(keras.ops.square(hidden), axis=-1, keepdims=True) + 1e-6)
    graph = read(keras.Model(inputs, scaled))
    assert not follow(graph, Given()).signals[graph.outputs[0]].sizes


def test_few_outputs_get_gradients_of_uneven_size():
    """What comes in are unit numbers: of ten, a sample's square is one up to the root of a fifth."""
    inputs = keras.Input((64,))
    graph = read(keras.Model(inputs, layers.Dense(10)(inputs)))
    sizes = follow(graph, Given()).gradients[graph.calls[0].outputs[0]].sizes
    assert covariance(sizes, sizes) == pytest.approx(0.2)


def test_signals_side_by_side_count_by_how_much_of_the_whole_they_are():
    few, many = (dataclasses.replace(independent((2, 8)), sizes={key: 0.02}) for key in ("few", "many"))
    sizes = blended([few, many], [0.125, 0.875]).sizes
    assert sizes["many"] / sizes["few"] == pytest.approx(7)


def test_a_trunk_keeps_its_samples_sizes_where_it_is_rectified_again():
    inputs = keras.Input((4, 4, 16))
    trunk = layers.Activation("relu")(layers.Conv2D(16, 3, padding="same")(inputs))
    branch = layers.Conv2D(16, 3, padding="same")(trunk)
    again = layers.Activation("relu", name="again")
    graph = read(keras.Model(inputs, again(layers.Add()([trunk, branch]))))
    signals = follow(graph, Given()).signals
    (call,) = graph.calls_of(again)
    added, bent = (signals[number].sizes for number in (call.inputs[0], call.outputs[0]))
    assert len(added) > 2
    assert added.items() <= bent.items()


RATE = 0.15
DROP = Dropped(0, RATE)


def sizes_if_dropped(value):
    """The size of a sample that is kept, and of one that is dropped, and how many there are of each."""
    return np.array([1.0, math.exp(-value)]), np.array([1 - RATE, RATE])


@pytest.mark.parametrize(("first", "second"), [(0.7, 0.4), (0.7, 5.0), (1.2, NOTHING)])
def test_samples_that_are_dropped_make_as_much_of_a_product_as_they_do(first, second):
    (one, counts), (other, _) = sizes_if_dropped(first), sizes_if_dropped(second)
    larger = counts @ (one * other) / (counts @ one) / (counts @ other)
    assert together({DROP: first, "a": 0.3}, {DROP: second, "a": 0.2}) == pytest.approx(math.log(larger) + 0.06)
    assert shift({DROP: first}, {DROP: second}) == pytest.approx(
        counts @ (other * np.log(one)) / (counts @ other) - counts @ np.log(one)
    )
    # Once all that are dropped are nothing, more of it changes nothing.
    assert together({DROP: first}, {DROP: 20.0}) == pytest.approx(together({DROP: first}, {DROP: NOTHING}))


@pytest.mark.parametrize(("first", "second", "share"), [(0.0, NOTHING, 0.5), (0.0, NOTHING, 0.2), (0.8, 1.1, 0.4)])
def test_a_sum_keeps_what_its_parts_do(first, second, share):
    (one, counts), (other, _) = sizes_if_dropped(first), sizes_if_dropped(second)
    whole = (1 - share) * one / (counts @ one) + share * other / (counts @ other)
    found = of_sum([{DROP: first} if first else {}, {DROP: second}], [1 - share, share])
    assert found[DROP] == pytest.approx(math.log(whole[0] / whole[1]))


def test_samples_that_are_dropped_vary_as_they_do():
    logs, counts = -np.array([0.0, 0.6]), np.array([1 - RATE, RATE])
    variance = counts @ logs**2 - (counts @ logs) ** 2
    assert variance_of({DROP: 0.6}) == pytest.approx(variance)
    assert variance_of({DROP: 0.6, "a": 0.3}) == pytest.approx(variance + 0.09)
    # What leans to the right does so less beside what does not.
    assert 0 < law_of({DROP: 0.6, "a": 0.3}).lean < law_of({"a": 0.3}).lean


@pytest.mark.parametrize("value", [0.5, 1.5])
def test_a_sample_that_is_dropped_is_less_small_once_a_mean_is_off(value):
    """Of Gaussians with a mean: `(m_s - m)^2 + v_s`, with means that go as spreads do."""
    common, power = 0.2, 0.5
    (sizes, _) = sizes_if_dropped(value)
    means, spreads = np.sqrt(common) * sizes**power, (1 - common) * sizes
    left = spreads + (means - np.sqrt(common)) ** 2
    found = centred({DROP: value, "a": 0.2}, common, power)
    assert found[DROP] == pytest.approx(math.log(left[0] / left[1]))
    assert 0 < found["a"] < 0.2
    assert centred({DROP: value}, 0.0, power) == {DROP: value}


def test_a_sample_that_is_dropped_is_less_small_beside_a_floor():
    assert floored({DROP: NOTHING}, 0.1)[DROP] == pytest.approx(math.log(11))
    assert floored({DROP: 0.5}, 0.0) == {DROP: 0.5}
