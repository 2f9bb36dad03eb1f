"""Gradients are true ones: in double precision, on every backend, by finite differences of the model itself.

Each weight is moved a little both ways along a random direction, and what the model then puts out is held against the
product of the gradient with that direction, in a process of its own for each backend.
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
from keras.src.backend.common import dtypes
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
    """The simplest recurrence."""
    return keras.Sequential([keras.Input((5, 4)), layers.SimpleRNN(6, name="simple"), layers.Dense(2, name="head")])


def batches():
    source = np.random.default_rng(1)
    maps = source.normal(size=(4, 6, 6, 4))
    return [(everything, samples(4)[0]), (sequences, maps), (simple, maps[:, 0, :5])]


def products_of(build, batch):
    """The product of each weight's gradient with a random direction, and the same by finite differences."""
    model, source = keras.models.clone_model(build(), clone_function=composed, recursive=True), np.random.default_rng(2)
    # So that a gradient of some size arrives everywhere; one seed draws the same weights on every backend.
    AutoInit(seed=0).apply(model)
    batch = keras.tree.map_structure(lambda a: a.astype(keras.config.floatx()) if a.dtype.kind == "f" else a, batch)
    passed = forward(read(model, batch, runnable=True), batch, lambda call, outputs: None)
    weighting = [source.normal(size=tuple(one.shape)) for one in passed.outputs]
    found = passed.back([ops.convert_to_tensor(one, keras.config.floatx()) for one in weighting], lambda *_: None)
    assert len(found) == len(model.trainable_variables)
    run = compiled(model, batch)

    def total():
        return sum(
            float((ops.convert_to_numpy(one) * other).sum()) for one, other in zip(keras.tree.flatten(run()), weighting)
        )

    products = []
    for variable in model.trainable_variables:
        direction = source.normal(size=tuple(variable.shape))
        ours = float((ops.convert_to_numpy(found[id(variable)]) * direction).sum())
        start, ends = np.array(ops.convert_to_numpy(variable)), []
        for sign in (1, -1):
            variable.assign(start + sign * STEP * direction)
            ends.append(total())
            variable.assign(start)
        products.append((variable.path, ours, (ends[0] - ends[1]) / (2 * STEP)))
    return products


def composed(layer):
    """A layer as it is; but an attention layer on JAX is composed of Keras's operations, which a dropout makes it do.

    JAX's own attention, in one operation, computes in single precision whatever it is given. So rare a dropout drops
    nothing.
    """
    config = layer.get_config()
    if isinstance(layer, layers.MultiHeadAttention) and keras.config.backend() == "jax":
        config["dropout"] = 1e-12
    return type(layer).from_config(config)


def compiled(model, batch):
    """The model in training, as a function of nothing that reads the weights each time it is called."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda: model(batch, training=True))
    if keras.config.backend() == "jax":
        import jax

        run = jax.jit(lambda weights, others: model.stateless_call(weights, others, batch, training=True)[0])
        return lambda: run(
            *([one.value for one in held] for held in (model.trainable_variables, model.non_trainable_variables))
        )
    return lambda: [one.detach() for one in keras.tree.flatten(model(batch, training=True))]


def main():
    keras.config.set_floatx("float64")
    # Away from TensorFlow, Keras makes single precision of what it computes from tensors of different types.
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    print(json.dumps([products_of(build, batch) for build, batch in batches()]))


def run_on(backend):
    here = pathlib.Path(__file__).parent
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "JAX_ENABLE_X64": "1",
        # JAX mostly compiles here, hundreds of small programs once each: quickly, then.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)]),
    }
    command = [sys.executable, "-c", "import test_gradients; test_gradients.main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_near(products):
    floor = FLOOR * max(abs(expected) for _, _, expected in products)
    errors = {path: abs(ours - expected) / max(abs(expected), floor) for path, ours, expected in products}
    assert {path: error for path, error in errors.items() if error > TOLERANCE} == {}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_gradients_are_those_of_finite_differences(backend):
    if keras.config.backend() != "tensorflow":
        pytest.skip("Each backend has a process of its own: they are started once, from TensorFlow's tests.")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed.")
    for products in run_on(backend):
        assert_near(products)


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
