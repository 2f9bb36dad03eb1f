"""Faults of one layer, at each threshold: what lies on it, what lies beside it, and what excuses it."""

import pytest
from records import above, below, row, weight

from keras_autoinit.layer_faults import (
    AS_DRAWN,
    FEW_UNITS,
    dead,
    mismatched,
    non_finite,
    saturated,
    shared,
    symmetric,
    unfit,
    zero_weights,
)
from keras_autoinit.thresholds import DEAD, MISMATCHED, SATURATED, UNFIT


def told(found):
    return [(finding.severity, finding.layer) for finding in found]


def test_weights_that_are_not_finite_explain_outputs_that_are_not():
    rows = [row("a"), row("b", weight("b/kernel", finite=False), finite=False), row("c", finite=False)]
    assert told(non_finite(rows)) == [("error", "b/kernel")]


def test_of_outputs_that_are_not_finite_the_first_is_named():
    assert told(non_finite([row("a"), row("b", finite=False), row("c", finite=False)])) == [("error", "b")]
    assert told(non_finite([row("a")])) == []


@pytest.mark.parametrize(
    ("feeds", "severity"),
    [("merge", "info"), ("output", "info"), ("activation", "error"), ("normalization", "error"), ("other", "error")],
)
def test_zeros_are_a_fault_unless_a_branch_or_an_output_may_start_so(feeds, severity):
    zero = weight(constant=0.0, std=0.0, distinct=1 / 64, suggestion="autoinit>he_normal")
    (found,) = zero_weights([row("dense", zero, feeds=feeds)])
    assert (found.kind, found.severity, found.layer) == ("zero_weights", severity, "dense/kernel")
    assert ("autoinit>he_normal" in found.advice) == (severity == "error")
    # What is zero is told once.
    assert told(symmetric([row("dense", zero)])) == []


@pytest.mark.parametrize(
    ("share", "severity"), [(1 / 64, "error"), (0.5, "error"), (0.51, "warning"), (63 / 64, "warning")]
)
def test_equal_units_are_an_error_where_they_are_half_of_all(share, severity):
    (found,) = symmetric([row("dense", weight(distinct=share))])
    assert (found.severity, found.value, found.threshold) == (severity, share, 1.0)


@pytest.mark.parametrize("distinct", [1.0, None])
def test_units_that_differ_or_are_not_compared_are_no_fault(distinct):
    assert told(symmetric([row("dense", weight(distinct=distinct))])) == []


def projections(**twins):
    return row(
        "block/attention",
        *(
            weight(f"block/attention/{role}/kernel", role=role, equal_to=twins.get(role))
            for role in ("query", "key", "value")
        ),
    )


def test_equal_projections_of_one_attention_layer_are_one_finding():
    query = "block/attention/query/kernel"
    (found,) = symmetric([projections(key=query)])
    assert (found.layer, found.value) == ("block/attention", 0.5)
    (found,) = symmetric([projections(key=query, value=query)])
    assert found.value == pytest.approx(1 / 3)
    # Which are not told once more as those of two layers.
    assert told(shared([projections(key=query, value=query)])) == []


def test_weights_that_two_layers_share_are_told_at_the_later_one():
    rows = [row("a"), row("b", weight("b/kernel", equal_to="a/kernel")), row("c", weight("c/kernel", equal_to="gone"))]
    (found,) = shared(rows)
    assert (found.severity, found.layer) == ("warning", "b/kernel")
    assert "'a/kernel'" in found.advice
    assert told(symmetric(rows)) == []


@pytest.mark.parametrize(("share", "number"), [(below(DEAD.value), 0), (DEAD.value, 1), (above(DEAD.value), 1)])
def test_dead_units_are_a_fault_from_three_quarters_on(share, number):
    assert told(dead([row("a", dead=share)])) == [("error", "a")] * number


def test_few_units_may_be_dead_by_chance_but_not_all_of_them():
    assert told(dead([row("a", dead=0.9, shape=(16, FEW_UNITS - 1))])) == []
    assert told(dead([row("a", dead=0.9, shape=(16, FEW_UNITS))])) == [("error", "a")]
    assert told(dead([row("a", dead=1.0, shape=(16, 1))])) == [("error", "a")]


def test_behind_a_layer_that_is_all_dead_none_is_judged():
    assert told(dead([row("a", dead=0.8), row("b", dead=1.0), row("c", dead=1.0)])) == [("error", "a"), ("error", "b")]


@pytest.mark.parametrize(("share", "number"), [(below(SATURATED.value), 0), (SATURATED.value, 1), (1.0, 1)])
def test_saturated_outputs_are_a_fault_from_a_fifth_on(share, number):
    found = list(saturated([row("a", activation="tanh", saturated=share)]))
    assert told(found) == [("error", "a")] * number
    assert all("before tanh" in one.advice and "spread is 0.2" in one.advice for one in found)


@pytest.mark.parametrize("ratio", [MISMATCHED.value, 1 / MISMATCHED.value])
def test_fans_are_mismatched_from_a_factor_on_either_way(ratio):
    def kernel(factor):
        return weight(std=0.2, counted_std=0.2, expected_std=0.2 / factor)

    assert told(mismatched([row("a", kernel(above(ratio) if ratio > 1 else below(ratio)))])) == [
        ("warning", "dense/kernel")
    ]
    assert told(mismatched([row("a", kernel(below(ratio) if ratio > 1 else above(ratio)))])) == []


@pytest.mark.parametrize(
    ("role", "feeds"), [("depthwise", "normalization"), ("input", "other"), ("recurrent", "other")]
)
def test_what_makes_up_for_a_mismatch_makes_it_a_word_only(role, feeds):
    off = weight(role=role, std=0.1, counted_std=0.1, expected_std=0.3)
    assert told(mismatched([row("a", off, feeds=feeds)])) == [("info", "dense/kernel")]


def test_a_spread_that_the_initializer_did_not_draw_says_nothing_of_its_fans():
    def drawn(factor):
        return weight(std=0.1 * factor, counted_std=0.1, expected_std=0.3)

    assert told(mismatched([row("a", drawn(below(AS_DRAWN)))])) == [("warning", "dense/kernel")]
    assert told(mismatched([row("a", drawn(above(AS_DRAWN)))])) == []
    for unknown in ("std", "expected_std", "counted_std"):
        assert told(mismatched([row("a", weight(**{"std": 0.1, "expected_std": 0.3, unknown: None}))])) == []


def ill_suited(ratio, path="dense/kernel", **fields):
    fields = {"initializer": "glorot_uniform()", "suggestion": "autoinit>he_normal", **fields}
    return weight(path, std=0.2, counted_std=0.2, expected_std=0.2, suggested_std=0.2 / ratio, **fields)


@pytest.mark.parametrize(
    ("ratio", "number"),
    [(below(UNFIT.value), 0), (above(UNFIT.value), 1), (above(1 / UNFIT.value), 0), (below(1 / UNFIT.value), 1)],
)
def test_an_initializer_is_unfit_from_a_factor_on_either_way(ratio, number):
    assert told(unfit([row("a", ill_suited(ratio))])) == [("info", "dense/kernel")] * number


def test_an_unfit_initializer_is_told_once_for_each_activation():
    rows = [
        row("a", ill_suited(2, "a/kernel", initializer="glorot_uniform()")),
        row("b", ill_suited(2, "b/kernel", initializer="glorot_uniform(seed=1)")),
        row("c", ill_suited(2, "c/kernel"), activation="selu"),
        row("d", ill_suited(2, "d/kernel", initializer="random_normal()")),
    ]
    assert [where for _, where in told(unfit(rows))] == ["a/kernel", "c/kernel", "d/kernel"]


def test_what_was_chosen_or_is_normalized_or_miscounted_is_not_called_unfit():
    assert told(unfit([row("a", ill_suited(2, initializer="autoinit>orthogonal()"))])) == []
    assert told(unfit([row("a", ill_suited(2), feeds="normalization")])) == []
    miscounted = weight(std=0.2, counted_std=0.2, expected_std=0.1, suggested_std=0.1)
    assert told(unfit([row("a", miscounted)])) == []
    assert told(mismatched([row("a", miscounted)])) == [("warning", "dense/kernel")]
