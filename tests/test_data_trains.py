"""Models whose scales were set on real text must learn from it: a transformer with tied embeddings, and an LSTM.

The text is Python's own documentation, character by character; what comes next is to be predicted.
"""

from pydoc_data.topics import topics

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_autoinit import AutoInit

LENGTH, WIDTH = 24, 48
TEXT = "\n".join(topics[name] for name in sorted(topics))[:60_000]
CHARACTERS = sorted(set(TEXT))
# What the frequencies of the characters alone give: to do better, a model must read.
COUNTS = np.array([TEXT.count(each) for each in CHARACTERS]) / len(TEXT)
ENTROPY = float(-(COUNTS * np.log(COUNTS)).sum())


def windows():
    codes = np.array([CHARACTERS.index(each) for each in TEXT], "int32")
    cut = codes[: len(codes) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    return cut[:, :-1], cut[:, 1:]


def transformer():
    words = keras.Input((LENGTH,), dtype="int32")
    table = layers.ReversibleEmbedding(len(CHARACTERS), WIDTH, name="table")
    # A table that is tied is small; so is what is added to it.
    x = layers.LayerNormalization()(table(words))
    x = layers.Add()([x, layers.Conv1D(WIDTH, 3, padding="causal", name="near")(x)])
    for i in range(2):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(4, WIDTH // 4, name=f"attention{i}")(y, y, use_causal_mask=True)
        x = layers.Add()([x, y])
        y = layers.Dense(2 * WIDTH, "gelu", name=f"up{i}")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(WIDTH, name=f"down{i}")(y)])
    return keras.Model(words, table(layers.LayerNormalization()(x), reverse=True))


def recurrent():
    words = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(len(CHARACTERS), WIDTH, name="table")(words)
    x = layers.LSTM(96, return_sequences=True, name="lstm")(x)
    return keras.Model(words, layers.Dense(len(CHARACTERS), name="head")(x))


def losses(model, x, y, epochs):
    """The loss before training, and after it."""
    model.compile(keras.optimizers.Adam(4e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    keras.utils.set_random_seed(0)
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return before, model.evaluate(x, y, verbose=0)


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="Keras has it since 3.12.")
def test_logits_of_a_tied_table_have_a_spread_near_one():
    model, (x, _) = transformer(), windows()
    plan = AutoInit("data", seed=1).apply(model, x[:64])
    row = plan["table/embeddings"]
    assert "the output that reads this table back decides" in row.reason
    # The table's rows and the signal have unit numbers but for chance: of 48, their length strays by a tenth or two.
    assert row.output_std == pytest.approx(1, abs=0.3)
    assert float(ops.std(model(x[:64]))) == pytest.approx(row.output_std, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("build", [transformer, recurrent])
def test_it_learns_to_read(build):
    if build is transformer and not hasattr(layers, "ReversibleEmbedding"):
        pytest.skip("Keras has it since 3.12.")
    model, (x, y) = build(), windows()
    AutoInit("data", seed=1).apply(model, x)
    before, after = losses(model, x, y, epochs=3)
    # Logits of unit spread cost half a nat beyond knowing nothing.
    assert before < np.log(len(CHARACTERS)) + 1
    assert after < ENTROPY - 0.3
