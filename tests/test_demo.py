"""The demonstration is the first thing that a visitor runs: it must run, show and end well."""

import sys

import pytest

from keras_autoinit import MissingExtraError
from keras_autoinit.demo import run_demo


@pytest.mark.slow
def test_the_demo_shows_a_network_that_learns_beside_one_that_does_not(tmp_path, capsys, monkeypatch):
    # A picture is drawn only where matplotlib is.
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    histories = run_demo(picture=tmp_path / "demo.png")
    assert histories["AutoInit"]["val_accuracy"][-1] > 0.8
    assert histories["Keras default"]["val_accuracy"][-1] < 0.3
    out = capsys.readouterr().out
    assert "autoinit>lecun_normal(gain='gelu')" in out
    assert "Picture" not in out


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "keras-autoinit\[demo\]"'):
        run_demo()
