"""The command line, run as a user runs it: exit codes, one-line errors, files whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_autoinit import Plan, Report
from keras_autoinit.cli import main

# Beside the interpreter, which need not be on the path.
SCRIPT = str(Path(sys.executable).with_name("keras-autoinit"))


@pytest.fixture
def saved(tmp_path):
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, "relu", name="a"), keras.layers.Dense(2, name="b")]
    )
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


@pytest.fixture
def trained(saved):
    model = keras.saving.load_model(saved)
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 8)), np.ones((8, 2)), verbose=0)
    model.save(saved.with_name("trained.keras"))
    return saved.with_name("trained.keras")


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def kernels(path):
    return [keras.ops.convert_to_numpy(layer.kernel) for layer in keras.saving.load_model(path).layers]


def test_plan_prints_a_table(saved, capsys):
    code, out, _ = run(capsys, "plan", saved)
    assert code == 0
    assert "a/kernel" in out
    assert "autoinit>he_normal" in out


def test_plan_prints_json_that_apply_takes(saved, capsys, tmp_path):
    _, out, _ = run(capsys, "plan", saved, "--json", "--seed", 4)
    assert Plan.from_json(out).seed == 4
    (tmp_path / "plan.json").write_text(out)
    assert run(capsys, "apply", saved, "-o", tmp_path / "a.keras", "--plan", tmp_path / "plan.json")[0] == 0
    assert run(capsys, "apply", saved, "-o", tmp_path / "b.keras", "--seed", 4)[0] == 0
    for a, b in zip(kernels(tmp_path / "a.keras"), kernels(tmp_path / "b.keras")):
        np.testing.assert_array_equal(a, b)


def test_apply_leaves_the_source_and_no_other_file(saved, capsys, tmp_path):
    before = saved.read_bytes()
    code, out, _ = run(capsys, "apply", saved, "-o", tmp_path / "out.keras", "--seed", 1)
    assert (code, "2 changed" in out) == (0, True)
    assert saved.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras", "out.keras"]


def test_apply_by_data_gives_unit_spread(saved, capsys, tmp_path):
    x = np.random.default_rng(0).gamma(0.5, size=(64, 8)).astype("float32")
    np.savez(tmp_path / "x.npz", x)
    given = ("--method", "data", "--data", tmp_path / "x.npz")
    assert run(capsys, "apply", saved, "-o", tmp_path / "out.keras", *given)[0] == 0
    assert (x @ kernels(tmp_path / "out.keras")[0]).std() == pytest.approx(1, abs=1e-3)
    assert (
        "Scaled by its output" in json.loads(run(capsys, "plan", saved, "--json", *given)[1])["decisions"][0]["reason"]
    )


def test_samples_for_several_inputs_come_under_their_names(capsys, tmp_path):
    inputs = [keras.Input((3,), name="left"), keras.Input((3,), name="right")]
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(inputs))).save(tmp_path / "two.keras")
    array = np.random.default_rng(0).normal(size=(8, 3))
    for names, code in ((("left", "right"), 0), (("left", "wrong"), 2)):
        np.savez(tmp_path / "x.npz", **dict.fromkeys(names, array))
        got, _, error = run(capsys, "plan", tmp_path / "two.keras", "--method", "data", "--data", tmp_path / "x.npz")
        assert (got, "left, right" in error) == (code, code == 2)


def test_apply_by_theory(saved, capsys, tmp_path):
    assert run(capsys, "apply", saved, "-o", tmp_path / "out.keras", "--method", "theory")[0] == 0
    assert "Unit second moment before relu" in run(capsys, "plan", saved, "--method", "theory", "--json")[1]


@pytest.mark.parametrize(
    "given", [("--method", "data"), ("--data", "x.npz"), ("--method", "data", "--data", "none.npz")]
)
def test_samples_go_with_the_method_data(saved, capsys, given):
    code, _, error = run(capsys, "plan", saved, *given)
    assert code == 2
    assert "--data X.npz with --method data" in error or "Cannot read none.npz" in error


def test_apply_portable(saved, capsys, tmp_path):
    assert run(capsys, "apply", saved, "-o", tmp_path / "out.keras", "--portable")[0] == 0
    config = json.dumps(keras.saving.load_model(tmp_path / "out.keras").get_config())
    assert "autoinit>" not in config
    assert "TruncatedNormal" in config


def test_an_existing_target_is_refused_unless_told(saved, capsys, tmp_path):
    (tmp_path / "out.keras").write_text("precious")
    code, _, err = run(capsys, "apply", saved, "-o", tmp_path / "out.keras")
    assert (code, "exists. Pass --replace" in err) == (1, True)
    assert (tmp_path / "out.keras").read_text() == "precious"
    assert run(capsys, "apply", saved, "-o", tmp_path / "out.keras", "--replace")[0] == 0


def test_a_trained_model_is_refused_unless_told(trained, capsys, tmp_path):
    code, _, err = run(capsys, "apply", trained, "-o", tmp_path / "out.keras")
    assert (code, "optimizer" in err, (tmp_path / "out.keras").exists()) == (1, True, False)
    assert run(capsys, "apply", trained, "-o", tmp_path / "out.keras", "--overwrite")[0] == 0


@pytest.fixture
def dead(tmp_path):
    hidden = keras.layers.Dense(16, "relu", bias_initializer=keras.initializers.Constant(-10.0), name="hidden")
    keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(2)]).save(tmp_path / "dead.keras")
    return tmp_path / "dead.keras"


def test_diagnose_exits_with_one_where_a_model_is_not_healthy(dead, saved, capsys, tmp_path):
    code, out, _ = run(capsys, "diagnose", dead)
    assert (code, "dead_units" in out, "not healthy (1 error)" in out) == (1, True, True)
    assert run(capsys, "diagnose", dead, "--fail-on", "never")[0] == 0
    assert run(capsys, "diagnose", saved)[0] == 0
    code, out, _ = run(capsys, "diagnose", dead, "--json", "--fail-on", "error")
    assert (code, Report.from_json(out).findings[0].layer) == (1, "hidden")


def test_diagnose_takes_data_and_writes_a_page(saved, capsys, tmp_path):
    np.savez(tmp_path / "data.npz", x=np.ones((20, 8), "float32"))
    page = tmp_path / "page.html"
    code, out, _ = run(capsys, "diagnose", saved, "--data", tmp_path / "data.npz", "--html", page, "--fail-on", "error")
    assert (code, "16 given samples" in out, page.read_text()[:15]) == (0, True, "<!doctype html>")
    assert run(capsys, "diagnose", saved, "--html", page)[0] == 1
    assert run(capsys, "diagnose", saved, "--html", page, "--replace")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["diagnose", "nowhere.keras"],
        ["diagnose", "MODEL", "--data", "nowhere.npz"],
        ["diagnose", "MODEL", "--html", "nowhere/page.html"],
        ["plan", "nowhere.keras"],
        ["apply", "MODEL", "-o", "out.h5"],
        ["apply", "MODEL", "-o", "nowhere/out.keras"],
        ["apply", "MODEL", "-o", "out.keras", "--plan", "nowhere.json"],
        ["gain", "glue"],
        ["gain", "softmax"],
    ],
)
def test_what_cannot_be_used_exits_with_two_and_one_line(arguments, saved, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *[saved if word == "MODEL" else word for word in arguments])
    assert (code, out) == (2, "")
    assert err.startswith("keras-autoinit: ")
    assert err.count("\n") == 1


def test_a_plan_for_another_model_is_refused(saved, capsys, tmp_path):
    text = run(capsys, "plan", saved, "--json")[1].replace("a/kernel", "c/kernel")
    (tmp_path / "plan.json").write_text(text)
    code, _, err = run(capsys, "apply", saved, "-o", tmp_path / "out.keras", "--plan", tmp_path / "plan.json")
    assert (code, "'c/kernel'" in err) == (1, True)


@pytest.mark.parametrize(
    "arguments", [[], ["apply", "m.keras"], ["apply", "m", "-o", "o", "--seed", "1", "--plan", "p"]]
)
def test_bad_usage_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_gain(capsys):
    assert run(capsys, "gain", "gelu")[:2] == (0, "gelu: gain 1.53353, chi 1.072032\n")


@pytest.mark.parametrize(("command", "word"), [("schemes", "delta_orthogonal"), ("table", "Klambauer")])
def test_listings(command, word, capsys):
    code, out, _ = run(capsys, command)
    assert (code, word in out) == (0, True)


@pytest.mark.parametrize("command", [[sys.executable, "-m", "keras_autoinit"], [SCRIPT]])
def test_both_ways_to_start_it(command, tmp_path):
    done = subprocess.run([*command, "plan", str(tmp_path / "none.keras")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "keras-autoinit: Cannot read" in done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    done = subprocess.run(
        f'"{sys.executable}" -m keras_autoinit table | head -n 1',
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
