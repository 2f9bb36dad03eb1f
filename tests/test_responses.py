"""Sums over a grid against the integrals that they stand for."""

import numpy as np
import pytest

from keras_autoinit.activations import activation
from keras_autoinit.laws import law_with, log_mean
from keras_autoinit.responses import (
    SQUARES,
    radial_growth,
    radial_of_mean,
    radial_share,
    respond,
    respond_unevenly,
    slope_beside,
)


def test_a_response_is_the_integral():
    relu = respond(activation("relu"), 0.0, 1.0)
    assert relu.second_moment == pytest.approx(0.5, abs=1e-4)
    assert relu.mean == pytest.approx((2 * np.pi) ** -0.5, abs=1e-4)
    # The arc-cosine kernel of Cho and Saul 2009.
    angle = np.arccos(0.5)
    assert relu.covariance(0.5) == pytest.approx((np.sin(angle) + (np.pi - angle) * 0.5) / (2 * np.pi), abs=1e-3)
    assert relu.slope_covariance(0.5) == pytest.approx((np.pi - angle) / (2 * np.pi), abs=1e-2)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_sum_of_one_term_is_as_large_as_that():
    found = slope_beside(activation("tanh"), 0.0, 1.0, ((1.0, 1.0),))
    slopes = np.array([1 - np.tanh(np.sqrt(square)) ** 2 for square in SQUARES]) ** 2
    # The grid is a hundredth of a spread wide, and what is left beside the term three.
    assert found == pytest.approx(slopes / slopes[SQUARES.index(1.0)], abs=0.1)


@pytest.mark.parametrize("name", ["swish", "tanh"])
def test_a_slope_goes_with_how_large_one_term_of_a_sum_is(name):
    """A term of either sign, of a tenth or a half of the variance, beside Gaussians: of a whole and a half sum."""
    source, shares, sizes = np.random.default_rng(0), (0.1, 0.5), (1.0, 0.5)
    f, step = activation(name).function, 1e-4
    found = []
    for square in SQUARES:
        rest = source.normal(size=(2, 200_000)) * np.sqrt(1 - np.array(shares))[:, None]
        z = rest + source.choice([-1, 1], size=rest.shape) * np.sqrt(np.array(shares) * square)[:, None]
        z *= np.sqrt(sizes)[:, None]
        found.append(np.mean(((f(z + step) - f(z - step)) / (2 * step)) ** 2))
    expected = np.array(found) / found[SQUARES.index(1.0)]
    # Five standard errors of a slope's square, which is below two.
    assert slope_beside(activation(name), 0.0, 1.0, tuple(zip(shares, sizes))) == pytest.approx(
        expected, abs=5 * 1 / np.sqrt(200_000)
    )


@pytest.mark.parametrize("name", ["swish", "tanh", "relu"])
def test_what_would_only_make_a_signal_larger(name):
    """`f'(z) z` of drawn Gaussians: how large it is, and how much of it goes with `f(z)`."""
    f, step = activation(name).function, 1e-4
    z = np.random.default_rng(0).normal(size=400_000)
    slopes = (f(z + step) - f(z - step)) / (2 * step)
    given = (activation(name), 0.0, 1.0, None)
    assert radial_growth(*given) == pytest.approx(np.mean((slopes * z) ** 2) / np.mean(slopes**2), rel=0.02)
    assert radial_of_mean(*given) == pytest.approx(np.mean(slopes * z) ** 2 / np.mean(slopes) ** 2, rel=0.02, abs=1e-4)
    both = np.mean(slopes * z * f(z)) ** 2 / np.mean((slopes * z) ** 2) / np.mean(f(z) ** 2)
    # Five standard errors of a correlation.
    assert radial_share(*given) == pytest.approx(1 - both, abs=5 / np.sqrt(len(z)))


def test_samples_count_by_a_power_of_their_size():
    sigmoid, uneven = activation("sigmoid"), law_with(1.0)
    logs, shares = uneven.batch()
    squares = np.exp(logs - log_mean(uneven))
    means = np.array([respond(sigmoid, 0.0, float(f"{one:.3g}")).slope for one in squares])
    assert respond_unevenly(sigmoid, 0.0, 1.0, None, uneven).slope == pytest.approx(shares @ means)
    expected = shares @ (squares**0.5 * means) / (shares @ squares**0.5)
    assert respond_unevenly(sigmoid, 0.0, 1.0, None, uneven, 0.5).slope == pytest.approx(expected)
