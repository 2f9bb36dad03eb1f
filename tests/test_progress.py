"""Long work must show how far it is, and short work must say nothing."""

import sys

import pytest

from keras_autoinit import progress
from keras_autoinit.progress import Progress


def shown(capsys, steps=3, **options):
    bar = Progress(steps, **options)
    for _ in range(steps):
        bar.step()
    return capsys.readouterr().out


def test_short_work_is_silent(capsys):
    assert shown(capsys) == ""


def test_work_that_takes_longer_is_shown(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LONG", 0.0)
    assert shown(capsys) == ""
    # A notebook's process has loaded this.
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    bar = Progress(3)
    bar.step()
    assert "1/3" in capsys.readouterr().out
    bar.step()
    bar.step()
    assert "3/3" in capsys.readouterr().out


@pytest.mark.parametrize(("verbose", "text"), [(0, ""), (1, "3/3")])
def test_on_demand(capsys, verbose, text):
    out = shown(capsys, verbose=verbose)
    assert text in out if text else not out
