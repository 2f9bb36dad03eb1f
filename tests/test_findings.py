"""A finding is read on one line; what is no kind and no severity is refused with the list of those that are."""

import dataclasses

import pytest

from keras_autoinit.errors import ReportError
from keras_autoinit.findings import KINDS, SEVERITIES, Finding


def finding(**fields):
    given = {"kind": "dead_units", "severity": "error", "layer": "dense", "value": 0.98765, "threshold": 0.75}
    return Finding(**{**given, "advice": "Lower the bias.", "measure": "share of dead units", **fields})


def test_one_line_says_what_where_how_much_and_what_to_do():
    assert str(finding()) == "error: dead_units at dense: share of dead units 0.988. Lower the bias."


@pytest.mark.parametrize(
    ("field", "known"), [("kind", sorted(KINDS)), ("severity", sorted(SEVERITIES))], ids=["kind", "severity"]
)
def test_what_is_not_known_is_refused_with_all_that_is(field, known):
    with pytest.raises(ReportError) as caught:
        finding(**{field: "fatal"})
    assert ", ".join(known) in str(caught.value)
    assert "Received: 'fatal'" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_every_kind_may_be_of_every_severity(kind, severity):
    assert finding(kind=kind, severity=severity).kind == kind


def test_kinds_are_explained_in_sentences():
    assert all(text[0].isupper() and text.endswith(".") for text in KINDS.values())


def test_a_finding_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding().severity = "info"
