"""The trunk of a residual network against a million draws of it."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from keras_autoinit.activations import activation
from keras_autoinit.forms import Form
from keras_autoinit.rectified import FINE, REACH, _below, form_of, rectified, rectified_sum
from keras_autoinit.responses import hermite_grid, of_overlapping, respond
from keras_autoinit.signals import Signal

DRAWS = 1_000_000


def normals(chance, correlation):
    """Returns unit Gaussians in pairs."""
    first, second = chance.standard_normal((2, DRAWS))
    return first, correlation * first + math.sqrt(1 - correlation**2) * second


def test_one_block_is_exact_but_for_what_the_branch_correlates():
    chance = np.random.default_rng(0)
    u, w = normals(chance, 0.4)
    b, d = normals(chance, 0.0)
    found = rectified_sum(rectified(Signal(1.09, 0.3, (0.49,))), Signal(0.25, 0.0, (0.0,)))
    z = np.maximum(u + 0.3, 0) + 0.5 * b
    y = np.maximum(w + 0.3, 0) + 0.5 * d
    made, other = np.maximum(z, 0), np.maximum(y, 0)
    # Five standard errors of a mean of a million.
    for predicted, values in (
        (found.whole.mean, made),
        (found.whole.second_moment, made**2),
        (found.whole.along[0], made * other),
        (found.slope, z > 0),
        (found.slopes[0], (z > 0) & (y > 0)),
    ):
        assert abs(predicted - values.mean()) < 5 * values.std() / math.sqrt(DRAWS)


@pytest.mark.parametrize("size", [0.1, 0.3, 1.0])
def test_over_sixteen_blocks_it_stays_so(size):
    chance = np.random.default_rng(1)
    law, drawn = rectified(Signal(1.0, 0.0, (0.0,))), np.maximum(chance.standard_normal((2, 200_000)), 0)
    for _ in range(16):
        found = rectified_sum(law, Signal(size**2, 0.0, (0.0,)))
        z = drawn + size * chance.standard_normal(drawn.shape)
        drawn, law = np.maximum(z, 0), found.whole.law
        # The first draws' chance deviation, five standard errors of 400,000, is carried along.
        assert found.whole.mean == pytest.approx(drawn.mean(), rel=0.01)
        assert found.whole.second_moment == pytest.approx((drawn**2).mean(), rel=0.02)
        assert found.slope == pytest.approx((z > 0).mean(), rel=0.01)
        assert found.whole.along[0] == pytest.approx((drawn[0] * drawn[1]).mean(), rel=0.02)


def test_the_law_says_what_the_moments_say():
    whole = rectified_sum(rectified(Signal(1.0, 0.0, (0.2, 0.7))), Signal(0.3, 0.0, (0.0, 0.2))).whole
    again = rectified_sum(whole.law, Signal(0.0, 0.0, (0.0, 0.0))).whole
    assert again.mean == pytest.approx(whole.mean, rel=2e-3)
    assert again.second_moment == pytest.approx(whole.second_moment, rel=2e-3)
    assert again.along == pytest.approx(whole.along, rel=5e-3)


def test_a_gradient_goes_with_the_trunk_that_stays_open():
    """Three ReLUs with noise before each: what the indicators of the later ones say of the first."""
    chance = np.random.default_rng(2)
    noise = Signal(0.3, 0.0, (0.0,))
    x, y = (np.maximum(one, 0) for one in normals(chance, 0.5))
    first = rectified_sum(rectified(Signal(1.0, 0.0, (0.5,))), noise)
    second = rectified_sum(first.whole.law, noise)
    passed, agreed = np.ones(DRAWS), np.ones(DRAWS)
    for _ in range(2):
        x, y = (one + math.sqrt(0.3) * chance.standard_normal(DRAWS) for one in (x, y))
        passed, agreed = passed * (x > 0), agreed * ((x > 0) & (y > 0))
        x, y = np.maximum(x, 0), np.maximum(y, 0)
    last, along, tilt = second.back(None)
    before, along_before, _ = first.back(tilt)
    # Five standard errors of a mean of a million, and as much again for the law's grid.
    assert last * before == pytest.approx(passed.mean(), abs=10 * passed.std() / math.sqrt(DRAWS))
    assert along[0] * along_before[0] == pytest.approx(agreed.mean(), rel=0.01)
    assert last * before > 1.03 * second.slope * first.slope


@pytest.mark.parametrize("spread", [1.0, 0.05])
def test_only_masses_within_reach_are_blurred(spread):
    places = np.arange(0.0, 4.0, spread / FINE)
    masses = np.exp(-places) / np.exp(-places).sum()
    levels = np.linspace(0.0, 5.0, 101)
    shares = NormalDist().cdf
    every = [sum(mass * shares((level - place) / spread) for place, mass in zip(places, masses)) for level in levels]
    # What is beyond reach counts as a whole or not at all.
    np.testing.assert_allclose(_below(levels, places, masses, spread), every, atol=shares(-REACH))


def test_a_normalized_law_is_as_skewed_as_it_was():
    """What a rectifier makes of `max(z, 0)` less its mean, over its spread: exact but for the grid."""
    form = form_of(rectified(Signal(1.0, 0.0, (0.0,))))
    _, weights, _ = hermite_grid()
    assert (weights @ form.law, weights @ form.law**2) == pytest.approx((0.0, 1.0), abs=1e-5)
    drawn = np.maximum(np.random.default_rng(0).standard_normal(DRAWS), 0.0)
    normalized = (drawn - drawn.mean()) / drawn.std()
    found = respond(activation("relu"), 0.0, 1.0, form)
    made = np.maximum(normalized, 0.0)
    assert found.second_moment == pytest.approx((made**2).mean(), rel=5e-3)
    assert found.slope == pytest.approx((normalized > 0).mean(), rel=5e-3)


def test_of_samples_that_are_alike_each_unit_sees_a_part_of_the_law():
    assert form_of(rectified(Signal(1.0, 0.0, (0.5,)))) is None
    assert form_of(None) is None


@pytest.mark.parametrize("shared", [0, 1, 4, 9])
def test_maxima_of_windows_that_overlap_are_often_the_same(shared):
    """Two windows of nine, behind a rectifier: what is large is more often the largest of both."""
    own = 9 - shared
    numbers = np.random.default_rng(0).standard_normal((9 + own, 200_000))
    one, other = numbers[:9].max(0), np.concatenate([numbers[:shared], numbers[9:]]).max(0)
    level = np.quantile(one, 0.5 * (1 + np.vectorize(math.erf)(hermite_grid()[0] / math.sqrt(2))))
    mean, spread = one.mean(), one.std()
    form = Form(law=(level - mean) / spread + 1e-9 * hermite_grid()[0])
    found = of_overlapping(activation("relu"), 0.0, 1.0, form, np.array([shared / 9]))
    made = [np.maximum((values - mean) / spread, 0.0) for values in (one, other)]
    products = made[0] * made[1]
    expected = products.mean() if shared else made[0].mean() ** 2
    # Five standard errors; where nothing is shared, nothing is asked of the formula but to be the mean's square.
    assert abs(found[0] - expected) < 5 * products.std() / math.sqrt(len(products)) if shared else found[0] == 0.0
