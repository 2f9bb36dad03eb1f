"""Averages of signals against the mean of all pairs."""

import dataclasses
import itertools

import numpy as np
import pytest

from keras_autoinit.averages import averaged, averaged_signal, in_window
from keras_autoinit.signals import Near, Signal

SHARED = 0.5


def test_averages_count_what_agrees():
    signal = Signal(1.0, 0.0, (0.0, SHARED, 0.0))
    assert averaged(signal, {1: 4.0}) == pytest.approx((1 + 3 * SHARED) / 4)
    assert averaged(signal, {2: 4.0}) == pytest.approx(0.25)


@pytest.fixture
def by_distance():
    """Entries on two axes that agree the less the further they are apart, and those of two samples half as much."""
    rows, columns = np.arange(4), np.arange(3)
    same = np.exp(-rows[:, None] - 0.5 * columns)
    signal = Signal(1.0, 0.0, (0.5, 0.2, 0.2, 0.0))
    return dataclasses.replace(signal, near=Near((1, 2), same, 0.5 * same))


def pairs(signal, other=False):
    table = signal.near.other if other else signal.near.same
    places = list(itertools.product(range(4), range(3)))
    return np.mean([table[abs(a - c), abs(b - d)] for (a, b), (c, d) in itertools.product(places, places)])


def test_an_average_is_the_mean_of_all_pairs_by_their_distance(by_distance):
    assert averaged(by_distance, {1: 4.0, 2: 3.0}) == pytest.approx(pairs(by_distance))
    assert in_window(by_distance, {1: 4.0, 2: 3.0}) == pytest.approx(pairs(by_distance))
    over_samples = (pairs(by_distance) + 7 * pairs(by_distance, other=True)) / 8
    assert averaged(by_distance, {0: 8.0, 1: 4.0, 2: 3.0}) == pytest.approx(over_samples)


def test_the_average_of_a_signal_is_one_too(by_distance):
    whole = averaged_signal(by_distance, {1: 4.0, 2: 3.0})
    assert whole.second_moment == pytest.approx(pairs(by_distance))
    assert whole.covariance == pytest.approx(pairs(by_distance, other=True))
