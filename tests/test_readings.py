"""Readings go to JSON and back without loss, whatever the numbers, and a wrong path is answered with a near one."""

import json
import math

import pytest
from records import row, signals, weight

from keras_autoinit.errors import ReportError
from keras_autoinit.readings import Histogram, Reading, Signals, WeightReading, from_plain, to_plain


def round_trip(record):
    return from_plain(type(record), json.loads(json.dumps(to_plain(record), allow_nan=False)))


def test_everything_that_a_record_holds_survives_json():
    held = weight("block/dense/kernel", constant=0.0, distinct=0.5, equal_to="other/kernel", update_ratio=1e-3)
    whole = signals(row("block/dense", held, histogram=Histogram(-1.0, 2.0, (3, 4)), aside=True), input_cosine=0.1)
    assert round_trip(whole) == whole
    assert round_trip(Signals(())) == Signals(())


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_does_not_know_survive_it(value):
    found = round_trip(row(mean=value, finite=False)).mean
    assert math.isnan(found) if math.isnan(value) else found == value


def test_names_that_look_like_such_numbers_stay_names():
    held = weight("nan", role="inf", initializer="-inf")
    named = row("inf", held, kind="nan", activation="nan")
    assert round_trip(Signals((named,), model="nan")) == Signals((named,), model="nan")


def test_what_is_not_known_is_left_out_and_what_a_younger_version_adds_is_passed_over():
    assert "dead" not in to_plain(Reading("dense", "dense"))
    assert from_plain(Reading, {"path": "dense", "kind": "dense", "colour": "red"}) == Reading("dense", "dense")


def test_rows_are_found_by_path_and_counted():
    first, second = row("a"), row("b")
    measured = signals(first, second)
    assert (len(measured), list(measured), measured["b"]) == (2, [first, second], second)


def test_a_path_that_is_not_there_is_answered_with_those_that_contain_it():
    measured = signals(row("encoder/dense"), row("decoder/dense"), row("head"))
    with pytest.raises(ReportError, match=r"'dense' among the 3 measured\. .*: encoder/dense, decoder/dense"):
        measured["dense"]
    with pytest.raises(ReportError, match=r"measured\.$"):
        measured["nowhere"]


def test_the_gradient_of_all_weights_counts_each_by_its_size():
    small, large = WeightReading("a", "", (2,), gradient=4.0), WeightReading("b", "", (3, 2), gradient=1.0)
    assert row("dense", small, large, weight("c")).weight_gradient == pytest.approx((2 * 4 + 6 * 1) / 8)
    assert row("dense", weight("c")).weight_gradient is None


def test_of_updates_the_largest_counts():
    assert row("dense", weight("a", update_ratio=0.1), weight("b", update_ratio=0.3), weight("c")).update_ratio == 0.3
    assert row("dense").update_ratio is None


def test_zero_is_a_constant():
    assert weight(constant=0.0).is_zero
    assert not weight(constant=0.5).is_zero
    assert not weight().is_zero
