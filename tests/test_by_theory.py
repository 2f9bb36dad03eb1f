"""Theory promises numbers: that a signal arrives, a gradient comes back, and both are as predicted.

Every promise is measured here on models that really run. Widths are 256, so that a layer's second
moment varies by a few per cent from draw to draw, and deep stacks by tens; factors are set by that.
"""

import math
import sys

import keras
import numpy as np
import pytest
from keras import layers
from models import normal, second_moment, stack

import keras_autoinit
from keras_autoinit import AutoInit, SchemeError, Theory, sizes
from keras_autoinit.graphs import read
from keras_autoinit.selection import Selection


def residual(blocks, width=128):
    x = inputs = keras.Input((width,))
    for i in range(blocks):
        inner = layers.Dense(width, "relu", name=f"in{i}")(x)
        x = layers.Add(name=f"add{i}")([x, layers.Dense(width, name=f"out{i}")(inner)])
    return keras.Model(inputs, x)


def run(model, x):
    """Forward and backward through a Sequential of dense layers in NumPy: second moments layer by layer."""
    slopes = {"tanh": lambda z: 1 - np.tanh(z) ** 2, "linear": np.ones_like}
    signals, before = [x.astype(np.float64)], []
    for layer in model.layers:
        before.append(signals[-1] @ keras.ops.convert_to_numpy(layer.kernel).astype(np.float64))
        signals.append(np.tanh(before[-1]) if layer.activation is keras.activations.tanh else before[-1])
    gradient = np.random.default_rng(1).normal(size=signals[-1].shape)
    gradients = [gradient]
    for layer, z in zip(model.layers[::-1], before[::-1]):
        slope = slopes["tanh" if layer.activation is keras.activations.tanh else "linear"](z)
        gradient = (gradient * slope) @ keras.ops.convert_to_numpy(layer.kernel).astype(np.float64).T
        gradients.append(gradient)
    return [second_moment(one) for one in signals], [second_moment(one) for one in gradients]


def test_a_tanh_stack_of_100_layers_keeps_signal_and_gradient():
    model = stack(100, "tanh")
    plan = AutoInit("theory", seed=0).apply(model)
    signals, gradients = run(model, normal((32, 256)))
    assert max(signals) / min(signals) < 40
    assert max(gradients) / min(gradients) < 150
    inner = plan["dense50/kernel"].new.config["gain"]
    assert 1.0 <= inner**2 <= 1.4


def test_40_residual_blocks_end_where_they_began():
    model = residual(40)
    AutoInit("theory", seed=0).apply(model)
    x = normal((32, 128))
    assert 0.25 < second_moment(model(x)) / second_moment(x) < 4


def test_branches_may_start_at_zero():
    model = residual(5)
    plan = AutoInit(Theory(residual="zero"), seed=0).apply(model)
    x = normal((8, 128))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), x, atol=1e-6)
    assert "starts at zero" in plan["out0/kernel"].reason


def test_borders_are_made_up_for():
    model = keras.Sequential(
        [
            keras.Input((2, 2, 64)),
            *[layers.Conv2D(256, 5, padding="same", name=f"c{i}") for i in range(3)],
            layers.Flatten(),
        ]
    )
    AutoInit("theory", seed=0).apply(model)
    # Sums over 4 of 25 taps: without the correction the second moment falls to 0.16 each time.
    assert second_moment(model(normal((64, 2, 2, 64)))) == pytest.approx(1.0, rel=0.3)


def test_a_strided_transposed_convolution_keeps_the_signal():
    transposed = layers.Conv2DTranspose(128, 4, strides=2, padding="same")
    model = keras.Sequential([keras.Input((8, 8, 64)), transposed, layers.Flatten()])
    AutoInit("theory", seed=0).apply(model)
    assert second_moment(model(normal((16, 8, 8, 64)))) == pytest.approx(1.0, rel=0.2)


def test_batch_normalization_in_training_is_predicted():
    inputs = keras.Input((8, 8, 16))
    x = layers.Conv2D(128, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.BatchNormalization()(layers.MaxPooling2D()(x))
    model = keras.Model(inputs, layers.Dense(128, name="last")(layers.GlobalAveragePooling2D()(layers.ReLU()(x))))
    plan = AutoInit("theory", seed=0).apply(model)
    made = keras.ops.convert_to_numpy(model(normal((64, 8, 8, 16)), training=True))
    assert np.std(made) == pytest.approx(plan["last/kernel"].output_std, rel=0.2)


def test_a_model_that_is_not_built_gets_a_plan_too():
    plan = AutoInit("theory", seed=0).plan(keras.Sequential([layers.Dense(8, "relu"), layers.Dense(4)]))
    assert [row.new.name for row in plan] == ["autoinit>variance_scaling"] * 2


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="This Keras has no reversible embedding.")
def test_a_tied_table_is_as_small_as_the_output_that_reads_it_back_wants():
    table = layers.ReversibleEmbedding(50, 64, tie_weights=True, name="table")
    words = keras.Input((6,), dtype="int32")
    x = layers.LayerNormalization()(layers.Dense(64, name="dense")(table(words)))
    model = keras.Model(words, table(x, reverse=True))
    plan = AutoInit("theory", seed=0).apply(model)
    # Logits of unit second moment: entries of variance one over the width; tokens are that small.
    assert plan["table/embeddings"].fan_in == 64
    entries = keras.ops.convert_to_numpy(table.embeddings)
    assert entries.std() == pytest.approx(1 / 8, rel=5 / math.sqrt(2 * entries.size))
    assert plan["dense/kernel"].new.config["gain"] == pytest.approx(8, rel=1e-3)


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="This Keras has no reversible embedding.")
def test_a_frozen_table_beside_a_tied_one_is_as_large_as_it_is():
    words, places = keras.Input((6,), dtype="int32"), keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(50, 64, tie_weights=True, name="table")
    start = keras.initializers.RandomNormal(stddev=0.02, seed=1)
    positions = layers.Embedding(30, 64, embeddings_initializer=start, trainable=False, name="positions")
    x = layers.LayerNormalization()(layers.Dense(64)(table(words) + positions(places)))
    plan = AutoInit("theory", seed=0).plan(keras.Model([words, places], table(x, reverse=True)))
    assert plan["positions/embeddings"].fan_in == 64
    assert plan["positions/embeddings"].output_std == pytest.approx(0.02, rel=0.1)


def test_recurrent_attention_and_embedding_weights_are_solved():
    words = keras.Input((6,), dtype="int32")
    x = layers.Embedding(30, 64, name="embedding")(words)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 32, name="attention")(x, x)])
    x = layers.LSTM(64, name="lstm")(layers.LayerNormalization()(x))
    plan = AutoInit(Theory(attention="plain"), seed=0).plan(
        keras.Model(words, layers.Dense(3, "softmax", name="head")(x))
    )
    assert [row.path for row in plan if not row.changed] == [
        f"attention/{name}/bias" for name in ("query", "key", "value")
    ]
    assert plan["lstm/recurrent_kernel" if "lstm/recurrent_kernel" in plan else "lstm/lstm_cell/recurrent_kernel"]
    assert not plan.notes


@pytest.mark.parametrize("option", [{"distribution": "gauss"}, {"residual": "some"}, {"linear_start": "perhaps"}])
def test_options_are_checked(option):
    with pytest.raises(SchemeError, match="Expected `"):
        Theory(**option)


def test_the_public_name_is_a_method():
    assert AutoInit("theory").method == keras_autoinit.Theory()


def python_calls(function, *arguments):
    """Counts the functions that Python calls, its own too, a measure of work that is the same on any machine."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.slow
def test_four_times_the_layers_are_four_times_the_work():
    small, large = (
        read(keras.Sequential([keras.Input((8,)), *[layers.Dense(8, "tanh") for _ in range(n)]])) for n in (200, 800)
    )
    # Activations are integrated once and remembered.
    Theory().solve(small, Selection())
    assert python_calls(Theory().solve, large, Selection()) < 4.4 * python_calls(Theory().solve, small, Selection())


def residual_blocks(count, function):
    """Blocks in models of fifty each: Keras goes through a single one by recursion."""
    parts = []
    for _ in range(count // 50):
        inputs = x = keras.Input((8,))
        for _ in range(50):
            x = layers.Add()([x, layers.Dense(8)(layers.Activation(function)(x))])
        parts.append(keras.Model(inputs, x))
    return keras.Sequential([keras.Input((8,)), *parts])


@pytest.mark.slow
@pytest.mark.parametrize("function", ["gelu", "relu"])
@pytest.mark.parametrize("linear_start", [True, False])
def test_four_times_the_blocks_are_four_times_the_work(linear_start, function, monkeypatch):
    """Every activation brings a chance of its own; so few are kept here that a hundred blocks have more."""
    monkeypatch.setattr(sizes, "CHANCES", (16, 32))
    small, large = (read(residual_blocks(count, function)) for count in (100, 400))
    theory = Theory(linear_start=linear_start)
    for graph in (small, large):
        # Activations are integrated once and remembered; branches of another size are other integrals.
        theory.solve(graph, Selection())
    assert python_calls(theory.solve, large, Selection()) < 4.4 * python_calls(theory.solve, small, Selection())


def test_a_linear_start_by_theory_is_one_linear_map():
    source = keras.utils.normalize(np.random.default_rng(0).normal(size=(4, 16)).astype("float32"))
    model = keras.Sequential(
        [keras.Input((16,)), *[layers.Dense(16, "gelu") for _ in range(20)], layers.Dense(16, name="head")]
    )
    plan = AutoInit(Theory(linear_start=True), seed=0).apply(model)
    assert {row.new.name for row in plan} == {"autoinit>mirrored"}
    made, mirrored = (keras.ops.convert_to_numpy(model(x)) for x in (source, -source))
    # Twenty layers of float32 rounding.
    np.testing.assert_allclose(mirrored, -made, atol=20 * 16 * np.finfo("float32").eps)


def normalized(x, width, name, **options):
    convolution = layers.Conv2D(width, 3, padding="same", use_bias=False, name=name, **options)
    return layers.ReLU()(layers.BatchNormalization()(convolution(x)))


def test_weights_that_a_batch_normalization_follows_are_small_enough_to_learn():
    inputs = keras.Input((8, 8, 32))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(inputs))
    x = normalized(normalized(x, 512, "narrow"), 32, "wide")
    x = layers.LayerNormalization()(layers.Dense(32, name="other")(layers.Flatten()(x)))
    model = keras.Model(inputs, x)
    plan = AutoInit(Theory(linear_start=False), seed=0).apply(model)
    # 288 numbers, and 147,456 each: three standard errors of the smallest.
    # A unit signal asks for less of the wide one, whose input a rectifier has taken half off.
    for name, wanted in (("depthwise", 0.05), ("narrow", 0.05), ("wide", math.sqrt(2 / 512 / 9) * 24 / 22)):
        values = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
        assert np.std(values) == pytest.approx(wanted, rel=3 / math.sqrt(2 * 288)), name
    assert "how fast it learns" in plan["narrow/kernel"].reason
    assert "how fast it learns" not in plan["other/kernel"].reason
    # What follows hardly knows: the normalization adds 0.001 to a variance of nine taps, fewer at borders.
    made = keras.Model(inputs, model.layers[2].output)(normal((64, 8, 8, 32)), training=True)
    variance = 9 * 0.05**2 * (22 / 24) ** 2
    assert second_moment(made) == pytest.approx(variance / (variance + 0.001), rel=0.05)


def squeezed(gate, size=8, width=64):
    """A convolution whose channels are let through by gates, one for each channel of a sample."""
    inputs = keras.Input((size, size, width))
    x = layers.Activation("swish")(layers.BatchNormalization()(layers.Conv2D(width, 1)(inputs)))
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    hidden = layers.Conv2D(16, 1, activation="swish", name="squeeze")(pooled)
    return keras.Model(inputs, layers.Conv2D(width, 1)(layers.Multiply()([x, gate(hidden)])))


GATES = {
    "inside the layer": lambda x: layers.Conv2D(64, 1, activation="sigmoid", name="excite")(x),
    "written by hand": lambda x: layers.ReLU(6.0)(layers.Conv2D(64, 1, name="excite")(x) + 3.0) * (1 / 6),
}


@pytest.mark.parametrize("linear_start", [False, True])
@pytest.mark.parametrize("gate", GATES)
def test_gates_of_channels_start_nearly_even(gate, linear_start):
    """Else samples get gates of their own by chance, and become of different size."""
    model = squeezed(GATES[gate])
    plan = AutoInit(Theory(linear_start=linear_start), seed=0).apply(model)
    layer = model.get_layer("excite")
    made = keras.ops.convert_to_numpy(keras.Model(model.inputs, layer.output)(normal((32, 8, 8, 64)), training=True))
    logits = np.log(made / (1 - made)) if gate == "inside the layer" else made
    # Sixteen hidden units that are nearly the same for all samples: five standard errors of their mean square.
    assert second_moment(logits) == pytest.approx(0.1**2, rel=5 * math.sqrt(2 / 16))
    assert plan["squeeze/kernel"].output_std > 0.3
    if not linear_start:
        assert "gates" in plan["excite/kernel"].reason


def test_gates_of_single_entries_keep_unit_signals():
    """Those of a gated linear unit are as many as what they let through."""
    inputs = keras.Input((64,))
    gate = layers.Dense(64, "sigmoid", name="gate")(inputs)
    model = keras.Model(inputs, layers.Dense(8)(layers.Multiply()([layers.Dense(64, name="value")(inputs), gate])))
    plan = AutoInit(Theory(linear_start=False), seed=0).plan(model)
    assert "Unit second moment" in plan["gate/kernel"].reason


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_what_few_dense_layers_say_of_classes_is_twice_a_unit_signal(activation):
    dense = [layers.Dense(256, "selu", name=f"dense{i}") for i in range(3)]
    model = keras.Sequential([keras.Input((256,)), *dense, layers.Dense(128, activation, name="head")])
    plan = AutoInit("theory", seed=0).apply(model)
    assert "which the layers below learn faster" in plan["head/kernel"].reason
    model.layers[-1].activation = keras.activations.linear
    assert math.sqrt(second_moment(model(normal((64, 256))))) == pytest.approx(2.0, rel=0.1)
    model.compile("sgd", "mse")
    assert AutoInit("theory", seed=0).plan(model)["head/kernel"].output_std == pytest.approx(1.0, rel=0.01)


def test_a_model_is_planned_alike_after_it_has_been_started():
    model = stack(6, "relu")
    first = AutoInit("theory", seed=0).apply(model)
    assert [row.new for row in AutoInit("theory", seed=0).plan(model)] == [row.new for row in first]


def test_who_asks_for_a_linear_start_is_told_where_it_ends():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(16, "tanh", name="bent"), layers.Dense(4, name="head")])
    asked = AutoInit(Theory(linear_start=True), seed=0).plan(model)
    assert "No linear start: tanh is odd" in asked["bent/kernel"].reason
    assert "No linear start" not in AutoInit("theory", seed=0).plan(model)["bent/kernel"].reason


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "silu", "gelu"])
def test_twenty_layers_end_at_a_unit_second_moment(activation):
    found = []
    for seed in range(3):
        model = stack(20, activation)
        AutoInit("theory", seed=seed).apply(model)
        found.append(np.log2(second_moment(model(normal((32, 256))))))
    # Keras's defaults end 2 to 39 powers of two away.
    assert np.mean(np.abs(found)) < 1.5
