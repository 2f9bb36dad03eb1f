"""Cells of a table: as many as it has columns, numbers to three digits, and nothing where nothing is known."""

import math

import pytest
from records import row, weight

from keras_autoinit.findings import Finding
from keras_autoinit.readings import Reading
from keras_autoinit.words import FINDING_COLUMNS, SIGNAL_COLUMNS, finding_cells, number, percent, signal_cells


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (0.123456, "0.123"), (1234.5, "1.23e+03"), (math.nan, "nan"), (math.inf, "inf")],
)
def test_a_number_has_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, ""), (0.0, "0 %"), (0.756, "76 %"), (1.0, "100 %")])
def test_a_share_is_in_percent(value, text):
    assert percent(value) == text


def test_each_column_of_a_finding_has_its_cell():
    found = Finding("dead_units", "error", "dense", 0.98765, 0.75, "Lower the bias.", "share of dead units")
    assert dict(zip(FINDING_COLUMNS, finding_cells(found), strict=True)) == {
        "severity": "error",
        "kind": "dead_units",
        "layer": "dense",
        "measured": "share of dead units 0.988",
        "threshold": "0.75",
        "advice": "Lower the bias.",
    }


def test_without_words_for_a_number_the_number_stands_alone():
    assert finding_cells(Finding("non_finite", "error", "dense", 1.0, 0.0, ""))[3] == "1"


def test_each_column_of_a_layer_has_its_cell():
    two = (weight("a", std=0.1, update_ratio=0.01), weight("b", std=0.25, update_ratio=0.03))
    reading = row("dense", *two, mean=0.4, std=0.5, dead=0.125, effective_rank=7.5, gradient=0.04, sensitivity=2.0)
    assert dict(zip(SIGNAL_COLUMNS, signal_cells(reading), strict=True)) == {
        "layer": "dense",
        "kind": "dense",
        "activation": "relu",
        "mean": "0.4",
        "std": "0.5",
        "dead": "12 %",
        "saturated": "",
        "rank": "7.5",
        "cosine": "0.5",
        # Its root, which is in the signal's unit.
        "gradient": "0.2",
        "sensitivity": "2",
        "weight std": "0.1 0.25",
        # The largest.
        "update / weight": "0.03",
    }


def test_what_is_not_known_of_a_layer_is_left_empty():
    assert signal_cells(Reading("dense", "dense")) == ("dense", "dense", *[""] * 11)
