"""What is listed is what to change: a fault's consequences are not, and the worst comes first."""

import pytest
from records import chain, row, signals, weight

from keras_autoinit.judgement import judged

DEAD_END = {"second_moment": 0.0, "cosine": None, "sensitivity": 0.0}


def told(*rows, **fields):
    return [(finding.severity, finding.kind, finding.layer) for finding in judged(signals(*rows, **fields))]


def ill_suited(path):
    return weight(path, initializer="glorot_uniform()", suggested_std=0.1)


def test_of_a_sound_model_nothing_is_said():
    assert told(row("a"), row("b")) == []
    assert told() == []


def test_behind_dead_units_neither_signal_nor_gradient_is_judged():
    dead = row("b", dead=1.0, **DEAD_END)
    assert told(row("a", sensitivity=0.0), dead, row("c", **DEAD_END)) == [("error", "dead_units", "b")]


def test_before_zeros_a_gradient_is_no_fault_and_behind_them_no_signal_is():
    zero = row("b", weight("b/kernel", constant=0.0), **DEAD_END)
    behind = row("c", dead=1.0, **DEAD_END)
    assert told(row("a", sensitivity=0.0), zero, behind) == [("error", "zero_weights", "b/kernel")]


def test_zeros_on_purpose_hide_nothing():
    zero = row("b", weight("b/kernel", constant=0.0), feeds="merge", **DEAD_END)
    assert told(row("a"), zero, row("c", dead=1.0)) == [
        ("error", "dead_units", "c"),
        ("info", "zero_weights", "b/kernel"),
    ]


def test_what_lies_before_a_fault_is_judged_by_its_outputs():
    assert told(row("a", activation="tanh", saturated=0.5), row("b", finite=False)) == [
        ("error", "non_finite", "b"),
        ("error", "saturated_units", "a"),
    ]
    assert told(row("a", finite=False), row("b", activation="tanh", saturated=0.5)) == [("error", "non_finite", "a")]


def test_faults_of_weights_are_told_wherever_they_are():
    shared = row("c", weight("c/kernel", equal_to="b/kernel"))
    assert told(row("a", dead=1.0, **DEAD_END), row("b"), shared) == [
        ("error", "dead_units", "a"),
        ("warning", "shared_weights", "c/kernel"),
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (chain("second_moment", 1.0, 1e-9), [("error", "vanishing_signal", "d1")]),
        (chain("second_moment", 1.0, 1e9), [("error", "exploding_signal", "d1")]),
        (chain("sensitivity", 1e-9, 1.0), [("error", "vanishing_gradient", "d0")]),
        (chain("cosine", 0.5, 1.0), [("warning", "collapsed_directions", "d1")]),
        # Which explains the gradient.
        (chain("second_moment", 1.0, 1e-9, sensitivity=0.0), [("error", "vanishing_signal", "d1")]),
        ((row("a", ill_suited("a/kernel")),), [("info", "unfit_scheme", "a/kernel")]),
        # An initializer that does not suit is worth a word where nothing else is the matter.
        ((row("a", ill_suited("a/kernel")), row("b", dead=0.9)), [("error", "dead_units", "b")]),
    ],
)
def test_faults_of_depth_and_words_are_asked_for_last(rows, expected):
    assert told(*rows) == expected


def test_the_worst_comes_first_and_then_the_order_of_layers():
    zero = weight("a/kernel", constant=0.0)
    few = weight("b/kernel", distinct=0.9)
    none = weight("c/kernel", distinct=0.1)
    found = told(
        row("a", zero, feeds="output"), row("b", few), row("c", none), row("d", weight("d/kernel", distinct=0.1))
    )
    assert [severity for severity, _, _ in found] == ["error", "error", "warning", "info"]
    assert [layer for _, _, layer in found] == ["c/kernel", "d/kernel", "b/kernel", "a/kernel"]
