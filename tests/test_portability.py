"""A portable file promises twice: the same weights, and a fresh draw of the right size from stock Keras.

The right size is stated here from the papers and from fans counted by hand (`models.KINDS`), not from the
package. A row whose stock initializer draws from another distribution must say so.
"""

import functools
import inspect
import math

import keras
import numpy as np
import pytest
from models import KINDS, everything, initializers, values, weights

from keras_autoinit import AutoInit, Recipe, Table

# What each family's variance is, of the fans.
VARIANCES = {
    "autoinit>he_normal": lambda fan_in, fan_out: 2 / fan_in,
    "autoinit>he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "autoinit>lecun_normal": lambda fan_in, fan_out: 1 / fan_in,
    "autoinit>lecun_uniform": lambda fan_in, fan_out: 1 / fan_in,
    "autoinit>xavier_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "autoinit>xavier_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
}
BY_FAN_IN = [family for family in VARIANCES if "xavier" not in family]

# Every role that a weight of `KINDS` has.
ROLES = ("kernel", "depthwise", "pointwise", "embeddings", "input", "recurrent")

BLOCKED_OR_STRIDED = (
    *("grouped", "transposed", "lstm", "gru", "bidirectional"),
    *("conv_lstm_1d", "conv_lstm_2d", "conv_lstm_3d"),
)
AXES_OF_THEIR_OWN = ("depthwise", "separable", "transposed", "einsum", "embedding")


def applied(model, recipe, portable=True):
    AutoInit(Table(dict.fromkeys(ROLES, recipe)), seed=1, portable=portable).apply(model)
    return model


@functools.cache
def drawn(kind, recipe):
    """The weights of a built kind of layer by name, each with a fresh draw from the initializer left with it."""
    model = applied(KINDS[kind].model(built=True), recipe)
    found = [(path, values([variable])[0]) for path, variable in weights(model).items()]
    return [(by_name(path), array, drawn_afresh(initializers(model)[path], array.shape)) for path, array in found]


def drawn_afresh(initializer, shape):
    """A draw with a seed of its own, where the initializer takes one."""
    config = initializer.get_config()
    fresh = type(initializer).from_config({**config, "seed": 99} if "seed" in config else config)
    return np.asarray(keras.ops.convert_to_numpy(fresh(shape)))


def by_name(path):
    return path.rpartition("/")[2]


def five_errors(array):
    """Five standard errors of a spread, relative to it.

    That of n independent numbers without longer tails than a normal's is known to 1 / sqrt(2 n) of itself.
    """
    return 5 / math.sqrt(2 * array.size)


def spread(kind, family, weight):
    return math.sqrt(VARIANCES[family](*KINDS[kind].fans[weight]))


@pytest.mark.parametrize("family", VARIANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_stored_initializer_has_the_spread_of_the_scheme(kind, family):
    for weight, _, again in drawn(kind, family):
        assert np.std(again) == pytest.approx(spread(kind, family, weight), rel=five_errors(again))


@pytest.mark.parametrize("family", VARIANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_stored_initializer_draws_from_the_distribution_of_the_scheme(kind, family):
    assert all(distance(array, again) < 1 for _, array, again in drawn(kind, family))


def distance(one, other):
    """Kolmogorov and Smirnov's distance between two samples of one size, over its critical value at 1e-6.

    That value is sqrt(-log(1e-6 / 2) / 2) * sqrt(2 / n).
    """
    one, other = np.sort(one.ravel()), np.sort(other.ravel())
    grid = np.concatenate([one, other])
    gap = np.max(np.abs(np.searchsorted(one, grid, "right") - np.searchsorted(other, grid, "right")))
    return gap / one.size / math.sqrt(-math.log(1e-6 / 2) / one.size)


# What stock Keras has words for while the shape is not known. It counts all blocks as outputs and knows no strides,
# so not for `2 / (fan_in + fan_out)` of these; and before 3.15 it counts no axes but its own.
HAS_AXES = "input_axes" in inspect.signature(keras.initializers.VarianceScaling).parameters
SAYABLE = [
    (kind, family)
    for kind in KINDS
    for family in VARIANCES
    if (family in BY_FAN_IN or kind not in BLOCKED_OR_STRIDED) and (HAS_AXES or kind not in AXES_OF_THEIR_OWN)
]
UNSAYABLE = [(kind, family) for kind in KINDS for family in VARIANCES if (kind, family) not in SAYABLE]


@pytest.mark.parametrize(("kind", "family"), SAYABLE)
def test_an_unbuilt_layer_draws_with_the_spread_of_the_scheme(kind, family):
    model = applied(KINDS[kind].model(built=False), family)
    model.build((None, *KINDS[kind].shape))
    for path, variable in weights(model).items():
        (array,) = values([variable])
        assert np.std(array) == pytest.approx(spread(kind, family, by_name(path)), rel=five_errors(array))


@pytest.mark.parametrize("kind", ["lstm", "gru", "simple_rnn", "bidirectional"])
def test_an_unbuilt_recurrent_kernel_draws_with_the_spread_of_orthogonal_gates(kind):
    model = applied(KINDS[kind].model(built=False), "autoinit>orthogonal")
    model.build((None, *KINDS[kind].shape))
    units = KINDS[kind].fans["recurrent_kernel"][0]
    for path, variable in weights(model).items():
        if by_name(path) == "recurrent_kernel":
            # A column of a square orthogonal matrix has length one: exact but for rounding.
            assert root_mean_square(*values([variable])) == pytest.approx(1 / math.sqrt(units), rel=1e-5)


# Schemes whose matrices no independent numbers can make, and the root mean square of the weights they serve.
ORTHOGONAL = Recipe("autoinit>orthogonal")
MATRICES = {
    # The longer side of each matrix, of which the taps are inputs.
    ("dense", ORTHOGONAL): {"kernel": 1 / math.sqrt(128)},
    ("convolution", ORTHOGONAL): {"kernel": 1 / math.sqrt(9 * 32)},
    ("grouped", ORTHOGONAL): {"kernel": 1 / math.sqrt(9 * 8)},
    ("depthwise", ORTHOGONAL): {"kernel": 1 / math.sqrt(25)},
    ("einsum", ORTHOGONAL): {"kernel": 1 / math.sqrt(96)},
    ("lstm", ORTHOGONAL): {"kernel": 1 / math.sqrt(64), "recurrent_kernel": 1 / math.sqrt(48)},
    ("gru", ORTHOGONAL): {"kernel": 1 / math.sqrt(64), "recurrent_kernel": 1 / math.sqrt(48)},
    ("simple_rnn", ORTHOGONAL): {"kernel": 1 / math.sqrt(96), "recurrent_kernel": 1 / math.sqrt(96)},
    # A quarter of the taps reach an output: twice the length makes up.
    ("transposed", ORTHOGONAL): {"kernel": 2 / math.sqrt(16 * 24)},
    # One tap of nine holds a matrix.
    ("convolution", Recipe("autoinit>delta_orthogonal")): {"kernel": 1 / math.sqrt(9 * 48)},
    # 32 ones, and 96.
    ("convolution", Recipe("autoinit>dirac")): {"kernel": math.sqrt(32 / (9 * 32 * 48))},
    ("dense", Recipe("autoinit>identity")): {"kernel": math.sqrt(96 / (96 * 128))},
    # He's variance, each number four times; LeCun's, 15 numbers for each unit.
    ("convolution", Recipe("autoinit>icnr")): {"kernel": math.sqrt(2 / (9 * 32))},
    ("convolution", Recipe("autoinit>sparse")): {"kernel": 1 / math.sqrt(9 * 32)},
    ("dense", Recipe("autoinit>sparse")): {"kernel": 1 / math.sqrt(128)},
    # An orthogonal matrix of 64 by 48, four times.
    ("dense", Recipe("autoinit>mirrored", {"pairs_in": 128, "pairs_out": 96})): {"kernel": 1 / math.sqrt(64)},
}
# One orthogonal matrix is what stock Keras draws too, which takes all axes but the last for inputs.
EXACT = [("dense", ORTHOGONAL), ("convolution", ORTHOGONAL), ("simple_rnn", ORTHOGONAL)]
CASES = pytest.mark.parametrize(
    ("kind", "recipe"), MATRICES, ids=[f"{kind}-{recipe.name.removeprefix('autoinit>')}" for kind, recipe in MATRICES]
)


def root_mean_square(array):
    return math.sqrt(float(np.mean(np.square(array))))


def five_errors_of(recipe, array):
    """Five standard errors of a spread, relative to it, where not all numbers are independent."""
    shares = {"autoinit>icnr": 1 / 4, "autoinit>sparse": np.count_nonzero(array) / array.size}
    return five_errors(array) / math.sqrt(shares.get(recipe.name, 1))


@CASES
def test_a_matrix_scheme_has_the_spread_that_is_expected_here(kind, recipe):
    # Guards the numbers above.
    for weight, array, _ in drawn(kind, recipe):
        expected = MATRICES[kind, recipe][weight]
        assert root_mean_square(array) == pytest.approx(expected, rel=five_errors_of(recipe, array))


@CASES
def test_a_matrix_scheme_leaves_an_initializer_of_its_spread(kind, recipe):
    # Keeps what the row says: "a fresh draw from the stored ... would only be of their size". That size may have
    # been measured on one draw, so two draws are compared.
    for weight, array, again in drawn(kind, recipe):
        errors = math.hypot(five_errors_of(recipe, array), five_errors(again))
        assert root_mean_square(again) == pytest.approx(MATRICES[kind, recipe][weight], rel=errors)


@CASES
def test_a_row_says_whether_a_fresh_draw_would_be_of_the_same_kind(kind, recipe):
    plan = AutoInit(Table(dict.fromkeys(ROLES, recipe)), portable=True).plan(KINDS[kind].model(built=True))
    # A GRU's bias has two axes, and so a row of its own.
    assert {says_inexact(row) for row in plan if row.role != "bias"} == {(kind, recipe) not in EXACT}


def says_inexact(row):
    return "a fresh draw from the stored" in row.reason


@pytest.mark.parametrize("family", VARIANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_independent_numbers_is_exact(kind, family):
    plan = AutoInit(Table(dict.fromkeys(ROLES, family)), portable=True).plan(KINDS[kind].model(built=True))
    assert not any(map(says_inexact, plan))


@pytest.mark.parametrize(("kind", "family"), UNSAYABLE)
def test_a_row_of_an_unbuilt_layer_says_what_stock_keras_cannot(kind, family):
    plan = AutoInit(Table(dict.fromkeys(ROLES, family)), portable=True).plan(KINDS[kind].model(built=False))
    # The pointwise kernel has the axes that Keras assumes.
    assert all(says_inexact(row) for row in plan if row.role != "pointwise")


@pytest.mark.skipif(not HAS_AXES, reason="before 3.15 a row may say so too often")
@pytest.mark.parametrize(("kind", "family"), SAYABLE)
def test_a_row_of_an_unbuilt_layer_is_exact_where_stock_keras_has_words(kind, family):
    plan = AutoInit(Table(dict.fromkeys(ROLES, family)), portable=True).plan(KINDS[kind].model(built=False))
    assert not any(map(says_inexact, plan))


@pytest.mark.parametrize(
    ("scheme", "stock"),
    [
        ("autoinit>zeros", "Zeros"),
        ("autoinit>ones", "Ones"),
        (keras.initializers.get({"class_name": "autoinit>constant", "config": {"value": 0.25}}), "Constant"),
        (keras.initializers.get({"class_name": "autoinit>random_normal", "config": {"stddev": 0.25}}), "RandomNormal"),
        ("autoinit>random_uniform", "RandomUniform"),
        ("autoinit>truncated_normal", "TruncatedNormal"),
    ],
)
def test_a_scheme_with_numbers_of_its_own_keeps_them(scheme, stock):
    model = applied(KINDS["dense"].model(built=True), scheme)
    (variable,), (initializer,) = weights(model).values(), initializers(model).values()
    assert type(initializer) is getattr(keras.initializers, stock)
    assert distance(values([variable])[0], drawn_afresh(initializer, variable.shape)) < 1


@pytest.mark.parametrize("family", ["autoinit>he_normal", "autoinit>xavier_uniform"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_scheme(kind, family):
    plain, stock = (applied(KINDS[kind].model(built=True), family, portable) for portable in (False, True))
    # Not those that are no part of the plan: spectral normalization draws a vector by chance.
    assert all(map(np.array_equal, values(weights(plain).values()), values(weights(stock).values())))


def test_weights_of_a_whole_model_are_those_of_the_schemes():
    plain, stock = everything(), everything()
    AutoInit(seed=1).apply(plain)
    AutoInit(seed=1, portable=True).apply(stock)
    assert all(map(np.array_equal, values(plain.weights), values(stock.weights)))


def test_every_initializer_of_a_whole_model_is_stock():
    model = everything()
    AutoInit(seed=1, portable=True).apply(model)
    assert {type(each).__module__.partition(".")[0] for each in initializers(model).values()} == {"keras"}


def test_stored_numbers_are_plain():
    # A gain's name or an array would not survive a file that only stock Keras reads.
    plan = AutoInit(portable=True).plan(everything())
    found = [value for row in plan.changes for value in row.stored.config.values()]
    assert found
    assert {type(value) for value in found} <= {float, int, str, list, type(None)}
    assert not any("gelu" in str(value) for value in found)


def test_a_kept_weight_stores_nothing():
    plan = AutoInit(portable=True, exclude="head").plan(everything())
    assert plan["head/kernel"].stored is None


def test_a_stock_initializer_is_left_as_it_is():
    plan = AutoInit(Table({"kernel": "he_uniform"}), portable=True).plan(KINDS["dense"].model(built=True))
    assert [row.stored for row in plan] == [None]
