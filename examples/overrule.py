"""Looking before leaping: read a plan, overrule rows, keep it, and carry it out later.

Run: python examples/overrule.py
"""

import keras

from keras_autoinit import AutoInit, HeNormal, Plan, Table


def scaled_tanh(x):
    return 1.7159 * keras.ops.tanh(2 / 3 * x)


def build():
    inputs = keras.Input((32,), name="features")
    x = keras.layers.Dense(64, activation=scaled_tanh, name="smooth")(inputs)
    x = keras.layers.Dense(64, activation="relu", name="sharp")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


def main():
    # A house style: rows of one's own, by activation, by function, by layer class or by role.
    method = Table({"relu": HeNormal(gain=1.1), scaled_tanh: "autoinit>orthogonal"})
    plan = AutoInit(method, seed=7, exclude="head").plan(build())
    print(plan, "\n")

    # One weight by hand. The plan is data: it can be reviewed, versioned and carried out elsewhere.
    plan = plan.replace("head/kernel", "autoinit>zeros")
    text = plan.to_json()

    model = build()
    AutoInit().apply(model, plan=Plan.from_json(text))
    for layer in model.layers[1:]:
        print(f"{layer.name}: {layer.kernel_initializer!r}, spread {float(keras.ops.std(layer.kernel)):.3f}")


if __name__ == "__main__":
    main()
