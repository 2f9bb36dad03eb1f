"""The table is what users trust: no row may be missing, name what does not exist, or claim what is not so."""

import keras
import numpy as np
import pytest

from keras_autoinit import Recipe, activation
from keras_autoinit.functions import ALIASES, FUNCTIONS
from keras_autoinit.recommendations import ACTIVATIONS, KEPT, ROLES, UNKNOWN
from keras_autoinit.schemes import REGISTRY, make
from keras_autoinit.schemes.base import arguments_of, kind_of

ROWS = {**ACTIVATIONS, **{f"role {role}": row for role, row in ROLES.items()}, "unknown": UNKNOWN}
EVERY_ROW = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


def saying(words):
    """Returns the activations whose reason says so."""
    return [name for name, row in ACTIVATIONS.items() if words in row.reason]


# --- Complete ---


def test_every_keras_activation_has_a_row():
    exported = {name for name in dir(keras.activations) if callable(getattr(keras.activations, name))}
    exported -= {"get", "serialize", "deserialize"}
    assert {ALIASES.get(name, name) for name in exported} <= set(ACTIVATIONS)


def test_rows_are_the_activations_that_have_a_definition():
    assert set(ACTIVATIONS) == set(FUNCTIONS)


def test_an_alias_has_no_row_of_its_own():
    """It would never be read: an alias is resolved first."""
    assert not set(ALIASES) & set(ACTIVATIONS)


def test_roles_of_the_layers_with_more_than_one_kernel_have_a_row():
    assert {"input", "recurrent", "depthwise", "query", "key", "value", "gate", "output", "reverse"} <= set(ROLES)


def test_every_role_that_a_slot_may_have_is_decided_in_one_place():
    assert not set(ROLES) & set(KEPT)
    assert not (set(ROLES) | set(KEPT)) & {"kernel", "pointwise"}


@pytest.mark.parametrize("role", KEPT)
def test_what_is_kept_has_a_reason_of_one_sentence(role):
    assert KEPT[role].endswith(".")
    assert KEPT[role][0].isupper()
    assert KEPT[role].count(". ") == 0


# --- Well formed ---


@EVERY_ROW
def test_a_row_names_a_registered_scheme(row):
    assert row.scheme in REGISTRY
    assert REGISTRY[row.scheme].names[0] == row.scheme, "an alias stands where the name should"


@EVERY_ROW
def test_a_row_can_be_made(row):
    scheme = make(Recipe(f"autoinit>{row.scheme}"), seed=1)
    assert keras.ops.shape(scheme((4, 4))) == (4, 4)


@EVERY_ROW
def test_a_row_has_a_reason_of_one_sentence(row):
    assert row.reason.endswith(".")
    assert row.reason.count(". ") == 0
    assert row.reason[0].isupper()


@EVERY_ROW
def test_a_row_has_a_source_that_can_be_quoted(row):
    """It is put in brackets after the reason."""
    assert row.source
    assert row.source == row.source.strip()
    assert not row.source.endswith(".")


@EVERY_ROW
def test_a_gain_is_one_of_the_three(row):
    assert row.gain in {"none", "own", "slope"}


@EVERY_ROW
def test_a_scheme_that_needs_a_gain_takes_one(row):
    assert row.gain == "none" or "gain" in arguments_of(kind_of(Recipe(f"autoinit>{row.scheme}")))


# --- What the user asked for ---


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softmax"])
def test_the_users_rows_for_xavier(name):
    assert ACTIVATIONS[name].scheme.startswith("xavier_")
    assert ACTIVATIONS[name].gain == "none"


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "silu"])
def test_the_users_rows_for_he(name):
    assert ACTIVATIONS[name].scheme.startswith("he_")


# --- True ---


@pytest.mark.parametrize("name", [name for name, row in ACTIVATIONS.items() if row.gain != "none"])
def test_a_row_with_a_gain_is_of_an_activation_that_has_one(name):
    assert activation(name).gain > 0


@pytest.mark.parametrize("name", [name for name, row in ACTIVATIONS.items() if row.gain == "slope"] + ["relu6"])
def test_a_rectifier_keeps_the_second_moment(name):
    """He has the gain of ReLU, the square root of two, built in; a slope's is relative to it."""
    found = activation(name)
    relative = found.gain / activation("relu").gain if ACTIVATIONS[name].gain == "slope" else 1.0
    # The cap of ReLU6 takes 4e-9 of the second moment of a unit signal.
    assert 2 * relative**2 * found.unit_moments.second_moment == pytest.approx(1.0, abs=1e-8)


def test_selu_normalizes_itself_with_lecun():
    assert activation("selu").unit_moments.mean == pytest.approx(0.0, abs=1e-12)
    assert activation("selu").unit_moments.second_moment == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", saying("Odd with unit slope at zero"))
def test_what_is_said_to_be_odd_with_unit_slope(name):
    z = np.linspace(-4, 4, 81)
    function = activation(name).function
    assert function(z) == pytest.approx(-function(-z), abs=1e-15)
    # Central difference: its error is the third derivative, at most 6, times the step squared.
    step = 1e-4
    slope = (function(np.array([step])) - function(np.array([-step])))[0] / (2 * step)
    assert slope == pytest.approx(1.0, abs=2 * step)


@pytest.mark.parametrize("name", saying("Nearly linear around zero"))
def test_what_is_said_to_be_nearly_linear_and_to_saturate(name):
    function = activation(name).function
    below, middle, above = function(np.array([-0.5, 0.0, 0.5]))
    assert above - middle == pytest.approx(middle - below, rel=0.01)
    assert function(np.array([20.0, 40.0])) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("name", saying("Suppresses small values"))
def test_what_is_said_to_suppress_small_values(name):
    assert np.abs(activation(name).function(np.array([-0.3, 0.3]))).max() < 0.03
    assert activation(name).gain > 1


@pytest.mark.parametrize("name", saying("Logits"))
def test_what_is_said_to_take_logits_mixes_units(name):
    assert activation(name).function is None


def test_every_claim_above_is_made_by_some_row():
    """So that a reworded reason cannot empty a test."""
    claims = ("Odd with unit slope at zero", "Nearly linear around zero", "Suppresses small values", "Logits")
    assert all(saying(claim) for claim in claims)
