"""A number that something is held against must come with its reason, and reach the reader in the finding."""

import pytest
from records import row, weight

from keras_autoinit import thresholds
from keras_autoinit.errors import ReportError
from keras_autoinit.thresholds import DEAD, Threshold, each_weight, finding

ALL = {name: value for name, value in vars(thresholds).items() if isinstance(value, Threshold)}


@pytest.mark.parametrize("name", ALL)
def test_every_threshold_has_a_full_sentence_for_a_reason(name):
    reason = ALL[name].reason
    assert reason[0].isupper()
    assert reason.endswith(".")
    assert len(reason.split()) > 5


def test_a_finding_takes_number_and_reason_from_its_threshold():
    found = finding("dead_units", "error", "dense", 1, DEAD, "share of dead units", "Lower the bias.")
    assert (found.value, found.threshold, found.reason) == (1.0, DEAD.value, DEAD.reason)
    assert (found.measure, found.advice) == ("share of dead units", "Lower the bias.")
    assert isinstance(found.value, float)


def test_a_finding_of_an_unknown_kind_is_refused():
    with pytest.raises(ReportError, match="Received: 'tired_units'"):
        finding("tired_units", "error", "dense", 1, DEAD, "", "")


def test_a_weight_that_two_rows_compute_with_counts_once_with_the_first():
    shared, own = weight("shared/kernel"), weight("own/kernel")
    first, second = row("first", shared), row("second", shared, own)
    assert list(each_weight([first, second])) == [(first, shared), (second, own)]
