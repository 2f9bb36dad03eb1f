"""Every scheme draws here: one seed must mean one array, in whole or in part, and the right distribution."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_autoinit import draws
from keras_autoinit.draws import BLOCK, TRUNCATED_STD, derived_seed, fill, generator, normal, truncated_normal, uniform

DRAWS = [uniform, normal, truncated_normal]
DTYPES = [np.float32, np.float64]
UNIT = NormalDist()
# Probability mass of a unit normal below and within two standard deviations.
BELOW = UNIT.cdf(-2)
KEPT = UNIT.cdf(2) - BELOW

# Five standard errors: a right generator fails such a check for one seed in two million, and the
# seeds are fixed.
ERRORS = 5
SAMPLES = 400_000


def normal_moment(order):
    """Returns the even moment `E z^order` of a unit normal: `(order - 1)!!`."""
    return math.prod(range(order - 1, 0, -2))


def truncated_moment(order):
    """Returns the even moment of a unit normal cut off at two, by integrating by parts."""
    if order == 0:
        return 1.0
    return (order - 1) * truncated_moment(order - 2) - 2 * 2 ** (order - 1) * UNIT.pdf(2) / KEPT


def uniform_moment(order):
    """Returns the even moment of a uniform number in (-1, 1)."""
    return 1 / (order + 1)


def symmetric_uniform(shape, seed, **options):
    return uniform(shape, seed, -1.0, 1.0, **options)


CENTRED = [(symmetric_uniform, uniform_moment), (normal, normal_moment), (truncated_normal, truncated_moment)]


# --- One seed, one array ---


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (40, 50), (BLOCK,), (2 * BLOCK + 77,), (3, BLOCK)], ids=str)
def test_the_number_of_threads_changes_no_bit(draw, dtype, shape):
    alone, *others = (draw(shape, 11, dtype=dtype, threads=threads) for threads in (1, 2, 3))
    assert alone.shape == shape
    assert alone.dtype == dtype
    assert all(np.array_equal(alone, other) for other in others)


@pytest.mark.parametrize("draw", DRAWS)
def test_threads_default_to_those_available(draw):
    assert np.array_equal(draw((3 * BLOCK,), 4), draw((3 * BLOCK,), 4, threads=1))


def test_the_shape_only_folds_the_same_numbers():
    flat = normal((2 * BLOCK,), 7)
    assert np.array_equal(normal((2, 4, BLOCK // 4), 7).ravel(), flat)


def test_a_longer_array_begins_with_the_whole_blocks_of_a_shorter_one():
    assert np.array_equal(normal((2 * BLOCK,), 7)[:BLOCK], normal((BLOCK,), 7))


def test_a_block_is_filled_by_its_own_generator():
    last = generator(5, 1).standard_normal(BLOCK, dtype=np.float32)
    assert np.array_equal(normal((2 * BLOCK,), 5)[BLOCK:], last)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_array_begins_where_every_backend_takes_it_without_a_copy(dtype):
    # By chance one array in four would: of these, none of them all.
    arrays = [draws.normal((1 + 37 * number,), 1, dtype=dtype) for number in range(32)]
    assert {array.ctypes.data % draws.ALIGNMENT for array in arrays} == {0}


def test_an_empty_array_can_be_drawn():
    assert normal((0, 3), 1).shape == (0, 3)


@pytest.mark.parametrize("seed", [0, 2**31, 2**53, 2**64 - 1, -1, (1, 2), (0, 2**40, -3)], ids=str)
def test_a_seed_of_any_size_or_length_is_repeatable(seed):
    assert np.array_equal(normal((100,), seed), normal((100,), seed))


def test_different_seeds_give_different_numbers():
    seeds = [0, 1, -1, 2**32, 2**53 - 1, -(2**40), (1, 2), (2, 1), (1, 1)]
    first = {float(normal((1,), seed, dtype=np.float64)[0]) for seed in seeds}
    assert len(first) == len(seeds)


@pytest.mark.parametrize(
    ("one", "other"),
    [((5, 1), (5 + 2**32, 0)), ((5, 1), ((5, 1), 0)), ((5, 0), ((5, 0), 0)), (((5, 0), 1), ((5, 1), 0))],
    ids=["wide seed", "longer seed", "zero at the end", "word or block"],
)
def test_a_block_is_no_block_of_another_seed(one, other):
    """Seeds are spelled in words of 32 bits, which must not run into the number of the block."""
    first, second = (generator(seed, block).random(8) for seed, block in (one, other))
    assert not np.array_equal(first, second)


def test_different_blocks_hold_different_numbers():
    first, second = normal((2, BLOCK), 3)
    assert not np.intersect1d(first[:1000], second[:1000]).size


@pytest.mark.parametrize(
    ("first", "second"), [((0, 0), (1, 0)), ((0, 0), (0, 1)), ((5, 1), (6, 1))], ids=["seed", "block", "neighbours"]
)
def test_streams_are_uncorrelated(first, second):
    one, two = (generator(*words).standard_normal(SAMPLES) for words in (first, second))
    # The mean of n products of independent unit normals has a standard error of 1 / sqrt(n).
    assert abs((one * two).mean()) < ERRORS / math.sqrt(SAMPLES)


def test_neighbours_in_an_array_are_uncorrelated():
    values = normal((SAMPLES + 1,), 17, dtype=np.float64)
    assert abs((values[1:] * values[:-1]).mean()) < ERRORS / math.sqrt(SAMPLES)


# --- A part is a slice of the whole ---

SHAPE = (5, 300, 201)
PARTS = {
    "everything": (slice(None), slice(None), slice(None)),
    "first axis": (slice(1, 3), slice(None), slice(None)),
    "last axis": (slice(None), slice(None), slice(100, None)),
    "inner box": (slice(2, 4), slice(7, 9), slice(3, 5)),
    "one number": (slice(4, 5), slice(299, 300), slice(200, 201)),
    "steps": (slice(None, None, 2), slice(1, None, 7), slice(None, 100, 3)),
    "backwards": (slice(None, None, -1), slice(10, 2, -3), slice(None)),
    "nothing": (slice(2, 2), slice(None), slice(None)),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_equals_the_slice_of_the_whole(draw, part):
    assert math.prod(SHAPE) > 2 * BLOCK
    assert np.array_equal(draw(SHAPE, 23, part=part), draw(SHAPE, 23)[part])


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((), ()),
        ((7,), (slice(2, 5),)),
        ((BLOCK + 3,), (slice(BLOCK - 2, BLOCK + 2),)),
        ((3 * BLOCK,), (slice(None, None, BLOCK // 2),)),
        ((2, 2, 2, 2, 2), (slice(1),) * 5),
        ((0, 3), (slice(None), slice(1, 2))),
    ],
    ids=str,
)
def test_a_part_of_any_rank(shape, part):
    assert np.array_equal(normal(shape, 29, part=part), normal(shape, 29)[part])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_part_has_the_dtype_of_the_whole(dtype):
    part = (slice(10, 20), slice(None))
    drawn = truncated_normal((30, 40), 2, dtype=dtype, part=part)
    assert drawn.dtype == dtype
    assert np.array_equal(drawn, truncated_normal((30, 40), 2, dtype=dtype)[part])


def test_parts_put_together_are_the_whole():
    halves = [normal((600, 700), 31, part=(rows, slice(None))) for rows in (slice(0, 300), slice(300, 600))]
    assert np.array_equal(np.concatenate(halves), normal((600, 700), 31))


@st.composite
def shapes_and_parts(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    return shape, tuple(draw(st.slices(length)) for length in shape)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(shapes_and_parts())
def test_any_slices_of_any_shape(case):
    """Blocks of 16 numbers, so that small arrays have many and slices cross them in every way."""
    shape, part = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws, "BLOCK", 16)
        assert np.array_equal(normal(shape, 37, part=part), normal(shape, 37)[part])


# --- The distributions ---


def distance(values, distribution):
    """Returns the largest distance between the distribution and that of the sorted values."""
    below = np.array([distribution(value) for value in np.sort(values).tolist()])
    steps = np.arange(len(values) + 1) / len(values)
    return max(np.abs(below - steps[1:]).max(), np.abs(below - steps[:-1]).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("draw", "distribution"),
    [
        (uniform, lambda value: value),
        (normal, UNIT.cdf),
        (truncated_normal, lambda value: (UNIT.cdf(value) - BELOW) / KEPT),
    ],
    ids=["uniform", "normal", "truncated_normal"],
)
def test_the_whole_distribution(draw, distribution, dtype):
    samples = 100_000
    # Dvoretzky, Kiefer, Wolfowitz and Massart: the distance exceeds this with probability 1e-6.
    bound = math.sqrt(math.log(2 / 1e-6) / (2 * samples))
    assert distance(draw((samples,), 41, dtype=dtype), distribution) < bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("draw", "moment"), CENTRED, ids=["uniform", "normal", "truncated_normal"])
def test_mean(draw, moment, dtype):
    values = draw((SAMPLES,), 43, dtype=dtype).astype(np.float64)
    # The mean of n numbers has a standard error of sigma / sqrt(n).
    assert abs(values.mean()) < ERRORS * math.sqrt(moment(2) / SAMPLES)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("draw", "moment"), CENTRED, ids=["uniform", "normal", "truncated_normal"])
def test_standard_deviation(draw, moment, dtype):
    values = draw((SAMPLES,), 47, dtype=dtype).astype(np.float64)
    sigma, kurtosis = math.sqrt(moment(2)), moment(4) / moment(2) ** 2
    # An estimated standard deviation has a standard error of sigma sqrt((kurtosis - 1) / (4 n)).
    assert abs(values.std() - sigma) < ERRORS * sigma * math.sqrt((kurtosis - 1) / (4 * SAMPLES))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("draw", "moment"), CENTRED, ids=["uniform", "normal", "truncated_normal"])
def test_fourth_moment(draw, moment, dtype):
    """The kurtosis tells a truncated normal (2.14) from a normal (3) and a uniform (1.8)."""
    values = draw((SAMPLES,), 53, dtype=dtype).astype(np.float64)
    # The mean of n fourth powers has a standard error of sqrt((E z^8 - (E z^4)^2) / n).
    error = math.sqrt((moment(8) - moment(4) ** 2) / SAMPLES)
    assert abs((values**4).mean() - moment(4)) < ERRORS * error


def test_truncated_std_is_that_of_the_truncated_normal():
    assert math.sqrt(truncated_moment(2)) == pytest.approx(TRUNCATED_STD, rel=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("draw", [normal, truncated_normal])
def test_mean_and_std_place_the_same_numbers(draw, dtype):
    # Two roundings of numbers below 8, each half a unit in the last place.
    tolerance = float(8 * np.finfo(dtype).eps)
    expected = 3.0 + 0.25 * draw((1000,), 59, dtype=dtype).astype(np.float64)
    assert draw((1000,), 59, 3.0, 0.25, dtype=dtype) == pytest.approx(expected, rel=0, abs=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_low_and_high_place_uniform_numbers(dtype):
    values = uniform((SAMPLES,), 61, -3.0, 5.0, dtype=dtype)
    assert values.min() >= -3
    assert values.max() < 5
    # The chance that none of n numbers falls into an outer piece of relative width w is below exp(-n w).
    width = 8 * math.log(1e6) / SAMPLES
    assert values.min() < -3 + width
    assert values.max() > 5 - width


@pytest.mark.parametrize("dtype", DTYPES)
def test_truncated_numbers_lie_within_two_spreads(dtype):
    values = truncated_normal((SAMPLES,), 67, std=0.5, dtype=dtype)
    assert np.abs(values).max() <= 1.0
    # Beyond 0.99 lie 2 (cdf(2) - cdf(1.98)) / KEPT = 0.23 per cent of them.
    assert np.abs(values).max() > 0.99


# --- The quantile formula of the float32 truncated normal, read at every number it can meet ---


class EveryNumber:
    """Stands in for a generator: its uniform numbers are all the multiples of 2^-24 below one."""

    @staticmethod
    def random(dtype, out):
        out[:] = np.arange(out.size, dtype=dtype) * np.float32(2**-24)


@pytest.fixture(scope="module")
def quantiles():
    out = np.empty(2**24, np.float32)
    draws._invert_truncated(EveryNumber(), out)
    return out


def condition(coefficients, square):
    """Returns the sum of the terms' sizes over the size of their sum: how much rounding grows."""
    powers = square[:, None] ** np.arange(len(coefficients))
    terms = powers * coefficients.astype(np.float64)
    return np.abs(terms).sum(1) / np.abs(terms.sum(1))


def test_the_formula_is_the_quantile_function(quantiles):
    """To 2e-6 for the coefficients as they are held in float32, and what Horner's rule rounds."""
    index = np.unique(np.r_[0:100, np.linspace(0, 2**24 - 1, 10_000, dtype=int), 2**24 - 100 : 2**24])
    v = (2 * index + 1 - 2**24) * 2.0**-24
    exact = np.array([UNIT.inv_cdf(0.5 + 0.5 * KEPT * x) for x in v])
    # A polynomial of degree d by Horner's rule is off by at most 2 d u times its condition, with u the
    # unit roundoff (Higham, Accuracy and Stability of Numerical Algorithms, section 5.1).
    rounding = 2**-24 * sum(
        2 * len(coefficients) * condition(coefficients, v * v) for coefficients in (draws.NUMERATOR, draws.DENOMINATOR)
    )
    assert (np.abs(quantiles[index] / exact - 1) <= 2e-6 + rounding).all()


def test_the_formula_is_tight_where_most_numbers_lie(quantiles):
    """Within |v| < 0.9, that is |z| < 1.5, where the terms do not yet cancel."""
    index = np.linspace(0.05 * 2**24, 0.95 * 2**24, 5_000, dtype=int)
    exact = np.array([UNIT.inv_cdf(0.5 + 0.5 * KEPT * (2 * i + 1 - 2**24) * 2.0**-24) for i in index])
    assert quantiles[index] == pytest.approx(exact, rel=5e-6)


def test_no_number_lies_beyond_two(quantiles):
    assert np.abs(quantiles).max() <= 2
    assert np.abs(quantiles).max() == pytest.approx(2, rel=1e-6)


def test_the_formula_is_odd(quantiles):
    assert np.array_equal(quantiles, -quantiles[::-1])


def test_the_formula_has_the_stated_spread(quantiles):
    assert quantiles.std(dtype=np.float64) == pytest.approx(TRUNCATED_STD, rel=2e-6)


# --- Seeds of weights ---


def test_derived_seed_is_stable():
    """A golden number: a change would silently redraw every user's model."""
    assert derived_seed(1, "dense/kernel") == 8107347020523411


@pytest.mark.parametrize("seed", [0, 1, -1, 2**80])
def test_derived_seed_fits_in_53_bits(seed):
    seeds = [derived_seed(seed, str(key)) for key in range(2000)]
    assert min(seeds) >= 0
    # Half of all seeds need every bit; that none of 2000 does has a chance of 2^-2000.
    assert 2**52 <= max(seeds) < 2**53


def test_derived_seeds_differ_by_seed_and_key():
    pairs = [(seed, key) for seed in (0, 1, 10, -1) for key in ("a", "b", "a/b", "", "1/a")]
    assert len({derived_seed(*pair) for pair in pairs}) == len(pairs)


# --- Whoever brings a distribution of their own ---


def test_fill_hands_out_flat_blocks_in_order():
    def number(source, out):
        out[:] = np.arange(out.size)

    filled = fill(number, (2, BLOCK), 0, threads=1)
    assert np.array_equal(filled, np.tile(np.arange(BLOCK, dtype=np.float32), (2, 1)))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_a_block_is_not_swallowed(threads):
    def fail(source, out):
        raise RuntimeError("a block failed")

    with pytest.raises(RuntimeError, match="a block failed"):
        fill(fail, (2 * BLOCK,), 0, threads=threads)


def test_available_threads_is_what_the_process_may_use():
    assert draws.available_threads() >= 1
