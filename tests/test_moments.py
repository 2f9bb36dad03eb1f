"""Gains stand on these integrals: they are held against closed forms, above all across kinks and steps."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from keras_autoinit.moments import DOUBLE, SINGLE, Moments, activation_moments, find_breaks, odd_part

UNIT = NormalDist()
VARIANCES = [0.01, 0.25, 1.0, 4.0, 100.0]

# What the function under test promises.
EXACT = 1e-9


def expect(found, mean, second_moment, derivative_second_moment, rel=EXACT, zero=0.0):
    """Compares all three moments; the mean of an odd function is zero to `rel` itself."""
    assert found.mean == pytest.approx(mean, rel=rel, abs=zero or rel)
    assert found.second_moment == pytest.approx(second_moment, rel=rel, abs=zero)
    assert found.derivative_second_moment == pytest.approx(derivative_second_moment, rel=rel, abs=zero)


def ramp_moments(kink, variance):
    """Returns the moments of `max(z - kink, 0)` for a Gaussian `z`: those of a call option."""
    sigma = math.sqrt(variance)
    c = kink / sigma
    above, density = UNIT.cdf(-c), UNIT.pdf(c)
    return sigma * (density - c * above), variance * ((1 + c * c) * above - c * density), above


# --- Closed forms ---


@pytest.mark.parametrize("variance", VARIANCES)
def test_relu(variance):
    expect(
        activation_moments(lambda z: np.maximum(z, 0), variance),
        math.sqrt(variance / (2 * math.pi)),
        variance / 2,
        0.5,
    )


@pytest.mark.parametrize("variance", VARIANCES)
def test_absolute_value(variance):
    expect(activation_moments(np.abs, variance), math.sqrt(2 * variance / math.pi), variance, 1.0)


@pytest.mark.parametrize("variance", [0.01, 0.25, 1.0, 4.0])
def test_exponential(variance):
    squared = math.exp(2 * variance)
    expect(activation_moments(np.exp, variance), math.exp(variance / 2), squared, squared)


@pytest.mark.parametrize("variance", VARIANCES)
def test_polynomial(variance):
    """`1 + 2 z - z^3`, with `E z^2 = v`, `E z^4 = 3 v^2` and `E z^6 = 15 v^3`."""
    v = variance
    expect(
        activation_moments(lambda z: 1 + 2 * z - z**3, v),
        1.0,
        1 + 4 * v - 12 * v**2 + 15 * v**3,
        4 - 12 * v + 27 * v**2,
    )


@pytest.mark.parametrize("variance", VARIANCES)
def test_sine(variance):
    decay = math.exp(-2 * variance)
    expect(activation_moments(np.sin, variance), 0.0, (1 - decay) / 2, (1 + decay) / 2)


@pytest.mark.parametrize("variance", VARIANCES)
def test_gaussian_bump(variance):
    """`exp(-z^2 / 2)`: smooth and local."""
    expect(
        activation_moments(lambda z: np.exp(-z * z / 2), variance),
        (1 + variance) ** -0.5,
        (1 + 2 * variance) ** -0.5,
        variance * (1 + 2 * variance) ** -1.5,
    )


@pytest.mark.parametrize("variance", VARIANCES)
def test_constant(variance):
    found = activation_moments(lambda z: np.full_like(z, 3.0), variance)
    assert (found.mean, found.second_moment) == pytest.approx((3.0, 9.0), rel=EXACT)
    assert found.derivative_second_moment == pytest.approx(0.0, abs=EXACT)


def test_variance_is_one_unless_given():
    assert activation_moments(np.tanh) == activation_moments(np.tanh, 1.0)


def test_moments_scale_with_a_factor():
    plain, scaled = activation_moments(np.tanh), activation_moments(lambda z: -3 * np.tanh(z))
    assert scaled.second_moment == pytest.approx(9 * plain.second_moment, rel=EXACT)
    assert scaled.derivative_second_moment == pytest.approx(9 * plain.derivative_second_moment, rel=EXACT)


# --- Kinks and steps, where no panel ends ---

PLACES = [-2.7182818, -0.4142135, 0.01, 0.1, 1 / 3, 1.2345678, 3.0]


@pytest.mark.parametrize("variance", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("kink", PLACES)
def test_a_kink_at_an_odd_place(kink, variance):
    found = activation_moments(lambda z: np.maximum(z - kink, 0), variance)
    # A ramp that begins six spreads out has moments of 1e-9: they are exact beside one.
    expect(found, *ramp_moments(kink, variance), zero=EXACT)


def test_many_kinks_at_once():
    """A tent of slopes +-1 between the multiples of 0.37: the slope squared is one everywhere."""
    found = activation_moments(lambda z: np.abs((z / 0.37) % 2 - 1) * 0.37)
    assert found.derivative_second_moment == pytest.approx(1.0, rel=EXACT)


@pytest.mark.parametrize("place", [1e-7, 0.001, 0.003, 1.748, -1.751])
def test_a_kink_close_to_the_edge_of_a_panel(place):
    found = activation_moments(lambda z: np.maximum(z - place, 0))
    assert found.derivative_second_moment == pytest.approx(UNIT.cdf(-place), rel=EXACT)


@pytest.mark.parametrize("place", PLACES)
def test_a_step_has_a_derivative_of_zero_almost_everywhere(place):
    found = activation_moments(lambda z: np.where(z > place, 1.0, 0.0))
    assert found.mean == pytest.approx(UNIT.cdf(-place), rel=EXACT)
    assert found.second_moment == pytest.approx(UNIT.cdf(-place), rel=EXACT)
    assert found.derivative_second_moment == pytest.approx(0.0, abs=EXACT)


@pytest.mark.parametrize("place", PLACES)
def test_a_step_leaves_the_slope_beside_it(place):
    """Hard shrinking: nothing below, the number itself above."""
    found = activation_moments(lambda z: np.where(z > place, z, 0.0))
    above = UNIT.cdf(-place)
    assert found.second_moment == pytest.approx(above + place * UNIT.pdf(place), rel=EXACT)
    assert found.derivative_second_moment == pytest.approx(above, rel=EXACT)


def test_a_step_and_a_kink_apart():
    """The slope of a step grows with every halving; it must not widen the tolerance for the kink."""
    found = activation_moments(lambda z: np.where(z > 0.3, 1.0, 0.0) + np.maximum(z + 1.1, 0))
    assert found.derivative_second_moment == pytest.approx(UNIT.cdf(1.1), rel=EXACT)


# --- Functions that compute in float32 ---


def in_single(function):
    return lambda z: function(z.astype(np.float32)).astype(np.float64)


@pytest.mark.parametrize(
    ("function", "kinks"),
    [
        (np.tanh, 0),
        (lambda z: z / (1 + np.exp(-z)), 0),
        (lambda z: np.maximum(z, 0), 0),
        (lambda z: np.maximum(z - np.float32(0.3), 0), 1),
        (lambda z: np.clip(z, -1, 1), 2),
    ],
    ids=["tanh", "silu", "relu", "ramp", "hard_tanh"],
)
def test_single_precision_agrees_with_double(function, kinks):
    exact, single = activation_moments(function), activation_moments(in_single(function), precision=SINGLE)
    # A panel is no longer halved once it changes by 1e-6; of those with a kink the last that is
    # halved, 28 / 16 / 2^9 wide, leaves its slope out, at a density of 0.4 at most.
    unresolved = kinks * 0.4 * 28 / 16 / 2**9
    assert (single.mean, single.second_moment) == pytest.approx((exact.mean, exact.second_moment), abs=2e-6)
    assert single.derivative_second_moment == pytest.approx(exact.derivative_second_moment, abs=2e-6 + unresolved)


def test_single_precision_reads_few_numbers():
    """A function on an accelerator is slow to call: a dozen calls must do."""
    calls = []

    def counted(z):
        calls.append(z.size)
        return np.tanh(z.astype(np.float32))

    activation_moments(counted, precision=SINGLE)
    assert len(calls) <= SINGLE.depth + 1
    assert sum(calls) < 50_000


def test_double_precision_of_a_kink_reads_few_numbers():
    """Only panels with a kink are halved: 44 times, two panels of 16 nodes each."""
    calls = []

    def counted(z):
        calls.append(z.size)
        return np.maximum(z - 0.1, 0)

    activation_moments(counted)
    assert len(calls) <= DOUBLE.depth + 1
    assert sum(calls) < 10_000


def test_the_function_is_handed_flat_float64_arrays():
    def checked(z):
        assert z.dtype == np.float64
        assert z.ndim == 1
        return z

    assert activation_moments(checked).second_moment == pytest.approx(1.0, rel=EXACT)


# --- Any mean ---


@pytest.mark.parametrize("mean", [-3.0, -0.4, 0.0, 0.7, 12.0])
@pytest.mark.parametrize("variance", [0.25, 4.0])
def test_a_ramp_under_a_moved_gaussian(variance, mean):
    """Moving the Gaussian is moving the kink."""
    found = activation_moments(lambda z: np.maximum(z, 0), variance, mean=mean)
    expect(found, *ramp_moments(-mean, variance), zero=EXACT)


def test_variance_of_the_output():
    found = activation_moments(np.exp, 0.5, mean=0.3)
    assert found.variance == pytest.approx(math.exp(0.6) * (math.exp(1.0) - math.exp(0.5)), rel=EXACT)


# --- Where a function breaks ---


@pytest.mark.parametrize(
    ("function", "places"),
    [
        (np.tanh, []),
        (np.abs, [0.0]),
        (lambda z: np.clip(z, -1, 1), [-1.0, 1.0]),
        (lambda z: np.where(z > 1 / 3, 1.0, 0.0), [1 / 3]),
        (lambda z: np.where(np.abs(z) > 0.5, z, 0.0), [-0.5, 0.5]),
    ],
    ids=["tanh", "absolute", "hard_tanh", "step", "hard_shrink"],
)
@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_breaks_are_found(function, places, mean):
    assert find_breaks(function, mean=mean) == pytest.approx(places, abs=1e-7)


def test_too_many_breaks_are_not_listed():
    assert find_breaks(lambda z: np.abs((z / 0.37) % 2 - 1) * 0.37) == ()


@pytest.mark.parametrize("place", [0.3, -1.2345])
def test_breaks_of_a_function_in_single_precision(place):
    (found,) = find_breaks(in_single(lambda z: np.maximum(z - np.float32(place), 0)), precision=SINGLE)
    assert found == pytest.approx(place, abs=1e-3)


# --- The record ---


def test_a_signal_says_what_follows_from_it():
    signal = Moments(mean=-1.0, second_moment=3.0, covariance=-0.5)
    assert (signal.variance, signal.correlation, signal.cross_moment) == (2.0, -0.25, 0.5)


def test_a_constant_signal_is_one_with_itself():
    assert Moments(2.0, 4.0, 0.0).correlation == 1.0


def test_rounding_is_no_error():
    signal = Moments(1.0, 1.0 - 1e-12, 1e-12)
    assert signal.variance == 0.0
    assert Moments(0.0, 1.0, 1.0 + 1e-12).correlation == 1.0


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((math.nan, 1.0, 0.0), "Expected finite moments"),
        ((0.0, math.inf, 0.0), "overflows: choose a smaller scale"),
        ((2.0, 3.0, 0.0), "at least the square of the mean"),
        ((0.0, 1.0, 1.1), "a covariance of at most the variance, 1"),
        ((0.0, 1.0, -1.1), "a covariance of at most the variance, 1"),
    ],
)
def test_a_signal_that_cannot_be_is_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        Moments(*numbers)


# --- The odd part ---


def test_the_odd_part_of_a_polynomial():
    """Here `g = 2 z + 2 z^3`, so `E g^2 = 4 + 24 + 60` and `c = 2 + 6`; `g - c z` holds `4 (15 - 9)`."""
    odd = odd_part(lambda z: 1 + z + z**2 + z**3)
    assert (odd.second_moment, odd.slope, odd.residual) == pytest.approx((88.0, 8.0, 24 / 88), rel=EXACT)
