"""Theory asks for these integrals thousands of times: they must be as exact as the slow search, and far faster."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_autoinit.integrals import (
    SMALLEST_SPREAD,
    Pieces,
    gaussian_cross_moments,
    gaussian_moments,
    search_pieces,
)
from keras_autoinit.moments import activation_moments

# What the functions under test promise.
EXACT = 1e-9

CORRELATIONS = [0.0, 0.3, -0.3, 0.9, -0.9, 0.9999, -0.9999, 1 - 1e-12, 1.0, -1.0]
VARIANCES = [0.01, 1.0, 100.0]


def relu(z):
    return np.maximum(z, 0)


def step(z):
    return np.where(z > 0, 1.0, 0.0)


def normal_cdf(z):
    """The integral of the Gaussian density."""
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])


def silu(z):
    return z / (1 + np.exp(-z))


def silu_slope(z):
    gate = 1 / (1 + np.exp(-z))
    return gate * (1 + z * (1 - gate))


def on_a_grid(function, variance, correlation, mean):
    """Returns the cross moment by a trapezoid rule: exact for analytic functions, and shares no line with ours."""
    t = np.arange(-9, 9, 0.1)
    mass = np.exp(-t * t / 2) * 0.1 / math.sqrt(2 * math.pi)
    spread = math.sqrt(variance)
    one = mean + spread * t[:, None]
    other = mean + spread * (correlation * t[:, None] + math.sqrt(1 - correlation**2) * t)
    return float(mass @ (function(one) * function(other)) @ mass)


# --- One input ---


@pytest.mark.parametrize("mean", [0.0, -0.7, 3.0])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize(
    ("function", "pieces"),
    [
        (np.tanh, Pieces(width=1.0)),
        (silu, Pieces(width=2.0)),
        (relu, Pieces((0.0,))),
        (lambda z: np.clip(z, -1, 1), Pieces((-1.0, 1.0))),
        (lambda z: np.where(np.abs(z) > 0.5, z, 0.0), Pieces((-0.5, 0.5))),
    ],
    ids=["tanh", "silu", "relu", "hard_tanh", "hard_shrink"],
)
def test_moments_are_those_of_the_search(function, pieces, variance, mean):
    with np.errstate(over="ignore"):
        expected = activation_moments(function, variance, mean=mean)
    found = gaussian_moments(function, pieces, variance, mean)
    assert found == pytest.approx(
        (expected.mean, expected.second_moment, expected.derivative_second_moment), rel=EXACT, abs=EXACT
    )


@settings(max_examples=50, deadline=None)
@given(st.floats(-4, 4), st.floats(-3, 3), st.floats(0.05, 20))
def test_a_kink_anywhere_costs_no_accuracy(kink, mean, variance):
    found = gaussian_moments(lambda z: np.maximum(z - kink, 0), Pieces((kink,)), variance, mean)
    assert found[2] == pytest.approx(0.5 * math.erfc((kink - mean) / math.sqrt(2 * variance)), abs=EXACT)


@pytest.mark.parametrize("mean", [0.0, 0.4, -3.0])
def test_a_variance_of_zero_is_the_limit(mean):
    found = gaussian_moments(np.tanh, Pieces(width=1.0), 0.0, mean)
    value, slope = math.tanh(mean), 1 - math.tanh(mean) ** 2
    assert found == pytest.approx((value, value**2, slope**2), rel=EXACT, abs=EXACT)


def test_small_variances_join_the_larger_ones():
    """Below the smallest spread slopes are carried on, above they are measured."""
    around = [gaussian_moments(silu, Pieces(width=2.0), (SMALLEST_SPREAD * k) ** 2, 0.5)[2] for k in (0.9, 1.1)]
    assert around == pytest.approx([silu_slope(0.5) ** 2] * 2, rel=1e-7)


def test_few_numbers_are_read():
    sizes = []

    def counted(z):
        sizes.append(z.size)
        return np.tanh(z)

    gaussian_moments(counted, Pieces(width=1.0), 1.0)
    gaussian_cross_moments(counted, Pieces(width=1.0), 1.0, 0.5)
    assert sizes[0] <= 300
    assert sum(sizes[1:]) <= 25_000


# --- Two inputs ---


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_relu_is_the_arc_cosine_kernel(correlation, variance):
    """Cho and Saul 2009."""
    angle = math.acos(correlation)
    value, slope = gaussian_cross_moments(relu, Pieces((0.0,)), variance, correlation * variance)
    expected = (math.sin(angle) + (math.pi - angle) * correlation) / (2 * math.pi)
    assert value / variance == pytest.approx(expected, abs=EXACT)
    assert slope == pytest.approx((math.pi - angle) / (2 * math.pi), abs=EXACT)


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_a_step_is_an_orthant(correlation):
    value, slope = gaussian_cross_moments(step, Pieces((0.0,)), 1.0, correlation)
    assert value == pytest.approx(0.25 + math.asin(correlation) / (2 * math.pi), abs=EXACT)
    assert slope == pytest.approx(0.0, abs=EXACT)


@pytest.mark.parametrize("variance", [*VARIANCES, 1e4])
@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_the_error_function_is_an_arc_sine(correlation, variance):
    """Williams 1997, for `2 Phi(z) - 1`; slopes by differentiating in the covariance (Price's theorem)."""
    covariance = correlation * variance
    value, slope = gaussian_cross_moments(lambda z: 2 * normal_cdf(z) - 1, Pieces(width=1.0), variance, covariance)
    assert value == pytest.approx(2 / math.pi * math.asin(covariance / (1 + variance)), abs=EXACT)
    expected = 2 / math.pi / math.sqrt((1 + variance - covariance) * (1 + variance + covariance))
    assert slope == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize("mean", [0.0, 0.7])
@pytest.mark.parametrize("variance", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("correlation", [0.0, 0.5, -0.5, 0.95, -0.95])
@pytest.mark.parametrize(
    ("function", "slope", "width"),
    [(np.tanh, lambda z: 1 - np.tanh(z) ** 2, 1.0), (silu, silu_slope, 2.0)],
    ids=["tanh", "silu"],
)
def test_smooth_functions_against_a_grid(function, slope, width, correlation, variance, mean):
    found = gaussian_cross_moments(function, Pieces(width=width), variance, correlation * variance, mean)
    expected = on_a_grid(function, variance, correlation, mean), on_a_grid(slope, variance, correlation, mean)
    assert found == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("mean", [0.0, 0.7, -2.0])
@pytest.mark.parametrize("variance", VARIANCES)
def test_with_itself_an_input_has_its_own_moments(variance, mean):
    for function, pieces in [(np.tanh, Pieces(width=1.0)), (lambda z: np.clip(z, -1, 1), Pieces((-1.0, 1.0)))]:
        _, second_moment, slope = gaussian_moments(function, pieces, variance, mean)
        found = gaussian_cross_moments(function, pieces, variance, variance, mean)
        assert found == pytest.approx((second_moment, slope), rel=EXACT)


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.98, 0.98), st.floats(-1.5, 1.5), st.floats(0.2, 5))
def test_the_slope_of_the_covariance_is_that_of_the_gradients(correlation, mean, variance):
    """Price's theorem: `d E f f / d covariance = E f' f'`, which ties both results to each other."""
    pieces, step_ = Pieces((-3.0, 3.0)), 1e-3 * variance
    hard_silu = lambda z: z * np.clip(z / 6 + 0.5, 0, 1)  # noqa: E731
    near = [
        gaussian_cross_moments(hard_silu, pieces, variance, correlation * variance + k * step_, mean)
        for k in (-1, 0, 1)
    ]
    # The second derivative beside it, that of `E f'' f''` with kinks at four places, is what the step leaves out.
    assert (near[2][0] - near[0][0]) / (2 * step_) == pytest.approx(near[1][1], abs=1e-3)


def test_unlike_inputs_of_a_mean_are_independent():
    mean_of = gaussian_moments(relu, Pieces((0.0,)), 2.0, 0.5)[0]
    assert gaussian_cross_moments(relu, Pieces((0.0,)), 2.0, 0.0, 0.5)[0] == pytest.approx(mean_of**2, rel=EXACT)


@pytest.mark.parametrize("covariance", [0.0, 1e-12, -1e-12])
def test_two_inputs_without_variance(covariance):
    value, slope = gaussian_cross_moments(np.tanh, Pieces(width=1.0), 1e-12, covariance, 0.3)
    assert value == pytest.approx(math.tanh(0.3) ** 2, rel=EXACT)
    assert slope == pytest.approx((1 - math.tanh(0.3) ** 2) ** 2, rel=EXACT)


# --- Pieces that are searched for ---


def test_pieces_are_finer_where_a_function_bends():
    found = search_pieces(lambda z: np.tanh(20 * (z - 1)), (), 1.0, 0.0, 1e-11, 8)
    edges = np.array(found.edges)
    near, far = edges[np.abs(edges - 1) < 0.5], edges[np.abs(edges - 1) > 3]
    assert np.diff(near).max() < 0.3 < np.diff(far).max()


def test_pieces_follow_no_rounding():
    found = search_pieces(lambda z: np.sin(1e6 * z), (), 1.0, 0.0, 1e-11, 30)
    assert len(found.edges) < 400
