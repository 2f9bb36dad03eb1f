"""Gradients are true ones: in double precision, on every backend, by finite differences of the model itself.

Each weight is moved a little both ways along a random direction, and what the model then puts out is held against the
product of the gradient with that direction. That is done on TensorFlow: the other backends run some of Keras's
operations in float32 whatever they are given, which leaves no difference to be told from noise (on torch, halving the
step doubles it). Their gradients are held against TensorFlow's, at the same weights.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import everything, samples, values

from keras_autoinit import AutoInit
from keras_autoinit.gradients import forward, pullback_of
from keras_autoinit.graphs import read

# The issue's own: relative, in float64.
TOLERANCE = 1e-3
# The cube root of float64's resolution makes the errors of rounding and of curvature alike.
STEP = 1e-5
# Gradients below this share of the largest are not told from zero: a softmax, say, forgets what is added to its scores.
FLOOR = 1e-3


def sequences():
    """The kinds of layers that `everything` lacks: other recurrences, normalizations, activations, merges, wrappers."""
    x = inputs = keras.Input((6, 6, 4), name="maps")
    x = layers.Conv3D(4, 2, padding="same", name="volume")(layers.Reshape((6, 6, 4, 1))(x))
    x = layers.Reshape((6, 6, 16))(x)
    x = layers.GroupNormalization(4, name="groups")(x)
    x = layers.PReLU(name="slopes")(layers.Conv2D(8, 3, padding="same", use_bias=False, name="plain")(x))
    x = layers.Multiply()([x, layers.Dense(8, "sigmoid", name="gate")(layers.GlobalAveragePooling2D(keepdims=True)(x))])
    x = layers.TimeDistributed(layers.Conv1D(8, 3, activation="tanh", name="inner"), name="each")(x)
    x = layers.LayerNormalization(name="lines")(layers.Reshape((6, 32))(x))
    x = layers.GRU(8, return_sequences=True, name="gru")(x)
    x = layers.Add()([x, layers.Dense(8, "elu", name="branch")(ops.gelu(x))])
    x = layers.BatchNormalization(name="batch")(x)
    x = ops.log_softmax(layers.Dense(5, name="logits")(layers.MaxPooling1D(2)(x)))
    return keras.Model(inputs, x, name="sequences")


def simple():
    """A recurrence that Keras itself cannot compute in float64 on JAX: its scan mixes types."""
    return keras.Sequential([keras.Input((5, 4)), layers.SimpleRNN(6, name="simple"), layers.Dense(2, name="head")])


def batches():
    source = np.random.default_rng(1)
    maps = source.normal(size=(4, 6, 6, 4))
    models = {"everything": (everything, samples(4)[0]), "sequences": (sequences, maps)}
    return models if keras.config.backend() == "jax" else models | {"simple": (simple, maps[:, 0, :5])}


def products_of(build, batch, differences):
    """The product of each weight's gradient with a random direction; and that by finite differences, if asked for."""
    model, source = build(), np.random.default_rng(2)
    # So that a gradient of some size arrives everywhere; one seed draws the same weights on every backend.
    AutoInit(seed=0).apply(model)
    batch = keras.tree.map_structure(lambda a: a.astype(keras.config.floatx()) if a.dtype.kind == "f" else a, batch)
    passed = forward(read(model, batch, runnable=True), batch, lambda call, outputs: None)
    weighting = [source.normal(size=tuple(one.shape)) for one in passed.outputs]
    found = passed.back([ops.convert_to_tensor(one, keras.config.floatx()) for one in weighting], lambda *_: None)
    assert len(found) == len(model.trainable_variables)
    run = compiled(model, batch) if differences else None

    def total():
        return sum(
            float((ops.convert_to_numpy(one) * other).sum()) for one, other in zip(keras.tree.flatten(run()), weighting)
        )

    products = []
    for variable in model.trainable_variables:
        direction = source.normal(size=tuple(variable.shape))
        ours = float((ops.convert_to_numpy(found[id(variable)]) * direction).sum())
        start, ends = np.array(ops.convert_to_numpy(variable)), []
        for sign in (1, -1) if differences else ():
            variable.assign(start + sign * STEP * direction)
            ends.append(total())
            variable.assign(start)
        products.append((variable.path, ours, (ends[0] - ends[1]) / (2 * STEP) if ends else None))
    return products


def compiled(model, batch):
    """The model in training, as a function of nothing that reads the weights each time it is called."""
    import tensorflow as tf

    return tf.function(lambda: model(batch, training=True))


def main():
    keras.config.set_floatx("float64")
    differences = keras.config.backend() == "tensorflow"
    print(json.dumps([products_of(build, batch, differences) for build, batch in batches().values()]))


def run_on(backend):
    here = pathlib.Path(__file__).parent
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)]),
    }
    command = [sys.executable, "-c", "import test_gradients; test_gradients.main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def tensorflows():
    if importlib.util.find_spec("tensorflow") is None or keras.config.backend() != "tensorflow":
        pytest.skip("Each backend has a process of its own: one run of them, where there is TensorFlow, is enough.")
    return run_on("tensorflow")


def assert_near(pairs):
    floor = FLOOR * max(abs(expected) for _, _, expected in pairs)
    errors = {path: abs(ours - expected) / max(abs(expected), floor) for path, ours, expected in pairs}
    assert {path: error for path, error in errors.items() if error > TOLERANCE} == {}


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences(tensorflows):
    for products in tensorflows:
        assert_near(products)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_every_backend_gives_the_same_gradients(backend, tensorflows):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed.")
    for mine, theirs in zip(run_on(backend), tensorflows):
        assert_near([(path, ours, expected) for (path, ours, _), (_, expected, _) in zip(mine, theirs, strict=True)])


def test_a_tensor_that_is_given_twice_is_two_arguments():
    x = ops.convert_to_tensor([3.0])
    _, pullback = pullback_of(lambda given: [given[0] * given[1]], [x, x])
    assert [float(one[0]) for one in pullback([ops.convert_to_tensor([1.0])])] == [3.0, 3.0]


def test_frozen_weights_have_no_gradient_and_nothing_is_changed():
    model, (batch, _) = everything(), samples(4)
    model.get_layer("shared").trainable = False
    before = values(model.variables)
    passed = forward(read(model, batch, runnable=True), batch, lambda call, outputs: None)
    found = passed.back([ops.ones_like(one) for one in passed.outputs], lambda call, gradients: None)
    assert id(model.get_layer("shared").kernel) not in found
    assert id(model.get_layer("head").kernel) in found
    assert all(map(np.array_equal, before, values(model.variables)))
