"""Models that are hard to read: computed in subclasses, behind operations, in layers of one's own, in lists.

Every layer with weights has a name, so that paths are the same each time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops


class Standardized(layers.Conv2D):
    """A convolution that standardizes its kernel before each use (Qiao et al. 2019, arXiv 1903.10520)."""

    def call(self, inputs):
        kernel = ops.convert_to_tensor(self.kernel)
        mean, variance = ops.moments(kernel, (0, 1, 2), keepdims=True)
        kernel = (kernel - mean) / ops.sqrt(variance + 1e-5)
        outputs = ops.conv(inputs, kernel, self.strides, self.padding, dilation_rate=self.dilation_rate)
        return self.activation(ops.add(outputs, self.bias))


def standardized() -> keras.Model:
    inputs = keras.Input((12, 12, 3), name="image")
    x = Standardized(8, 3, name="first")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = Standardized(8, 3, activation="gelu", name="second")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(x))


def backend_function(name: str) -> Callable[[Any], Any]:
    """Returns a function of the backend itself, which takes none of Keras's symbolic tensors."""
    module = {"tensorflow": "tensorflow.nn", "jax": "jax.nn", "torch": "torch"}[keras.config.backend()]
    return getattr(importlib.import_module(module), name)


class Raw(layers.Layer):
    """Computes by functions of the backend, beyond the sight of Keras: `call` refuses symbolic tensors."""

    def __init__(self, **options):
        super().__init__(**options)
        self.mix = layers.Dense(16, name="mix")
        self.kernel_initializer = keras.initializers.get("glorot_uniform")

    def build(self, shape):
        self.mix.build(shape)
        self.kernel = self.add_weight(shape=(16, 8), initializer=self.kernel_initializer, name="kernel")

    def call(self, inputs):
        return backend_function("relu")(self.mix(inputs)) @ ops.convert_to_tensor(self.kernel)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 8)


def raw() -> keras.Model:
    inputs = keras.Input((8,), name="numbers")
    x = Raw(name="raw")(layers.Dense(8, name="before")(inputs))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.ReLU(name="relu")(x)))


def two_towers() -> keras.Model:
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    encoder = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, "relu", name="hidden"), layers.Dense(4, name="code")], name="encoder"
    )
    x = layers.Subtract(name="subtract")([encoder(left), encoder(right)])
    return keras.Model([left, right], layers.Dense(1, "sigmoid", name="head")(x))


def translator() -> keras.Model:
    """Sequence to sequence: a recurrent reader, and a recurrent writer that attends to it."""
    source = keras.Input((6,), dtype="int32", name="source")
    target = keras.Input((5,), dtype="int32", name="target")
    x = layers.Embedding(20, 8, name="source_words")(source)
    read = layers.Bidirectional(layers.LSTM(4, return_sequences=True, name="lstm"), name="reader")(x)
    y = layers.Embedding(20, 8, name="target_words")(target)
    written = layers.GRU(8, return_sequences=True, name="writer")(y)
    context = layers.AdditiveAttention(name="attention")([written, read])
    x = layers.Concatenate(name="concatenate")([written, context])
    x = layers.Dense(8, "tanh", name="mix")(x)
    return keras.Model([source, target], layers.Dense(20, "softmax", name="words")(x))


def unet() -> keras.Model:
    inputs = keras.Input((16, 16, 3), name="image")
    down = layers.Conv2D(8, 3, padding="same", activation="relu", name="down")(inputs)
    x = layers.MaxPooling2D(name="pool")(down)
    x = layers.Conv2D(16, 3, padding="same", name="bottom")(x)
    x = layers.ReLU(name="bottom_relu")(layers.BatchNormalization(name="bottom_norm")(x))
    x = layers.Conv2DTranspose(8, 2, strides=2, name="up")(x)
    x = layers.Concatenate(name="skip")([x, down])
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="merge")(x)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x))


def generator() -> keras.Model:
    """As in DCGAN (Radford et al. 2015, arXiv 1511.06434)."""
    return keras.Sequential(
        [
            keras.Input((16,), name="noise"),
            layers.Dense(4 * 4 * 16, use_bias=False, name="project"),
            layers.BatchNormalization(name="norm0"),
            layers.LeakyReLU(negative_slope=0.2, name="leaky0"),
            layers.Reshape((4, 4, 16), name="reshape"),
            layers.Conv2DTranspose(8, 4, strides=2, padding="same", use_bias=False, name="grow"),
            layers.BatchNormalization(name="norm1"),
            layers.LeakyReLU(negative_slope=0.2, name="leaky1"),
            layers.Conv2DTranspose(3, 4, strides=2, padding="same", activation="tanh", name="paint"),
        ],
        name="generator",
    )


class TimedBlock(layers.Layer):
    """A residual block of a diffusion U-Net: two convolutions, with the time added between them."""

    def __init__(self, filters, **options):
        super().__init__(**options)
        self.norm1, self.norm2 = (layers.GroupNormalization(4, name=f"norm{i}") for i in (1, 2))
        self.conv1, self.conv2 = (layers.Conv2D(filters, 3, padding="same", name=f"conv{i}") for i in (1, 2))
        self.time = layers.Dense(filters, name="time")
        self.skip = layers.Conv2D(filters, 1, name="skip")

    def call(self, inputs, time):
        x = self.conv1(ops.silu(self.norm1(inputs)))
        x = x + self.time(ops.silu(time))[:, None, None, :]
        x = self.conv2(ops.silu(self.norm2(x)))
        return x + self.skip(inputs)


def diffusion() -> keras.Model:
    image, time = keras.Input((8, 8, 4), name="image"), keras.Input((1,), name="moment")
    angles = time * ops.convert_to_tensor(2.0 ** np.arange(4, dtype="float32"))
    t = layers.Concatenate(name="waves")([ops.sin(angles), ops.cos(angles)])
    t = layers.Dense(16, "silu", name="time1")(t)
    t = layers.Dense(16, name="time2")(t)
    x = TimedBlock(8, name="block")(image, t)
    x = ops.silu(layers.GroupNormalization(4, name="norm")(x))
    return keras.Model([image, time], layers.Conv2D(4, 3, padding="same", name="noise")(x))


class Experts(layers.Layer):
    """A mixture of experts: a kernel of rank three each way, one matrix for each expert, made by `add_weight`."""

    def __init__(self, number, width, **options):
        super().__init__(**options)
        self.number, self.width = number, width
        self.router = layers.Dense(number, name="router")

    def build(self, shape):
        self.router.build(shape)
        self.up = self.add_weight(
            name="up", shape=(self.number, shape[-1], self.width), initializer=keras.initializers.RandomNormal(0.02)
        )
        self.down = self.add_weight(
            name="down", shape=(self.number, self.width, shape[-1]), initializer=keras.initializers.RandomNormal(0.02)
        )

    def call(self, inputs):
        shares = ops.softmax(self.router(inputs))
        hidden = ops.gelu(ops.einsum("bi,eih->beh", inputs, self.up))
        return ops.einsum("beh,eho,be->bo", hidden, self.down, shares)


def experts(kind: type[Experts] = Experts) -> keras.Model:
    inputs = keras.Input((8,), name="numbers")
    x = layers.Dense(8, "relu", name="before")(inputs)
    x = layers.Add(name="add")([x, kind(4, 16, name="experts")(x)])
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


class Held(keras.Model):
    """A subclassed model whose layers are held in a list, in a dictionary, and in a dictionary of lists."""

    def __init__(self):
        super().__init__(name="held")
        self.blocks = [layers.Dense(16, name=f"block{i}") for i in range(3)]
        self.heads = {"size": layers.Dense(1, name="size"), "kind": layers.Dense(3, name="kind")}
        self.towers = {"deep": [layers.Dense(16, name="deep0"), layers.Dense(16, "tanh", name="deep1")]}

    def call(self, inputs):
        x = inputs
        for block in self.blocks:
            x = ops.relu(block(x))
        for layer in self.towers["deep"]:
            x = layer(x)
        return {name: head(x) for name, head in self.heads.items()}


def held() -> keras.Model:
    model = Held()
    model(np.zeros((2, 8), "float32"))
    return model


class Wide(keras.Model):
    """A subclassed model that takes a dictionary."""

    def __init__(self):
        super().__init__(name="wide")
        self.words = layers.Embedding(20, 8, name="words")
        self.numbers = layers.Dense(8, name="numbers")
        self.head = layers.Dense(2, "softmax", name="head")

    def call(self, inputs):
        words = ops.mean(self.words(inputs["words"]), axis=1)
        return self.head(ops.concatenate([words, ops.tanh(self.numbers(inputs["numbers"]))], axis=-1))


def wide() -> keras.Model:
    model = Wide()
    model({"words": np.zeros((2, 4), "int32"), "numbers": np.zeros((2, 3), "float32")})
    return model


def dictionary() -> keras.Model:
    """A Functional model that takes and gives dictionaries."""
    inputs = {"image": keras.Input((8, 8, 3), name="image"), "words": keras.Input((4,), dtype="int32", name="words")}
    x = layers.Conv2D(8, 3, activation="relu", name="convolution")(inputs["image"])
    words = layers.Flatten(name="flat")(layers.Embedding(20, 8, name="embedding")(inputs["words"]))
    x = layers.Concatenate(name="join")([layers.GlobalAveragePooling2D(name="pool")(x), words])
    return keras.Model(inputs, {"a": layers.Dense(2, "softmax", name="a")(x), "b": layers.Dense(1, name="b")(x)})


class SqueezeAndExcite(layers.Layer):
    """Weighs channels by what is in all of them (Hu et al. 2017, arXiv 1709.01507)."""

    def __init__(self, channels, **options):
        super().__init__(**options)
        self.squeeze = layers.Dense(channels // 4, name="squeeze")
        self.excite = layers.Dense(channels, name="excite")

    def call(self, inputs):
        x = ops.relu(self.squeeze(ops.mean(inputs, axis=(1, 2))))
        return inputs * ops.sigmoid(self.excite(x))[:, None, None, :]


class SwiGLU(layers.Layer):
    """A gated feed-forward block (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width, **options):
        super().__init__(**options)
        self.gate, self.up = layers.Dense(width, name="gate"), layers.Dense(width, name="up")
        self.down = layers.Dense(8, name="down")

    def call(self, inputs):
        return self.down(ops.silu(self.gate(inputs)) * self.up(inputs))


def gates() -> keras.Model:
    inputs = keras.Input((12, 12, 3), name="image")
    x = ops.relu(layers.Conv2D(8, 3, name="stem")(inputs))
    x = layers.Conv2D(8, 3, name="before")(SqueezeAndExcite(8, name="weigh")(x))
    x = ops.mean(keras.activations.gelu(x), axis=(1, 2))
    x = x + SwiGLU(16, name="feed")(x)
    # A GLU in one piece, and a SiLU written out.
    left, right = ops.split(layers.Dense(16, name="halves")(x), 2, axis=-1)
    x = left * ops.sigmoid(right)
    own = layers.Dense(8, name="own")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(own * ops.sigmoid(own)))


MODELS: dict[str, Callable[[], keras.Model]] = {
    made.__name__: made
    for made in (
        standardized,
        raw,
        two_towers,
        translator,
        unet,
        generator,
        diffusion,
        experts,
        held,
        wide,
        dictionary,
        gates,
    )
}
