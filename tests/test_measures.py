"""Numbers that describe a tensor, against their definitions, and what they say of tensors that break definitions."""

import math

import numpy as np
import pytest

from keras_autoinit.activations import activation
from keras_autoinit.measures import (
    BINS,
    BOUNDS,
    COUNTED,
    PIECE,
    RECTIFIERS,
    dead_share,
    distinct_share,
    histogram_of,
    likeness,
    saturated_share,
    second_moment,
    sums,
)

SOURCE = np.random.default_rng(0)


def test_moments_of_a_long_tensor_in_single_precision_are_those_in_double():
    array = (SOURCE.normal(size=(3, PIECE)) + 10).astype("float32")
    exact = array.astype("float64")
    # Sums of pieces of 2^16: a rounding error of 2^-24 a step, added as a random walk, or pairwise, which is less.
    assert sums(array) == pytest.approx((exact.mean(), (exact**2).mean()), rel=2**-16)
    assert second_moment(array) == sums(array)[1]


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_squares_beyond_single_precision_are_counted_in_double(size):
    array = np.full(10, size, "float32")
    assert sums(array) == pytest.approx((size, size**2), rel=1e-6)
    assert sums(np.full(10, 3e38, "float32"))[0] == pytest.approx(3e38)


def test_of_nothing_there_are_no_moments_and_of_nan_none_that_are_numbers():
    assert all(
        map(math.isnan, (*sums(np.zeros((0, 3))), second_moment(np.zeros(0)), second_moment(np.array([np.nan]))))
    )
    assert sums(np.array([1.0, math.inf])) == (math.inf, math.inf)


def test_dead_units_are_zero_for_all_samples_and_pixels():
    array = np.zeros((4, 3, 5))
    array[2, 1, 3] = 1e-9
    assert dead_share(array) == 4 / 5
    assert dead_share(array, axis=1) == dead_share(array, axis=-2) == 2 / 3


@pytest.mark.parametrize(("value", "dead"), [(0.0, 1.0), (-0.009, 1.0), (-0.011, 0.0), (1e-9, 0.0)])
def test_a_rectifier_that_is_smooth_is_dead_next_below_zero(value, dead):
    assert dead_share(np.full((4, 2), value), nothing=0.01) == dead


@pytest.mark.parametrize("name", RECTIFIERS)
def test_a_rectifier_puts_out_next_to_nothing_far_below_zero_and_something_above(name):
    made = activation(name).function(np.array([[-10.0, 1.0], [-20.0, 0.5]]))
    assert dead_share(made, nothing=RECTIFIERS[name]) == 0.5


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_are_those_that_the_activation_comes_near(name):
    made = activation(name).function(np.array([-1e9, 0.0, 1e9]))
    assert made == pytest.approx([BOUNDS[name][0], sum(BOUNDS[name]) / 2, BOUNDS[name][1]], abs=1e-6)
    assert saturated_share(made, BOUNDS[name]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("value", "share"), [(-0.979, 0.0), (-0.981, 1.0), (0.979, 0.0), (0.981, 1.0)])
def test_a_hundredth_of_the_way_from_a_bound_is_stuck_there(value, share):
    assert saturated_share(np.array([value]), (-1.0, 1.0)) == share


def test_likeness_of_samples_at_right_angles_along_a_line_and_between():
    assert likeness(np.eye(5)) == pytest.approx((5, 0))
    assert likeness(np.outer([1.0, 2.0, 3.0], [1.0, 1.0])) == pytest.approx((1, 1))
    assert likeness(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx((1, -1))
    # Products of rows: 1 and 1/2; the trace's square over the sum of squares.
    assert likeness(np.array([[1.0, 0.0], [0.5, 0.75**0.5]])) == pytest.approx((4 / (2 + 2 / 4), 0.5))
    # Whatever shape a sample has.
    assert likeness(np.eye(8).reshape(8, 2, 2, 2)) == pytest.approx((8, 0))


@pytest.mark.parametrize(
    "array",
    [
        np.ones((1, 9)),
        np.ones((9, 1)),
        np.eye(3) * [1, 1, 0],
        np.full((2, 3), np.nan),
        np.full((2, 3), 3e38, "float32"),
    ],
    ids=["one sample", "one number", "zero", "nan", "overflow"],
)
def test_where_samples_have_no_direction_they_have_no_likeness(array):
    assert likeness(array) is None


def test_a_histogram_counts_a_sample_in_equal_bins():
    array = SOURCE.uniform(-1, 3, (4, COUNTED)).astype("float32")
    found = histogram_of(array)
    assert len(found.counts) == BINS
    assert COUNTED <= sum(found.counts) < 1.01 * COUNTED
    # A binomial count's five standard deviations.
    expected = COUNTED / BINS
    assert max(abs(count - expected) for count in found.counts) < 5 * math.sqrt(expected)
    assert (found.low, found.high) == pytest.approx((-1, 3), abs=0.01)


def test_a_histogram_leaves_out_what_is_no_number():
    assert histogram_of(np.array([np.nan, np.inf])) is None
    assert histogram_of(np.array([np.nan, 2.0, 2.0])).counts == (2,)
    assert sum(histogram_of(np.array([-np.inf, 0.0, 1.0])).counts) == 2


def test_units_are_counted_once_for_each_set_of_equals():
    kernel = SOURCE.normal(size=(6, 8)).astype("float32")
    assert distinct_share(kernel, (1,)) == 1.0
    kernel[:, 3] = kernel[:, 5] = kernel[:, 0]
    assert distinct_share(kernel, (1,)) == 6 / 8
    assert distinct_share(kernel.T, (0,)) == 6 / 8
    # Two axes of units, as of heads and of their numbers.
    assert distinct_share(kernel.reshape(6, 2, 4), (1, 2)) == 6 / 8


def test_units_whose_products_only_look_equal_are_told_apart():
    kernel = np.zeros((2, 3), "float32")
    kernel[0] = [1.0, 1.0 + 2**-23, 2.0]
    assert distinct_share(kernel, (1,)) == 1.0


@pytest.mark.parametrize(
    ("array", "units"), [(np.ones((4, 1)), (1,)), (np.ones(4), (0,)), (np.full((4, 3), np.nan), (1,))]
)
def test_where_units_cannot_be_compared_nothing_is_said(array, units):
    assert distinct_share(array, units) is None
