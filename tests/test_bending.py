"""What activations make of signals and gradients, against random numbers."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_autoinit.activations import activation
from keras_autoinit.bending import activated, coherence, slope_power, within_pairs
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
