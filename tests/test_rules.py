"""A rule that is wrong is wrong silently: each is set against what the layer does to random numbers.

Inputs are independent across samples unless said otherwise, 64 or more samples of a few thousand
numbers each; a second moment is then known to about a per cent, one behind random weights of width
128 to about ten.
"""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_autoinit
from keras_autoinit.averages import averaged
from keras_autoinit.bending import steepness
from keras_autoinit.gradients import forward
from keras_autoinit.graphs import read
from keras_autoinit.laws import BATCH
from keras_autoinit.prediction import Given, follow
from keras_autoinit.rules.products import contracted, weighted
from keras_autoinit.signals import Signal, constant
from keras_autoinit.sizes import Dropped

SAMPLES = 64
SHARED = 0.5


@pytest.fixture(autouse=True)
def seeded():
    """Keras's own initializers draw alike each time: tolerances are a few standard errors, of many numbers."""
    keras.utils.set_random_seed(0)


def predicted(build, shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, build(inputs))
    graph = read(model)
    prediction = follow(graph, Given())
    return model, prediction, prediction.signals[graph.outputs[0]]


def measured(model, shape, training):
    x = np.random.default_rng(0).normal(size=(SAMPLES, *shape)).astype("float32")
    return keras.ops.convert_to_numpy(model(x, training=training)).astype(np.float64)


def gradients_at(name, model, batch, source):
    """The squared gradient at what a layer puts out, predicted and measured, of unit gradients at the output."""
    graph, found = read(model, batch, runnable=True), {}
    passed = forward(graph, batch, lambda call, outputs: None)
    ends = [source.normal(size=tuple(one.shape)).astype("float32") for one in passed.outputs]
    passed.back(ends, lambda call, gradients: found.update(zip(call.outputs, gradients)))
    (call,) = graph.calls_of(model.get_layer(name))
    values = keras.ops.convert_to_numpy(found[call.outputs[0]]).astype(np.float64)
    return follow(graph, Given()).gradients[call.outputs[0]].second_moment, np.mean(values**2)


def centred(x):
    return x - ops.mean(x, axis=-1, keepdims=True)


BUILDS = {
    "dense": (lambda x: layers.Dense(256)(x), (256,)),
    "convolution": (lambda x: layers.Conv2D(128, 3, padding="same")(x), (6, 6, 32)),
    "strided": (lambda x: layers.Conv2D(128, 3, 2, padding="same")(x), (8, 8, 32)),
    "depthwise": (lambda x: layers.DepthwiseConv2D(3, padding="same")(x), (6, 6, 256)),
    "separable": (lambda x: layers.SeparableConv2D(128, 3, padding="same")(x), (6, 6, 256)),
    "padded": (lambda x: layers.Conv2D(128, 3)(layers.ZeroPadding2D(1)(x)), (6, 6, 32)),
    "relu": (lambda x: layers.ReLU()(x), (256,)),
    "gelu": (lambda x: layers.Activation("gelu")(x), (256,)),
    "max_pooling": (lambda x: layers.MaxPooling2D(2)(x), (8, 8, 32)),
    "relu, max_pooling": (lambda x: layers.MaxPooling2D(3, 2, padding="same")(layers.ReLU()(x)), (8, 8, 32)),
    "padded, max_pooling": (lambda x: layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x)), (4, 4, 128)),
    "average_pooling": (lambda x: layers.AveragePooling2D(2)(x), (8, 8, 32)),
    "global_average": (lambda x: layers.GlobalAveragePooling2D()(layers.ReLU()(x)), (4, 4, 64)),
    "global_max": (lambda x: layers.GlobalMaxPooling2D()(x), (4, 4, 64)),
    "batch_normalization": (lambda x: layers.BatchNormalization()(layers.ReLU()(x)), (256,)),
    "layer_normalization": (lambda x: layers.LayerNormalization()(layers.ReLU()(x)), (256,)),
    "group_normalization": (lambda x: layers.GroupNormalization(8)(layers.ReLU()(x)), (4, 4, 64)),
    "add": (lambda x: layers.Add()([x, layers.ReLU()(layers.Dense(256)(x))]), (256,)),
    "twice": (lambda x: x + x, (256,)),
    "average": (lambda x: layers.Average()([x, layers.Dense(256)(x)]), (256,)),
    "multiply": (lambda x: layers.Multiply()([layers.Dense(256)(x), layers.Dense(256, "sigmoid")(x)]), (256,)),
    "maximum": (lambda x: layers.Maximum()([layers.Dense(256)(x), layers.Dense(256)(x)]), (256,)),
    "concatenate": (lambda x: layers.Concatenate()([x, layers.ReLU()(x)]), (256,)),
    "dropout": (lambda x: layers.Dropout(0.4, seed=0)(x), (256,)),
    "noise": (lambda x: layers.GaussianNoise(0.5, seed=0)(x), (256,)),
    "rescaling": (lambda x: layers.Rescaling(0.5, offset=1.0)(layers.Identity()(x)), (256,)),
    "arithmetic": (lambda x: ops.square(x) / 2 - 1, (256,)),
    "root_mean_square": (lambda x: x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6), (256,)),
    "centred": (lambda x: centred(layers.ReLU()(x)), (4,)),
    "slice": (lambda x: layers.ReLU()(x)[:, 1:3], (6, 32)),
    "softmax": (lambda x: layers.Softmax()(x), (64,)),
    "up_sampling": (lambda x: layers.UpSampling2D(2)(x), (4, 4, 32)),
    "flatten": (lambda x: layers.Dense(256)(layers.Flatten()(layers.ReLU()(x))), (4, 4, 16)),
    "einsum": (lambda x: layers.EinsumDense("abc,cde->abde", (6, 4, 64))(x), (6, 128)),
}


@pytest.mark.parametrize("name", BUILDS)
def test_a_rule_says_what_its_layer_does(name):
    build, shape = BUILDS[name]
    model, prediction, signal = predicted(build, shape)
    values = measured(model, shape, training=True)
    assert signal.second_moment == pytest.approx(np.mean(values**2), rel=0.12)
    assert signal.mean == pytest.approx(np.mean(values), abs=0.1 * np.sqrt(np.mean(values**2)))
    pairs = np.mean(values[:-1] * values[1:])
    assert signal.covariance == pytest.approx(pairs, abs=0.1 * np.mean(values**2))
    assert not prediction.notes


def normalized(x):
    return layers.BatchNormalization()(x)


def channels_of(activation, x):
    """Nine taps each: where entries are large, the next activation is steeper, and more comes back.

    Kernels are as large as plans make them: beside what Keras's own ones make, epsilon is all there is.
    """
    kernels = keras.initializers.TruncatedNormal(stddev=0.3)
    made = layers.DepthwiseConv2D(3, padding="same", depthwise_initializer=kernels)(x)
    return layers.Activation(activation)(normalized(made))


def steered(x, activation="relu"):
    """An average over positions hands the same gradient back to all of them, which meets the taps that made it pass."""
    return layers.GlobalAveragePooling2D()(channels_of(activation, x))


def joined(x):
    """Two signals of other sizes, and of one of them the larger part is a mean, which a normalization takes off."""
    small = layers.Conv2D(64, 1, kernel_initializer="lecun_normal")(layers.Rescaling(0.2, offset=0.5)(x))
    return normalized(layers.Concatenate()([x, small]))


# What stands between an activation and the end; the gradient in front of it all is looked at.
BACKWARD = {
    "depthwise, normalized": (lambda x: normalized(layers.DepthwiseConv2D(3, padding="same")(x)), (8, 8, 256)),
    "depthwise, steered": (lambda x: steered(x), (4, 4, 256)),
    # Of so few positions many channels: the draw of the kernels shows by 2 % with 512.
    "depthwise, steered from large entries": (lambda x: steered(layers.ReLU()(x)), (2, 2, 2048)),
    "depthwise, steered by swish": (lambda x: steered(layers.ReLU()(x), "swish"), (4, 4, 256)),
    "depthwise, swish behind swish": (lambda x: channels_of("swish", layers.Activation("swish")(x)), (4, 4, 1024)),
    "relu, max_pooling": (lambda x: layers.MaxPooling2D(2)(layers.ReLU()(x)), (8, 8, 64)),
    "convolution, max_pooling": (
        lambda x: layers.MaxPooling2D(3, 2, padding="same")(layers.Conv2D(256, 3, padding="same")(x)),
        (5, 5, 32),
    ),
    "gelu, max_pooling": (lambda x: layers.MaxPooling2D(2)(layers.Activation("gelu")(x)), (8, 8, 64)),
    "padded": (lambda x: layers.Conv2D(128, 3)(layers.ZeroPadding2D(1)(x)), (4, 4, 64)),
    "joined": (joined, (8, 8, 64)),
    "open beside half open": (
        lambda x: layers.ReLU()(layers.Concatenate()([layers.Rescaling(2.0, offset=9.0)(x), x])),
        (256,),
    ),
    "every second": (lambda x: layers.AveragePooling2D(1, 2)(x), (8, 8, 64)),
    "max_pooling, largest of several windows": (
        lambda x: layers.GlobalAveragePooling2D()(layers.MaxPooling2D(3, 2)(x)),
        (9, 9, 64),
    ),
    "average_pooling, overlapping": (lambda x: layers.AveragePooling2D(3, 2, padding="same")(x), (8, 8, 64)),
    "average_pooling, of what windows agree in": (
        lambda x: layers.GlobalAveragePooling2D()(layers.AveragePooling2D(3, 1, padding="same")(x)),
        (2, 2, 256),
    ),
    "separable, strided": (lambda x: layers.SeparableConv2D(128, 5, 2, padding="same")(x), (8, 8, 128)),
    "border, silu": (
        lambda x: layers.Conv2D(256, 5, padding="same")(
            layers.Activation("silu")(layers.Conv2D(256, 5, padding="same", kernel_initializer="he_normal")(x))
        ),
        (4, 4, 64),
    ),
    "root mean square": (lambda x: x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6), (64, 16)),
    "stochastic depth": (lambda x: layers.Dropout(0.5, noise_shape=(None, 1, 1, 1), seed=0)(x), (4, 4, 64)),
    "trunk": (
        lambda x: layers.ReLU()(
            layers.Add()([layers.ReLU()(layers.Add()([layers.ReLU()(x), layers.Dense(256)(x)])), layers.Dense(256)(x)])
        ),
        (256,),
    ),
}


@pytest.mark.parametrize("name", BACKWARD)
def test_a_rule_says_what_comes_back(name):
    """Independent unit gradients at the output; the square behind 64 samples is known to a few per cent."""
    build, shape = BACKWARD[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, build(layers.Identity(name="start")(inputs)))
    source = np.random.default_rng(0)
    batch = source.normal(size=(SAMPLES, *shape)).astype("float32")
    expected, square = gradients_at("start", model, batch, source)
    # The run leaves dropout out, and keeps the factor that it has on squares with it.
    expected *= 0.5 if name == "stochastic depth" else 1.0
    assert expected == pytest.approx(square, rel=0.08)


BORDERS = {
    "same": lambda x: layers.Conv2D(512, 3, padding="same")(x),
    "zeros": lambda x: layers.Conv2D(512, 3)(layers.ZeroPadding2D(1)(x)),
}


def ones(x):
    """Of an input that is scaled itself, a scaling is taken to make a unit signal."""
    return layers.Rescaling(0.0, offset=1.0)(layers.Identity()(x))


def test_what_a_model_scales_its_inputs_by_makes_them_a_unit_signal():
    """Pictures of 0 to 255 become numbers from -1 to 1, not all of them nearly -1."""
    _, _, signal = predicted(lambda x: layers.Rescaling(1 / 127.5, offset=-1.0)(x), (4, 4, 3))
    assert (signal.second_moment, signal.mean, signal.covariance) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("name", BORDERS)
def test_windows_at_a_border_have_fewer_taps_in_common(name):
    """At 2 x 2, of 3 taps on a side 2 are inside; two windows share 3 of 4 of these on average, with themselves."""
    _, _, signal = predicted(lambda x: BORDERS[name](ones(x)), (2, 2, 8))
    whole = averaged(signal, {1: 2.0, 2: 2.0})
    assert whole == pytest.approx(signal.second_moment * 0.75**2)


def test_the_borders_of_a_large_image_make_few_patterns():
    """Four edges, of which those that meet have one of three weights in common: `4^2 / (4 + 8 / 9)` patterns."""
    _, _, signal = predicted(BORDERS["same"], (400, 400, 1))
    assert signal.patterns == pytest.approx(16 / (4 + 8 / 9), rel=0.02)


@pytest.mark.parametrize("name", BORDERS)
def test_variances_that_a_batch_normalization_divides_by_differ(name):
    """The mean of `1 / v` is larger than one over the mean: what samples have in common is of few patterns."""
    inputs = keras.Input((2, 2, 128))
    convolved = BORDERS[name](layers.ReLU()(inputs))
    norm = layers.BatchNormalization()
    graph = read(keras.Model(inputs, norm(convolved)))
    prediction = follow(graph, Given())
    (call,) = graph.calls_of(norm)
    before, after = (prediction.gradients[one].second_moment for one in (call.inputs[0], call.outputs[0]))
    values = measured(keras.Model(inputs, convolved), (2, 2, 128), training=True)[:BATCH]
    inverse = np.mean(1 / values.var(axis=(0, 1, 2)))
    # Of a gradient, the mean goes off, and what goes with the signal.
    expected = inverse * (1 - 2 / values[..., 0].size)
    # 512 variances, each a sum of about 50 squares: five standard errors of their mean inverse.
    assert before / after == pytest.approx(expected, rel=5 * np.sqrt(2 / 50 / 512))


def test_of_units_that_vary_little_epsilon_takes_more_off():
    """Nine small taps: a unit's variance is often half the mean or twice, and epsilon is a twentieth of that."""
    inputs = keras.Input((6, 6, 512))
    small = keras.initializers.TruncatedNormal(stddev=0.05, seed=1)
    x = layers.DepthwiseConv2D(3, depthwise_initializer=small)(inputs)
    norm = layers.BatchNormalization(epsilon=0.005)
    model = keras.Model(inputs, norm(x))
    graph = read(model)
    (call,) = graph.calls_of(norm)
    values = measured(model, (6, 6, 512), training=True)
    # 512 kernels, whose shares of epsilon differ by a fifth: three standard errors.
    found = follow(graph, Given()).signals[call.outputs[0]]
    assert found.second_moment == pytest.approx(np.mean(values**2), rel=3 * 0.2 / np.sqrt(512))
    # And they stay so, in rising order: means over 32 units each, three standard errors.
    units = np.sort(np.mean(values**2, axis=(0, 1, 2)))
    expected, told = ((one / one.mean()).reshape(-1, 32).mean(1) for one in (units, found.profile[-1]))
    assert told == pytest.approx(expected, abs=3 * 0.2 / np.sqrt(32))
    assert told[0] < 0.8


def test_a_border_is_less_faint_once_the_mean_is_off():
    """There, a window has met less of the mean: what is left of that is added to what is faint."""
    _, _, before = predicted(lambda x: layers.Conv2D(512, 3, padding="same")(layers.ReLU()(x)), (6, 6, 64))
    model, _, after = predicted(
        lambda x: normalized(layers.Conv2D(512, 3, padding="same")(layers.ReLU()(x))), (6, 6, 64)
    )
    values = measured(model, (6, 6, 64), training=True)
    found = np.mean(values**2, axis=(0, 2, 3))
    # 512 units, of each of which a mean at the border is one number: three standard errors of its square.
    assert after.profile[1] == pytest.approx(found / found.mean(), abs=3 * np.sqrt(2 / 512))
    assert after.profile[1][0] > before.profile[1][0] + 0.05


# Of windows that hold zeros, the side, what is padded on either side, the taps and the stride.
WINDOWS = {"same": (4, (1, 1), 3, 1), "strided": (8, (0, 1), 3, 2), "every other": (4, (0, 0), 1, 2)}


def of_windows(name):
    """What convolutions read behind a rectifier whose borders are faint; a convolution that reads it."""
    side, pad, taps, stride = WINDOWS[name]
    inputs = keras.Input((side, side, 64))
    read_by = layers.ReLU()(layers.Conv2D(256, 3, padding="same")(inputs))
    model = keras.Model(inputs, read_by)
    keras.utils.set_random_seed(0)
    values = np.pad(measured(model, (side, side, 64), training=True), ((0, 0), pad, pad, (0, 0)))
    found = np.lib.stride_tricks.sliding_window_view(values, (taps, taps), axis=(1, 2))[:, ::stride, ::stride]
    padded = layers.ZeroPadding2D((pad, pad))(read_by)
    return inputs, layers.Conv2D(64, taps, strides=stride)(padded), found


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_have_in_common_what_their_taps_do(name):
    """The mean of all windows, over all kernels: of what each tap meets."""
    inputs, made, windows = of_windows(name)
    graph = read(keras.Model(inputs, made))
    signal = follow(graph, Given()).signals[graph.outputs[0]]
    share = (windows.mean((0, 1, 2)) ** 2).sum() / (windows**2).mean((0, 1, 2)).sum()
    told = averaged(signal, {0: float(SAMPLES), **{axis: float(windows.shape[axis]) for axis in (1, 2)}})
    # Of 256 channels, each with a mean of its own.
    assert told / signal.second_moment == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize("name", ["relu", "swish"])
def test_what_all_samples_have_in_common_is_most_where_entries_are_large(name):
    """Of a convolution whose borders are faint, and an activation with a mean: at one place, and over all."""
    model, _, signal = predicted(
        lambda x: layers.Activation(name)(normalized(layers.Conv2D(1024, 3, padding="same")(x))), (4, 4, 64)
    )
    values = measured(model, (4, 4, 64), training=True)
    means = values.mean((0, 1, 2))
    # Two samples: without what each one has with itself.
    one_place = (values.sum(0) ** 2 - (values**2).sum(0)).mean() / SAMPLES / (SAMPLES - 1)
    found = averaged(signal, {1: 4.0, 2: 4.0}, (0,))
    # Means of 1024 units, each over 64 samples of 16 places: within a fiftieth.
    assert signal.along[0] == pytest.approx(one_place, rel=0.02)
    assert found == pytest.approx(np.mean(means**2) - values.var() / values[..., 0].size, rel=0.02)
    assert signal.along[0] > 1.015 * found


@pytest.mark.parametrize("name", ["same", "strided"])
def test_borders_are_as_faint_as_they_are_once_the_mean_is_off(name):
    inputs, made, windows = of_windows(name)
    graph = read(keras.Model(inputs, normalized(made)))
    signal = follow(graph, Given()).signals[graph.outputs[0]]
    left = ((windows - windows.mean((0, 1, 2))) ** 2).mean((0, 2)).sum((1, 2, 3))
    assert signal.profile[1] == pytest.approx(left / left.mean(), abs=0.03)


def test_epsilon_is_certain_where_variances_are_not():
    """Of two positions, variances differ by chance: beside epsilon that matters less, forward as backward."""
    inputs = keras.Input((1, 2, 2048))
    small = keras.initializers.TruncatedNormal(stddev=0.1, seed=1)
    made = layers.DepthwiseConv2D((1, 3), padding="same", depthwise_initializer=small)(layers.ReLU()(inputs))
    norm = layers.BatchNormalization(epsilon=0.005)
    graph = read(keras.Model(inputs, norm(made)))
    (call,) = graph.calls_of(norm)
    prediction = follow(graph, Given())
    variances = measured(keras.Model(inputs, made), (1, 2, 2048), training=True)[:BATCH].var(axis=(0, 1, 2))
    before, after = (prediction.gradients[one].second_moment for one in (call.inputs[0], call.outputs[0]))
    # Kernels of three taps differ by about 0.6: three standard errors of a mean over 2048 of them.
    error = 3 * 0.6 / np.sqrt(2048)
    made = prediction.signals[call.outputs[0]].second_moment
    assert made == pytest.approx(np.mean(variances / (variances + 0.005)), rel=error)
    expected = np.mean(1 / (variances + 0.005)) * (1 - 2 / (BATCH * 2))
    assert before / after == pytest.approx(expected, rel=error)


def test_the_largest_of_windows_that_hold_fewer_at_a_border():
    """Windows of nine, six and four entries: the mean of all is not that of nine, nor smaller for being uneven."""
    model, _, signal = predicted(
        lambda x: layers.MaxPooling2D(3, 2, padding="same")(normalized(layers.Conv2D(256, 3, padding="same")(x))),
        (9, 9, 64),
    )
    values = measured(model, (9, 9, 64), training=True)
    assert signal.second_moment == pytest.approx(np.mean(values**2), rel=0.05)


def test_a_trunk_agrees_with_itself_as_little_as_it_is_faint():
    """What a normalization behind a trunk takes off is the mean of all positions, to which borders add less."""

    def block(x):
        return layers.ReLU()(layers.Add()([x, normalized(layers.Conv2D(256, 3, padding="same")(x))]))

    model, _, signal = predicted(
        lambda x: block(layers.ReLU()(normalized(layers.Conv2D(256, 3, padding="same")(layers.ReLU()(x))))), (6, 6, 64)
    )
    values = measured(model, (6, 6, 64), training=True)
    mean = averaged(signal, {0: float(SAMPLES), 1: 6.0, 2: 6.0})
    assert mean == pytest.approx(np.mean(values.mean((0, 1, 2)) ** 2), rel=0.01)


def test_what_a_batch_normalization_makes_averages_to_nothing():
    _, _, signal = predicted(lambda x: normalized(BORDERS["same"](layers.ReLU()(x))), (2, 2, 64))
    assert averaged(signal, {0: BATCH, 1: 2.0, 2: 2.0}) == pytest.approx(0.0, abs=0.005)


def test_what_averages_to_nothing_does_so_when_some_of_it_is_dropped():
    """Neighbours agree as they did, and a sum of such signals averages to nothing, too."""
    drop = layers.Dropout(0.2, noise_shape=(None, 1, 1, 1), seed=0)

    def build(x):
        return drop(normalized(BORDERS["same"](layers.ReLU()(x)))) + normalized(BORDERS["same"](layers.ReLU()(x)))

    _, _, signal = predicted(build, (4, 4, 64))
    # What is dropped no longer does, by what it has lost: a quarter of one sample's mean, of 32.
    own = averaged(signal, {1: 4.0, 2: 4.0})
    assert averaged(signal, {0: BATCH, 1: 4.0, 2: 4.0}) == pytest.approx(0.0, abs=0.25 * own / BATCH)


def test_rows_that_are_masked_are_few_and_entries_are_half():
    """Zeros for whole rows are padding; a rectifier written by hand takes every other entry."""
    _, _, masked = predicted(lambda x: ops.where(ops.all(x > -9, -1, keepdims=True), x, ops.zeros_like(x)), (4, 64))
    _, _, rectified = predicted(lambda x: ops.where(x > 0, x, ops.zeros_like(x)), (4, 64))
    assert masked.second_moment == pytest.approx(1.0)
    assert rectified.second_moment == pytest.approx(0.5)


def test_stochastic_depth_drops_whole_samples():
    drop = layers.Dropout(0.5, noise_shape=(None, 1, 1, 1), seed=0)
    _, _, signal = predicted(lambda x: drop(layers.ReLU()(x)), (4, 4, 64))
    assert signal.along[1] == pytest.approx(2 * signal.along[0], rel=1e-6)


def of_two_parts(x, drop, width=128):
    """A trunk, and a branch that samples are dropped from; and what makes of samples' sizes what is."""
    branch = layers.Dense(width, name="branch")(layers.Activation("swish")(normalized(x)))
    x = layers.Add(name="sum")([x, drop(branch)])
    for _ in range(4):
        x = layers.Activation("swish")(normalized(layers.Dense(width)(x)))
    return x


def test_samples_that_keep_their_branch_get_larger_gradients():
    """A sample that is dropped is smaller from there on, and so is its gradient: more comes back to the others."""
    rate, width = 0.3, 128
    inputs, mask = keras.Input((width,)), keras.Input((1,))
    whole = keras.Model(inputs, of_two_parts(inputs, layers.Dropout(rate, noise_shape=(None, 1))))
    prediction = follow(graph := read(whole), Given())
    places = {name: graph.calls_of(whole.get_layer(name))[0].outputs[0] for name in ("branch", "sum")}
    assert any(isinstance(key, Dropped) for key in prediction.signals[places["sum"]].sizes)
    back = {name: prediction.gradients[number].second_moment for name, number in places.items()}
    found = []
    for seed in range(40):
        keras.utils.set_random_seed(seed)
        source = np.random.default_rng(seed)
        model = keras.Model([inputs, mask], of_two_parts(inputs, lambda branch: layers.Multiply()([branch, mask])))
        kept = (source.random((BATCH, 1)) > rate) / (1 - rate)
        batch = [source.normal(size=(BATCH, width)).astype("float32"), kept.astype("float32")]
        values = [gradients_at(name, model, batch, np.random.default_rng(seed))[1] for name in ("branch", "sum")]
        found.append(values[0] / values[1])
    assert back["branch"] / back["sum"] > 1.03 / (1 - rate)
    error = 5 * np.std(found) / np.sqrt(len(found))
    assert back["branch"] / back["sum"] == pytest.approx(np.mean(found), abs=error)


@pytest.mark.parametrize("name", ["relu", "swish"])
def test_gradients_have_as_little_of_what_only_makes_channels_larger(name):
    """Behind a depthwise convolution that is normalized, how large a channel is changes nothing."""
    first = layers.BatchNormalization(name="first", epsilon=1e-6)
    mixing = layers.DepthwiseConv2D(3, padding="same")
    inputs = keras.Input((2, 2, 512))
    # What comes in is white: rotated, it is what a convolution makes.
    x = layers.Activation(name)(first(layers.Conv2D(512, 1)(inputs)))
    model = keras.Model(inputs, layers.BatchNormalization(epsilon=1e-6)(mixing(x)))
    source = np.random.default_rng(0)
    batch = source.normal(size=(BATCH, 2, 2, 512)).astype("float32")
    graph, made, back = read(model, batch, runnable=True), {}, {}
    passed = forward(graph, batch, lambda call, outputs: made.update(zip(call.outputs, outputs)))
    ends = [source.normal(size=tuple(one.shape)).astype("float32") for one in passed.outputs]
    passed.back(ends, lambda call, gradients: back.update(zip(call.outputs, gradients)))
    (call,) = graph.calls_of(first)
    signal, gradient = (
        keras.ops.convert_to_numpy(values[call.outputs[0]]).astype(np.float64).reshape(-1, 512)
        for values in (made, back)
    )
    shares = (gradient * signal).sum(0) ** 2 / (gradient**2).sum(0) / (signal**2).sum(0) * len(signal)
    told = follow(graph, Given()).gradients[call.outputs[0]]
    # 512 squares of Gaussians, each of a mean: five standard errors.
    assert told.radial * steepness(told) == pytest.approx(shares.mean(), abs=5 * shares.std() / np.sqrt(512) + 0.01)


def test_gradients_that_a_normalization_has_centred_have_little_of_a_mean_left():
    """They sum to nothing over a batch; behind a rectifier, to half as much as if they knew nothing of each other."""
    first = layers.BatchNormalization(name="first", epsilon=1e-6)
    inputs = keras.Input((2, 2, 64))
    hidden = layers.ReLU()(first(layers.Conv2D(512, 1)(inputs)))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(normalized(layers.Conv2D(512, 1)(hidden))))
    source, back = np.random.default_rng(0), {}
    batch = source.normal(size=(BATCH, 2, 2, 64)).astype("float32")
    graph = read(model, batch, runnable=True)
    passed = forward(graph, batch, lambda call, outputs: None)
    ends = [source.normal(size=(BATCH, 512)).astype("float32")]
    passed.back(ends, lambda call, gradients: back.update(zip(call.outputs, gradients)))
    (call,) = graph.calls_of(first)
    gradient = keras.ops.convert_to_numpy(back[call.outputs[0]]).astype(np.float64).reshape(-1, 512)
    means = gradient.mean(0) ** 2 / np.mean(gradient**2)
    told = follow(graph, Given()).gradients[call.outputs[0]]
    share = averaged(told, {0: float(BATCH), 1: 2.0, 2: 2.0}) / told.second_moment
    # 512 squares: five standard errors.
    assert share == pytest.approx(means.mean(), abs=5 * means.std() / np.sqrt(512))
    assert share < 0.7 / len(gradient)


def test_queries_hear_nothing_of_what_all_keys_have_in_common():
    source, tokens, width = np.random.default_rng(0), 16, 64
    logits, gradient = source.normal(size=(2, 4000, tokens))
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    at_logits = weights * (gradient - (weights * gradient).sum(1, keepdims=True))
    keys = np.sqrt(0.7) * source.normal(size=(4000, 1, width)) + np.sqrt(0.3) * source.normal(
        size=(4000, tokens, width)
    )
    measured_square = np.mean(np.einsum("ns,nsd->nd", at_logits, keys) ** 2)
    _, back = weighted(Signal(1.0, 0.0, (0.0, 0.0)), (1,), (4000, tokens))
    found = back(Signal(1.0, 0.0, (0.0, 0.0)))
    predicted_square = contracted(
        found, Signal(1.0, 0.0, (0.0, 0.7, 0.0)), ("NS", "NSD", "ND"), {"N": 4000, "S": tokens, "D": width}
    ).second_moment
    # The soft-max itself is averaged over 400 draws.
    assert predicted_square == pytest.approx(measured_square, rel=0.1)


def test_keys_hear_of_what_queries_have_in_common_without_what_keys_do():
    """The gradient at a soft-max is a product: of one factor half agrees over queries, of the other over keys."""
    source, tokens, width = np.random.default_rng(0), 8, 32

    def half_alike(shape):
        return np.sqrt(0.5) * (source.normal(size=shape) + source.normal(size=(shape[0], 1, shape[2])))

    gradient = np.einsum("ntd,nsd->nts", *(half_alike((2000, tokens, width)) for _ in range(2)))
    weights = np.exp(source.normal(size=gradient.shape))
    weights /= weights.sum(2, keepdims=True)
    at_logits = weights * (gradient - (weights * gradient).sum(2, keepdims=True))
    _, back = weighted(Signal(1.0, 0.0, (0.0, 0.0, 0.0)), (2,), gradient.shape)
    found = back(Signal(float(width), 0.0, (0.0, 0.5 * width, 0.5 * width)))
    # The soft-max itself is averaged over 400 draws.
    assert found.along[1] == pytest.approx(np.mean(at_logits[:, 1:] * at_logits[:, :-1]), rel=0.15)


def test_attention_averages_over_tokens():
    attend = layers.MultiHeadAttention(4, 32)
    model, _, signal = predicted(lambda x: attend(x, x), (16, 128))
    values = measured(model, (16, 128), training=True)
    assert signal.second_moment == pytest.approx(np.mean(values**2), rel=0.3)


def test_queries_hear_tokens_that_are_alike_by_chance():
    """Keys and values that are made from few features agree in the same pairs."""
    tokens, width, source = 96, 32, np.random.default_rng(0)
    inputs = keras.Input((tokens, width))
    query = layers.Identity(name="query")(layers.EinsumDense("abc,cde->abde", (tokens, 8, 32))(inputs))
    key, value = (layers.EinsumDense("abc,cde->abde", (tokens, 8, 32))(inputs) for _ in range(2))
    model = keras.Model(inputs, ops.dot_product_attention(query, key, value))
    batch = source.normal(size=(16, tokens, width)).astype("float32")
    expected, square = gradients_at("query", model, batch, source)
    # Without it the prediction is a quarter of what is measured; the soft-max is averaged over 400 draws.
    assert expected == pytest.approx(square, rel=0.25)


def test_an_lstm_settles_where_it_is_said_to():
    model, _, signal = predicted(lambda x: layers.LSTM(256)(x), (24, 64))
    values = measured(model, (24, 64), training=True)
    assert signal.second_moment == pytest.approx(np.mean(values**2), rel=0.35)


@keras.saving.register_keras_serializable(package="test_rules")
class Sorted(keras.layers.Layer):
    """Keras's own sort, for which there is no rule."""

    def call(self, x):
        return ops.sort(x) * 2


@keras.saving.register_keras_serializable(package="test_rules")
class Remembering(keras.layers.Layer):
    """Takes numbers alone, and keeps the first that it meets, as a scheduler of Keras Hub does."""

    def call(self, x):
        if not hasattr(self, "first"):
            self.first = float(ops.max(x))
        return ops.minimum(x, self.first)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_what_is_measured_keeps_nothing_of_it():
    layer = Remembering()
    _, prediction, _ = predicted(lambda x: layer(x), (256,))
    assert any("has no rule" in note for note in prediction.notes)
    assert not hasattr(layer, "first")


def test_what_has_no_rule_is_measured_and_noted():
    _, prediction, signal = predicted(lambda x: Sorted()(x), (256,))
    assert signal.second_moment == pytest.approx(4.0, rel=0.1)
    assert any("'sort' has no rule" in note for note in prediction.notes)


@keras.saving.register_keras_serializable(package="test_rules")
class Angles(keras.layers.Layer):
    """Numbers that depend on how many tokens there are, and on nothing else."""

    def call(self, x):
        places = ops.expand_dims(ops.arange(x.shape[1], dtype="float32"), 1)
        angles = places * 0.3 ** ops.arange(x.shape[2] // 2, dtype="float32")
        angles = ops.concatenate([angles, angles], axis=-1)
        return ops.cos(angles), ops.sin(angles)


def test_a_rotation_leaves_a_signal_as_large_as_it_was():
    """Cosines and sines that come from another layer are the numbers that they are, no unit signals."""

    def turned(x):
        cos, sin = Angles()(x)
        first, second = ops.split(x, 2, axis=-1)
        return x * cos + ops.concatenate([-second, first], axis=-1) * sin

    assert predicted(turned, (6, 32))[2].second_moment == pytest.approx(1.0, abs=1e-6)


WRITTEN = {
    "root of the mean": lambda x: x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6),
    "reciprocal": lambda x: x * ops.reciprocal(ops.sqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6)),
    "divided": lambda x: x / ops.sqrt(ops.mean(x * x, axis=-1, keepdims=True)),
    "unit length": lambda x: x / ops.sqrt(ops.sum(ops.power(x, 2), axis=-1, keepdims=True)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_signal_is_divided_by_its_own_size_hands_back_nothing_that_goes_with_it(name):
    inputs = keras.Input((16,))
    outputs = WRITTEN[name](layers.Dense(16, name="hidden", kernel_initializer="orthogonal")(inputs))
    source = np.random.default_rng(0)
    batch = 3 * source.normal(size=(4096, 16)).astype("float32")
    model = keras.Model(inputs, outputs)
    graph = read(model)
    made = follow(graph, Given()).signals[graph.outputs[0]].second_moment
    assert made == pytest.approx(np.mean(ops.convert_to_numpy(model(batch)) ** 2), rel=0.02)
    # Of sixteen directions one is lost; the gradient before it is as large as one over the signal's square there.
    wanted, found = gradients_at("hidden", model, batch / 3, source)
    assert wanted == pytest.approx(found, rel=0.2)


def test_a_divisor_hears_of_what_it_divides_by_the_square_of_itself():
    inputs = keras.Input((64,))
    divisor = layers.Dense(64, name="hidden", kernel_initializer="orthogonal")(inputs) * 0.1 + 4.0
    model = keras.Model(inputs, layers.Dropout(0.0)(inputs) / divisor)
    source = np.random.default_rng(0)
    wanted, found = gradients_at("hidden", model, source.normal(size=(2048, 64)).astype("float32"), source)
    assert wanted == pytest.approx(found, rel=0.1)


def test_no_gradient_comes_back_through_a_stop():
    inputs = keras.Input((8,))
    hidden = layers.Dense(8)(inputs)
    graph = read(keras.Model(inputs, ops.stop_gradient(hidden)))
    prediction = follow(graph, Given())
    assert prediction.signals[graph.outputs[0]] == prediction.signals[graph.calls[0].outputs[0]]
    assert graph.calls[0].outputs[0] not in prediction.gradients


@keras.saving.register_keras_serializable(package="test_rules")
class Affine(keras.layers.Layer):
    """A scale and a shift that start as one and zero."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(1,), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(1,), initializer="zeros", name="shift")

    def call(self, x):
        return x * self.scale + self.shift


def test_what_changes_nothing_keeps_what_a_signal_was_made_by():
    """The largest of rectified numbers is another than that of Gaussians of the same moments."""
    plain = predicted(lambda x: layers.MaxPooling2D(2)(layers.ReLU()(x)), (8, 8, 32))[2]
    affine = predicted(lambda x: layers.MaxPooling2D(2)(Affine()(layers.ReLU()(x))), (8, 8, 32))[2]
    assert affine.second_moment == plain.second_moment


@keras.saving.register_keras_serializable(package="test_rules")
class Positions(keras.layers.Layer):
    """Adds the rows of a table that a buffer says: all the first one, until it is told another."""

    def __init__(self, places, **kwargs):
        super().__init__(**kwargs)
        self.places, self.table = places, layers.Embedding(16, 64, embeddings_initializer="random_normal")

    def build(self, shape):
        self.table.build(None)

    def call(self, x):
        return x + self.table(ops.convert_to_tensor(self.places))


@pytest.mark.parametrize(("places", "again"), [([0] * 6, 1.0), (list(range(6)), 0.0), ([0, 0, 0, 1, 1, 1], 0.4)])
def test_rows_of_a_table_that_are_taken_again_agree(places, again):
    """As the table will be, not as it is: a plan that draws it anew knows its size already."""
    inputs = keras.Input((6, 64))
    model = keras.Model(inputs, layers.LayerNormalization()(Positions(np.array(places))(inputs)))
    graph = read(model)
    added = follow(graph, Given()).signals[graph.calls[0].outputs[0]]
    table = np.mean(ops.convert_to_numpy(model.layers[1].table.embeddings).astype(np.float64) ** 2)
    assert added.second_moment == pytest.approx(1 + table, rel=1e-6)
    assert added.along[1] == pytest.approx(again * table, abs=0.02 * table)


def test_a_gradient_is_at_the_token_that_is_read():
    """Of eight tokens the first is the one that is read: what stands beside it hears of it through attention alone."""
    inputs = keras.Input((7, 32))
    first = np.random.default_rng(1).normal(size=(1, 1, 32)).astype("float32")
    tokens = ops.concatenate([ops.broadcast_to(first, (2, 1, 32)), layers.Dense(32, name="patches")(inputs)], axis=1)
    model = keras.Model(inputs, layers.LayerNormalization()(tokens)[:, 0])
    graph = read(model)
    prediction = follow(graph, Given())
    (dense,) = graph.calls_of(model.get_layer("patches"))
    at_tokens = prediction.gradients[graph.readers(dense.outputs[0])[0].outputs[0]]
    assert at_tokens.profile[1].tolist() == [8, 0, 0, 0, 0, 0, 0, 0]
    assert prediction.gradients[dense.outputs[0]].second_moment < 1e-12


def test_register_rule_as_documented():
    text = (Path(__file__).parent.parent / "docs" / "rules.md").read_text()
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, namespace)
    assert namespace["plan"]["dense/kernel"].new.config["gain"] == pytest.approx(2.0)
    assert "register_rule" in keras_autoinit.__all__


@keras.saving.register_keras_serializable(package="test_rules")
class Doubled(keras.layers.Layer):
    """A layer that could be looked into."""

    def call(self, x):
        return 2 * x


def test_a_rule_comes_before_what_is_inside():
    @keras_autoinit.register_rule(Doubled)
    def claim(layer, signal):
        return signal.times(3.0)

    _, _, signal = predicted(lambda x: Doubled()(x), (8,))
    assert signal.second_moment == 9.0


def test_given_numbers_agree_with_themselves():
    signal, shape = constant(np.ones((3, 1)))
    assert shape == (3, 1)
    assert (signal.mean, signal.second_moment, signal.along) == (1.0, 1.0, (1.0, 1.0))


def test_windows_that_overlap_are_alike():
    """Averages of three entries that are one apart have two of them in common, those two apart one."""
    _, _, signal = predicted(lambda x: layers.AveragePooling1D(3, 1)(x), (40, 16))
    assert signal.by_distance((1,), [np.arange(4)]).tolist() == pytest.approx([1 / 3, 2 / 9, 1 / 9, 0.0])
    strided = predicted(lambda x: layers.Conv1D(16, 1, 2)(layers.AveragePooling1D(3, 1)(x)), (40, 16))[2]
    assert strided.by_distance((1,), [np.arange(2)])[1] == pytest.approx(strided.second_moment / 3)


NEIGHBOURS = {
    "max_pooling": lambda x: layers.MaxPooling2D(3, 2)(layers.ReLU()(x)),
    "average_pooling": lambda x: layers.AveragePooling2D(3, 1, padding="same")(layers.ReLU()(x)),
    "border": lambda x: layers.Conv2D(256, 3, padding="same")(layers.ReLU()(x)),
    "border, rectified": lambda x: layers.ReLU()(layers.Conv2D(1024, 9, padding="same")(layers.ReLU()(x))),
    "border, normalized": lambda x: normalized(layers.Conv2D(1024, 9, padding="same")(layers.ReLU()(x))),
    "normalized": lambda x: layers.ReLU()(normalized(layers.Conv2D(256, 1)(layers.MaxPooling2D(3, 1)(x)))),
    "trunk": lambda x: trunk(x),
    "joined": lambda x: layers.MaxPooling2D(3, 1)(
        layers.Concatenate()([layers.ReLU()(x), layers.ReLU()(layers.AveragePooling2D(3, 1, padding="same")(x))])
    ),
}


def trunk(x):
    """The largest of signals side by side that a small branch has been added to."""
    small = layers.AveragePooling2D(3, 1, padding="same")(x)
    joined = layers.Concatenate()([layers.ReLU()(x), layers.ReLU()(small)])
    branch = layers.Rescaling(0.2)(layers.Conv2D(128, 1)(joined))
    return layers.MaxPooling2D(2)(layers.ReLU()(layers.Add()([joined, branch])))


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_agree_as_far_as_said(name):
    """Some ten thousand pairs of 64 samples, and of 64 channels or more: known to a few per cent.

    At a border two thirds are a pattern that all samples have in common, which is known by the channels alone.
    """
    model, _, signal = predicted(NEIGHBOURS[name], (9, 9, 64))
    values = measured(model, (9, 9, 64), training=True)
    square = np.mean(values**2)
    known = 3 * 2 / 3 * np.sqrt(2 / values.shape[-1]) if name.startswith("border") else 0.05
    assert signal.second_moment == pytest.approx(square, rel=known)
    for other, pairs in ((False, (values, values)), (True, (values[:-1], values[1:]))):
        seen = [[np.mean(before * after) for before, after in apart(*pairs, down)] for down in range(2)]
        said = signal.by_distance((1, 2), [np.arange(2)] * 2, other)
        assert said / square == pytest.approx(np.array(seen) / square, abs=known)


def apart(first, second, down):
    """Two signals without and with a step to the right between their entries, and these many downwards."""
    first, second = first[:, : first.shape[1] - down], second[:, down:]
    return [(first, second), (first[:, :, :-1], second[:, :, 1:])]


def test_what_is_added_twice_is_twice_as_large_and_gets_twice_the_gradient():
    """In squares, four times; of what is subtracted from itself, nothing is left."""
    inputs = keras.Input((64,))
    hidden = layers.Dense(256)(inputs)
    found = follow(graph := read(keras.Model(inputs, [layers.Add()([hidden, hidden]), hidden - hidden])), Given())
    own = found.signals[graph.calls[0].outputs[0]]
    whole, none = (found.signals[number] for number in graph.outputs)
    assert whole.second_moment == pytest.approx(4 * own.second_moment)
    assert none.second_moment == 0.0
    assert found.gradients[graph.calls[0].outputs[0]].second_moment == pytest.approx(4.0)
