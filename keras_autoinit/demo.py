"""A 30-layer network on real digits: the default start beside two of this package's.

Needs scikit-learn, which ships the digits; draws a picture where matplotlib is there.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_autoinit.autoinit import AutoInit
from keras_autoinit.errors import MissingExtraError
from keras_autoinit.plans import Plan
from keras_autoinit.rendering import show

DEPTH, WIDTH, ACTIVATION = 30, 128, "gelu"
EPOCHS, BATCH, LEARNING_RATE = 10, 64, 1e-3
# What is shown above the curves, and the method that it stands for.
STARTS = {"Keras default": None, "AutoInit": "table", "AutoInit, theory": "theory"}

Curves = dict[str, list[float]]


def run_demo(seed: int = 0, picture: str | Path = "keras_autoinit_demo.png") -> dict[str, Curves]:
    """Trains the network from each start, prints the plans and the learning curves, and draws them.

    Args:
        seed: names the draws, the order of the images and nothing global.
        picture: where to save the figure, if matplotlib is installed.

    Returns:
        The history of each start.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    data = load_digits()
    histories: dict[str, Curves] = {}
    print(f"{DEPTH} layers of {WIDTH} {ACTIVATION} units, no normalization, no skips, on 1,400 digits.\n")
    for start, method in STARTS.items():
        model = build(seed)
        if method is not None:
            print(f"{start}:\n{_excerpt(AutoInit(method, seed=seed).apply(model))}\n")
        histories[start] = train(model, data)
    _show_curves(histories)
    if _draw(histories, Path(picture)):
        print(f"\nPicture: {picture}")
    return histories


def load_digits() -> tuple[Any, ...]:
    """Returns scikit-learn's digits: 1,400 to train on and 397 to test, standardized."""
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise MissingExtraError(
            "The demo trains on scikit-learn's digits, and scikit-learn is not installed. "
            'Install it with: pip install "keras-autoinit[demo]"'
        ) from error
    x, y = datasets.load_digits(return_X_y=True)
    x = ((x - x.mean()) / x.std()).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    return x[:1400], y[:1400], x[1400:], y[1400:]


def build(seed: int) -> keras.Sequential:
    """Returns the network, drawn from Keras's default initializer with seeds of its own."""
    layers: list[Any] = [keras.Input((64,))]
    for index in range(DEPTH):
        kernel = keras.initializers.GlorotUniform(seed=seed * 1000 + index)
        layers.append(keras.layers.Dense(WIDTH, ACTIVATION, kernel_initializer=kernel))
    layers.append(keras.layers.Dense(10, "softmax", kernel_initializer=keras.initializers.GlorotUniform(seed=seed)))
    return keras.Sequential(layers)


def train(model: keras.Model, data: tuple[Any, ...]) -> Curves:
    """Trains a model and returns its history."""
    x, y, x_test, y_test = data
    model.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, shuffle=False, validation_data=(x_test, y_test)
    ).history
    return {name: [float(value) for value in values] for name, values in history.items()}


def _excerpt(plan: Plan) -> str:
    """Returns the first and last rows of a long plan."""
    lines = str(plan).splitlines()
    return "\n".join([*lines[:3], f"... {len(plan) - 4} rows like these ...", *lines[-3:]])


def _show_curves(histories: dict[str, Curves]) -> None:
    columns = ("epoch", *(f"{start}: {what}" for start in histories for what in ("loss", "test accuracy")))
    rows = [
        (str(epoch + 1), *(f"{h[key][epoch]:.3f}" for h in histories.values() for key in ("loss", "val_accuracy")))
        for epoch in range(EPOCHS)
    ]
    show(columns, rows)


def _draw(histories: dict[str, Curves], path: Path) -> bool:
    """Saves a picture of the test accuracy, if matplotlib is there."""
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError:
        return False
    figure = figures.Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for start, history in histories.items():
        axes.plot(range(1, EPOCHS + 1), history["val_accuracy"], marker="o", label=start)
    axes.set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1), title=f"{DEPTH} layers of {ACTIVATION}, no skips")
    axes.legend()
    figure.savefig(path)
    return True
