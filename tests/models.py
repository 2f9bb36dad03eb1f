"""Models that several test files share, small and with every layer named, so that paths are the same each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_autoinit.graphs import read
from keras_autoinit.recommendations import KEPT
from keras_autoinit.slots import Slot


def picture() -> keras.Sequential:
    """The convolutions, one inside a Sequential of its own."""
    stem = [
        keras.Input((8, 8, 8), name="stem_in"),
        layers.Conv2D(16, 3, groups=2, activation="relu", name="grouped"),
        layers.BatchNormalization(name="norm"),
    ]
    return keras.Sequential(
        [
            keras.Input((8, 8, 8), name="image_in"),
            keras.Sequential(stem, name="stem"),
            layers.DepthwiseConv2D(3, padding="same", activation="gelu", name="depthwise"),
            layers.SeparableConv2D(16, 3, activation="relu", name="separable"),
            layers.Conv2DTranspose(8, 4, strides=2, activation="silu", name="transposed"),
            layers.Conv2D(16, 3, activation="leaky_relu", name="convolution"),
            layers.GlobalAveragePooling2D(name="pool"),
        ],
        name="picture",
    )


def sentence() -> keras.Model:
    """Embedding, attention and recurrence, as a Functional model."""
    words = keras.Input((6,), dtype="int32", name="words_in")
    x = layers.Embedding(30, 16, name="embedding")(words)
    x = layers.Add(name="add")([x, layers.MultiHeadAttention(2, 8, name="attention")(x, x)])
    x = layers.EinsumDense("abc,cd->abd", (None, 16), bias_axes="d", activation="gelu", name="einsum")(x)
    return keras.Model(words, layers.Bidirectional(layers.LSTM(8, name="lstm"), name="both")(x), name="sentence")


def everything() -> keras.Model:
    """A Functional model of two nested ones, whose ends meet one shared layer."""
    image, words = keras.Input((8, 8, 8), name="image"), keras.Input((6,), dtype="int32", name="words")
    shared = layers.Dense(16, "relu", name="shared")
    x = layers.Concatenate(name="concatenate")([shared(picture()(image)), shared(sentence()(words))])
    return keras.Model([image, words], layers.Dense(3, "softmax", name="head")(x), name="everything")


def samples(number: int = 8) -> tuple[list[np.ndarray], np.ndarray]:
    """Inputs and labels for `everything`."""
    source = np.random.default_rng(0)
    image, words = source.normal(size=(number, 8, 8, 8)).astype("float32"), source.integers(0, 30, (number, 6))
    return [image, words.astype("int32")], source.integers(0, 3, number)


def mlp(*widths: int, bias: Any = "zeros") -> keras.Sequential:
    """Dense layers `dense0`, `dense1`, ... on four inputs; all but the last with a ReLU."""
    activations = ["relu"] * (len(widths) - 1) + [None]
    stack = [
        layers.Dense(width, activation, bias_initializer=bias, name=f"dense{i}")
        for i, (width, activation) in enumerate(zip(widths, activations))
    ]
    return keras.Sequential([keras.Input((4,)), *stack], name="mlp")


def regression(number: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets for an `mlp` of one output."""
    source = np.random.default_rng(0)
    return source.normal(size=(number, 4)).astype("float32"), source.normal(size=(number, 1)).astype("float32")


@dataclass(frozen=True)
class Kind:
    """A kind of layer, large enough to measure spreads on, and its fans counted by hand."""

    make: Callable[[], keras.Layer]
    shape: tuple[int, ...]
    fans: dict[str, tuple[float, float]]

    def model(self, built: bool) -> keras.Model:
        """A Sequential of the layer, built or not."""
        inputs = [keras.Input(self.shape, dtype="int32" if self.embeds else None)] if built else []
        return keras.Sequential([*inputs, self.make()], name="model")

    @property
    def embeds(self) -> bool:
        return "embeddings" in self.fans


KINDS = {
    "dense": Kind(lambda: layers.Dense(96), (128,), {"kernel": (128, 96)}),
    "convolution": Kind(lambda: layers.Conv2D(48, 3), (8, 8, 32), {"kernel": (9 * 32, 9 * 48)}),
    # An input channel meets the outputs of its own group only: 16 of 64.
    "grouped": Kind(lambda: layers.Conv2D(64, 3, groups=4), (8, 8, 32), {"kernel": (9 * 8, 9 * 16)}),
    "depthwise": Kind(lambda: layers.DepthwiseConv2D(5, depth_multiplier=2), (8, 8, 256), {"kernel": (25, 50)}),
    "separable": Kind(
        lambda: layers.SeparableConv2D(64, 5),
        (8, 8, 256),
        {"depthwise_kernel": (25, 25), "pointwise_kernel": (256, 64)},
    ),
    # Each output pixel is reached by a quarter of the taps.
    "transposed": Kind(
        lambda: layers.Conv2DTranspose(32, 4, strides=2), (4, 4, 24), {"kernel": (16 * 24 / 4, 16 * 32)}
    ),
    "einsum": Kind(lambda: layers.EinsumDense("abc,cde->abde", (None, 4, 24)), (6, 96), {"kernel": (96, 96)}),
    "embedding": Kind(lambda: layers.Embedding(500, 32), (6,), {"embeddings": (1, 32)}),
    "lstm": Kind(lambda: layers.LSTM(48), (5, 64), {"kernel": (64, 48), "recurrent_kernel": (48, 48)}),
    "gru": Kind(lambda: layers.GRU(48), (5, 64), {"kernel": (64, 48), "recurrent_kernel": (48, 48)}),
    "simple_rnn": Kind(lambda: layers.SimpleRNN(96), (5, 64), {"kernel": (64, 96), "recurrent_kernel": (96, 96)}),
    "bidirectional": Kind(
        lambda: layers.Bidirectional(layers.LSTM(48, name="inner")),
        (5, 64),
        {"kernel": (64, 48), "recurrent_kernel": (48, 48)},
    ),
    "time_distributed": Kind(
        lambda: layers.TimeDistributed(layers.Conv2D(24, 3, name="inner")), (2, 5, 5, 16), {"kernel": (144, 216)}
    ),
    "spectral": Kind(
        lambda: layers.SpectralNormalization(layers.Dense(96, name="inner")), (128,), {"kernel": (128, 96)}
    ),
    "conv_lstm_1d": Kind(
        lambda: layers.ConvLSTM1D(24, 3), (2, 8, 16), {"kernel": (48, 72), "recurrent_kernel": (72, 72)}
    ),
    "conv_lstm_2d": Kind(
        lambda: layers.ConvLSTM2D(12, 3), (2, 5, 5, 16), {"kernel": (144, 108), "recurrent_kernel": (108, 108)}
    ),
    "conv_lstm_3d": Kind(
        lambda: layers.ConvLSTM3D(8, 2), (2, 3, 3, 3, 16), {"kernel": (128, 64), "recurrent_kernel": (64, 64)}
    ),
}


def weights(model: keras.Model) -> dict[str, keras.Variable]:
    """Every weight that a plan draws, by the path of its row."""
    return {f"{p.path}/{s.weight}": s.variable(p.layer) for p in read(model).places for s in p.slots if drawn(s)}


def initializers(model: keras.Model) -> dict[str, Any]:
    """What the layers hold as the initializer of each of those weights."""
    return {f"{p.path}/{s.weight}": s.initializer(p.layer) for p in read(model).places for s in p.slots if drawn(s)}


def drawn(slot: Slot) -> bool:
    """Whether the weight is of a kind that gets a draw, as a bias does not; an unknown one may."""
    return slot.role not in KEPT or slot.role == "unknown"


def values(variables: Any) -> list[np.ndarray]:
    """Copies of variables as arrays."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def stack(depth: int, activation: Any, width: int = 256) -> keras.Sequential:
    """A plain chain of layers `dense0`, `dense1`, ..., and a linear `head`."""
    dense = [layers.Dense(width, activation, name=f"dense{i}") for i in range(depth)]
    return keras.Sequential([keras.Input((width,)), *dense, layers.Dense(width, name="head")])


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def second_moment(values: Any) -> float:
    """The mean square of a tensor."""
    return float(np.mean(np.square(keras.ops.convert_to_numpy(values), dtype=np.float64)))
