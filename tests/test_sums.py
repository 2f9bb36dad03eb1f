"""Sums, products and mixtures of signals against those of random numbers."""

import dataclasses

import numpy as np
import pytest

from keras_autoinit.laws import BATCH
from keras_autoinit.signals import Signal, independent
from keras_autoinit.sums import (
    added,
    blended,
    chance_between,
    chance_of_square,
    chance_of_sum,
    mixed_sizes,
    multiplied,
)

SAMPLES, POSITIONS, UNITS = 40, 30, 200
SHARED = 0.5


def drawn(source, mean, of_samples, of_positions):
    """Numbers with a mean, a part that is the same in all of one sample's positions, and one in all samples'."""
    parts = [(1, POSITIONS, UNITS), (SAMPLES, 1, UNITS), (SAMPLES, POSITIONS, UNITS)]
    spreads = np.sqrt([of_positions, of_samples, 1.0])
    numbers = mean + sum(spread * source.normal(size=shape) for spread, shape in zip(spreads, parts))
    square = mean**2 + of_positions + of_samples + 1
    along = (mean**2 + of_positions, mean**2 + of_samples, mean**2)
    return numbers, Signal(square, mean, along, apart=(mean**2 + of_positions, mean**2, mean**2))


def agreements(numbers):
    """The mean square, and the mean product of entries that differ on each axis."""
    found = [np.mean(numbers**2)]
    for axis in range(3):
        count, square = numbers.shape[axis], np.mean(numbers**2)
        found.append((count * np.mean(numbers.mean(axis) ** 2) - square) / (count - 1))
    return np.array(found)


@pytest.mark.parametrize("combined", ["sum", "product"])
def test_sums_and_products_agree_as_their_parts_make_them(combined):
    source = np.random.default_rng(0)
    (a, first), (b, second) = drawn(source, 0.5, 0.4, 0.0), drawn(source, -0.3, 0.0, 0.8)
    made = added([first, second]) if combined == "sum" else multiplied([first, second])
    numbers = a + b if combined == "sum" else a * b
    # The part that all samples have in common is 6,000 numbers, the other 8,000: five standard errors.
    error = 5 * np.sqrt(2 / POSITIONS / UNITS) * made.second_moment
    assert [made.second_moment, *made.along] == pytest.approx(agreements(numbers).tolist(), abs=error)
    assert made.mean == pytest.approx(numbers.mean(), abs=5 * np.sqrt(made.second_moment / POSITIONS / UNITS))


def test_of_different_samples_and_positions_neither_agrees():
    """Words that repeat within a sample, and positions that all samples have in common."""
    words, positions = Signal(1.0, 0.0, (0.0, SHARED, 0.0)), Signal(1.0, 0.0, (1.0, 0.0, 0.0))
    both = added([words, positions])
    assert both.along == (1.0, SHARED, 0.0)
    assert both.agreement({0, 1}) == 0.0
    normal = added([both, both]).times(SHARED)
    assert normal.agreement({0, 1}) == 0.0


def test_a_mixture_is_one_part_or_another():
    small, large = independent((2, 4)), Signal(9.0, 3.0, (9.0, 9.0))
    made = blended([small, large], [0.75, 0.25])
    assert (made.second_moment, made.mean) == (0.75 + 9 / 4, 0.75)


def test_samples_of_few_units_are_uneven_by_chance():
    """Units that have half of their variance in common for all samples: 20,000 draws of 16 of them."""
    source, units = np.random.default_rng(0), 16
    common = np.sqrt(0.5) * source.normal(size=(20000, 1, units))
    numbers = common + np.sqrt(0.5) * source.normal(size=(20000, 8, units))
    squares = (numbers**2).mean(2)
    signal = Signal(1.0, 0.0, (0.5, 0.0))
    uneven = np.mean(squares.var(1, ddof=1))
    # Of one square, the variance is two: what is told is how uneven a sample is over that.
    assert 2 * chance_between(signal, (None, units)) == pytest.approx(uneven, rel=0.03)


def test_one_draw_of_few_units_is_uneven_by_chance():
    """The same, over batches: 4,000 draws, whose variance is known to the root of two over their number."""
    source, units = np.random.default_rng(0), 16
    batch = np.sqrt(0.5) * (source.normal(size=(4000, 1, units)) + source.normal(size=(4000, BATCH, units)))
    uneven = (batch**2).mean((1, 2)).var()
    found = chance_of_square(Signal(1.0, 0.0, (0.5, 0.0)), (None, units))
    assert found == pytest.approx(uneven, rel=5 * np.sqrt(2 / 4000))


@pytest.mark.parametrize(("shares", "within"), [((0.5, 0.5), 0.0), ((0.8, 0.2), 0.5)])
def test_a_sum_is_uneven_by_what_its_parts_agree_in_by_chance(shares, within):
    """4,000 samples of four positions that agree in part: the variance of their means of `2 x y` is known to 11 %."""
    source, units = np.random.default_rng(0), 16
    parts = [
        np.sqrt(within) * source.normal(size=(4000, 1, units))
        + np.sqrt(1 - within) * source.normal(size=(4000, 4, units))
        for _ in shares
    ]
    both = np.sqrt(shares[0] * shares[1]) * 2 * (parts[0] * parts[1]).mean((1, 2))
    signals = [Signal(share, 0.0, (0.0, share * within, 0.0)) for share in shares]
    assert chance_of_sum(signals, (None, 4, units)) == pytest.approx(both.var(), rel=5 * np.sqrt(2 / 4000))
    assert chance_of_sum(signals[:1], (None, 4, units)) == 0


@pytest.mark.parametrize("whole", [0.0, np.inf])
def test_of_nothing_and_of_what_has_no_bounds_no_part_has_a_share(whole):
    parts = [dataclasses.replace(independent((2, 8), whole), sizes={key: 1.0}) for key in "ab"]
    assert mixed_sizes(parts) == {}
