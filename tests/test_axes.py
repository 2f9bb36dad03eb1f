"""Axes of signals: split, joined, repeated by broadcasting, and summed back."""

import pytest

from keras_autoinit.axes import aligned, reshaped, sum_over, summed_back
from keras_autoinit.signals import Signal, independent

SHARED = 0.5


def test_joined_axes_agree_as_their_parts_do():
    signal = reshaped(Signal(1.0, 0.0, (0.0, SHARED, 0.0)), (2, 4, 8), (2, 32))
    assert signal.along[0] == 0.0
    assert 0.0 < signal.along[1] < SHARED


def test_what_is_repeated_agrees_wholly():
    """One row for four positions of all samples."""
    row = Signal(2.0, 0.5, (0.3,))
    signal = aligned(row, (8,), (5, 4, 8))
    assert signal.along == (2.0, 2.0, 0.3)
    assert (signal.second_moment, signal.mean) == (2.0, 0.5)


def test_the_gradient_of_what_is_repeated_is_the_sum_over_its_places():
    back = summed_back(independent((5, 4, 8)), (5, 4, 8), (1, 8))
    assert back.second_moment == pytest.approx(5 * 4)
    assert len(back.along) == 2


def test_a_sum_of_what_agrees_wholly_grows_with_the_square():
    assert sum_over(Signal(1.0, 1.0, (0.0, 1.0)), {1: 4.0}).second_moment == pytest.approx(16)
    assert sum_over(independent((2, 4)), {1: 4.0}).second_moment == pytest.approx(4)
