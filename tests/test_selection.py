"""Selectors decide what is touched: each kind must select what its reader expects, and no more."""

import keras
import pytest

from keras_autoinit import AutoInit, SelectionError


@pytest.fixture
def model():
    encoder = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(8, "relu", name="one"), keras.layers.Dense(8, name="two")],
        name="encoder",
    )
    inputs = keras.Input((8,))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(encoder(inputs)))


def changed(model, **options):
    return [row.path for row in AutoInit(seed=1, **options).plan(model).changes]


@pytest.mark.parametrize(
    ("include", "paths"),
    [
        ("head", ["head/kernel"]),
        ("one", ["encoder/one/kernel"]),
        ("encoder", ["encoder/one/kernel", "encoder/two/kernel"]),
        ("encoder/*", ["encoder/one/kernel", "encoder/two/kernel"]),
        ("*o*", ["encoder/one/kernel", "encoder/two/kernel"]),
        (keras.layers.Dense, ["encoder/one/kernel", "encoder/two/kernel", "head/kernel"]),
        (lambda layer: getattr(layer, "units", 0) == 2, ["head/kernel"]),
        (["head", "two"], ["encoder/two/kernel", "head/kernel"]),
    ],
)
def test_include(model, include, paths):
    assert changed(model, include=include) == paths


def test_exclude_wins_over_include(model):
    assert changed(model, include="encoder", exclude="two") == ["encoder/one/kernel"]


def test_what_is_left_out_says_why(model):
    plan = AutoInit(exclude="head").plan(model)
    assert plan["head/kernel"].reason == "Excluded by 'head'."
    assert AutoInit(include="head").plan(model)["encoder/one/kernel"].reason == "Not among the layers to include."


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_selector_that_selects_nothing_is_an_error(model, option):
    with pytest.raises(SelectionError, match=r"'haed' to select a layer.*head"):
        AutoInit(**{option: "haed"}).plan(model)


def test_what_is_no_selector_is_an_error():
    with pytest.raises(SelectionError, match=r"`include` to hold layer names.*Received: 3\."):
        AutoInit(include=3)
