"""Random orthogonal matrices are spread evenly over all there are."""

import math

import numpy as np
import pytest

from keras_autoinit.schemes.rotations import orthogonal_matrices

NUMBER, SIDE = 4000, 4


def traces():
    return np.trace(orthogonal_matrices(NUMBER, SIDE, SIDE, 1, np.float64), axis1=1, axis2=2)


def test_orthogonal_matrices_have_no_preferred_sign():
    # Over all orthogonal matrices the trace has mean 0 and variance 1; five standard errors. Without
    # the correction of signs the mean is -0.84.
    assert abs(traces().mean()) < 5 / math.sqrt(NUMBER)


def test_traces_are_spread_as_over_all_orthogonal_matrices():
    # The fourth moment of the trace is 3 (from side 2 on), so its square has mean 1, variance 2.
    assert abs((traces() ** 2).mean() - 1) < 5 * math.sqrt(2 / NUMBER)


def test_rotations_and_reflections_are_as_frequent():
    # Without the correction of signs, three reflections make every determinant -1.
    signs = np.linalg.det(orthogonal_matrices(NUMBER, SIDE, SIDE, 1, np.float64))
    assert abs(signs.mean()) < 5 / math.sqrt(NUMBER)


@pytest.mark.parametrize("corner", [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_every_entry_has_mean_zero_and_the_same_spread(corner):
    entry = orthogonal_matrices(NUMBER, SIDE, SIDE, 2, np.float64)[:, corner[0], corner[1]]
    # An entry has variance 1/4 and, as a coordinate of a point on the sphere in four dimensions,
    # the fourth moment 3 / (4 * 6) = 1/8, hence 1/16 as variance of its square.
    assert abs(entry.mean()) < 5 * math.sqrt(1 / 4 / NUMBER)
    assert abs((entry**2).mean() - 1 / 4) < 5 * math.sqrt(1 / 16 / NUMBER)
