"""After `AutoInit` every kernel has the spread of its formula, and a He layer the output it is meant to have.

Fans are a matter of a weight's role, and every kind of layer lays its roles out in another way. So
the fans here are written down by hand, layer by layer, and both ends are measured on real models:
the kernel's spread, and the second moment of what the layer makes of unit-normal input.
"""

import functools
import math
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from keras_autoinit import AutoInit, Table
from keras_autoinit.draws import TRUNCATED_STD

layers = keras.layers

# Kurtosis E x^4 / (E x^2)^2. Of a unit normal cut off at two, the second moment v is the square of
# TRUNCATED_STD, and the fourth is 3 v - 4 (1 - v).
VARIANCE = TRUNCATED_STD**2
TRUNCATED, NORMAL, UNIFORM = (3 * VARIANCE - 4 * (1 - VARIANCE)) / VARIANCE**2, 3.0, 1.8


class Kernel(NamedTuple):
    """A weight of a layer, and its fans."""

    weight: str
    fan_in: float
    fan_out: float
    divisor: float = 1.0  # product of the strides of a transposed convolution
    number: int = 1  # matrices that it holds: groups or channels


class Case(NamedTuple):
    """A layer on inputs of a shape, its kernels, and how wide the borders of its output are."""

    make: Any
    shape: tuple[int, ...]
    kernels: tuple[Kernel, ...]
    border: int = 0
    stride: int = 1
    batch: int = 32


# Sizes are such that the standard error of an output's second moment is below 1 % (checked below):
# from the weights sqrt((kurtosis - 1) / number of weights), so 14,000 of them and more, and from
# the inputs what the spread among the images says.
CASES = {
    "dense": Case(lambda: layers.Dense(200), (300,), (Kernel("kernel", 300, 200),), batch=512),
    "conv1d": Case(lambda: layers.Conv1D(128, 5), (40, 64), (Kernel("kernel", 320, 640),)),
    "conv2d": Case(lambda: layers.Conv2D(64, 3), (12, 12, 64), (Kernel("kernel", 576, 576),)),
    "conv2d same": Case(
        lambda: layers.Conv2D(64, 3, padding="same"), (12, 12, 64), (Kernel("kernel", 576, 576),), border=1
    ),
    "conv3d": Case(lambda: layers.Conv3D(64, 3), (6, 6, 6, 24), (Kernel("kernel", 648, 1728),)),
    "grouped": Case(lambda: layers.Conv2D(128, 3, groups=4), (10, 10, 128), (Kernel("kernel", 288, 288, number=4),)),
    "depthwise": Case(lambda: layers.DepthwiseConv2D(5), (9, 9, 1024), (Kernel("kernel", 25, 25, number=1024),)),
    "depthwise 3": Case(
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=3), (7, 7, 1024), (Kernel("kernel", 9, 27, number=1024),)
    ),
    "depthwise 1d": Case(
        lambda: layers.DepthwiseConv1D(5, depth_multiplier=3), (12, 2048), (Kernel("kernel", 5, 15, number=2048),)
    ),
    "separable": Case(
        lambda: layers.SeparableConv2D(64, 5, depth_multiplier=2),
        (9, 9, 768),
        (Kernel("depthwise_kernel", 25, 50, number=768), Kernel("pointwise_kernel", 1536, 64)),
        batch=64,
    ),
    "separable 1d": Case(
        lambda: layers.SeparableConv1D(64, 7),
        (20, 4096),
        (
            Kernel("depthwise_kernel", 7, 7, number=4096),
            Kernel("pointwise_kernel", 4096, 64),
        ),
        batch=64,
    ),
    "transposed 1": Case(lambda: layers.Conv2DTranspose(64, 3), (10, 10, 64), (Kernel("kernel", 576, 576),), border=2),
    "transposed 2": Case(
        lambda: layers.Conv2DTranspose(48, 4, strides=2), (8, 8, 64), (Kernel("kernel", 256, 768, 4.0),), 3, 2
    ),
    "transposed 2 odd": Case(
        lambda: layers.Conv2DTranspose(64, 3, strides=2), (8, 8, 64), (Kernel("kernel", 144, 576, 4.0),), 2, 2
    ),
    "transposed 3": Case(
        lambda: layers.Conv2DTranspose(64, 3, strides=3), (6, 6, 64), (Kernel("kernel", 64, 576, 9.0),), 2, 3
    ),
    "transposed 1d": Case(
        lambda: layers.Conv1DTranspose(96, 6, strides=3), (20, 64), (Kernel("kernel", 128, 576, 3.0),), 5, 3, 64
    ),
    "einsum abc,cde->abde": Case(
        lambda: layers.EinsumDense("abc,cde->abde", (None, 8, 32)), (16, 128), (Kernel("kernel", 128, 256),)
    ),
    "einsum abcd,cde->abe": Case(
        lambda: layers.EinsumDense("abcd,cde->abe", (None, 256)), (16, 8, 16), (Kernel("kernel", 128, 256),)
    ),
    "einsum btd,ndh->btnh": Case(
        lambda: layers.EinsumDense("btd,ndh->btnh", (None, 8, 32)), (16, 128), (Kernel("kernel", 128, 256),)
    ),
}
every_layer = pytest.mark.parametrize("name", CASES)


@functools.cache
def layer_and_model(name):
    """Returns a layer, and a model in which a ReLU follows it."""
    case = CASES[name]
    layer, inputs = case.make(), keras.Input(case.shape)
    return layer, keras.Model(inputs, layers.ReLU()(layer(inputs)))


def values(layer, kernel):
    return keras.ops.convert_to_numpy(getattr(layer, kernel.weight)).astype(np.float64)


# Scheme -> its variance from the fans, and the kurtosis of its numbers.
FORMULAS = {
    "xavier_normal": (lambda kernel: 2 / (kernel.fan_in + kernel.fan_out), TRUNCATED),
    "xavier_uniform": (lambda kernel: 2 / (kernel.fan_in + kernel.fan_out), UNIFORM),
    "he_normal": (lambda kernel: 2 / kernel.fan_in, TRUNCATED),
    "he_uniform": (lambda kernel: 2 / kernel.fan_in, UNIFORM),
    "lecun_normal": (lambda kernel: 1 / kernel.fan_in, TRUNCATED),
    "lecun_uniform": (lambda kernel: 1 / kernel.fan_in, UNIFORM),
    # With mode="fan_out" and a gain of one.
    "variance_scaling": (lambda kernel: 1 / kernel.fan_out, TRUNCATED),
    # With five inputs to each unit.
    "sparse": (lambda kernel: 1 / kernel.fan_in, NORMAL),
}
CONFIGS = {"variance_scaling": {"mode": "fan_out"}, "sparse": {"nonzeros": 5}}


@every_layer
@pytest.mark.parametrize("scheme", FORMULAS)
def test_a_kernel_has_the_spread_of_the_formula(name, scheme):
    layer, model = layer_and_model(name)
    row = keras.initializers.get({"class_name": f"autoinit>{scheme}", "config": CONFIGS.get(scheme, {})})
    AutoInit(Table({"relu": row, "depthwise": row}), seed=5).apply(model)
    formula, kurtosis = FORMULAS[scheme]
    for kernel in CASES[name].kernels:
        drawn = values(layer, kernel)
        # Of n independent numbers the mean square has the relative standard error
        # sqrt((kurtosis - 1) / n); five of them. A sparse kernel draws 5 numbers for each unit,
        # of the fan_in * divisor that the unit has.
        number = drawn.size * 5 / (kernel.fan_in * kernel.divisor) if scheme == "sparse" else drawn.size
        tolerance = 5 * math.sqrt((kurtosis - 1) / number)
        assert np.mean(drawn**2) == pytest.approx(formula(kernel), rel=tolerance)


@every_layer
def test_an_orthogonal_kernel_has_the_spread_of_its_longer_side(name):
    layer, model = layer_and_model(name)
    AutoInit(Table({"relu": "autoinit>orthogonal", "depthwise": "autoinit>orthogonal"}), seed=5).apply(model)
    for kernel in CASES[name].kernels:
        drawn = values(layer, kernel)
        rows = kernel.fan_in * kernel.divisor
        columns = drawn.size / rows / kernel.number
        # Unit columns, or rows where those are shorter, times the root of the divisor: no chance in
        # it, so up to rounding to float32, which is 2^-24 of each number.
        assert np.mean(drawn**2) == pytest.approx(kernel.divisor / max(rows, columns), rel=2**-22)


def output_second_moment(layer, case):
    """Returns the second moment of a layer's output on unit-normal input, and its standard error.

    The error is relative. From the inputs: images are independent, so the spread of their second
    moments tells that of the mean. From the weights: on average over outputs, the second moment is
    the sum of the squares of the weights (kernels that follow one another multiply).
    """
    images = np.random.default_rng(0).standard_normal((case.batch, *case.shape)).astype("float32")
    made = keras.ops.convert_to_numpy(layer(images)).astype(np.float64)
    if case.border:
        made = made[(slice(None), *(interior(length, case) for length in made.shape[1:-1]))]
    per_image = np.mean(made.reshape(case.batch, -1) ** 2, axis=1)
    from_inputs = per_image.std(ddof=1) / math.sqrt(case.batch) / per_image.mean()
    from_weights = math.sqrt(sum((TRUNCATED - 1) / values(layer, kernel).size for kernel in case.kernels))
    return per_image.mean(), math.hypot(from_inputs, from_weights)


def interior(length, case):
    """Returns the positions away from the borders, as many of each phase of the stride."""
    inside = length - 2 * case.border
    return slice(case.border, case.border + inside // case.stride * case.stride)


@every_layer
def test_a_he_layer_doubles_the_second_moment(name):
    layer, model = layer_and_model(name)
    plan = AutoInit(seed=5).apply(model)
    assert [row.new.name for row in plan][-1] == "autoinit>he_normal"
    second_moment, error = output_second_moment(layer, CASES[name])
    # So the five per cent below are five standard errors and more.
    assert 5 * error < 0.05
    assert second_moment == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(("name", "channels"), [("depthwise", 1024), ("depthwise 3", 1024), ("depthwise 1d", 2048)])
def test_stock_keras_gives_a_depthwise_layer_a_channel_th_of_it(name, channels):
    case = CASES[name]
    layer = layers.deserialize(layers.serialize(case.make()))
    layer.depthwise_initializer = keras.initializers.HeNormal(seed=5)
    layer.build((None, *case.shape))
    second_moment, error = output_second_moment(layer, case)
    assert 5 * error < 0.05
    assert second_moment == pytest.approx(2 / channels, rel=0.05)
