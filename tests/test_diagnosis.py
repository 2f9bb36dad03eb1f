"""A diagnosis is worth something only if it names the planted fault, at the layer that has it, and nothing else."""

import gc

import keras
import numpy as np
import pytest
from keras import layers
from keras.initializers import Constant, GlorotUniform, HeNormal, RandomNormal
from test_zoo import RUN
from zoo import APPLICATIONS, ZOO

from keras_autoinit import AutoInit, diagnose
from keras_autoinit.inputs import drawn_batch

WIDTH = 128


def stack(depth, activation, kernel, width=WIDTH, **options):
    """A plain chain of layers `d0`, `d1`, ..., each with an initializer of its own, and a linear head."""
    hidden = [
        layers.Dense(width, activation, kernel_initializer=kernel(i), name=f"d{i}", **options) for i in range(depth)
    ]
    head = layers.Dense(4, kernel_initializer=GlorotUniform(seed=999), name="head")
    return keras.Sequential([keras.Input((width,)), *hidden, head], name="stack")


def he(i):
    return HeNormal(seed=i)


def scaled(factor, width=WIDTH):
    return lambda i: RandomNormal(stddev=factor / width**0.5, seed=i)


def with_layer(place, **options):
    """Five layers from He, of which one is given other options."""
    model = stack(5, "relu", he)
    config = model.get_config()
    next(one for one in config["layers"] if one["config"]["name"] == f"d{place}")["config"].update(
        {name: keras.saving.serialize_keras_object(value) for name, value in options.items()}
    )
    return keras.Sequential.from_config(config)


def zero_kernel():
    return with_layer(2, kernel_initializer=keras.initializers.Zeros())


def all_zero_kernels():
    return stack(5, "relu", lambda i: keras.initializers.Zeros())


def equal_units():
    return with_layer(2, kernel_initializer=Constant(0.1))


def dead():
    return with_layer(2, bias_initializer=Constant(-10.0))


def nan_weight():
    model = stack(5, "relu", he)
    kernel = np.array(keras.ops.convert_to_numpy(model.get_layer("d2").kernel))
    kernel[3, 4] = np.nan
    model.get_layer("d2").kernel.assign(kernel)
    return model


def saturated():
    model = stack(4, "sigmoid", lambda i: keras.initializers.GlorotNormal(seed=i))
    kernel = model.get_layer("d2").kernel
    kernel.assign(keras.ops.convert_to_numpy(kernel) * 50)
    return model


def seeded_attention():
    x = keras.Input((6, 32))
    attention = layers.MultiHeadAttention(2, 16, kernel_initializer=HeNormal(seed=1), name="attention")
    return keras.Model(x, layers.Dense(4, name="head")(attention(x, x)))


def shared_instance():
    shared = HeNormal(seed=7)
    return stack(4, "relu", lambda i: shared if i in (1, 2) else he(i))


def depthwise_he():
    return keras.Sequential(
        [
            keras.Input((8, 8, 64)),
            layers.Conv2D(64, 3, kernel_initializer=he(1), activation="relu", name="before"),
            layers.DepthwiseConv2D(3, depthwise_initializer=he(2), activation="relu", name="depthwise"),
            layers.Conv2D(64, 1, kernel_initializer=he(3), activation="relu", name="after"),
            layers.Flatten(),
            layers.Dense(4, name="head"),
        ]
    )


def with_head(model, head):
    return keras.Sequential([keras.Input((WIDTH,)), *model.layers[:-1], head])


def twins(encoder):
    """Two inputs, one encoder, one number that says how far they are from each other."""
    left, right = keras.Input((WIDTH,)), keras.Input((WIDTH,))
    apart = keras.ops.absolute(encoder(left) - encoder(right))
    return keras.Model([left, right], layers.Dense(1, "sigmoid", name="same")(apart))


def twice_nan():
    model = twins(layers.Dense(16, "relu", name="encoder"))
    model.get_layer("encoder").kernel.assign(np.full((WIDTH, 16), np.nan))
    return model


def discriminator():
    """Pictures, narrowed to one score: few numbers at the end, thousands at the start."""
    inner = []
    for width in (32, 64, 128):
        inner += [layers.Conv2D(width, 4, strides=2, padding="same"), layers.LeakyReLU(0.2)]
    return keras.Sequential([keras.Input((32, 32, 3)), *inner, layers.Flatten(), layers.Dense(1)])


def bottleneck():
    widths = (256, 64, 8, 64, 256)
    return keras.Sequential(
        [keras.Input((784,)), *(layers.Dense(width, "relu") for width in widths), layers.Dense(784, "sigmoid")]
    )


def sequences():
    """Recurrent layers of each kind, one started by the state of another."""
    source, target = keras.Input((12,), dtype="int32"), keras.Input((10,), dtype="int32")
    read = layers.LSTM(16, return_sequences=True)(layers.Embedding(200, 32)(source))
    _, state = layers.GRU(16, return_state=True)(read)
    written = layers.GRU(16, return_sequences=True)(layers.Embedding(200, 32)(target), initial_state=state)
    return keras.Model([source, target], layers.Dense(200, "softmax")(written))


# What no model of the zoo has: a single score at the end, a sigmoid at the end, gates.
ORDINARY = {
    "discriminator": discriminator,
    "bottleneck": bottleneck,
    "sequences": sequences,
    "twins": lambda: twins(layers.Dense(16, "relu")),
    "tiny": lambda: keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)]),
}

FAULTS = {
    "zero kernel": (zero_kernel, {("zero_weights", "d2/kernel")}),
    "all kernels zero": (all_zero_kernels, {("zero_weights", f"d{i}/kernel") for i in range(5)}),
    "equal units": (equal_units, {("symmetric_units", "d2/kernel")}),
    "30 tanh at 0.05": (lambda: stack(30, "tanh", scaled(0.05)), {("vanishing_signal", "d0")}),
    "30 tanh at 0.05 absolute": (lambda: stack(30, "tanh", scaled(0.05 * WIDTH**0.5)), {("vanishing_signal", "d0")}),
    "30 tanh at 3": (lambda: stack(30, "tanh", scaled(3.0)), {("saturated_units", f"d{i}") for i in range(30)}),
    "30 relu from Glorot": (
        lambda: stack(30, "relu", lambda i: GlorotUniform(seed=i)),
        {("vanishing_signal", "d1")},
    ),
    "saturated sigmoid": (saturated, {("saturated_units", "d2")}),
    "dead units": (dead, {("dead_units", "d2")}),
    "seeded attention": (seeded_attention, {("symmetric_units", "attention")}),
    "shared instance": (shared_instance, {("shared_weights", "d2/kernel")}),
    "depthwise He": (depthwise_he, {("fan_mismatch", "depthwise/kernel")}),
    "NaN weight": (nan_weight, {("non_finite", "d2/kernel")}),
    "dead GELUs": (
        lambda: with_layer(2, activation="gelu", bias_initializer=Constant(-10.0)),
        {("dead_units", "d2")},
    ),
    # A sigmoid at the end puts out one half whatever has become of the signal.
    "nothing reaches the sigmoid": (
        lambda: with_head(stack(12, "relu", scaled(0.05)), layers.Dense(1, "sigmoid")),
        {("vanishing_signal", "d0")},
    ),
    "NaN in a layer that is called twice": (twice_nan, {("non_finite", "encoder/kernel")}),
    # The gain at which a unit second moment stays: chi = 1.178 a layer.
    "exploding gradient": (lambda: stack(100, "tanh", scaled(1.5925)), {("exploding_gradient", "d0")}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_where_it_is_and_nothing_else(name):
    build, expected = FAULTS[name]
    report = diagnose(build())
    assert {(finding.kind, finding.layer) for finding in report if finding.severity != "info"} == expected


@pytest.mark.parametrize("method", [None, "table", "theory", "data"])
@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_network_is_healthy(name, method):
    keras.utils.set_random_seed(2)
    model = ORDINARY[name]()
    if method is None:
        # As Keras draws it: off the table here and there, and worth no more than a word.
        diagnose(model).raise_if_unhealthy()
        return
    AutoInit(method, seed=1).apply(model, drawn_batch(model, 32) if method == "data" else None)
    assert diagnose(model).findings == ()


def test_an_initializer_that_does_not_suit_its_activation_is_named_once():
    report = diagnose(stack(3, "relu", lambda i: GlorotUniform(seed=i)))
    found = [finding for finding in report if finding.kind == "unfit_scheme"]
    assert [(finding.layer, finding.severity) for finding in found] == [("d0/kernel", "info")]
    # A square layer: the square roots of 1 / fan_in over those of 2 / fan_in.
    assert found[0].value == pytest.approx(0.5**0.5)
    assert "autoinit>he_normal" in found[0].advice


def test_a_gradient_that_dies_out_while_the_signal_does_not():
    # A sigmoid's slope is a quarter at most; its output stays about one half.
    report = diagnose(stack(12, "sigmoid", lambda i: GlorotUniform(seed=i)))
    kinds = {finding.kind for finding in report}
    assert kinds == {"vanishing_gradient", "collapsed_directions"}
    assert report.signals["d0"].sensitivity < 1e-4 * report.signals["d11"].sensitivity


def test_where_the_first_number_that_is_not_finite_arises():
    model = stack(4, "relu", he)
    kernel = model.get_layer("d1").kernel
    # Finite, but beyond single precision once it is multiplied with anything.
    kernel.assign(keras.ops.full(kernel.shape, 3e38) * keras.ops.sign(keras.ops.convert_to_tensor(kernel)))
    found = [(finding.kind, finding.layer) for finding in diagnose(model) if finding.severity == "error"]
    assert ("non_finite", "d1") in found


def test_zeros_on_purpose_are_no_fault():
    x = inputs = keras.Input((16,))
    y = layers.Dense(16, "relu", kernel_initializer=he(1), name="hidden")(x)
    y = layers.Dense(16, kernel_initializer="zeros", name="branch")(y)
    x = layers.Dense(3, kernel_initializer="zeros", name="head")(layers.Add()([x, y]))
    report = diagnose(keras.Model(inputs, x))
    assert report.healthy
    assert {(f.kind, f.layer) for f in report} == {("zero_weights", "branch/kernel"), ("zero_weights", "head/kernel")}


def test_a_mismatch_that_a_normalization_makes_up_for_is_no_fault():
    config = {"depthwise_initializer": he(2), "name": "depthwise"}
    inner = [layers.DepthwiseConv2D(3, **config), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()]
    report = diagnose(keras.Sequential([keras.Input((8, 8, 64)), *inner, layers.Dense(4)]))
    assert report.healthy
    assert [finding.severity for finding in report if finding.kind == "fan_mismatch"] == ["info"]


def test_layers_that_are_called_twice_and_tokens_and_masks():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(50, 16, mask_zero=True, name="embedding")(tokens)
    shared = layers.Dense(16, "tanh", name="shared")
    x = layers.LSTM(8, name="lstm")(shared(shared(x)))
    report = diagnose(keras.Model(tokens, layers.Dense(2, name="head")(x)))
    assert [row.path for row in report.signals] == ["embedding", "shared", "shared#2", "lstm", "head"]
    report.raise_if_unhealthy()


HEALTHY = ["MobileNetV3Small", "BertBackbone", "ViTBackbone"]


def batch_of(name, model):
    """Eight samples: what a batch normalization makes of two is no statistics."""
    specimen = ZOO[name]
    if specimen in APPLICATIONS:
        return drawn_batch(model, 8)
    source = np.random.default_rng(1)

    def more(array):
        if array.dtype.kind == "f":
            return source.normal(size=(8, *array.shape[1:])).astype(array.dtype)
        repeated = np.tile(array, (4, *[1] * (array.ndim - 1)))
        return source.permuted(repeated, axis=1) if array.ndim > 1 else repeated

    return keras.tree.map_structure(more, specimen.inputs(model))


@pytest.mark.parametrize(
    "name", [name if name in HEALTHY else pytest.param(name, marks=pytest.mark.slow) for name in ZOO if name in RUN]
)
def test_the_zoo_is_healthy_after_autoinit(name):
    keras.utils.clear_session()
    model = ZOO[name].build()
    batch = batch_of(name, model)
    # What a layer writes into its bias when it is built looks like training.
    AutoInit("data", seed=1, overwrite=True).apply(model, batch)
    diagnose(model, batch, predict=False).raise_if_unhealthy()
    gc.collect()


def with_a_branch(stop):
    """A branch whose output is left out, beside one that is read."""
    inputs = keras.Input((16,))
    aside = layers.Dense(16, "tanh", name="aside")(inputs)
    x = layers.Dense(16, "tanh", name="main")(inputs)
    x = layers.Add()([x, layers.Lambda(keras.ops.stop_gradient, output_shape=(16,))(aside)]) if stop else x
    return keras.Model(inputs, [layers.Dense(4, name="head")(x), *([] if stop else [keras.ops.stop_gradient(aside)])])


@pytest.mark.parametrize("stop", [True, False])
def test_a_layer_that_no_gradient_reaches_is_told_while_the_rest_learns(stop):
    model = with_a_branch(stop)
    report = diagnose(model)
    assert [(one.kind, one.severity, one.layer) for one in report] == [("no_gradient", "info", "aside")]
    assert report.healthy


def test_where_every_way_is_cut_the_gradient_vanishes():
    inputs = keras.Input((16,))
    x = layers.Dense(16, "tanh", name="first")(inputs)
    x = layers.Lambda(keras.ops.stop_gradient, output_shape=(16,))(x)
    model = keras.Model(inputs, layers.Dense(4, name="head")(layers.Dense(16, "tanh", name="second")(x)))
    assert [(one.kind, one.layer) for one in diagnose(model)] == [("vanishing_gradient", "first")]


def test_resnet50_is_healthy_as_keras_makes_it():
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
    diagnose(model, samples=8, predict=False).raise_if_unhealthy()
