"""Masks are worked out: attention that a model writes out by hand is as large as measured, and hands back as much.

512 samples of eight tokens and 64 features: a second moment is known to about a per cent, one behind
random weights of that width to a few.
"""

import keras
import numpy as np
import pytest
from both_ways import at_every_call, named
from keras import layers, ops

from keras_autoinit import AutoInit, Theory
from keras_autoinit.graphs import Ref, read
from keras_autoinit.prediction import Given, follow
from keras_autoinit.rules.masks import BARRED, causal, numbers_of

TOKENS, WIDTH, SAMPLES = 8, 64, 512
WINDOW = np.tri(TOKENS, k=0) * (1 - np.tri(TOKENS, k=-3))
BLOCKS = np.kron(np.eye(2), np.ones((TOKENS // 2, TOKENS // 2)))


def far_below(mask):
    return np.where(mask > 0, 0.0, -1e9).astype("float32")


@keras.saving.register_keras_serializable(package="test_masks")
class ByHand(layers.Layer):
    """Attention as models write it out, with a mask in one of several ways."""

    def __init__(self, way, **kwargs):
        super().__init__(**kwargs)
        self.way = way
        self.parts = [layers.Dense(WIDTH, kernel_initializer="lecun_normal") for _ in range(3)]

    def build(self, shape):
        for part in self.parts:
            part.build(shape)

    def call(self, x, given=None):
        query, key, value = (part(x) for part in self.parts)
        logits = ops.matmul(query, ops.transpose(key, (0, 2, 1))) / WIDTH**0.5
        return ops.matmul(ops.softmax(self.masked(logits, given)), value)

    def masked(self, logits, given):
        if self.way == "added":
            return logits + far_below(BLOCKS)
        if self.way == "added, cut up":
            return ops.reshape(ops.reshape(logits, (-1, 1, TOKENS, TOKENS)) + far_below(WINDOW), (-1, TOKENS, TOKENS))
        if self.way == "put in":
            return ops.where(WINDOW > 0, logits, -1e9)
        if self.way == "its largest taken off":
            logits = ops.where(WINDOW > 0, logits, -1e9)
            return logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
        if self.way == "padding":
            return logits + (1.0 - ops.cast(given, "float32")[:, None, :]) * -1e9
        return ops.where(ops.logical_and(given[:, None, :] > 0, WINDOW > 0), logits, -1e9)


def model_of(way):
    inputs = keras.Input((TOKENS, WIDTH))
    if way in ("padding", "window and padding"):
        mask = keras.Input((TOKENS,), dtype="int32")
        return keras.Model([inputs, mask], ByHand(way)(inputs, mask))
    return keras.Model(inputs, ByHand(way)(inputs))


WAYS = ["added", "added, cut up", "put in", "its largest taken off", "padding", "window and padding"]


@pytest.mark.parametrize("way", WAYS)
def test_attention_with_a_mask_is_as_large_as_measured_and_hands_back_as_much(way):
    keras.utils.set_random_seed(0)
    model, source = model_of(way), np.random.default_rng(0)
    batch = [source.normal(size=(SAMPLES, TOKENS, WIDTH)).astype("float32")]
    if len(model.inputs) == 2:
        batch.append(np.ones((SAMPLES, TOKENS), "int32"))
    rows = at_every_call(model, batch if len(batch) > 1 else batch[0], source)
    (weights,) = named(rows, "softmax")
    # Logits behind two matrices of 64 x 64 are known to 2 sqrt(2) / 64, and what a soft-max makes of them to half of
    # that; the rule's own 400 rows of eight are good for a per cent.
    assert abs(weights.off) < 3 * 0.024
    assert abs(rows[-1].off) < 0.1
    assert max(abs(row.off_back) for row in named(rows, "dense")) < 0.2


def test_a_mask_of_unknown_numbers_that_tells_queries_apart_is_taken_for_causal():
    inputs, mask = keras.Input((TOKENS, 2, WIDTH)), keras.Input((1, TOKENS, TOKENS))
    keys = ops.cast(layers.Identity()(mask) > 0, "bool")
    model = keras.Model([inputs, mask], ops.dot_product_attention(inputs, inputs, inputs, mask=keys))
    graph = read(model)
    assert numbers_of(graph, Ref(graph.calls[-1].inputs[-1])) is None
    made = follow(graph, Given()).signals[graph.outputs[0]].second_moment
    whole = keras.Model(inputs, ops.dot_product_attention(inputs, inputs, inputs, is_causal=True))
    told = read(whole)
    assert made == follow(told, Given()).signals[told.outputs[0]].second_moment


def test_a_mask_of_queries_bars_no_keys():
    inputs, ids = keras.Input((TOKENS, 2, WIDTH)), keras.Input((TOKENS,), dtype="int32")
    rows = ops.reshape(ops.not_equal(ids, 0), (-1, 1, TOKENS, 1))
    graph = read(keras.Model([inputs, ids], ops.dot_product_attention(inputs, inputs, inputs, mask=rows)))
    plain = read(keras.Model(inputs, ops.dot_product_attention(inputs, inputs, inputs)))
    made, all_ = (follow(one, Given()).signals[one.outputs[0]].second_moment for one in (graph, plain))
    assert made == all_


def test_queries_see_as_many_keys_as_the_mask_leaves():
    assert causal((2, 4, 4)) == (1, 2, 3, 4)
    assert causal((2, 4, 3)) == (1, 2, 3, 3)
    assert len(causal((1, 1000, 1000))) == 32


def test_what_depends_on_a_signal_is_not_worked_out():
    inputs = keras.Input((4,))
    graph = read(keras.Model(inputs, ops.where(inputs > 0, inputs, 0.0)))
    (greater,) = (call for call in graph.calls if call.name == "greater")
    assert numbers_of(graph, Ref(greater.outputs[0])) is None


def test_a_shift_far_below_that_is_the_same_for_all_is_no_mask():
    inputs = keras.Input((64,))
    graph = read(keras.Model(inputs, inputs + 2 * BARRED))
    assert follow(graph, Given()).signals[graph.outputs[0]].second_moment == pytest.approx(4 * BARRED**2, rel=1e-3)


def test_masks_are_found_at_the_end_of_hundreds_of_sums():
    """Tensors are told apart in one pass: nothing goes down a trunk call by call."""
    inputs = keras.Input((8,))
    x = inputs
    for _ in range(400):
        x = x + layers.Dense(8)(x)
    plan = AutoInit(Theory(), seed=0).plan(keras.Model(inputs, ops.softmax(ops.where(inputs > 0, x, -1e9))))
    assert len(plan) == 400
