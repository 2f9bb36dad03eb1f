"""A network that dies with depth, diagnosed, cured, and drawn before and after.

Run: python examples/diagnose.py [FIGURE.png]   (needs matplotlib)
"""

import sys
from pathlib import Path

import keras

from keras_autoinit import AutoInit, compare_reports, diagnose


def build():
    hidden = [
        keras.layers.Dense(128, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed=i), name=f"hidden{i}")
        for i in range(30)
    ]
    head = keras.layers.Dense(10, kernel_initializer=keras.initializers.GlorotUniform(seed=99), name="head")
    return keras.Sequential([keras.Input((64,)), *hidden, head], name="thirty_layers")


def main(path=Path("diagnosis.png")):
    model = build()
    before = diagnose(model)
    print(before.summary())
    for finding in before:
        print("-", finding)

    plan = AutoInit(seed=1).apply(model)
    print("\ncured by", plan["hidden0/kernel"].new)
    after = diagnose(model)
    print(after.summary())

    compare_reports(before, after, ("Keras default", "AutoInit"), path)
    page = path.with_suffix(".html")
    before.save_html(page, overwrite=True)
    print("\nfigure:", path, "and page:", page)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
