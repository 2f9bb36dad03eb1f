"""A plan is data: it must compare, print, and come back from JSON equal to what was written."""

import dataclasses

import keras
import pytest

from keras_autoinit import AutoInit, Decision, HeNormal, Plan, PlanError, Recipe, SelectionError


def decision(path="a/kernel", **changes):
    row = Decision(
        path=path,
        role="kernel",
        shape=(8, 4),
        fan_in=8,
        fan_out=4,
        feeds="relu",
        old=Recipe("GlorotUniform"),
        new=Recipe("autoinit>he_normal", {"input_axes": [0], "output_axes": [1]}),
        reason="Half of the signal is cut off.",
    )
    return dataclasses.replace(row, **changes)


@pytest.fixture
def plan():
    kept = decision("b/kernel", new=Recipe("GlorotUniform"), shape=None, fan_in=None, fan_out=None)
    return Plan((decision(), kept), ("A note.",), seed=7)


def test_a_plan_is_iterable_and_indexable_by_path(plan):
    assert [row.path for row in plan] == ["a/kernel", "b/kernel"]
    assert plan["a/kernel"].feeds == "relu"
    assert "a/kernel" in plan
    assert len(plan) == 2


def test_an_unknown_path_names_its_neighbours(plan):
    with pytest.raises(PlanError, match="kernel2") as error:
        plan["kernel2"]
    assert "Paths that contain it" not in str(error.value)
    with pytest.raises(PlanError, match="Paths that contain it: a/kernel, b/kernel"):
        plan["kernel"]


def test_changes_are_the_rows_that_are_drawn_anew(plan):
    assert [row.path for row in plan.changes] == ["a/kernel"]


def test_two_decisions_on_one_weight_are_refused():
    with pytest.raises(PlanError, match="several for: a/kernel"):
        Plan((decision(), decision()))


def test_a_plan_is_frozen(plan):
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.seed = 1


@pytest.mark.parametrize("where", ["a/kernel", "a/*", lambda row: row.feeds == "relu" and row.path.startswith("a")])
def test_replace_makes_a_new_plan(plan, where):
    replaced = plan.replace(where, "autoinit>zeros")
    assert replaced["a/kernel"].new == Recipe("autoinit>zeros")
    assert replaced["b/kernel"] == plan["b/kernel"]
    assert plan["a/kernel"].new.name == "autoinit>he_normal"


def test_replace_takes_an_instance(plan):
    assert plan.replace("*", HeNormal(gain=2.0))["b/kernel"].new == Recipe("autoinit>he_normal", {"gain": 2.0})


def test_replacing_nothing_is_an_error(plan):
    with pytest.raises(SelectionError, match="Received: 'c/\\*'"):
        plan.replace("c/*", "autoinit>zeros")


@pytest.mark.parametrize("indent", [None, 2])
def test_a_plan_comes_back_from_json_equal(plan, indent):
    assert Plan.from_json(plan.to_json(indent)) == plan


def test_a_real_plan_comes_back_from_json_equal():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3))
    plan = AutoInit(seed=1, portable=True).plan(model)
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "seed": 0, "notes": [], "decisions": [{}]}'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(PlanError, match="Expected the JSON text of a plan"):
        Plan.from_json(text)


def test_a_plan_of_another_format_is_refused(plan):
    with pytest.raises(PlanError, match="Received format 99"):
        Plan.from_json(plan.to_json().replace('"format": 1', '"format": 99'))


def test_the_text_has_a_line_for_every_weight_and_note(plan):
    lines = str(plan).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["weight", "a/kernel", "b/kernel"]
    assert "not built" in lines[2]
    assert lines[3:] == ["2 weights: 1 changed, 1 kept. Seed 7.", "A note."]


def test_the_html_escapes_what_it_shows(plan):
    html = plan._repr_html_()
    assert html.count("<tr>") == 3
    assert "autoinit&gt;he_normal" in html
    assert "<li>A note.</li>" in html
