"""Hand-set spreads mean what they mean in Keras, so that a published recipe can be repeated."""

import inspect
import math

import keras
import numpy as np
import pytest

from keras_autoinit import RandomNormal, RandomUniform, SchemeError, TruncatedNormal

SHAPE = (400, 250)
NUMBER = 100_000
# Share of a normal within two standard deviations, and its density there.
WITHIN, DENSITY = math.erf(math.sqrt(2)), math.exp(-2) / math.sqrt(2 * math.pi)


def values(scheme, dtype="float32"):
    return scheme.array(SHAPE, dtype).astype(np.float64).ravel()


every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@every_dtype
@pytest.mark.parametrize(
    ("scheme", "mean", "spread"),
    [
        (RandomNormal(0.5, 0.1, seed=1), 0.5, 0.1),
        (TruncatedNormal(-0.5, 0.1, seed=2), -0.5, 0.1 * math.sqrt(1 - 4 * DENSITY / WITHIN)),
        (RandomUniform(-0.1, 0.5, seed=3), 0.2, 0.6 / math.sqrt(12)),
    ],
    ids=["normal", "truncated normal", "uniform"],
)
def test_the_mean_is_the_stated_one(scheme, mean, spread, dtype):
    # Five standard errors of a mean; rounding to float32 moves it by less than 2^-24 of its size.
    tolerance = 5 * spread / math.sqrt(NUMBER) + 2**-24
    assert abs(values(scheme, dtype).mean() - mean) < tolerance


@every_dtype
@pytest.mark.parametrize("bound", [0.5, 1.0, 1.5])
def test_truncated_numbers_have_the_shape_of_a_normal_within_two_spreads(bound, dtype):
    share = math.erf(bound / math.sqrt(2)) / WITHIN
    measured = np.mean(np.abs(values(TruncatedNormal(0.0, 0.1, seed=4), dtype)) < bound * 0.1)
    # Five standard errors of a share.
    assert abs(measured - share) < 5 * math.sqrt(share * (1 - share) / NUMBER)


@every_dtype
@pytest.mark.parametrize("bound", [0.5, 1.0, 2.0, 3.0])
def test_normal_numbers_have_the_shape_of_a_normal(bound, dtype):
    share = math.erf(bound / math.sqrt(2))
    measured = np.mean(np.abs(values(RandomNormal(0.0, 0.1, seed=5), dtype)) < bound * 0.1)
    assert abs(measured - share) < 5 * math.sqrt(share * (1 - share) / NUMBER)


@every_dtype
def test_no_truncated_number_lies_beyond_two_spreads(dtype):
    drawn = values(TruncatedNormal(0.5, 0.1, seed=6), dtype)
    # The bounds 0.3 and 0.7 are themselves rounded to float32.
    assert drawn.min() >= 0.3 - 2**-24
    assert drawn.max() <= 0.7 + 2**-24
    # The share of a normal in the outermost hundredth is 100,000 x 0.0011: far from none.
    assert drawn.max() > 0.698


@every_dtype
def test_uniform_numbers_fill_their_bounds_and_no_more(dtype):
    drawn = values(RandomUniform(-0.25, 0.5, seed=7), dtype)
    assert drawn.min() >= -0.25
    assert drawn.max() <= 0.5
    # Of 100,000 numbers none in the outer hundredth: e^-1000.
    assert drawn.min() < -0.2425
    assert drawn.max() > 0.4925


@pytest.mark.parametrize(
    ("scheme", "value"),
    [(RandomNormal(0.5, 0.0), 0.5), (TruncatedNormal(0.5, 0.0), 0.5), (RandomUniform(0.5, 0.5), 0.5)],
    ids=["normal", "truncated normal", "uniform"],
)
def test_no_spread_is_a_constant(scheme, value):
    assert (scheme.array((20, 30), "float32") == value).all()


@pytest.mark.parametrize("kind", [RandomNormal, TruncatedNormal, RandomUniform])
def test_arguments_are_those_of_the_stock_initializer(kind):
    stock = getattr(keras.initializers, kind.__name__)
    assert issubclass(kind, stock)
    assert list(inspect.signature(kind).parameters) == list(inspect.signature(stock).parameters)
    assert stock.from_config(kind(seed=3).get_config()).get_config() == kind(seed=3).get_config()
    assert kind().get_config() == stock().get_config()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomNormal(stddev=-0.1), ["stddev", "not to be negative", "-0.1"]),
        (lambda: TruncatedNormal(stddev=-0.1), ["stddev", "not to be negative", "-0.1"]),
        (lambda: RandomNormal(stddev=math.nan), ["stddev", "finite", "nan"]),
        (lambda: RandomNormal(mean=math.inf), ["mean", "finite", "inf"]),
        (lambda: TruncatedNormal(mean="0"), ["mean", "a number", "'0'"]),
        (lambda: RandomUniform(minval=-math.inf), ["minval", "finite", "-inf"]),
        (lambda: RandomUniform(maxval=None), ["maxval", "a number", "None"]),
        (lambda: RandomUniform(0.5, 0.25), ["minval", "at most", "maxval", "0.5", "0.25"]),
        (lambda: RandomNormal(seed="seven"), ["seed", "integer", "seven"]),
    ],
)
def test_an_argument_out_of_range_is_refused(make, words):
    with pytest.raises(SchemeError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)
