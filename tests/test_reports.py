"""A report is read by people, tests and other programs: it must say the same to all, and hold no surprise."""

import dataclasses
import importlib
import json
import math

import keras
import numpy as np
import pytest
from keras import layers
from models import everything, samples, values

from keras_autoinit import AutoInit, AutoInitError, Finding, Report, compare_reports, diagnose
from keras_autoinit.errors import DataError, MissingExtraError, ReportError, UnhealthyModelError


def network(bias=0.0):
    kernel = [keras.initializers.HeNormal(seed=i) for i in range(3)]
    return keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(32, "relu", kernel_initializer=kernel[0], name="first"),
            layers.Dense(
                32,
                "relu",
                kernel_initializer=kernel[1],
                bias_initializer=keras.initializers.Constant(bias),
                name="second",
            ),
            layers.Dense(2, kernel_initializer=kernel[2], name="head"),
        ],
        name="network",
    )


@pytest.fixture(scope="module")
def healthy():
    return diagnose(network())


@pytest.fixture(scope="module")
def dead():
    return diagnose(network(-10.0))


def test_healthy_or_not(healthy, dead):
    assert (healthy.healthy, healthy.worst) == (True, None)
    assert (dead.healthy, dead.worst) == (False, "error")
    healthy.raise_if_unhealthy()
    with pytest.raises(UnhealthyModelError, match="dead_units at second") as caught:
        dead.raise_if_unhealthy()
    assert caught.value.report is dead
    assert isinstance(caught.value, (AutoInitError, ValueError))


def test_json_both_ways(healthy, dead):
    for report in (healthy, dead, diagnose(everything(), *samples(), loss="sparse_categorical_crossentropy")):
        assert Report.from_json(report.to_json()) == report
    assert json.loads(dead.to_json())["findings"][0]["layer"] == "second"


def test_json_holds_what_json_has_no_word_for():
    report = diagnose(network())
    row = dataclasses.replace(report.signals.rows[0], mean=math.nan, second_moment=math.inf)
    report = dataclasses.replace(report, signals=dataclasses.replace(report.signals, rows=(row,)))
    read = Report.from_json(report.to_json()).signals.rows[0]
    assert math.isnan(read.mean)
    assert read.second_moment == math.inf


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "findings": [{"kind": "x"}], "signals": {}}']
)
def test_what_is_no_report_is_refused(text):
    with pytest.raises(ReportError):
        Report.from_json(text)


def test_a_finding_of_no_known_kind_is_refused():
    with pytest.raises(ReportError, match="Expected a kind of finding"):
        Finding("sadness", "error", "dense", 1.0, 0.5, "Cheer up.")
    with pytest.raises(ReportError, match="Expected a severity"):
        Finding("dead_units", "fatal", "dense", 1.0, 0.5, "Lower the bias.")


def test_text_and_notebook_name_the_layer_and_what_to_do(dead):
    for text in (str(dead), dead._repr_html_()):
        assert "dead_units" in text
        assert "second" in text
        assert "the bias" in text
    assert str(dead).endswith("network: not healthy (1 error). 3 layers, on 16 drawn samples and a random gradient.")


def test_an_unknown_layer_is_refused_with_those_near(dead):
    assert dead["second"].dead == 1
    with pytest.raises(ReportError, match="secon"):
        dead["secon"]


def test_figures(healthy, dead, tmp_path):
    pytest.importorskip("matplotlib")
    for name, figure in {
        "depth": dead.plot(path=tmp_path / "depth.png"),
        "layer": healthy.plot("first", tmp_path / "layer.png"),
        "both": compare_reports(dead, healthy, ("biased", "cured"), tmp_path / "both.png"),
    }.items():
        assert figure.axes
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert len(dead.plot().axes) == 3


def test_without_matplotlib_the_error_says_what_to_install(dead, monkeypatch):
    real = importlib.import_module
    monkeypatch.setattr(
        importlib,
        "import_module",
        lambda name: (_ for _ in ()).throw(ImportError) if "matplotlib" in name else real(name),
    )
    with pytest.raises(MissingExtraError, match=r'pip install "keras-autoinit\[plot\]"'):
        dead.plot()


def state(model):
    optimizer = model.optimizer.variables if model.optimizer else []
    seeds = [generator.state for layer in model._flatten_layers() for generator in layer._seed_generators]
    return values([*model.variables, *optimizer, *seeds, *model.metrics_variables])


def test_the_model_the_optimizer_the_metrics_and_the_seeds_are_as_they_were():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, activation="relu")(x))
    x = layers.Dense(3, "softmax")(layers.Flatten()(layers.Dropout(0.5, seed=1)(x)))
    model, source = keras.Model(inputs, x), np.random.default_rng(0)
    data = source.normal(size=(16, 8, 8, 3)).astype("float32"), source.integers(0, 3, 16)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*data, epochs=1, verbose=0)
    before, config = state(model), model.to_json()
    np.random.seed(5)
    chance = np.random.get_state()[1].copy()
    report = diagnose(model, *data)
    assert report.signals.trained
    assert all(map(np.array_equal, before, state(model)))
    assert model.to_json() == config
    assert np.array_equal(np.random.get_state()[1], chance)


def test_data_of_every_kind_and_what_does_not_fit():
    model, (x, y) = everything(), samples(8)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert diagnose(model, x, y).signals.labels == "given"
    # An iterator of pairs gives its labels too.
    assert diagnose(model, iter([(x, y)])).signals.labels == "given"
    assert diagnose(model).signals.data == "drawn"
    with pytest.raises(DataError, match="as many labels as samples"):
        diagnose(model, x, y[:3])
    with pytest.raises(DataError, match="Expected a loss"):
        diagnose(network(), np.ones((4, 16), "float32"), np.ones((4, 2)))
    with pytest.raises(DataError, match="samples"):
        diagnose(model, samples=0)


def test_the_ratio_of_update_to_weight_is_that_of_the_first_step():
    model, source = network(), np.random.default_rng(0)
    x, y = source.normal(size=(16, 16)).astype("float32"), source.normal(size=(16, 2)).astype("float32")
    for optimizer in (keras.optimizers.Adam(1e-3), keras.optimizers.SGD(0.1)):
        model = network()
        AutoInit(seed=1).apply(model)
        model.compile(optimizer, "mse")
        ratio = diagnose(model, x, y)["head"].update_ratio
        before = values(model.get_layer("head").weights)[0]
        model.fit(x, y, batch_size=16, epochs=1, verbose=0)
        step = values(model.get_layer("head").weights)[0] - before
        # Where a unit is dead on all samples nothing moves; Adam's other steps are all of one size.
        moved = step[step != 0] if isinstance(optimizer, keras.optimizers.Adam) else step
        measured = np.sqrt((moved**2).mean() / (before**2).mean())
        # Adam's epsilon, 1e-7, shortens the steps of small gradients a little.
        np.testing.assert_allclose(ratio, measured, rtol=0.02)


def test_the_cure_cures():
    hidden = [layers.Dense(64, "relu", name=f"d{i}") for i in range(30)]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(4)])
    assert not diagnose(model).healthy
    AutoInit(seed=1).apply(model)
    diagnose(model).raise_if_unhealthy()
