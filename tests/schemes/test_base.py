"""One battery of properties for every scheme, so that adding a scheme is adding a row.

Users meet schemes through Keras: as a string, in a configuration, in a saved file, in a copied
layer. Whatever way it takes, a scheme must come out equal and draw the same numbers.
"""

import copy
import inspect
import json
import math
import pickle
import random
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

import keras_autoinit
from keras_autoinit import (
    ICNR,
    AutoInitError,
    Axes,
    Constant,
    DeltaOrthogonal,
    Dirac,
    HeNormal,
    HeUniform,
    Identity,
    LecunNormal,
    LecunUniform,
    Mimetic,
    Mirrored,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    Recipe,
    SchemeError,
    Sinusoids,
    Sparse,
    TruncatedNormal,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    Zeros,
)
from keras_autoinit.schemes import REGISTRY, AxesScheme, make, with_axes
from keras_autoinit.schemes.base import kind_of

# Kurtosis E x^4 / (E x^2)^2 of what is drawn. Of a unit normal cut off at two, the second moment is
# 1 - 4 p and the fourth 3 (1 - 4 p) - 16 p, where p is its density at two over its mass within.
P = math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
TRUNCATED, NORMAL, UNIFORM = (3 * (1 - 4 * P) - 16 * P) / (1 - 4 * P) ** 2, 3.0, 1.8
# Nothing fluctuates: the sum of squares is fixed by the shape.
FIXED = 1.0


class Row(NamedTuple):
    """A scheme with arguments unlike its defaults, and what it should draw for a shape."""

    kind: type
    config: dict[str, Any]
    shape: tuple[int, ...]
    spread: float  # root of the second moment
    kurtosis: float
    drawn: int = 0  # how many of the numbers are independent; all when 0


ROWS = [
    Row(Zeros, {}, (30, 20), 0.0, FIXED),
    Row(Ones, {}, (30, 20), 1.0, FIXED),
    Row(Constant, {"value": 0.5}, (30, 20), 0.5, FIXED),
    Row(RandomNormal, {"stddev": 0.02}, (300, 200), 0.02, NORMAL),
    Row(TruncatedNormal, {"stddev": 0.1}, (300, 200), 0.1 * math.sqrt(1 - 4 * P), TRUNCATED),
    Row(RandomUniform, {"minval": -0.3, "maxval": 0.3}, (300, 200), 0.3 / math.sqrt(3), UNIFORM),
    Row(VarianceScaling, {"gain": 1.5, "mode": "fan_out"}, (300, 200), 1.5 / math.sqrt(200), TRUNCATED),
    Row(XavierNormal, {"gain": 2.0}, (300, 200), 2 * math.sqrt(2 / 500), TRUNCATED),
    Row(XavierUniform, {"blocks": 4}, (300, 200), math.sqrt(2 / 350), UNIFORM),
    Row(HeNormal, {"gain": 0.5, "fan_divisor": 4.0}, (300, 200), 0.5 * math.sqrt(2 / 75), TRUNCATED),
    Row(HeUniform, {"input_axes": [1], "output_axes": [0]}, (300, 200), math.sqrt(2 / 200), UNIFORM),
    Row(LecunNormal, {"distribution": "normal"}, (300, 200), math.sqrt(1 / 300), NORMAL),
    Row(LecunUniform, {"gain": "relu"}, (300, 200), math.sqrt(2 / 300), UNIFORM),
    Row(Orthogonal, {"gain": 1.5}, (60, 40), 1.5 / math.sqrt(60), FIXED),
    Row(DeltaOrthogonal, {"gain": 0.5}, (3, 3, 8, 8), 0.5 * math.sqrt(8 / 576), FIXED),
    Row(Identity, {"gain": 3.0}, (30, 20), 3 / math.sqrt(30), FIXED),
    Row(Dirac, {"groups": 2}, (3, 3, 4, 8), math.sqrt(8 / 288), FIXED),
    Row(Sparse, {"nonzeros": 10}, (300, 200), 1 / math.sqrt(300), NORMAL, 10 * 200),
    Row(ICNR, {"factor": 2, "gain": 0.5}, (3, 3, 20, 64), 0.5 * math.sqrt(2 / 180), TRUNCATED, 9 * 20 * 16),
    # The singular values of a square Gaussian matrix have the mean 8 / (3 pi), by the quarter-circle law.
    Row(Mimetic, {"role": "value", "alpha": 1.0, "beta": 0.0}, (60, 60), math.sqrt(8 / (3 * math.pi) / 60), NORMAL),
    Row(Sinusoids, {"scale": 0.5, "period": 100.0}, (30, 20), 0.5 / math.sqrt(2), FIXED),
    Row(Mirrored, {"pairs_in": 8, "pairs_out": 12}, (16, 24), 1 / math.sqrt(12), FIXED),
]
NAMES = [row.kind.names[0] for row in ROWS]
SEEDED = [row for row in ROWS if row.kind not in (Zeros, Ones, Constant, Identity, Dirac, Sinusoids)]
SEEDED_NAMES = [row.kind.names[0] for row in SEEDED]

every_scheme = pytest.mark.parametrize("row", ROWS, ids=NAMES)
every_seeded_scheme = pytest.mark.parametrize("row", SEEDED, ids=SEEDED_NAMES)


def scheme_of(row, seed=1):
    """Returns the row's scheme; the seed goes to those that take one."""
    return row.kind(**row.config, **({"seed": seed} if row in SEEDED else {}))


def drawn(scheme, shape, dtype="float32"):
    return np.asarray(keras.ops.convert_to_numpy(scheme(shape, dtype=dtype)))


def assert_same(one, other, shape):
    """Asserts that two schemes are equal in every way that can be seen."""
    assert type(one) is type(other)
    assert one == other
    np.testing.assert_array_equal(drawn(one, shape), drawn(other, shape))


def layer_of(row):
    """Returns a layer whose kernel has the row's shape, and the shape of its input."""
    scheme = scheme_of(row)
    if len(row.shape) == 2:
        return keras.layers.Dense(row.shape[1], kernel_initializer=scheme), (row.shape[0],)
    groups = row.config.get("groups", 1)
    layer = keras.layers.Conv2D(row.shape[3], row.shape[:2], groups=groups, kernel_initializer=scheme)
    return layer, (5, 5, row.shape[2] * groups)


def model_of(row):
    layer, shape = layer_of(row)
    return keras.Sequential([keras.Input(shape), layer])


def test_every_registered_scheme_has_a_row():
    assert {row.kind for row in ROWS} == set(REGISTRY.values())


@every_scheme
def test_survives_its_configuration(row):
    scheme = scheme_of(row)
    assert_same(row.kind.from_config(scheme.get_config()), scheme, row.shape)


@every_scheme
def test_configuration_holds_every_argument_as_json(row):
    config = scheme_of(row).get_config()
    assert set(config) == set(inspect.signature(row.kind).parameters)
    assert json.loads(json.dumps(config)) == config


@every_scheme
def test_survives_serialization(row):
    scheme = scheme_of(row)
    data = json.loads(json.dumps(keras.initializers.serialize(scheme)))
    assert_same(keras.initializers.deserialize(data), scheme, row.shape)
    assert_same(keras.initializers.get(data), scheme, row.shape)


@every_scheme
def test_survives_a_copy_and_a_pickle(row):
    scheme = scheme_of(row)
    assert_same(copy.deepcopy(scheme), scheme, row.shape)
    assert_same(pickle.loads(pickle.dumps(scheme)), scheme, row.shape)
    assert_same(scheme.clone(), scheme, row.shape)


@every_scheme
def test_printed_form_evaluates_to_an_equal_scheme(row):
    scheme = scheme_of(row)
    assert_same(eval(repr(scheme), dict(vars(keras_autoinit))), scheme, row.shape)


@every_scheme
def test_survives_its_recipe(row):
    scheme = scheme_of(row)
    assert_same(make(scheme.recipe), scheme, row.shape)


@every_scheme
def test_survives_a_saved_model(row, tmp_path):
    model = model_of(row)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].kernel_initializer == scheme_of(row)
    # A clone draws afresh from what the file said.
    fresh = keras.models.clone_model(loaded).layers[0].kernel
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(fresh), drawn(scheme_of(row), row.shape))


@every_scheme
def test_a_layer_draws_what_the_scheme_draws(row):
    layer, shape = layer_of(row)
    layer.build((None, *shape))
    assert tuple(layer.kernel.shape) == row.shape
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer.kernel), drawn(scheme_of(row), row.shape))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_name_resolves_where_keras_takes_one(name):
    layer = keras.layers.Dense(3, kernel_initializer=f"autoinit>{name}")
    assert type(layer.kernel_initializer) is REGISTRY[name]
    assert layer.kernel_initializer == REGISTRY[name]()


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_an_alias_is_saved_under_the_first_name(name):
    scheme = keras.initializers.get(f"autoinit>{name}")
    assert keras.initializers.serialize(scheme)["registered_name"] == f"autoinit>{scheme.names[0]}"


@every_scheme
def test_draws_a_tensor_of_the_shape(row):
    tensor = scheme_of(row)(row.shape)
    assert keras.ops.is_tensor(tensor)
    assert tuple(tensor.shape) == row.shape
    assert keras.backend.standardize_dtype(tensor.dtype) == keras.config.floatx()


@every_scheme
def test_takes_the_shape_as_a_list(row):
    np.testing.assert_array_equal(drawn(scheme_of(row), list(row.shape)), drawn(scheme_of(row), row.shape))


@every_scheme
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_the_rounded_single_precision(row, dtype):
    half = scheme_of(row)(row.shape, dtype=dtype)
    assert keras.backend.standardize_dtype(half.dtype) == dtype
    rounded = keras.ops.cast(scheme_of(row)(row.shape, dtype="float32"), dtype)
    as_array = [keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")) for tensor in (half, rounded)]
    np.testing.assert_array_equal(*as_array)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.kurtosis != FIXED or row.kind in (Orthogonal, DeltaOrthogonal, Mirrored)],
    ids=lambda row: row.kind.names[0],
)
def test_double_precision_is_more_than_rounded_single_precision(row):
    values = scheme_of(row).array(row.shape, "float64")
    assert values.dtype == np.float64
    assert (values != values.astype(np.float32)).any()


def test_double_precision_reaches_the_backend():
    if keras.config.backend() == "jax":
        pytest.skip("JAX holds double precision only when jax_enable_x64 is set.")
    scheme = HeNormal(seed=1)
    np.testing.assert_array_equal(drawn(scheme, (30, 20), "float64"), scheme.array((30, 20), "float64"))


@every_scheme
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_spread_is_the_stated_one(row, dtype):
    values = scheme_of(row).array(row.shape, dtype).astype(np.float64)
    second_moment = np.mean(values**2)
    # The mean of n squares of variance (kurtosis - 1) spread^4 has this standard error; five of
    # them. Rounding to float32 and the quantile function of the truncated normal add less than
    # 1e-6 of a value, hence 2e-6 of its square.
    error = math.sqrt((row.kurtosis - 1) / (row.drawn or values.size))
    assert abs(second_moment - row.spread**2) <= (5 * error + 2e-6) * row.spread**2


@every_scheme
def test_any_part_is_that_slice_of_the_whole(row):
    scheme, words = scheme_of(row), 7
    part = tuple(slice(length // 3, length // 3 * 2 + 1) for length in row.shape)
    whole = scheme.draw(row.shape, words)
    np.testing.assert_array_equal(scheme.draw(row.shape, words, part=part), whole[part])


@every_seeded_scheme
def test_equal_seeds_draw_equal_numbers(row):
    np.testing.assert_array_equal(drawn(scheme_of(row, 1), row.shape), drawn(scheme_of(row, 1), row.shape))


@every_seeded_scheme
def test_one_instance_repeats_itself(row):
    scheme = scheme_of(row, None)
    np.testing.assert_array_equal(drawn(scheme, row.shape), drawn(scheme, row.shape))


@every_seeded_scheme
@pytest.mark.parametrize("other", [2, None, 2**31, 2**53 - 1])
def test_different_seeds_draw_different_numbers(row, other):
    assert (drawn(scheme_of(row, 1), row.shape) != drawn(scheme_of(row, other), row.shape)).any()


@every_seeded_scheme
def test_a_seed_generator_advances_with_every_draw(row):
    scheme = scheme_of(row, keras.random.SeedGenerator(5))
    first, second = drawn(scheme, row.shape), drawn(scheme, row.shape)
    assert (first != second).any()
    again = row.kind.from_config(scheme_of(row, keras.random.SeedGenerator(5)).get_config())
    np.testing.assert_array_equal(drawn(again, row.shape), first)
    np.testing.assert_array_equal(drawn(again, row.shape), second)


@every_scheme
def test_drawing_reads_and_writes_no_global_random_state(row):
    scheme = scheme_of(row)
    random.seed(1)
    np.random.seed(1)
    keras.utils.set_random_seed(1)
    before = drawn(scheme, row.shape)
    states = random.getstate(), np.random.get_state()[1].tolist()
    after = drawn(scheme, row.shape)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    "scheme",
    [ICNR(HeNormal(), seed=1), ICNR(HeNormal(), transposed=True, seed=1), Mirrored(HeNormal(), seed=1)],
    ids=["icnr", "icnr transposed", "mirrored"],
)
def test_a_base_without_a_seed_reads_no_global_random_state(scheme):
    state = random.getstate()
    scheme((4, 4, 4, 4))
    assert random.getstate() == state


@every_scheme
def test_equality_and_hash_follow_the_configuration(row):
    one, same = scheme_of(row), scheme_of(row)
    assert one == same
    assert len({one, same}) == 1


@pytest.mark.parametrize(("one", "other"), list(zip(ROWS, ROWS[1:] + ROWS[:1])), ids=NAMES)
def test_schemes_of_different_kinds_are_unequal(one, other):
    assert scheme_of(one) != scheme_of(other)


@every_seeded_scheme
def test_schemes_with_different_seeds_are_unequal(row):
    assert scheme_of(row, 1) != scheme_of(row, 2)


@pytest.mark.parametrize("row", [row for row in ROWS if row.config], ids=lambda row: row.kind.names[0])
def test_schemes_with_different_arguments_are_unequal(row):
    default = row.kind(**({"seed": 1} if row in SEEDED else {}))
    assert scheme_of(row) != default


def test_a_scheme_is_not_equal_to_what_is_no_scheme():
    assert HeNormal(seed=1) != "autoinit>he_normal"
    assert HeNormal(seed=1) != keras.initializers.HeNormal(seed=1)


def test_printed_form_shows_what_differs_from_the_defaults():
    assert repr(HeNormal()) == "HeNormal()"
    assert repr(HeNormal(gain=0.5, seed=3)) == "HeNormal(gain=0.5, seed=3)"


# Before 3.15, Keras hands no axes over.
keras_hands_axes_over = pytest.mark.skipif(
    "input_axes" not in inspect.signature(keras.initializers.VarianceScaling).parameters,
    reason="This Keras hands no axes to initializers.",
)
EINSUM_ROWS = [
    row for row in ROWS if issubclass(row.kind, AxesScheme) and row.kind not in (DeltaOrthogonal, Dirac, ICNR)
]


@keras_hands_axes_over
@pytest.mark.parametrize("row", EINSUM_ROWS, ids=lambda row: row.kind.names[0])
def test_einsum_dense_hands_its_axes_to_every_scheme_that_needs_them(row):
    config = {key: value for key, value in row.config.items() if not key.endswith("_axes")}
    scheme = row.kind(**config, **({"seed": 1} if row in SEEDED else {}))
    layer = keras.layers.EinsumDense("abc,cde->abde", output_shape=(None, 6, 8), kernel_initializer=scheme)
    layer.build((None, 5, 16))
    stated = row.kind.from_config({**scheme.get_config(), "input_axes": [0], "output_axes": [1, 2]})
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer.kernel), drawn(stated, (16, 6, 8)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"input_axes": [0]}, ["together", "input_axes=[0]", "output_axes=None"]),
        ({"output_axes": [1]}, ["together", "input_axes=None", "output_axes=[1]"]),
        ({"input_axes": "a", "output_axes": [1]}, ["input_axes", "list of integers", "'a'"]),
        ({"input_axes": [0.5], "output_axes": [1]}, ["input_axes", "list of integers", "0.5"]),
        ({"input_axes": 0, "output_axes": 1}, ["input_axes", "list of integers", "0"]),
        ({"fan_divisor": 0}, ["fan_divisor", "positive", "0"]),
        ({"fan_divisor": math.inf}, ["fan_divisor", "finite", "inf"]),
        ({"fan_divisor": "2"}, ["fan_divisor", "a number", "'2'"]),
        ({"blocks": 0}, ["blocks", "1 or more", "0"]),
        ({"blocks": 1.5}, ["blocks", "integer", "1.5"]),
        ({"blocks": True}, ["blocks", "integer", "True"]),
        ({"seed": "seven"}, ["seed", "integer", "SeedGenerator", "seven"]),
    ],
)
@pytest.mark.parametrize("kind", [HeNormal, Orthogonal, Mirrored])
def test_an_argument_out_of_range_is_refused(kind, arguments, words):
    with pytest.raises(SchemeError) as caught:
        kind(**arguments)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("kind", [HeNormal, Orthogonal, Sparse, Mirrored])
@pytest.mark.parametrize(
    ("arguments", "shape", "words"),
    [
        ({"input_axes": [2], "output_axes": [1]}, (20, 30), ["(2,)", "(20, 30)", "leave", "axes"]),
        ({"input_axes": [0], "output_axes": [-3]}, (20, 30), ["(-3,)", "(20, 30)", "leave", "axes"]),
        ({"blocks": 4}, (20, 30), ["4 blocks", "(20, 30)"]),
    ],
    ids=["input axis", "output axis", "blocks"],
)
def test_a_shape_that_the_arguments_do_not_fit_is_refused(kind, arguments, shape, words):
    with pytest.raises(SchemeError) as caught:
        kind(**arguments, seed=1)(shape)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("kind", [Orthogonal, Sparse, Mirrored])
def test_outputs_that_are_not_the_last_axis_must_hold_the_blocks_too(kind):
    scheme = kind(blocks=3, input_axes=[0, 1, 3], output_axes=[0, 1, 2], seed=1)
    with pytest.raises(SchemeError, match="3 blocks"):
        scheme((3, 3, 20, 30))


@pytest.mark.parametrize("axes", [([0, 0], [1]), ([0, -2], [1]), ([0], [1, -1])])
@pytest.mark.parametrize("kind", [HeNormal, Orthogonal, Mirrored])
def test_an_axis_named_twice_is_refused(kind, axes):
    with pytest.raises(SchemeError):
        kind(input_axes=axes[0], output_axes=axes[1], seed=1)((20, 30))


def test_scheme_errors_are_caught_by_who_does_not_know_this_package():
    assert issubclass(SchemeError, AutoInitError)
    assert issubclass(SchemeError, ValueError)


@pytest.mark.parametrize("name", ["autoinit>he_normal", "autoinit>he", "HeNormal", "he_normal"])
def test_a_recipe_is_made_with_the_seed_of_its_weight(name):
    scheme = make(Recipe(name), seed=5)
    assert scheme.get_config()["seed"] == 5


def test_the_seed_that_a_recipe_names_stands():
    assert make(Recipe("autoinit>he_normal", {"seed": 3}), seed=5).seed == 3


def test_stock_initializers_get_seeds_of_32_bits():
    seed = make(Recipe("HeNormal"), seed=2**52 + 17).seed
    assert seed == 17
    assert make(Recipe("autoinit>he_normal"), seed=2**52 + 17).seed == 2**52 + 17


def test_a_recipe_makes_a_fresh_instance_each_time():
    assert make(Recipe("autoinit>he_normal"), 1) is not make(Recipe("autoinit>he_normal"), 1)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe("autoinit>he_norml"), ["autoinit>he_norml", "Did you mean", "autoinit>he_normal"]),
        (Recipe("no such thing"), ["no such thing"]),
        (Recipe("autoinit>he_normal", {"gian": 2.0}), ["autoinit>he_normal", "gian"]),
        (Recipe("autoinit>he_normal", {"gain": -2.0}), ["gain", "not negative", "-2.0"]),
        (Recipe("autoinit>he_normal", {"gain": "rleu"}), ["'rleu'", "relu"]),
    ],
)
def test_a_recipe_that_cannot_be_made_says_why(recipe, words):
    with pytest.raises(SchemeError) as caught:
        make(recipe, seed=1)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("autoinit>he", HeNormal),
        ("autoinit>nothing", None),
        ("GlorotUniform", keras.initializers.GlorotUniform),
        ("nothing", None),
        # A name of `keras.initializers` that is no class.
        ("serialize", None),
    ],
)
def test_the_class_behind_a_recipe_is_found(name, kind):
    assert kind_of(Recipe(name)) is kind


AXES = Axes((0, 1, 2), (0, 1, 3), blocks=4, divisor=2.0)


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("he_normal", {"input_axes", "output_axes", "blocks", "fan_divisor"}),
        ("orthogonal", {"input_axes", "output_axes", "blocks", "fan_divisor"}),
        ("identity", {"input_axes", "output_axes", "blocks"}),
        ("dirac", {"input_axes", "output_axes", "groups"}),
        ("icnr", {"input_axes", "output_axes", "fan_divisor"}),
        ("zeros", set()),
        ("random_normal", set()),
    ],
)
def test_a_recipe_gets_the_axes_that_its_scheme_takes(name, added):
    recipe = with_axes(Recipe(f"autoinit>{name}"), AXES)
    assert set(recipe.config) == added
    make(recipe)


def test_a_recipe_gets_no_axes_where_nobody_knows_them():
    recipe = Recipe("autoinit>he_normal")
    assert with_axes(recipe, None) == recipe
    assert with_axes(Recipe("nothing"), AXES) == Recipe("nothing")


def test_what_a_recipe_says_itself_stands():
    recipe = with_axes(Recipe("autoinit>he_normal", {"blocks": 1, "gain": 2.0}), AXES)
    assert recipe.config["blocks"] == 1
    assert recipe.config["gain"] == 2.0
    assert recipe.config["fan_divisor"] == 2.0
