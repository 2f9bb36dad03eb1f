"""The claim that sets this package apart: whole stretches of ordinary networks start as one linear map.

Found on the graph of real models, carried out by `AutoInit`, and measured on what the models compute.
"""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit import AutoInit, Plan, SchemeError
from keras_autoinit.graphs import read
from keras_autoinit.linear_start import LinearStart, mirrored_decisions, parts_beside, with_linear_start
from keras_autoinit.selection import Selection

EXACT = ["relu", "leaky_relu", "gelu", "silu"]


def started(model, start=None, **options):
    """Gives a model the linear start and returns the plan."""
    job = AutoInit(seed=1, **options)
    plan = with_linear_start(job.plan(model), model, start=start)
    return job.apply(model, plan=plan)


def chain(shape, *several):
    return keras.Sequential([keras.Input(shape), *several])


def mlp(depth, activation, width=32, inputs=32, outputs=32):
    hidden = [layers.Dense(width, activation) for _ in range(depth)]
    return chain((inputs,), *hidden, layers.Dense(outputs))


def cnn(depth, activation, filters=8, side=6):
    hidden = [layers.Conv2D(filters, 3, padding="same", activation=activation) for _ in range(depth)]
    return chain((side, side, filters // 2), *hidden, layers.Conv2D(filters // 2, 3, padding="same"))


def output(model, x):
    return keras.ops.convert_to_numpy(model(x)).astype(np.float64)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def inputs_of(model, samples=4):
    x, y = normal(2, samples, *model.input_shape[1:])
    return x, y


def rounding(depth, terms):
    """Twice what float32 loses: each layer's sums of so many terms are off by sqrt(terms) 2^-24, and they add up."""
    return 2 * depth * np.sqrt(terms) * 2**-24 * 10


def assert_linear(model, depth=4, terms=64):
    """Asserts f(-x) = -f(x) and f(2 x + y) = 2 f(x) + f(y)."""
    x, y = inputs_of(model)
    f_x, f_y = output(model, x), output(model, y)
    scale, tolerance = np.abs(f_x).max(), rounding(depth, terms)
    assert scale > 1e-3
    np.testing.assert_allclose(output(model, -x), -f_x, rtol=0, atol=tolerance * scale)
    np.testing.assert_allclose(output(model, 2 * x + y), 2 * f_x + f_y, rtol=0, atol=4 * tolerance * scale)


def assert_not_odd(model):
    x, _ = inputs_of(model)
    f_x = output(model, x)
    assert np.abs(output(model, -x) + f_x).max() > 0.05 * np.abs(f_x).max()


def stretches(plan):
    """Returns the paths of the weights that are mirrored, each with the pairs that it reads and makes."""
    return {
        row.path: (row.new.config.get("pairs_in"), row.new.config.get("pairs_out"))
        for row in plan
        if row.new.name == "autoinit>mirrored"
    }


# Plain stacks


@pytest.mark.parametrize("activation", EXACT)
@pytest.mark.parametrize("depth", [2, 10])
def test_a_stack_of_dense_layers_is_linear(depth, activation):
    model = mlp(depth, activation)
    plan = started(model)
    assert len(stretches(plan)) == depth + 1
    assert_linear(model, depth, 32)


@pytest.mark.parametrize(
    ("depth", "activation"),
    [
        *((depth, activation) for depth in (2, 10) for activation in EXACT),
        (100, "relu"),
        *(pytest.param(100, activation, marks=pytest.mark.slow) for activation in EXACT[1:]),
    ],
)
def test_a_stack_of_convolutions_is_linear(depth, activation):
    model = cnn(depth, activation)
    plan = started(model)
    assert len(stretches(plan)) == depth + 1
    assert_linear(model, depth, 72)


def jacobian(model, size):
    """Returns the derivative of the outputs, by central differences wide enough for float32."""
    basis = np.eye(size, dtype="float32")
    x = normal(1, size)
    return (output(model, x + basis) - output(model, x - basis)).T / 2


@pytest.mark.parametrize("activation", EXACT)
def test_a_square_stack_of_100_layers_is_linear_and_keeps_every_length(activation):
    model = mlp(100, activation, width=64)
    assert len(stretches(started(model))) == 101
    assert_linear(model, 100, 64)
    values = np.linalg.svd(jacobian(model, 32), compute_uv=False)
    np.testing.assert_allclose(values, 1, atol=1e-3)


def test_without_it_the_same_stack_keeps_hardly_any_direction():
    model = mlp(100, "gelu", width=64)
    AutoInit(seed=1).apply(model)
    values = np.linalg.svd(jacobian(model, 32), compute_uv=False)
    assert values[0] > 1e5 * values[-1]


@pytest.mark.parametrize("build", [mlp, cnn])
def test_training_tells_the_two_units_of_every_pair_apart(build):
    model = build(4, "gelu")
    plan = started(model)
    x, y = inputs_of(model, 16)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(x, output(model, y).astype("float32"), batch_size=16, epochs=5, verbose=0)
    for layer, row in zip(model.layers[:-1], plan):
        first, second = np.split(keras.ops.convert_to_numpy(layer.kernel), 2, axis=-1)
        assert row.new.config["pairs_out"] == layer.kernel.shape[-1]
        apart = np.abs(first + second).reshape(-1, first.shape[-1]).max(0)
        assert (apart > 1e-6).all()


@pytest.mark.parametrize("activation", ["mish", "elu", "selu", "softplus", "hard_silu"])
def test_nearly_linear_activations_take_part(activation):
    model = mlp(3, activation)
    assert len(stretches(started(model))) == 4
    x, _ = inputs_of(model)
    f_x = output(model, x)
    # Odd for any activation, as both of a pair are read with opposite signs.
    np.testing.assert_allclose(output(model, -x), -f_x, rtol=0, atol=rounding(4, 32) * np.abs(f_x).max())
    assert 0.5 < np.std(f_x) / np.std(x) < 1.5


@pytest.mark.parametrize(
    ("activation", "why"),
    [
        ("tanh", "odd"),
        ("softsign", "odd"),
        ("exponential", "no line"),
        ("softmax", "mixes units"),
        (None, "no activation stands before"),
    ],
)
def test_other_activations_do_not_and_the_row_says_so(activation, why):
    plan = with_linear_start(AutoInit(seed=1).plan(model := mlp(1, activation)), model)
    assert stretches(plan) == {}
    assert "No linear start" in plan.decisions[0].reason
    assert why in plan.decisions[0].reason


# What keeps pairs

MIDDLES = {
    "dropout": lambda: (layers.Dropout(0.3),),
    "average pooling": lambda: (layers.AveragePooling2D(2),),
    "global average pooling": lambda: (layers.GlobalAveragePooling2D(),),
    "flatten": lambda: (layers.Flatten(),),
    "padding and cropping": lambda: (layers.ZeroPadding2D(1), layers.Cropping2D(1)),
    "up-sampling": lambda: (layers.UpSampling2D(2),),
    "reshape": lambda: (layers.Reshape((-1, 8)),),
    "permute": lambda: (layers.Permute((2, 1, 3)),),
    "batch normalization": lambda: (layers.BatchNormalization(),),
    "strided convolution": lambda: (layers.Conv2D(12, 3, strides=2, activation="relu"),),
    "odd units": lambda: (layers.Conv2D(7, 3, activation="relu"), layers.Flatten()),
    "grouped convolution": lambda: (layers.Conv2D(12, 3, groups=2, activation="relu"),),
    "transposed convolution": lambda: (layers.Conv2DTranspose(6, 3, strides=2, activation="relu"),),
    "separable convolution": lambda: (layers.SeparableConv2D(12, 3, activation="relu"),),
    "depthwise convolution": lambda: (layers.DepthwiseConv2D(3, depth_multiplier=2),),
    "einsum": lambda: (layers.EinsumDense("...c,cd->...d", (6,), activation="relu"),),
    "an operation": lambda: (layers.Lambda(lambda x: keras.ops.relu(x)), layers.Conv2D(4, 1)),
    "written out": lambda: (layers.Conv2D(8, 1), layers.Lambda(lambda x: x * keras.ops.sigmoid(x))),
}


@pytest.mark.parametrize("middle", MIDDLES.values(), ids=MIDDLES)
def test_what_keeps_pairs(middle):
    middle = middle()
    first = layers.Conv2D(8, 3, activation=None if isinstance(middle[0], layers.Lambda) else "relu", name="first")
    model = chain((8, 8, 3), first, *middle, layers.Dense(5, name="last"))
    plan = started(model)
    assert stretches(plan)["first/kernel"][1] is not None
    assert all(stretches(plan).values())
    assert_linear(model, 4, 300)


def test_pairs_before_the_activation_pass_depthwise_kernels_and_normalizations():
    model = chain(
        (8, 8, 3),
        layers.Conv2D(8, 1, name="first"),
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(4, 3, name="last"),
    )
    plan = started(model)
    assert stretches(plan) == {
        "first/kernel": (None, 8),
        "depthwise/kernel": (8, None),
        "last/kernel": (8, None),
    }
    assert_linear(model, 4, 72)


@pytest.mark.parametrize("normalization", ["LayerNormalization", "RMSNormalization", "GroupNormalization"])
def test_normalizations_over_channels_keep_a_network_odd(normalization):
    if not hasattr(layers, normalization):
        pytest.skip(f"Keras {keras.version()} has no {normalization}.")
    options = {"groups": 4} if normalization == "GroupNormalization" else {}
    model = chain(
        (6, 6, 3),
        layers.Conv2D(16, 3),
        getattr(layers, normalization)(**options),
        layers.ReLU(),
        layers.Conv2D(4, 3),
    )
    assert len(stretches(started(model))) == 2
    x, _ = inputs_of(model)
    f_x = output(model, x)
    np.testing.assert_allclose(output(model, -x), -f_x, rtol=0, atol=rounding(3, 144) * np.abs(f_x).max())


def test_a_normalization_in_training_does_not_tear_pairs_apart():
    model = chain((16,), layers.Dense(32), layers.BatchNormalization(), layers.ReLU(), layers.Dense(8))
    started(model)
    x = normal(64, 16)
    x = np.concatenate([x, -x])
    f_x = keras.ops.convert_to_numpy(model(x, training=True))
    np.testing.assert_allclose(f_x[64:], -f_x[:64], atol=rounding(3, 32) * np.abs(f_x).max())


def test_a_residual_branch_is_mirrored_inside():
    inputs = keras.Input((16,))
    x = layers.Dense(16, name="trunk")(inputs)
    for index in range(3):
        branch = layers.Dense(24, "gelu", name=f"up{index}")(x)
        x = layers.Add()([x, layers.Dense(16, name=f"down{index}")(branch)])
    model = keras.Model(inputs, x)
    plan = started(model)
    assert stretches(plan) == {
        f"{way}{i}/kernel": p for i in range(3) for way, p in (("up", (None, 24)), ("down", (24, None)))
    }
    parts = LinearStart().parts(read(model))
    assert parts["down1/kernel"].merges
    assert [parts[f"up{index}/kernel"].stretch for index in range(3)] == [0, 1, 2]
    assert_linear(model, 8, 24)


def test_a_row_that_predicts_a_branch_s_spread_sets_its_size():
    inputs = keras.Input((16,))
    branch = layers.Dense(16, name="down")(layers.Dense(16, "relu", name="up")(inputs))
    model = keras.Model(inputs, layers.Add()([inputs, branch]))
    plan = AutoInit(seed=1).plan(model)
    rows = [dataclasses.replace(row, output_std=0.25) for row in plan]
    up, down = mirrored_decisions(rows, read(model))
    assert down.new.config["gain"] == pytest.approx(
        0.25 / np.sqrt(LinearStart().parts(read(model))[down.path].variance)
    )
    assert "gain" not in up.new.config


def test_two_branches_with_pairs_may_be_added_before_their_activation():
    inputs = keras.Input((8, 8, 3))
    left = layers.Conv2D(12, 3, padding="same", name="left")(inputs)
    right = layers.Conv2D(12, 1, name="right")(inputs)
    x = layers.Conv2D(4, 3, name="end")(layers.ReLU()(layers.Add()([left, right])))
    model = keras.Model(inputs, x)
    plan = started(model)
    assert stretches(plan) == {"left/kernel": (None, 12), "right/kernel": (None, 12), "end/kernel": (12, None)}
    assert len({part.stretch for part in LinearStart().parts(read(model)).values() if part.stretch is not None}) == 1
    assert_linear(model, 3, 108)


def test_several_readers_and_a_shared_layer():
    inputs = keras.Input((8,))
    shared = layers.Dense(16, "relu", name="shared")
    a, b = layers.Dense(16, "relu", name="a")(inputs), layers.Dense(16, "relu", name="b")(inputs)
    heads = [layers.Dense(4, name="one")(shared(a)), layers.Dense(4, name="two")(shared(b))]
    model = keras.Model(inputs, layers.Concatenate()(heads))
    assert stretches(started(model))["shared/kernel"] == (16, 16)
    assert_linear(model, 3, 16)


def test_a_shared_layer_that_also_reads_plain_signals_reads_no_pairs():
    inputs = keras.Input((16,))
    shared = layers.Dense(16, "relu", name="shared")
    model = keras.Model(inputs, layers.Dense(3, name="head")(shared(shared(inputs))))
    plan = started(model)
    assert stretches(plan) == {}
    assert "reads other signals too" in plan["shared/kernel"].reason


@pytest.mark.parametrize(("widths", "block"), [((16, 16), 16), ((16, 24), 8)])
def test_signals_with_pairs_may_be_concatenated(widths, block):
    inputs = keras.Input((8,))
    parts = [layers.Dense(width, "silu", name=f"part{index}")(inputs) for index, width in enumerate(widths)]
    model = keras.Model(inputs, layers.Dense(4, name="end")(layers.Concatenate()(parts)))
    plan = started(model)
    assert stretches(plan) == {
        "part0/kernel": (None, block),
        "part1/kernel": (None, block),
        "end/kernel": (block, None),
    }
    assert_linear(model, 2, 40)


def test_a_concatenation_with_a_plain_signal_ends_a_stretch():
    inputs = keras.Input((8,))
    x = layers.Concatenate()([inputs, layers.Dense(8, "relu", name="first")(inputs)])
    model = keras.Model(inputs, layers.Dense(4, name="end")(x))
    plan = with_linear_start(AutoInit(seed=1).plan(model), model)
    assert stretches(plan) == {}
    assert "concatenate brings in a signal without pairs" in plan["first/kernel"].reason


# What ends a stretch


@pytest.mark.parametrize(
    ("middle", "why"),
    [
        ((layers.MaxPooling2D(),), "takes the largest"),
        ((layers.Reshape((8, 36)), layers.LSTM(4)), "recurrent"),
        ((layers.Lambda(lambda x: x * keras.ops.mean(x, -1, keepdims=True)),), ""),
        ((layers.DepthwiseConv2D(3), layers.ReLU()), "has bent already"),
        ((layers.BatchNormalization(gamma_initializer="random_normal"),), "differ within a pair"),
    ],
)
def test_what_ends_a_stretch_and_the_row_says_so(middle, why):
    model = chain((8, 8, 3), layers.Conv2D(8, 3, activation="relu", name="first"), *middle, layers.Dense(2, name="end"))
    plan = with_linear_start(AutoInit(seed=1).plan(model), model)
    assert "first/kernel" not in stretches(plan)
    assert "No linear start" in plan["first/kernel"].reason
    assert why in plan["first/kernel"].reason


def test_a_vgg_has_a_stretch_between_any_two_poolings():
    several = []
    for block in range(2):
        convolutions = [
            layers.Conv2D(8, 3, padding="same", activation="relu", name=f"conv{block}{i}") for i in range(3)
        ]
        several += [*convolutions, layers.MaxPooling2D(name=f"pool{block}")]
    model = chain(
        (8, 8, 3), *several, layers.Flatten(), layers.Dense(16, "relu", name="hidden"), layers.Dense(10, name="end")
    )
    plan = started(model)
    assert stretches(plan) == {
        **{f"conv{block}0/kernel": (None, 8) for block in range(2)},
        **{f"conv{block}1/kernel": (8, 8) for block in range(2)},
        **{f"conv{block}2/kernel": (8, None) for block in range(2)},
        "hidden/kernel": (None, 16),
        "end/kernel": (16, None),
    }
    # What comes out of a pooling has been through ReLU, which halves the second moment.
    assert plan["conv10/kernel"].new.config["gain"] == pytest.approx(np.sqrt(2))
    assert "gain" not in plan["conv00/kernel"].new.config


def test_the_feed_forward_blocks_of_transformers_are_left_out_unless_asked_for():
    inputs = keras.Input((5, 16))
    x = layers.Add()([inputs, layers.MultiHeadAttention(2, 8)(inputs, inputs)])
    hidden = layers.Dense(32, "gelu", name="up")(layers.LayerNormalization()(x))
    model = keras.Model(inputs, layers.Add()([x, layers.Dense(16, name="down")(hidden)]))
    plan = AutoInit(seed=1).plan(model)
    assert stretches(with_linear_start(plan, model)) == {}
    asked = with_linear_start(plan, model, start=LinearStart(feed_forward=True))
    assert stretches(asked) == {"up/kernel": (None, 32), "down/kernel": (32, None)}


def test_frozen_and_excluded_layers_take_no_part():
    model = mlp(2, "relu")
    model.layers[1].trainable = False
    assert stretches(started(model)) == {}
    model = mlp(3, "relu")
    plan = AutoInit(seed=1).plan(model)
    name = model.layers[0].name
    graph = read(model)
    rows = mirrored_decisions(plan.decisions, graph, parts_beside(plan.decisions, graph, Selection.of(None, name)))
    assert [row.new.name == "autoinit>mirrored" for row in rows] == [False, True, True, True]
    # A plan that leaves a layer alone says so by itself.
    rows = mirrored_decisions(AutoInit(seed=1, exclude=name).plan(model).decisions, read(model))
    assert [row.new.name == "autoinit>mirrored" for row in rows] == [False, True, True, True]


def test_a_bias_that_does_not_start_at_zero_breaks_the_mirror():
    model = chain((8,), layers.Dense(8, "relu", bias_initializer="ones", name="a"), layers.Dense(8, name="b"))
    plan = with_linear_start(AutoInit(seed=1).plan(model), model)
    assert stretches(plan) == {}
    assert "its bias does not start at zero" in plan["a/kernel"].reason


def test_pairs_of_grouped_convolutions_lie_within_the_groups_of_both():
    model = chain(
        (6, 6, 4),
        layers.Conv2D(24, 3, groups=2, activation="relu", name="a"),
        layers.Conv2D(12, 3, groups=3, activation="relu", name="b"),
        layers.Conv2D(4, 1, name="c"),
    )
    # Groups of 12 are made and groups of 8 read: pairs in blocks of 4 fit both.
    assert stretches(started(model)) == {"a/kernel": (None, 4), "b/kernel": (4, 4), "c/kernel": (4, None)}
    assert_linear(model, 3, 72)


# Layout


def test_deep_convolutions_are_delta_orthogonal_but_for_the_one_that_reads_the_image():
    shallow, deep = cnn(4, "relu"), cnn(30, "relu", side=3)
    assert {row.new.config["base"] for row in started(shallow)} == {"orthogonal"}
    bases = [row.new.config["base"] for row in started(deep)]
    assert bases[0] == "orthogonal"
    assert set(bases[1:]) == {"delta_orthogonal"}
    for head, base in ((layers.Flatten(), "delta_orthogonal"), (layers.GlobalAveragePooling2D(), "orthogonal")):
        hidden = [layers.Conv2D(4, 3, padding="same", activation="relu") for _ in range(10)]
        model = chain((3, 3, 2), *hidden, head, layers.Dense(2))
        assert started(model).decisions[5].new.config["base"] == base
    asked = with_linear_start(AutoInit().plan(shallow), shallow, start=LinearStart(base="delta_orthogonal"))
    assert asked.decisions[1].new.config["base"] == "delta_orthogonal"


@pytest.mark.parametrize(
    ("activation", "hidden", "mirrored"),
    [
        ("relu", 4, False),
        ("relu", 5, True),
        ("gelu", 5, True),
        ("mish", 5, True),
        ("elu", 58, False),
        ("elu", 59, True),
    ],
)
def test_only_long_stretches_are_mirrored_if_asked(activation, hidden, mirrored):
    model = keras.Sequential(
        [keras.Input((8,)), *[layers.Dense(8, activation) for _ in range(hidden)], layers.Dense(3)]
    )
    parts = LinearStart(stretches="long").parts(read(model))
    assert [part.length for part in parts.values() if part.stretch is not None] == (hidden + 1) * mirrored * [
        hidden + 1
    ]


@pytest.mark.parametrize(("normalized", "count", "mirrored"), [(0, 1, 2), (1, 13, 0), (1, 14, 15)])
def test_convolutions_make_a_long_stretch_sooner_without_normalization(normalized, count, mirrored):
    x = inputs = keras.Input((8, 8, 3))
    for _ in range(count):
        x = layers.Conv2D(8, 3, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x) if normalized else x)
    graph = read(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x))))
    parts = LinearStart(stretches="long").parts(graph)
    assert sum(part.stretch is not None for part in parts.values()) == mirrored


@pytest.mark.parametrize("merge", [layers.Add, layers.Concatenate])
def test_a_stretch_that_branches_is_no_long_one(merge):
    inputs = x = keras.Input((8,))
    for _ in range(6):
        left, right = (layers.Dense(8, use_bias=False)(x) for _ in range(2))
        x = layers.ReLU()(merge()([left, right]))
    graph = read(keras.Model(inputs, layers.Dense(3)(x)))
    assert {part.length for part in LinearStart().parts(graph).values()} == {7}
    assert all(part.stretch is None for part in LinearStart(stretches="long").parts(graph).values())


def test_one_nearly_linear_activation_makes_a_stretch_nearly_linear():
    hidden = [layers.Dense(8, "relu"), layers.Dense(8, "elu"), *[layers.Dense(8, "relu") for _ in range(10)]]
    model = keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(3)])
    assert all(part.stretch is None for part in LinearStart(stretches="long").parts(read(model)).values())


def test_an_unknown_base_is_refused():
    with pytest.raises(SchemeError, match="'auto', 'delta_orthogonal', 'orthogonal'"):
        LinearStart(base="he")
    with pytest.raises(SchemeError, match="Expected `stretches` to be one of 'all', 'long'"):
        LinearStart(stretches="short")


def test_a_model_that_is_not_built_is_left_as_it_is():
    model = keras.Sequential([layers.Dense(8, "relu"), layers.Dense(4)])
    plan = AutoInit(seed=1).plan(model)
    assert with_linear_start(plan, model) == plan


# Files


def test_the_plan_survives_json_and_the_model_saving(tmp_path):
    model = mlp(2, "gelu")
    plan = started(model)
    assert Plan.from_json(plan.to_json()) == plan
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    assert again.layers[1].kernel_initializer == model.layers[1].kernel_initializer
    x, _ = inputs_of(model)
    np.testing.assert_array_equal(output(again, x), output(model, x))


def test_a_portable_model_has_the_same_weights_and_a_note(tmp_path):
    one, other = mlp(2, "gelu"), mlp(2, "gelu")
    started(one)
    plan = started(other, portable=True)
    x, _ = inputs_of(one)
    np.testing.assert_array_equal(output(one, x), output(other, x))
    assert type(other.layers[0].kernel_initializer).__module__.startswith("keras.")
    assert "file's weights are exact" in plan.decisions[0].reason
