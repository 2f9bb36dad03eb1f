"""Windows on the entries of an axis, against counting them one by one."""

import itertools

import numpy as np
import pytest

from keras_autoinit.taps import by_distance, other_readers, overlap_of, taps_met, windows


def test_every_tap_is_counted_once():
    matrix, *_ = taps_met(7, 4, taps=3, stride=2, rate=1, padding="same")
    assert matrix.shape == (4, 7)
    assert matrix.sum(1).tolist() == pytest.approx([2 / 3, 1, 1, 2 / 3])


@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "valid"), (1, "causal")])
def test_windows_lie_where_a_convolution_puts_them(stride, padding):
    size, taps = 7, 3
    made = {"same": 7, "valid": 3, "causal": 7}[padding]
    places, inside = windows(size, made, taps, stride, 1, padding)
    before = {"same": 1, "valid": 0, "causal": 2}[padding]
    assert places.tolist() == [[stride * i + j - before for j in range(taps)] for i in range(made)]
    assert (inside == ((places >= 0) & (places < size))).all()


def test_two_windows_have_those_taps_in_common_that_are_inside_in_both():
    """Of taps that meet the same number everywhere: the first window of three lacks its first tap."""
    _, both, _ = taps_met(4, 4, taps=3, stride=1, rate=1, padding="same")
    inside = windows(4, 4, 3, 1, 1, "same")[1]
    counted = [[(one & other).sum() / 3 for other in inside] for one in inside]
    assert both == pytest.approx(np.array(counted))


def test_pairs_are_averaged_by_their_distance():
    table = np.array([[1.0, 2.0, 5.0], [2.0, 3.0, 4.0], [5.0, 4.0, 9.0]])
    assert by_distance(table).tolist() == pytest.approx([13 / 3, 3.0, 5.0])


def test_entries_of_two_windows_and_readers_of_an_entry_are_counted():
    """Windows of 3 x 3 with padding on 4 x 3 entries."""
    sizes = (4, 3)
    axes = []
    for size in sizes:
        places, inside = windows(size, size, 3, 1, 1, "same")
        axes.append((inside.astype(float), places, size))
    held = [
        {(r, c) for r, c in itertools.product(axes[0][1][i][axes[0][0][i] > 0], axes[1][1][j][axes[1][0][j] > 0])}
        for i, j in itertools.product(*map(range, sizes))
    ]
    shared = [len(a & b) for a, b in itertools.permutations(held, 2)]
    assert overlap_of(axes) == pytest.approx(np.mean(shared))
    read = [sum(entry in one for one in held) - 1 for window in held for entry in window]
    assert other_readers(axes) == pytest.approx(np.mean(read))
