"""What a diagnosis costs, in forward passes, and a monitor, in percent of a training.

Run it on one backend at a time, on a machine that does nothing else:

    KERAS_BACKEND=tensorflow python benchmarks/diagnosis.py

Wanted: `diagnose` of ResNet50 at batch 8 in at most 6 forward passes; `SignalMonitor` every 50 steps
under 5 % of the training of a small CNN. Medians; the forward pass is the model called as it is
(`model(x, training=True)`), which runs the same operations one by one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_autoinit import SignalMonitor, diagnose
from keras_autoinit.rendering import show

PASSES, SHARE = 6.0, 0.05


def seconds(work, repeats):
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def resnet(repeats):
    """Seconds of a forward pass, of a diagnosis, and of one without predictions."""
    model = keras.applications.ResNet50(weights=None)
    x = np.random.default_rng(0).normal(size=(8, 224, 224, 3)).astype("float32")

    def forward():
        keras.ops.convert_to_numpy(model(x, training=True))

    forward()
    diagnose(model, x, samples=8)
    passes = seconds(forward, repeats)
    return passes, *(seconds(lambda p=p: diagnose(model, x, samples=8, predict=p), repeats) for p in (True, False))


def cnn():
    stack = [keras.layers.Conv2D(width, 3, activation="relu", padding="same") for width in (32, 32, 64, 64)]
    stack[1:1] = [keras.layers.MaxPooling2D()]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((32, 32, 3)), *stack, *head])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def training(steps):
    """Seconds of a training, and of the looks of a monitor within it."""
    source = np.random.default_rng(0)
    x, y = source.normal(size=(64 * steps, 32, 32, 3)).astype("float32"), source.integers(0, 10, 64 * steps)
    model = cnn()
    # The first steps compile.
    model.fit(x[:128], y[:128], batch_size=64, verbose=0, callbacks=[SignalMonitor(x, y, every=1)])
    monitor = SignalMonitor(x, y, every=50)
    start = time.perf_counter()
    model.fit(x, y, batch_size=64, verbose=0, callbacks=[monitor])
    return time.perf_counter() - start - monitor.seconds, monitor.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    forward, whole, bare = resnet(options.repeats)
    alone, looks = training(options.steps)
    rows = [
        ("ResNet50, batch 8: forward pass", f"{forward:.2f} s", "", ""),
        ("  diagnose", f"{whole / forward:.1f} passes", f"<= {PASSES:g}", str(whole <= PASSES * forward)),
        ("  diagnose(predict=False)", f"{bare / forward:.1f} passes", f"<= {PASSES:g}", str(bare <= PASSES * forward)),
        (f"small CNN, {options.steps} steps", f"{alone:.1f} s", "", ""),
        ("  monitor every 50", f"{looks / alone:.1%}", f"< {SHARE:.0%}", str(looks < SHARE * alone)),
    ]
    print(f"backend: {keras.config.backend()}")
    show(("what", "measured", "wanted", "holds"), rows)


if __name__ == "__main__":
    main()
