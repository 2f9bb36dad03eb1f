"""Signals side by side, and parts of them, against those of random numbers."""

import dataclasses

import numpy as np
import pytest

from keras_autoinit.joined import beside, between_parts, in_places, part_of, side_by_side
from keras_autoinit.rules.statistics import Statistics
from keras_autoinit.signals import Signal, independent
from keras_autoinit.sums import added, blended, weighted_by


def side_by_side_numbers():
    """Two of eight tokens agree with each other, and all have something in common: as numbers, and as signals."""
    source = np.random.default_rng(0)
    shared = source.normal(size=(400, 1, 50))
    large = 3 * (source.normal(size=(400, 1, 50)) + 0.5 * source.normal(size=(400, 2, 50)))
    small = source.normal(size=(400, 6, 50))
    numbers = np.concatenate([large, small], axis=1) + shared
    parts = [
        (2, Signal(9 * 1.25 + 1, 0.0, (0.0, 9.0 + 1, 0.0), apart=(0.0, 0.0, 0.0))),
        (6, Signal(2.0, 0.0, (0.0, 1.0, 0.0), apart=(0.0, 0.0, 0.0))),
    ]
    return numbers, parts


def agreement_between_tokens(numbers):
    squares = (numbers.sum(1) ** 2).mean() - (numbers**2).sum(1).mean()
    return squares / (numbers.shape[1] * (numbers.shape[1] - 1))


def test_parts_side_by_side_are_as_large_as_they_are_each():
    small, large = independent((2, 4)), independent((2, 4), 3.0)
    made = side_by_side(blended([small, large], [0.5, 0.5]), 1, [(2, small), (2, large)])
    assert made.profile[1].tolist() == pytest.approx([0.5, 0.5, 1.5, 1.5])
    squared = weighted_by(made, made.profile, 1.0)
    assert squared.profile[1].tolist() == pytest.approx([0.2, 0.2, 1.8, 1.8])
    assert squared.second_moment == pytest.approx(made.second_moment * np.mean([0.25, 0.25, 2.25, 2.25]))


def test_tokens_side_by_side_agree_pair_by_pair():
    numbers, parts = side_by_side_numbers()
    whole = blended([one for _, one in parts], [2 / 8, 6 / 8])
    made = in_places(whole, 1, parts, np.full((2, 2), 1.0))
    assert made.along[1] == pytest.approx(agreement_between_tokens(numbers), rel=0.05)
    assert between_parts(made, 1, parts) == pytest.approx(1.0)


def test_parts_side_by_side_are_found_again():
    """One of them, several, and a stretch that ends within one, of which no more is known than of the whole."""
    parts = [(4, Signal(1.0, 0.0, (0.5, 0.0))), (8, Signal(4.0, 0.0, (1.0, 0.0))), (4, Signal(2.0, 0.0, (2.0, 0.0)))]
    whole = beside(1, parts)
    assert whole.second_moment == pytest.approx((4 * 1 + 8 * 4 + 4 * 2) / 16)
    assert part_of(whole, 1, 4, 12) == parts[1][1]
    two = part_of(whole, 1, 4, 16)
    assert two.second_moment == pytest.approx((8 * 4 + 4 * 2) / 12)
    assert part_of(two, 1, 8, 12) == parts[2][1]
    within = part_of(whole, 1, 0, 8)
    assert within.second_moment == pytest.approx((4 * 1 + 4 * 4) / 8)
    assert within.along[0] == pytest.approx(whole.along[0] / whole.second_moment * within.second_moment)


def test_sums_of_what_stands_side_by_side_stand_so_too():
    one = beside(1, [(4, Signal(1.0, 0.0, (0.5, 0.0))), (8, Signal(4.0, 0.0, (1.0, 0.0)))])
    both = added([one, one])
    assert part_of(both, 1, 0, 4).along == (1.0, 0.0)
    assert added([one, Signal(1.0, 0.0, (0.0, 0.0))]).joined is None


def test_a_mean_is_spread_as_roots_of_squares_are():
    """Zeros beside a signal make less of its mean, and the signal without them has it back."""
    among = Signal(0.5, 0.25, (0.1, 0.1)).with_profile(1, np.array([2.0, 2.0, 0.0, 0.0]))
    assert part_of(among, 1, 0, 2).mean == pytest.approx(0.5)
    assert part_of(among, 1, 0, 2).second_moment == pytest.approx(1.0)


def test_what_two_parts_have_in_common_is_as_large_as_each_of_them():
    """A normalization makes both of one size: beside the small ones what is shared is large."""
    numbers, parts = side_by_side_numbers()
    whole = dataclasses.replace(
        in_places(blended([one for _, one in parts], [2 / 8, 6 / 8]), 1, parts, np.full((2, 2), 1.0)),
        joined=(1, tuple(parts)),
    )
    statistics = Statistics({2: 50.0}, [2], centred=False, gamma=1.0, epsilon=0.0)
    made, *_ = statistics.applied(whole)
    normalized = numbers / np.sqrt(np.mean(numbers**2, axis=-1, keepdims=True))
    assert made.along[1] == pytest.approx(agreement_between_tokens(normalized), rel=0.05)
