"""One seed gives one array: on every backend, with any number of threads, on any number of devices.

Each check runs in processes of its own, because backend, threads and devices are fixed when a
process starts. What they draw comes back as digests, so that "equal" means equal to the bit.
"""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

import keras_autoinit

BACKENDS = ["tensorflow", "jax", "torch"]

# Every scheme, drawn in single and half precision; large enough that several blocks are drawn.
SCHEMES = """
import hashlib, inspect, json, os
if os.environ.get("ONE_CORE") and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import keras
import numpy as np
from keras_autoinit import AutoInit, Orthogonal, schemes

def digest(tensor):
    values = np.ascontiguousarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))
    return hashlib.sha256(str(values.shape).encode() + values.tobytes()).hexdigest()

convolutional = {"dirac", "delta_orthogonal", "icnr"}
configs = {"mirrored": {"pairs_in": 20, "pairs_out": 20}, "variance_scaling": {"mode": "fan_out"}}
digests = {}
for kind in sorted(set(schemes.REGISTRY.values()), key=lambda kind: kind.names):
    config = configs.get(kind.names[0], {})
    config = {**config, "seed": 7} if "seed" in inspect.signature(kind).parameters else config
    shape = (3, 3, 64, 256) if kind.names[0] in convolutional else (700, 300)
    for dtype in ("float32", "float16", "bfloat16"):
        digests[f"{kind.names[0]} {dtype}"] = digest(kind(**config)(shape, dtype=dtype))
digests["seed generator"] = digest(schemes.HeNormal(seed=keras.random.SeedGenerator(7))((70, 30)))
"""

# A small model of every kind of layer, its names chosen by Keras. Its first weights are zeros, so
# that what is compared was drawn by this package, and JAX compiles nothing that is thrown away.
MODEL = """
layers = keras.layers
zero, depthwise_zero = {"kernel_initializer": "zeros"}, {"depthwise_initializer": "zeros"}
image, words = keras.Input((8, 8, 4)), keras.Input((6,), dtype="int32")
x = layers.Conv2D(8, 3, padding="same", activation="gelu", **zero)(image)
x = layers.DepthwiseConv2D(3, padding="same", **depthwise_zero)(x)
x = layers.ReLU()(x)
x = layers.Conv2DTranspose(6, 4, strides=2, padding="same", activation="relu", **zero)(x)
x = layers.GlobalAveragePooling2D()(x)
y = layers.Embedding(20, 8, embeddings_initializer="zeros")(words)
y = layers.MultiHeadAttention(2, 4, **zero)(y, y)
y = layers.EinsumDense("abc,cd->abd", (None, 12), activation="silu", **zero)(y)
y = layers.LSTM(6, recurrent_initializer="zeros", **zero)(y)
model = keras.Model([image, words], layers.Dense(3, **zero)(layers.Concatenate()([x, y])))
plan = AutoInit(seed=3).apply(model)
digests["plan"] = hashlib.sha256(plan.to_json().encode()).hexdigest()
for index, weight in enumerate(model.weights):
    digests[f"weight {index} {weight.path.split('/', 1)[1]}"] = digest(weight)
"""

# Sizes from which on BLAS shares its work out among threads.
LARGE = """
digests["large orthogonal float32"] = hashlib.sha256(Orthogonal(seed=18).array((1000, 500), "float32")).hexdigest()
digests["large orthogonal float64"] = hashlib.sha256(Orthogonal(seed=1).array((700, 300), "float64")).hexdigest()
"""

REPORT = """
print("DIGESTS " + json.dumps(digests))
"""

# A model built with its kernels laid out over two devices, then rewritten; beside it one without.
DEVICES = """
import json
import keras
import numpy as np
from keras_autoinit import AutoInit

KERNELS = {
    "columns": ("he_normal", {}, (None, "model")),
    "rows": ("xavier_uniform", {}, ("model", None)),
    "orthogonal": ("orthogonal", {}, (None, "model")),
    "mirrored": ("mirrored", {"pairs_in": 64, "pairs_out": 64}, ("model", None)),
    "sparse": ("sparse", {}, ("model", None)),
    "whole": ("lecun_normal", {}, (None, None)),
}

def build():
    stack = [keras.Input((16,)), keras.layers.Dense(4096, name="first", kernel_initializer="autoinit>zeros")]
    for name, (scheme, config, _) in KERNELS.items():
        scheme = keras.initializers.get({"class_name": f"autoinit>{scheme}", "config": {**config, "seed": 7}})
        stack.append(keras.layers.Dense(64, name=name, kernel_initializer=scheme))
    return keras.Sequential(stack)

def values(model):
    return [np.asarray(weight.value) for weight in model.weights]

mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], keras.distribution.list_devices())
layout_map = keras.distribution.LayoutMap(mesh)
for name, (_, _, axes) in KERNELS.items():
    layout_map[f".*{name}/kernel"] = axes

plain = build()
with keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch").scope():
    laid_out = build()
    equal = [(a == b).all() for a, b in zip(values(laid_out), values(plain))]
    AutoInit(seed=3).apply(laid_out)
AutoInit(seed=3).apply(plain)
equal_after = [(a == b).all() for a, b in zip(values(laid_out), values(plain))]
kernels = {name: laid_out.get_layer(name).kernel.value for name in KERNELS}
print("DIGESTS " + json.dumps({
    "devices": len(keras.distribution.list_devices()),
    "unequal as built": [weight.path for weight, same in zip(plain.weights, equal) if not same],
    "unequal as rewritten": [weight.path for weight, same in zip(plain.weights, equal_after) if not same],
    "split": sorted(name for name, kernel in kernels.items()
                    if kernel.addressable_shards[0].data.shape != kernel.shape),
}))
"""


@functools.cache
def digests(backend, *sources, **variables):
    """Returns what a fresh process on this backend prints; skips where the backend is missing."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed.")
    path = os.pathsep.join(
        filter(None, [str(pathlib.Path(keras_autoinit.__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    # As many threads as there are, whatever these tests themselves are held to.
    inherited = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    environment = {**inherited, "PYTHONPATH": path, "KERAS_BACKEND": backend, **variables}
    done = subprocess.run(
        [sys.executable, "-c", "".join(sources)], env=environment, capture_output=True, text=True, timeout=300
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("DIGESTS ")]
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(lines[-1].removeprefix("DIGESTS "))


def here(**variables):
    """Returns the digests that this process's own backend makes in a fresh process."""
    return digests(keras.config.backend(), SCHEMES, MODEL, LARGE, REPORT, **variables)


def of_backend(backend):
    return digests(backend, SCHEMES, MODEL, LARGE, REPORT)


def assert_equal(one, other, chosen):
    """Asserts that the digests with these names are equal, and that there are some."""
    names = [name for name in one if chosen(name)]
    assert names
    assert names == [name for name in other if chosen(name)]
    assert [name for name in names if one[name] != other[name]] == []


# What needs no process of the backend at hand, or is one comparison of two seen from its other side, is done once, from
# TensorFlow's tests, where that is installed.
ONCE = pytest.mark.skipif(
    keras.config.backend() != "tensorflow" and importlib.util.find_spec("tensorflow") is not None,
    reason="TensorFlow's tests do it.",
)
OTHERS = [backend for backend in BACKENDS if backend != keras.config.backend()]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "ONE_CORE": "1"}

# Numbers that every precision holds exactly, so that their digests are equal.
NOT_DRAWN = {"zeros", "ones", "constant", "identity", "dirac"}


def is_scheme(name):
    return not name.startswith(("weight", "plan", "large"))


@ONCE
@pytest.mark.parametrize("backend", OTHERS)
def test_every_scheme_draws_the_same_on_every_backend(backend):
    assert_equal(of_backend(backend), here(), is_scheme)


@ONCE
@pytest.mark.parametrize("backend", OTHERS)
def test_a_rewritten_model_is_the_same_on_every_backend(backend):
    assert_equal(of_backend(backend), here(), lambda name: name.startswith(("weight", "plan")))


def test_the_digests_tell_draws_apart():
    drawn = [value for name, value in here().items() if is_scheme(name) and name.split()[0] not in NOT_DRAWN]
    assert len(set(drawn)) == len(drawn) > 40


def test_every_kernel_of_the_model_was_drawn():
    weights = [value for name, value in here().items() if name.startswith("weight") and "bias" not in name]
    assert len(set(weights)) == len(weights) == 12


def test_every_scheme_draws_the_same_with_any_number_of_threads():
    assert_equal(here(**ONE_THREAD), here(), is_scheme)


def test_a_rewritten_model_is_the_same_with_any_number_of_threads():
    assert_equal(here(**ONE_THREAD), here(), lambda name: name.startswith(("weight", "plan")))


def test_a_large_orthogonal_matrix_is_the_same_with_any_number_of_threads():
    # Not in float64: LAPACK's own last bits depend on its threads, and there they show.
    assert_equal(here(**ONE_THREAD), here(), lambda name: name == "large orthogonal float32")


def two_devices():
    return digests("jax", DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu")


@ONCE
def test_two_devices_share_the_kernels():
    # Or else the tests below would compare a thing with itself.
    assert two_devices()["devices"] == 2
    assert two_devices()["split"] == ["columns", "mirrored", "orthogonal", "rows", "sparse"]


@ONCE
def test_kernels_laid_out_over_devices_equal_those_that_are_not():
    assert two_devices()["unequal as built"] == []


@ONCE
def test_a_model_laid_out_over_devices_is_rewritten_to_the_same_weights():
    assert two_devices()["unequal as rewritten"] == []
