"""A small convolutional network on scikit-learn's digits, started by AutoInit and saved for anywhere.

Run: python examples/digits.py [FILE.keras]   (needs scikit-learn)
"""

import sys
from pathlib import Path

import keras
from sklearn.datasets import load_digits

from keras_autoinit import AutoInit


def build():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.SeparableConv2D(64, 3, strides=2, padding="same", activation="gelu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def main(path=Path("digits.keras")):
    x, y = load_digits(return_X_y=True)
    x = ((x - x.mean()) / x.std()).reshape(-1, 8, 8, 1).astype("float32")

    model = build()
    plan = AutoInit(seed=1, portable=True).apply(model)
    print(plan, "\n")

    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x[:1400], y[:1400], epochs=5, verbose=0, validation_data=(x[1400:], y[1400:])).history
    print("test accuracy:", [round(value, 3) for value in history["val_accuracy"]])

    # Stock initializers with explicit numbers: this file loads where keras_autoinit is not installed.
    model.save(path)
    print("saved:", path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
