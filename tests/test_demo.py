"""The demonstration is the first thing that a visitor runs: it must run, show and end well."""

import sys

import pytest

from keras_autoinit import MissingExtraError
from keras_autoinit.cli import main
from keras_autoinit.demo import run_demo


@pytest.mark.slow
def test_the_demo_shows_a_network_that_learns_beside_one_that_does_not(tmp_path, capsys, monkeypatch):
    # A picture is drawn only where matplotlib is.
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["demo", "--picture", str(tmp_path / "demo.png")]) == 0
    out = capsys.readouterr().out
    epoch, _, keras_accuracy, _, accuracy, loss, linear_accuracy = out.split()[-7:]
    assert epoch == "10"
    assert float(keras_accuracy) < 0.3
    assert float(accuracy) > 0.8
    assert float(linear_accuracy) > 0.9
    assert float(loss) < 0.1
    assert "autoinit>lecun_normal(gain='gelu')" in out
    assert "autoinit>mirrored(base='orthogonal'" in out
    assert "Picture" not in out


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "keras-autoinit\[demo\]"'):
        run_demo()
