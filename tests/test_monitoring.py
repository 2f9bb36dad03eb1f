"""A monitor must see what training does, at the steps that it was told, and change nothing of it."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers
from models import values

from keras_autoinit import DataError, SignalMonitor

SOURCE = np.random.default_rng(0)
X, Y = SOURCE.normal(size=(64, 16)).astype("float32"), SOURCE.normal(size=(64, 1)).astype("float32")


def network(rate=1e-2):
    kernels = [keras.initializers.HeNormal(seed=i) for i in range(3)]
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(32, "relu", kernel_initializer=kernels[0], name="first"),
            layers.Dense(32, "relu", kernel_initializer=kernels[1], name="second"),
            layers.Dense(1, kernel_initializer=kernels[2], name="head"),
        ]
    )
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def train(model, *callbacks):
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def test_it_looks_when_told_and_training_is_the_same():
    monitor = SignalMonitor(X, Y, every=5)
    with_, without = train(network(), monitor), train(network())
    assert [look["step"] for look in monitor.history] == [0, 5, 10, 15]
    for one, other in zip(values(with_.weights), values(without.weights)):
        np.testing.assert_array_equal(one, other)
    steps, spreads = monitor.series("first", "std")
    assert steps == [0, 5, 10, 15]
    # It sees the weights as they are by then, not as they were.
    assert len(set(spreads)) == 4
    assert monitor.seconds > 0


def test_it_keeps_the_layers_that_it_was_told():
    monitor = SignalMonitor(X, every=16, layers=["second"])
    train(network(), monitor)
    assert set(monitor.history[0]["layers"]) == {"second"}


def test_it_stops_a_training_that_has_failed_and_says_why():
    monitor = SignalMonitor(X, Y, every=1, stop=True)
    with pytest.warns(UserWarning, match="SignalMonitor stopped the training at step"):
        train(network(rate=1e6), monitor)
    assert len(monitor.history) < 16
    assert any(finding.severity == "error" for finding in monitor.reports[-1])


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorBoard's files need TensorFlow.")
def test_it_writes_into_tensorboards_own_folder(tmp_path):
    board = keras.callbacks.TensorBoard(str(tmp_path / "logs"), write_graph=False)
    # The board itself is left out of the training: it would need TensorBoard to be installed, the monitor does not.
    train(network(), SignalMonitor(X, Y, every=8, log_dir=board))
    written = list((tmp_path / "logs" / "signals").glob("events.*"))
    assert written
    assert b"second_moment/first" in written[0].read_bytes()


@pytest.mark.parametrize("options", [{"every": 0}, {"every": 2.5}, {"samples": True}])
def test_what_is_no_count_is_refused(options):
    with pytest.raises(DataError, match="Expected `"):
        SignalMonitor(X, Y, **options)
