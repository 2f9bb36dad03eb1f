"""Faults of depth, at each threshold, and where on a way through many layers each is said to begin."""

import math

import pytest
from records import above, below, chain, row, signals, weight

from keras_autoinit.depth_faults import collapsed, exploding, gradients, untaught, vanishing
from keras_autoinit.thresholds import COLLAPSED, EXPLODED, GRADIENT_EXPLODED, GRADIENT_VANISHED, VANISHED

ZERO = weight(constant=0.0)


def told(found):
    return [(finding.kind, finding.layer) for finding in found]


def sized(*values, **fields):
    return chain("second_moment", *values, **fields)


def judged(rule, rows, **fields):
    return list(rule(rows, signals(*rows, **fields)))


@pytest.mark.parametrize(("end", "number"), [(above(VANISHED.value), 0), (VANISHED.value, 1), (0.0, 1)])
@pytest.mark.parametrize("given", [1.0, 1e-4, 1e4])
def test_a_signal_has_vanished_at_a_millionth_of_what_came_in_or_of_one(end, number, given):
    found = judged(vanishing, sized(0.5, end * min(given, 1.0)), input_second_moment=given)
    assert told(found) == [("vanishing_signal", "d1")] * number


@pytest.mark.parametrize(("largest", "number"), [(EXPLODED.value, 0), (above(EXPLODED.value), 1)])
@pytest.mark.parametrize("given", [1.0, 1e-4, 1e4])
def test_a_signal_has_exploded_beyond_a_million_times_what_came_in_or_one(largest, number, given):
    found = judged(exploding, sized(2.0, largest * max(given, 1.0), 1.0), input_second_moment=given)
    assert told(found) == [("exploding_signal", "d1")] * number


@pytest.mark.parametrize(("rule", "sign"), [(vanishing, -1), (exploding, 1)])
def test_a_change_begins_at_its_one_large_step_or_where_it_leaves_the_start(rule, sign):
    step = sized(*(10.0 ** (sign * power) for power in (0.5, 0.5, 7.0, 7.5, 8.0)))
    assert told(judged(rule, step))[0][1] == "d2"
    # A hundredth, or a hundredfold, each layer: the first changes it by more than a factor of three.
    assert told(judged(rule, sized(*(100.0 ** (sign * i) for i in range(1, 6)))))[0][1] == "d0"
    assert told(judged(rule, sized(*(2.0 ** (sign * i) for i in range(1, 31)))))[0][1] == "d1"


def test_a_signal_that_recovers_has_not_vanished():
    assert judged(vanishing, sized(1e-9, 1.0)) == []


def test_what_is_no_signal_is_passed_over():
    end = sized(1e-9)[0]
    for last in (
        row("last", activation="softmax", second_moment=0.3),
        row("last", activation="sigmoid", second_moment=0.25, feeds="output"),
        row("last", second_moment=None),
        row("last", second_moment=math.inf, finite=False),
        row("last", ZERO, second_moment=0.5),
    ):
        assert told(judged(vanishing, (end, last))) == [("vanishing_signal", "d0")]
    # A sigmoid that a layer reads is a signal, and so is an output without an activation.
    assert judged(vanishing, (end, row("last", activation="", second_moment=0.25, feeds="output"))) == []
    assert judged(vanishing, (end, row("last", activation="sigmoid", second_moment=0.25))) == []


@pytest.mark.parametrize("given", [0.0, math.nan])
def test_of_what_is_nothing_when_it_comes_in_nothing_is_said(given):
    for rows in (sized(0.0, 0.0), sized(1.0), ()):
        assert judged(vanishing, rows, input_second_moment=given) == []
        assert judged(exploding, rows, input_second_moment=given) == []


@pytest.mark.parametrize(("apart", "number"), [(2.0, 0), (0.5, 1)])
@pytest.mark.parametrize("given", [None, 0.5, -0.5])
def test_samples_have_collapsed_at_a_share_of_what_they_differ_by(apart, number, given):
    start = 1.0 if given is None else 1 - given
    rows = chain("cosine", 0.5, 1 - apart * COLLAPSED.value * min(start, 1.0))
    found = judged(collapsed, rows, input_cosine=given)
    assert told(found) == [("collapsed_directions", "d1")] * number
    assert all(finding.severity == "warning" for finding in found)


def test_a_head_need_not_tell_samples_apart():
    alike = row("head", cosine=1.0, feeds="output")
    assert judged(collapsed, (row("d0"), alike)) == []
    assert judged(collapsed, (alike,)) == []


@pytest.mark.parametrize("given", [1.0, 1 - 1e-7, 1 + 1e-7])
def test_samples_that_are_alike_when_they_come_in_have_not_collapsed(given):
    assert judged(collapsed, chain("cosine", 1.0, 1.0), input_cosine=given) == []


@pytest.mark.parametrize(("share", "number"), [(GRADIENT_VANISHED.value, 0), (below(GRADIENT_VANISHED.value), 1)])
def test_a_gradient_has_vanished_below_a_thousandth_of_the_largest(share, number):
    found = list(gradients(chain("sensitivity", share, 1.0, 0.5)))
    assert told(found) == [("vanishing_gradient", "d0")] * number


def test_the_layer_is_named_below_which_next_to_nothing_arrives():
    cut = chain("sensitivity", 0.0, 0.0, 0.0, 1.0, 1.0)
    assert told(gradients(cut)) == [("vanishing_gradient", "d2")]
    halved = chain("sensitivity", *(2.0**-i for i in reversed(range(12))))
    assert told(gradients(halved)) == [("vanishing_gradient", "d0")]


def test_advice_on_a_gradient_looks_at_the_activation():
    (found,) = gradients(chain("sensitivity", 1e-6, 1.0, activation="sigmoid"))
    assert "steeper around zero than the sigmoid" in found.advice
    (found,) = gradients(chain("sensitivity", 1e-6, 1.0, activation="tanh"))
    assert "scale the weights after it" in found.advice


@pytest.mark.parametrize(
    ("factor", "number"), [(below(GRADIENT_EXPLODED.value), 0), (above(GRADIENT_EXPLODED.value), 1)]
)
def test_a_gradient_has_exploded_beyond_a_hundredfold_of_the_last(factor, number):
    found = list(gradients(chain("sensitivity", 2.0, factor, 1.0, 1.0)))
    assert told(found) == [("exploding_gradient", "d1")] * number


def test_growth_across_a_normalization_is_no_fault():
    sizes = [60.0**i for i in reversed(range(4))]
    assert told(gradients(chain("sensitivity", *sizes))) == [("exploding_gradient", "d0")]
    assert told(gradients(chain("sensitivity", *sizes, feeds="normalization"))) == []


def test_gradients_of_one_layer_or_of_none_that_is_known_say_nothing():
    assert told(gradients(chain("sensitivity", 1e-9))) == []
    assert told(gradients(chain("sensitivity", 0.0, 0.0, 0.0))) == []
    assert told(gradients(chain("sensitivity", 1e-9, None, math.inf))) == []
    assert told(gradients((row("aside", sensitivity=0.0, aside=True), *chain("sensitivity", 1.0, 1.0)))) == []


def test_a_layer_aside_is_told_unless_a_branch_that_starts_at_zero_may_be_why():
    aside = row("aside", sensitivity=0.0, aside=True)
    assert told(untaught((row("a"), aside))) == [("no_gradient", "aside")]
    assert told(untaught((row("a"), aside, row("closed", ZERO)))) == []
    assert told(untaught((row("a"),))) == []
