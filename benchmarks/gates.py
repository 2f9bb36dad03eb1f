"""Trains networks with squeeze-and-excitation from gates that start nearly even, and from gates of unit signals.

    python benchmarks/gates.py
    python benchmarks/gates.py --models MobileNetV3Small --seeds 1 --epochs 2

Theory gives the weights in front of such gates a spread of `GATE`: with unit signals samples get gates of
their own by chance and become of different size (docs/rules.md). Here the same plan is carried out twice,
once with these weights enlarged to unit signals, and both networks learn scikit-learn's digits, enlarged to
32 x 32, by Adam at its usual learning rate. The table gives the loss on the training data, epoch by epoch:
means over seeds, and the spread of the last.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_autoinit as ka
from keras_autoinit.solving import GATE

SIZE = 32
STARTS = {f"{GATE:g}": 1.0, "unit": 1 / GATE}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Real digits as images of three equal channels, centred and scaled, every pixel a square."""
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    enlarged = np.kron(images.reshape(-1, 8, 8), np.ones((SIZE // 8, SIZE // 8)))
    return np.repeat(enlarged[..., None], 3, -1).astype("float32"), labels


def network(name: str) -> keras.Model:
    """One of `keras.applications`, for images that are scaled already."""
    options: dict[str, Any] = {} if name.startswith("EfficientNetB") else {"include_preprocessing": False}
    shape = (SIZE, SIZE, 3)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=shape, classes=10, classifier_activation=None, **options)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Rescaling):
            layer.scale, layer.offset = 1.0, 0.0
    return model


def losses(name: str, factor: float, seed: int, epochs: int) -> list[float]:
    """Returns the loss of each epoch of a network whose gates' weights are so many times as large."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model, (images, labels) = network(name), digits()
    plan = ka.AutoInit(ka.Theory(linear_start=False), seed=seed).apply(model, images[:2])
    opening = [row.path.rpartition("/")[0] for row in plan if row.reason.startswith("Opens gates")]
    assert opening, f"{name} has no gates."
    for path in opening:
        kernel = model.get_layer(path).kernel
        kernel.assign(kernel * factor)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return list(model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0).history["loss"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["MobileNetV3Small", "EfficientNetB0"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args(arguments)
    print(f"{'model':18} {'gates':>5}  loss by epoch")
    for name in options.models:
        for start, factor in STARTS.items():
            found = np.array([losses(name, factor, seed, options.epochs) for seed in range(options.seeds)])
            cells = "  ".join(f"{loss:.3f}" for loss in found.mean(0))
            print(f"{name:18} {start:>5}  {cells} +- {found[:, -1].std():.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
