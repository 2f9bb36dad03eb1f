"""Maxima are set against those of random numbers: 200,000 draws, a mean of which is known to a third of a per cent."""

import numpy as np
import pytest

from keras_autoinit.maxima import maximum, uneven
from keras_autoinit.rectified import RELU

DRAWS = 200_000


def entries(agreement, count):
    """Gaussians that have a share of their variance in common."""
    source = np.random.default_rng(0)
    own = source.normal(size=(DRAWS, count))
    return np.sqrt(agreement) * source.normal(size=(DRAWS, 1)) + np.sqrt(1 - agreement) * own


@pytest.mark.parametrize("agreement", [0.0, 0.5, 0.9])
def test_the_largest_of_entries_of_different_size(agreement):
    """Entries of a window at a border are smaller, and win less often."""
    sizes = np.array([0.6, 0.6, 1.4, 1.4])
    values = entries(agreement, 4) * np.sqrt(sizes)
    largest = np.maximum(values.max(1), 0)
    mean, square, wins = uneven(RELU, 0.0, 1.0, agreement, (0.6, 1.4), 2)
    # The grid adds as much again.
    assert mean == pytest.approx(largest.mean(), rel=0.01)
    assert square == pytest.approx(np.mean(largest**2), rel=0.02)
    # A gradient comes back where the rectifier is open.
    assert wins[1] == pytest.approx(np.mean(values.argmax(1)[largest > 0] >= 2), abs=0.01)


@pytest.mark.parametrize("shared", [0, 3, 8])
def test_windows_that_share_entries(shared):
    agreement, count = 0.3, 9
    values = np.maximum(entries(agreement, 2 * count - shared), 0)
    first, second = values[:, :count].max(1), values[:, count - shared :].max(1)
    found = maximum(RELU, 0.0, 1.0, agreement, count)
    assert found.between(agreement, shared) == pytest.approx(np.mean(first * second), rel=0.01)
    assert found.second_moment == pytest.approx(np.mean(first**2), rel=0.01)
