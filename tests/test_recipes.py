"""A recipe stands for an initializer: it must compare, hash and print as its configuration says."""

import keras
import pytest

from keras_autoinit import HeNormal, PlanError, Recipe


def test_recipes_of_one_configuration_are_equal_however_they_were_given():
    assert (
        Recipe.of(HeNormal()) == Recipe.of("autoinit>he_normal") == Recipe.of(HeNormal) == Recipe.of(HeNormal().recipe)
    )
    assert Recipe.of(keras.initializers.serialize(HeNormal(gain=2.0))).config["gain"] == 2.0


def test_a_recipe_says_only_what_its_class_does_not_assume():
    assert Recipe.of(keras.initializers.VarianceScaling(scale=2.0, mode="fan_out")).config == {
        "scale": 2.0,
        "mode": "fan_out",
    }


def test_recipes_hash_with_nested_configurations():
    nested = Recipe("autoinit>mirrored", {"base": {"class_name": "HeNormal", "config": {"axes": [1, 2]}}})
    assert hash(nested) == hash(Recipe("autoinit>mirrored", nested.config))
    assert nested.config["base"]["config"]["axes"] == [1, 2]


def test_a_recipe_prints_without_axes_and_seed():
    assert (
        str(Recipe("autoinit>he_normal", {"gain": 0.5, "input_axes": [0], "seed": 3})) == "autoinit>he_normal(gain=0.5)"
    )


def test_a_recipe_of_something_else_says_what_it_is():
    with pytest.raises(PlanError, match=r"Received: 3\."):
        Recipe.of(3)
