"""What activations make of signals and gradients, against random numbers."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_autoinit.activations import activation
from keras_autoinit.bending import activated, coherence, larger_where, slope_power, steepness, within_pairs
from keras_autoinit.laws import SIGNALS
from keras_autoinit.signals import Signal, independent

DRAWS = 400_000


def pairs(mean, correlation, source):
    common, own = source.normal(size=DRAWS), source.normal(size=(2, DRAWS))
    return mean + np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own


def slope(function, z):
    step = 1e-4
    return (function(z + step) - function(z - step)) / (2 * step)


@pytest.mark.parametrize("mean", [0.0, 0.5])
@pytest.mark.parametrize("name", ["relu", "tanh", "swish", "gelu", "hard_silu"])
def test_an_activation_bends_a_signal_and_what_comes_back(name, mean):
    function = activation(name)
    one, other = pairs(mean, 0.4, np.random.default_rng(0))
    signal = Signal(1 + mean**2, mean, (0.4 + mean**2, mean**2))
    made, back = activated(signal, function)
    f = function.function
    values = f(one)
    # Five standard errors.
    error = 5 * (values**2).std() / np.sqrt(DRAWS)
    assert made.second_moment == pytest.approx((values**2).mean(), abs=error)
    assert made.mean == pytest.approx(values.mean(), abs=5 * values.std() / np.sqrt(DRAWS))
    assert made.along[0] == pytest.approx((values * f(other)).mean(), abs=error)
    slopes = slope(f, one), slope(f, other)
    gradient = back(Signal(1.0, 0.0, (0.5, 0.0)))
    # Of slopes with a step, the series in correlations ends at an order of 24.
    error = 5 * (slopes[0] ** 2).std() / np.sqrt(DRAWS) + (0.005 if name in ("relu", "hard_silu") else 0.0)
    assert gradient.second_moment == pytest.approx((slopes[0] ** 2).mean(), abs=error)
    assert gradient.along[0] == pytest.approx(0.5 * (slopes[0] * slopes[1]).mean(), abs=error)


def come_back(function):
    """A unit gradient that has come back through a function of unit Gaussians."""
    return dataclasses.replace(independent((2, 4)), bent=(activation(function), independent((2, 4))))


def test_a_slope_goes_with_a_power_of_what_is_bent():
    assert slope_power(independent((2, 4))) == 0.0
    assert slope_power(come_back("relu")) == pytest.approx(0.0, abs=1e-6)
    assert slope_power(come_back("tanh")) < 0 < slope_power(come_back("swish"))
    assert slope_power(come_back(keras.ops.square)) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("name", "together"), [("relu", 1.0), ("tanh", 2.0)])
def test_what_comes_back_through_a_pair(name, together):
    """One of two rectifiers is always shut; the slopes of an even function's derivative add up."""
    assert coherence(come_back(name)) == pytest.approx(together, rel=1e-3)


def test_a_pair_passes_on_twice_the_odd_part():
    odd = within_pairs(activation("relu"))
    z = np.linspace(-3, 3, 7)
    assert odd.function(z).tolist() == pytest.approx((z / np.sqrt(2)).tolist())


def uneven(second_moment=1.0, **sizes):
    return dataclasses.replace(independent((2, 4), second_moment), sizes=sizes)


def test_what_a_function_makes_is_larger_in_samples_where_another_signal_is():
    """A gate of samples whose logarithms vary by one, against what these make of the largest."""
    source = np.random.default_rng(0)
    sigmoid = activation("sigmoid")
    gate, _ = activated(uneven(a=1.0), sigmoid)
    assert larger_where(independent((2, 4)), {"a": 1.0}) is None
    assert larger_where(gate, {"b": 1.0}) == 1.0
    # Samples of a batch of 32, each of which has 1,024 numbers.
    most, half = SIGNALS
    lean = most / (1 + half) * source.normal(size=(400, 32))
    logs = np.expm1(lean) * np.exp(-(lean**2) / 4)
    logs = (logs - logs.mean(1, keepdims=True)) / logs.std(1, keepdims=True)
    squares = np.exp(logs) / np.exp(logs).mean(1, keepdims=True)
    made = (sigmoid.function(np.sqrt(squares)[..., None] * source.normal(size=(*squares.shape, 1024))) ** 2).mean(-1)
    counts = np.exp(0.8 * logs)
    found = (counts * made).sum(1) / counts.sum(1) / made.mean(1)
    # Seven groups of samples stand for all.
    assert larger_where(gate, {"a": 0.8}) - 1 == pytest.approx(np.mean(found) - 1, rel=0.15)


def test_units_of_another_size_change_no_law_of_samples():
    """Powers are those of one function at one size, however uneven samples are."""
    alike = np.ones(4)
    plain, profiled = uneven(a=1.4), uneven(a=1.4).with_profile(1, alike + np.array([0.3, 0.1, -0.1, -0.3]))
    (one, back), (other, back_through) = (activated(signal, activation("sigmoid")) for signal in (plain, profiled))
    assert other.second_moment == pytest.approx(one.second_moment, rel=0.01)
    gradient = independent((2, 4))
    assert back_through(gradient).second_moment == pytest.approx(back(gradient).second_moment, rel=0.02)


@pytest.mark.parametrize(("name", "left"), [("relu", (0.0, 0.001)), ("swish", (0.005, 0.3))])
def test_what_a_normalization_behind_takes_off_stays_off(name, left):
    """A rectified signal that is larger is rectified as it was; what a swish makes of one bends otherwise."""
    _, back = activated(independent((2, 4)), activation(name))
    assert back(independent((2, 4))).radial == 1.0
    low, high = left
    assert low <= back(dataclasses.replace(independent((2, 4)), radial=0.0)).radial <= high
    assert steepness(independent((2, 4))) == 1.0
    assert steepness(come_back("swish")) > 1.2
    assert steepness(come_back("relu")) == pytest.approx(1.0, abs=1e-3)


def test_gradients_of_two_samples_agree_as_little_behind_a_slope_as_at_two_places():
    """Of a gradient whose mean over all is off, and a rectifier: `(E f')^2 / E f'^2` is a half."""
    signal = Signal(1.0, 0.0, (0.0, 0.3, 0.0), apart=(0.0, 0.0, 0.0))
    _, back = activated(signal, activation("relu"))
    found = back(Signal(1.0, 0.0, (-0.02, 0.6, 0.0), apart=(-0.02, -0.02, 0.0)))
    assert found.apart[1] == pytest.approx(-0.02 / 4, rel=1e-3)
    assert found.along[0] == pytest.approx(found.apart[1])
