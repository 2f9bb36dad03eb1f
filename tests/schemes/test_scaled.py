"""Fan-scaled schemes have the variance that the papers state, for every shape and role of a weight."""

import math

import keras
import numpy as np
import pytest

from keras_autoinit import (
    ActivationError,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    SchemeError,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
)
from keras_autoinit.draws import TRUNCATED_STD

NAMED = [XavierNormal, XavierUniform, HeNormal, HeUniform, LecunNormal, LecunUniform]

DENSE = {"input_axes": [0], "output_axes": [1]}
GATES = {**DENSE, "blocks": 4}
GROUPS = {"blocks": 2}
DEPTHWISE = {"input_axes": [0, 1], "output_axes": [0, 1, 3]}
TRANSPOSED = {"input_axes": [0, 1, 3], "output_axes": [0, 1, 2], "fan_divisor": 4.0}
EINSUM = {"input_axes": [0, 1], "output_axes": [2]}
LOOK_UP = {"input_axes": [], "output_axes": [1]}


@pytest.mark.parametrize(
    ("shape", "config", "fan_in", "fan_out"),
    [
        ((100, 50), {}, 100, 50),
        ((100, 50), DENSE, 100, 50),
        ((100, 50), {"input_axes": [-2], "output_axes": [-1]}, 100, 50),
        ((100, 200), GATES, 100, 50),
        ((5, 16, 32), {}, 80, 160),
        ((3, 3, 16, 32), {}, 144, 288),
        ((3, 3, 3, 16, 32), {}, 432, 864),
        ((3, 3, 16, 32), GROUPS, 144, 144),
        ((3, 3, 64, 2), DEPTHWISE, 9, 18),
        ((4, 4, 64, 128), TRANSPOSED, 512, 1024),
        ((8, 16, 32), EINSUM, 128, 32),
        ((1000, 64), LOOK_UP, 1, 64),
        ((7,), {}, 7, 7),
        ((), {}, 1, 1),
    ],
)
def test_the_variance_is_that_of_the_formula(shape, config, fan_in, fan_out):
    formulas = {
        XavierNormal: 2 / (fan_in + fan_out),
        XavierUniform: 2 / (fan_in + fan_out),
        HeNormal: 2 / fan_in,
        HeUniform: 2 / fan_in,
        LecunNormal: 1 / fan_in,
        LecunUniform: 1 / fan_in,
    }
    stated = {kind: kind(**config).variance(shape) for kind in formulas}
    assert stated == pytest.approx(formulas, rel=1e-12)


@pytest.mark.parametrize(("mode", "terms"), [("fan_in", 100), ("fan_out", 50), ("fan_avg", 75)])
def test_the_mode_chooses_the_fan(mode, terms):
    assert VarianceScaling(mode=mode).variance((100, 50)) == pytest.approx(1 / terms, rel=1e-12)


@pytest.mark.parametrize("kind", [*NAMED, VarianceScaling])
def test_the_gain_multiplies_the_standard_deviation(kind):
    plain = kind(seed=1).array((40, 30), "float64")
    # Multiplying the spread by a power of two is exact, whatever is drawn.
    np.testing.assert_array_equal(kind(gain=4.0, seed=1).array((40, 30), "float64"), 4 * plain)


# 1 / sqrt(E f(z)^2) for a unit normal z: closed forms, and adaptive quadrature for the last three.
GAINS = {"linear": 1.0, "relu": math.sqrt(2), "gelu": 1.5335304, "silu": 1.6765325, "tanh": 1.5925374}


@pytest.mark.parametrize("name", GAINS)
def test_a_gain_by_name_is_that_of_the_activation(name):
    # The table's numbers are rounded to eight digits.
    assert LecunNormal(gain=name).variance((100, 50)) == pytest.approx(GAINS[name] ** 2 / 100, rel=1e-7)


def test_lecun_with_the_gain_of_relu_is_he():
    assert LecunNormal(gain="relu").variance((100, 50)) == pytest.approx(HeNormal().variance((100, 50)), rel=1e-12)


def test_a_gain_by_name_stays_a_name_in_the_configuration():
    assert LecunNormal(gain="gelu").get_config()["gain"] == "gelu"


def test_a_gain_of_zero_draws_zeros():
    assert not HeNormal(gain=0.0, seed=1).array((4, 4), "float32").any()


@pytest.mark.parametrize(("filters", "published"), [(64, 0.059), (128, 0.042), (256, 0.029), (512, 0.021)])
def test_he_draws_the_spreads_that_the_paper_prints(filters, published):
    # VGG-B, section 2.2 of He et al. 2015; printed to three digits.
    assert math.sqrt(HeNormal().variance((3, 3, filters, filters))) == pytest.approx(published, abs=0.0005)


@pytest.mark.parametrize("kind", NAMED)
def test_whoever_reads_the_attributes_of_the_stock_class_finds_the_same(kind):
    ours, stock = kind(), getattr(keras.initializers, kind.__name__.replace("Xavier", "Glorot"))()
    assert (ours.scale, ours.mode, ours.distribution) == (stock.scale, stock.mode, stock.distribution)


@pytest.mark.parametrize("kind", [XavierUniform, HeUniform, LecunUniform])
def test_uniform_numbers_keep_within_the_limit(kind):
    limit = math.sqrt(3 * kind().variance((300, 200)))
    drawn = np.abs(kind(seed=1).array((300, 200), "float64"))
    # Of 60,000 numbers none in the outer thousandth: e^-60.
    assert 0.999 * limit < drawn.max() <= limit


@pytest.mark.parametrize("kind", [XavierNormal, HeNormal, LecunNormal, VarianceScaling])
def test_truncated_numbers_keep_within_two_spreads_of_the_normal(kind):
    bound = 2 * math.sqrt(kind().variance((300, 200))) / TRUNCATED_STD
    drawn = np.abs(kind(seed=1).array((300, 200), "float64"))
    # The share of a normal in the outer hundredth is 0.0022: of 60,000 numbers, 130.
    assert 0.99 * bound < drawn.max() <= bound


@pytest.mark.parametrize("kind", [XavierNormal, HeNormal, LecunNormal, VarianceScaling])
def test_normal_means_normal_and_not_truncated(kind):
    bound = 2 * math.sqrt(kind().variance((300, 200))) / TRUNCATED_STD
    drawn = np.abs(kind(distribution="normal", seed=1).array((300, 200), "float64"))
    # The bound is 2.27 spreads, beyond which a normal has this share; five standard errors.
    share = math.erfc(2 / TRUNCATED_STD / math.sqrt(2))
    assert abs(np.mean(drawn > bound) - share) < 5 * math.sqrt(share / drawn.size)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (3, 3, 0, 4)])
def test_an_empty_weight_is_drawn(shape):
    assert HeNormal(seed=1).array(shape, "float32").shape == shape


@pytest.mark.parametrize("kind", [*NAMED, VarianceScaling])
def test_the_documentation_is_complete(kind):
    text = kind.__doc__
    assert "{" not in text
    assert all(f"{name}: " in text for name in kind.__init__.__annotations__ if name != "return")


@pytest.mark.parametrize("kind", [*NAMED, VarianceScaling])
@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (math.nan, ["finite", "nan"]),
        (math.inf, ["finite", "inf"]),
        (-0.5, ["not negative", "-0.5"]),
        (None, ["a number or the name of an activation", "None"]),
        (True, ["a number or the name of an activation", "True"]),
        ([1.0], ["a number or the name of an activation", "[1.0]"]),
    ],
)
def test_a_gain_out_of_range_is_refused(kind, gain, words):
    with pytest.raises(SchemeError) as caught:
        kind(gain=gain)
    assert all(word in str(caught.value) for word in ["Expected `gain`", "Received", *words])


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ("rleu", ["'rleu'", "Known names", "relu", "registered"]),
        ("softmax", ["softmax", "mixes units", "a number"]),
    ],
)
def test_a_name_without_a_gain_is_refused(gain, words):
    with pytest.raises(ActivationError) as caught:
        HeNormal(gain=gain)
    assert isinstance(caught.value, ValueError)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VarianceScaling(mode="fan"), ["mode", "'fan_avg', 'fan_in', 'fan_out'", "'fan'"]),
        (lambda: VarianceScaling(mode=None), ["mode", "'fan_avg', 'fan_in', 'fan_out'", "None"]),
        (
            lambda: VarianceScaling(distribution="untruncated_normal"),
            ["distribution", "'normal', 'truncated_normal', 'uniform'", "'untruncated_normal'"],
        ),
        (lambda: HeNormal(distribution="uniform"), ["distribution", "'normal', 'truncated_normal'", "'uniform'"]),
    ],
)
def test_a_word_that_nobody_knows_is_refused_with_those_that_are_known(make, words):
    with pytest.raises(SchemeError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)
