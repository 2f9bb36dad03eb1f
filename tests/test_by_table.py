"""The main claim: each weight gets the scheme that what it feeds asks for, and the row says why."""

import dataclasses
import functools
import inspect

import keras
import pytest
from keras import layers

import keras_autoinit
from keras_autoinit import ActivationError, AutoInit, Axes, HeNormal, Recipe, Slot, Table
from keras_autoinit.graphs import read
from keras_autoinit.recommendations import ACTIVATIONS, ROLES
from keras_autoinit.selection import Selection


def row_of(model, path="first/kernel", method="table"):
    return AutoInit(method, seed=1).plan(model)[path]


def chain(*middle, **options):
    return keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(4, 3, name="first", **options), *middle])


@pytest.mark.parametrize(
    ("activation", "scheme", "gain"),
    [
        ("sigmoid", "xavier_normal", None),
        ("tanh", "xavier_normal", None),
        ("softmax", "xavier_normal", None),
        ("relu", "he_normal", None),
        ("silu", "he_normal", None),
        ("swish", "he_normal", None),
        (None, "xavier_normal", None),
        ("leaky_relu", "he_normal", (1 / 1.04) ** 0.5),
        ("gelu", "lecun_normal", "gelu"),
        ("elu", "lecun_normal", "elu"),
        ("selu", "lecun_normal", None),
    ],
)
def test_the_layers_own_activation_decides(activation, scheme, gain):
    new = row_of(chain(activation=activation)).new
    assert new.name == f"autoinit>{scheme}"
    assert new.config.get("gain") == (pytest.approx(gain) if isinstance(gain, float) else gain)


# Names in the table for functions that Keras does not export as activations.
OTHERS = {"sin": keras.ops.sin, "relu_squared": lambda x: keras.ops.square(keras.ops.relu(x))}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_row_of_the_table_makes_a_scheme_that_draws(name):
    function = OTHERS.get(name) or getattr(keras.activations, name, None)
    if function is None:
        pytest.skip(f"Keras {keras.version()} has no activation {name}.")
    if name == "threshold":
        function = functools.partial(function, threshold=0.0, default_value=0.0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="first"), layers.Activation(function)])
    plan = AutoInit(seed=1).apply(model)
    assert plan["first/kernel"].new.name == f"autoinit>{ACTIVATIONS[name].scheme}"
    met = {"linear": "activation -> output", "relu_squared": "<lambda>"}.get(name, name)
    assert plan["first/kernel"].feeds == met
    assert float(keras.ops.std(model.get_layer("first").kernel)) > 0


@pytest.mark.parametrize(
    ("middle", "way"),
    [
        ([layers.ReLU()], "relu"),
        ([layers.BatchNormalization(), layers.ReLU()], "batch_normalization -> relu"),
        ([layers.Dropout(0.1), layers.Activation("gelu")], "dropout -> gelu"),
        ([layers.MaxPooling2D(), layers.Flatten(), layers.Activation("tanh")], "max_pooling2d -> flatten -> tanh"),
        ([layers.ZeroPadding2D(), layers.LeakyReLU(0.3)], "zero_padding2d -> leaky_relu(negative_slope=0.3)"),
        ([layers.GaussianNoise(0.1), layers.Rescaling(2.0), layers.Identity(), layers.ELU()], None),
        ([layers.Activation("linear"), layers.PReLU()], "activation -> leaky_relu(negative_slope=0)"),
        ([layers.Conv2D(2, 1)], "conv2d"),
        ([], "output"),
        ([layers.GlobalAveragePooling2D()], "global_average_pooling2d -> output"),
    ],
)
def test_the_row_says_the_way_to_the_activation(middle, way):
    expected = way or "gaussian_noise -> rescaling -> identity -> elu"
    assert row_of(chain(*middle)).feeds == expected


def test_through_add_and_concatenate():
    inputs = keras.Input((8, 8, 4))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name="first")(inputs))
    added = layers.ReLU()(layers.Add()([x, inputs]))
    model = keras.Model(
        inputs, layers.Activation("gelu")(layers.Concatenate()([layers.Conv2D(4, 1, name="b")(added), x]))
    )
    assert row_of(model).feeds == "batch_normalization -> add -> relu"
    assert row_of(model, "b/kernel").feeds == "concatenate -> gelu"


def test_through_operators_and_operations():
    inputs = keras.Input((8,))
    x = layers.Dense(8, name="first")(inputs)
    model = keras.Model(inputs, keras.ops.relu(keras.ops.reshape(x + inputs, (-1, 2, 4)) / 2.0))
    assert row_of(model).feeds == "add -> reshape -> true_divide -> relu"


def test_an_activation_on_a_branch_beside_a_projection_counts():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 1, name="first")(inputs)
    shortcut = layers.Conv2D(4, 1)(x)
    model = keras.Model(inputs, layers.Add()([shortcut, layers.ReLU()(layers.BatchNormalization()(x))]))
    assert row_of(model).feeds == "batch_normalization -> relu"


def test_an_activation_far_behind_the_next_layer_does_not_count():
    inputs = keras.Input((8,))
    x = layers.Dense(8, name="first")(inputs)
    far = x
    for _ in range(4):
        far = layers.Add()([far, inputs])
    model = keras.Model(inputs, layers.Add()([layers.Dense(8)(x), layers.ReLU()(far)]))
    assert row_of(model).feeds == "dense"


def test_nested_models_are_crossed_in_both_directions():
    head = keras.Sequential([keras.Input((8,)), layers.ReLU()], name="head")
    body = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="first")], name="body")
    inputs = keras.Input((8,))
    assert row_of(keras.Model(inputs, head(body(inputs))), "body/first/kernel").feeds == "relu"


def test_the_layer_in_a_wrapper_meets_what_the_wrapper_meets():
    inner = layers.Dense(8, name="inner")
    model = keras.Sequential([keras.Input((5, 8)), layers.TimeDistributed(inner, name="first"), layers.ReLU()])
    assert row_of(model, "first/inner/kernel").feeds == "relu"


def test_gates_and_attention_written_by_hand():
    inputs = keras.Input((6, 8))
    x = layers.Dense(8, name="gate")(inputs)
    x = x * keras.ops.sigmoid(x) * layers.Dense(8, name="up")(inputs)
    query, key = layers.Dense(8, name="query")(x), layers.Dense(8, name="key")(x)
    scores = keras.ops.softmax(keras.ops.matmul(query, keras.ops.transpose(key, (0, 2, 1))) / 8**0.5)
    outputs = layers.Dense(2, name="out")(keras.ops.matmul(scores, layers.Dense(8, name="value")(x)))
    plan = AutoInit().plan(keras.Model(inputs, outputs))
    assert {row.path.partition("/")[0]: row.feeds for row in plan} == {
        "gate": "silu",
        "up": "multiply",
        "query": "matmul -> true_divide -> softmax",
        "key": "transpose -> matmul -> true_divide -> softmax",
        "value": "matmul -> dense",
        "out": "output",
    }


class Experts(layers.Layer):
    """A mixture of experts as people write it: kernels of three axes, made by `add_weight`."""

    def build(self, shape):
        self.up = self.add_weight(shape=(4, shape[-1], 16), initializer="glorot_uniform", name="up")
        self.down = self.add_weight(shape=(4, 16, shape[-1]), initializer="glorot_uniform", name="down")
        self.router = self.add_weight(shape=(shape[-1], 4), initializer="glorot_uniform", name="router")

    def call(self, x):
        gates = keras.ops.softmax(keras.ops.matmul(x, self.router))
        hidden = keras.ops.gelu(keras.ops.einsum("btd,edh->bteh", x, self.up))
        return keras.ops.einsum("bted,bte->btd", keras.ops.einsum("bteh,ehd->bted", hidden, self.down), gates)


def test_what_a_bare_weight_is_for_shows_in_the_operations_that_take_it():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, Experts(name="experts")(inputs))
    plan = AutoInit(seed=1).apply(model)
    rows = {row.path.partition("/")[2]: (row.role, row.fan_in, row.feeds, row.new.name) for row in plan}
    assert rows == {
        "up": ("kernel", 8, "gelu(approximate=1)", "autoinit>lecun_normal"),
        "down": ("kernel", 16, "einsum -> output", "autoinit>xavier_normal"),
        "router": ("kernel", 8, "softmax", "autoinit>xavier_normal"),
    }
    # Six standard errors of a variance over 4 * 8 * 16 numbers.
    gain = keras_autoinit.activation("gelu").gain
    assert float(keras.ops.std(model.layers[1].up)) == pytest.approx(gain / 8**0.5, rel=6 * (1 / (2 * 512)) ** 0.5)


def test_a_shared_layer_has_one_row_and_takes_the_activation_that_it_finds():
    shared = layers.Dense(8, name="first")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.ReLU()(shared(shared(inputs))))
    plan = AutoInit().plan(model)
    assert [row.path for row in plan] == ["first/kernel"]
    assert plan["first/kernel"].feeds == "relu"


def test_a_separable_convolution_has_two_rows():
    model = keras.Sequential([keras.Input((8, 8, 4)), layers.SeparableConv2D(6, 3, activation="relu", name="first")])
    depthwise, pointwise = AutoInit().plan(model)
    assert (depthwise.new.name, pointwise.new.name) == ("autoinit>lecun_normal", "autoinit>he_normal")
    assert (depthwise.fan_in, pointwise.fan_in) == (9, 4)


def test_roles_of_attention_recurrence_and_embeddings():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(11, 8, name="embed")(tokens)
    x = layers.MultiHeadAttention(2, 4, name="attend")(x, x)
    plan = AutoInit().plan(keras.Model(tokens, layers.LSTM(4, name="lstm")(x)))
    roles = {row.path: (row.role, row.new.name.removeprefix("autoinit>")) for row in plan if row.role != "bias"}
    assert roles == {
        "embed/embeddings": ("embeddings", "lecun_normal"),
        "attend/query/kernel": ("query", "xavier_normal"),
        "attend/key/kernel": ("key", "xavier_normal"),
        "attend/value/kernel": ("value", "xavier_normal"),
        "attend/attention_output/kernel": ("output", "xavier_normal"),
        "lstm/lstm_cell/kernel": ("input", "xavier_normal"),
        "lstm/lstm_cell/recurrent_kernel": ("recurrent", "orthogonal"),
    }
    assert plan["lstm/lstm_cell/recurrent_kernel"].new.config["blocks"] == 4


def test_an_unknown_callable_is_measured_and_said_to_be():
    row = row_of(chain(activation=lambda x: keras.ops.relu(x) * 2.0))
    assert row.new.config["gain"] == pytest.approx(2**0.5 / 2, rel=1e-5)
    assert row.reason.startswith("Not in the table: its gain was measured.")


def test_what_cannot_be_measured_is_taken_for_linear_and_says_so():
    row = row_of(chain(activation=lambda x: keras.ops.sum(x, axis=-1, keepdims=True) + 0 * x[..., :1]))
    assert row.new.name == "autoinit>xavier_normal"
    assert row.reason.startswith("Treated as linear, because its gain cannot be measured:")


def own_activation(x):
    return keras.ops.tanh(x) * 3


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("relu", layers.ReLU()),
        ("swish", layers.Activation("silu")),
        (keras.layers.PReLU, layers.PReLU()),
        (own_activation, layers.Activation(own_activation)),
        (keras.activations.relu, layers.Activation("relu")),
        (keras.layers.Conv2D, layers.Identity()),
        ("kernel", layers.ReLU()),
    ],
)
def test_a_users_row_wins(key, layer):
    row = row_of(chain(layer), method=Table({key: HeNormal(gain=3.0)}))
    assert row.new == Recipe("autoinit>he_normal", {"gain": 3.0, "input_axes": [0, 1, 2], "output_axes": [0, 1, 3]})
    assert row.reason == "Chosen by the user's table."


def test_a_users_row_for_its_own_function_as_argument():
    row = row_of(chain(activation=own_activation), method=Table({own_activation: "autoinit>orthogonal"}))
    assert row.new.name == "autoinit>orthogonal"


def test_a_users_role_wins():
    model = keras.Sequential([keras.Input((5,)), layers.Embedding(11, 8, name="first")])
    table = Table({"embeddings": keras.initializers.RandomUniform(-0.1, 0.1)})
    assert row_of(model, "first/embeddings", table).new == Recipe("RandomUniform", {"minval": -0.1, "maxval": 0.1})


def test_a_seeded_row_of_a_user_gives_each_weight_a_draw_of_its_own():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu"), layers.Dense(8, "relu")])
    AutoInit(Table({"relu": HeNormal(seed=1)}), seed=2).apply(model)
    first, second = (keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers)
    assert (first != second).any()


@pytest.mark.parametrize("key", ["rleu", 3])
def test_a_bad_key_is_named(key):
    with pytest.raises(ActivationError, match=f"Received: {key!r}"):
        Table({key: "autoinit>he"})


def test_what_is_left_alone_is_a_row_with_its_reason():
    frozen = layers.Dense(8, name="frozen", trainable=False)
    adapted = layers.Dense(8, name="adapted")
    model = keras.Sequential([keras.Input((8,)), frozen, adapted])
    adapted.enable_lora(2)
    reasons = {row.path: row.reason for row in AutoInit().plan(model)}
    assert reasons["frozen/kernel"].startswith("Frozen")
    assert "LoRA" in reasons["adapted/kernel"]
    assert not AutoInit().plan(model).changes


def attention(kind="MultiHeadAttention", **options):
    inputs = keras.Input((5, 16))
    if not hasattr(layers, kind):
        pytest.skip(f"Keras {keras.version()} has no {kind}.")
    return keras.Model(inputs, getattr(layers, kind)(name="attend", **options)(inputs, inputs))


@pytest.mark.parametrize(
    ("options", "fans"),
    [
        (
            {"num_heads": 2, "key_dim": 6, "value_dim": 10},
            {"query": (16, 12), "key": (16, 12), "value": (16, 20), "output": (20, 16)},
        ),
        (
            {"kind": "GroupQueryAttention", "head_dim": 6, "num_query_heads": 4, "num_key_value_heads": 2},
            {"query": (16, 24), "key": (16, 12), "value": (16, 12), "output": (24, 16)},
        ),
    ],
    ids=["multi_head", "group_query"],
)
def test_attention_has_four_rows_with_fans_of_their_own(options, fans):
    rows = [row for row in AutoInit().plan(attention(**options)) if row.role != "bias"]
    assert {row.role: (row.fan_in, row.fan_out) for row in rows} == fans
    assert {row.new.name for row in rows} == {"autoinit>xavier_normal"}


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
def test_a_gated_attention_has_a_fifth(kind):
    sizes = {"MultiHeadAttention": {"num_heads": 2, "key_dim": 6}}.get(
        kind, {"head_dim": 6, "num_query_heads": 2, "num_key_value_heads": 2}
    )
    if "use_gate" not in inspect.signature(getattr(layers, kind, attention)).parameters:
        pytest.skip(f"Keras {keras.version()} has no gated {kind}.")
    plan = AutoInit().plan(attention(kind, **sizes, use_gate=True))
    assert (plan["attend/gate/kernel"].role, plan["attend/gate/kernel"].fan_in) == ("gate", 16)


def test_biases_of_two_axes_are_rows_that_keep_them():
    row = AutoInit().plan(attention(num_heads=2, key_dim=6))["attend/query/bias"]
    assert (row.role, row.old, row.changed) == ("bias", Recipe("Zeros"), False)
    assert row.reason.startswith("A bias of several axes")


class Bare(layers.Layer):
    """Weights by `add_weight` alone."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), initializer="he_normal")
        self.position_embeddings = self.add_weight(shape=(1, *shape[1:]), initializer="zeros")

    def call(self, inputs):
        # No operation on the signal is handed the weight itself.
        return (inputs + self.position_embeddings) @ (self.kernel * 1.0)


def bare():
    return keras.Sequential([keras.Input((6, 4)), Bare(name="bare")])


def test_a_weight_of_which_nothing_is_known_is_kept_and_says_how_to_tell():
    row = AutoInit().plan(bare())["bare/kernel"]
    assert row.old == row.new
    assert str(row.old).startswith("unknown(std=0.")
    assert "keras_autoinit.register_slots" in row.reason


def test_positions_are_of_the_size_of_tokens_and_the_row_says_who_keeps_no_initializer():
    row = AutoInit().plan(bare())["bare/position_embeddings"]
    assert (row.role, row.fan_in, row.new.name) == ("positions", 1, "autoinit>lecun_normal")
    assert row.old == Recipe("Zeros")
    assert row.reason.startswith("Added to the tokens, so of their size. (Vaswani")
    assert row.reason.endswith("a copy of the layer draws it as the layer does.")


def test_a_row_of_the_user_wins_over_what_is_kept():
    table = Table({"unknown": "autoinit>orthogonal", "bias": "autoinit>ones"})
    assert AutoInit(table).plan(bare())["bare/kernel"].new.name == "autoinit>orthogonal"
    assert AutoInit(table).plan(attention(num_heads=2, key_dim=6))["attend/query/bias"].new.name == "autoinit>ones"


def test_a_weight_that_is_frozen_by_itself_is_left_alone():
    model = chain()
    model.layers[0].kernel.trainable = False
    assert row_of(model).reason == "Frozen: the weight has trainable=False."


class Gate(layers.Wrapper):
    """A wrapper of one's own, with a weight of its own."""

    def build(self, shape):
        super().build(shape)
        self.gate = self.add_weight(shape=(shape[-1], 1))

    def call(self, inputs):
        return self.layer(inputs) * keras.ops.sigmoid(inputs @ self.gate)


def test_a_wrapper_of_ones_own_has_rows_for_what_it_wraps_and_what_it_owns():
    model = keras.Sequential([keras.Input((8,)), Gate(layers.Dense(4, name="inner"), name="gated"), layers.ReLU()])
    plan = AutoInit().plan(model)
    assert {row.path: row.changed for row in plan} == {"gated/gate": False, "gated/inner/kernel": True}
    assert plan["gated/inner/kernel"].feeds == "relu"


class Borrowing(layers.Layer):
    """Computes with another layer's weight."""

    def __init__(self, lender, **options):
        super().__init__(**options)
        self.borrowed = lender.kernel

    def call(self, inputs):
        return inputs @ keras.ops.transpose(self.borrowed)


def test_a_weight_of_two_layers_is_decided_once():
    lender = layers.Dense(4, "relu", name="lender")
    inputs = keras.Input((8,))
    hidden = lender(inputs)
    plan = AutoInit().plan(keras.Model(inputs, Borrowing(lender, name="borrowing")(hidden)))
    assert [row.path for row in plan.changes] == ["lender/kernel"]
    assert plan["borrowing/borrowed"].reason == "Shared: the row of 'lender/kernel' decides."


@pytest.mark.parametrize("role", ["kernel", "positions", "token"])
def test_a_slot_that_was_found_on_the_graph_is_decided(role):
    graph = read(bare())
    places = tuple(
        dataclasses.replace(place, slots=(Slot(role, "kernel", None, Axes((0,), (1,)), activated=role == "kernel"),))
        for place in graph.places
    )
    (row,) = Table().decide(dataclasses.replace(graph, places=places), Selection())
    expected = ACTIVATIONS["linear"] if role == "kernel" else ROLES[role]
    assert row.new.name == f"autoinit>{expected.scheme}"
    assert "keeps no initializer" in row.reason


reversible = pytest.mark.skipif(
    not hasattr(layers, "ReversibleEmbedding"), reason="an older Keras has no ReversibleEmbedding"
)


def tables(**options):
    words = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(30, 16, name="table", **options)
    x = layers.Add()([table(words), layers.Embedding(2, 16, name="segments")(words)])
    return keras.Model(words, table(x, reverse=True))


@reversible
def test_a_table_that_is_tied_to_the_output_is_drawn_for_the_output():
    plan = AutoInit(seed=1).plan(tables())
    assert (plan["table/embeddings"].role, plan["table/embeddings"].fan_in) == ("tied", 16)
    assert plan["table/embeddings"].reason.startswith("Tied: the output")


@reversible
def test_what_is_added_to_a_tied_table_is_of_its_size():
    plan = AutoInit(seed=1).plan(tables())
    assert (plan["segments/embeddings"].role, plan["segments/embeddings"].fan_in) == ("embeddings", 16)
    assert plan["segments/embeddings"].reason.startswith("Added to a table that is tied")


@reversible
def test_an_untied_table_has_two_rows_and_an_initializer_for_neither():
    plan = AutoInit(seed=1).plan(tables(tie_weights=False))
    forth, back = plan["table/embeddings"], plan["table/reverse_embeddings"]
    assert (forth.role, forth.fan_in) == ("embeddings", 1)
    assert (back.role, back.fan_in, back.fan_out) == ("reverse", 16, 30)
    assert all("keeps no initializer for it alone" in row.reason for row in (forth, back))
    assert plan["segments/embeddings"].fan_in == 1


@reversible
def test_an_untied_table_that_is_not_built_is_kept():
    plan = AutoInit().plan(keras.Sequential([layers.ReversibleEmbedding(30, 16, tie_weights=False)]))
    assert not plan.changes
    assert all(row.reason.startswith("Not built") for row in plan)


def test_tables_and_attention_of_keras_hub():
    hub = pytest.importorskip("keras_hub")
    words = keras.Input((6,), dtype="int32")
    x = hub.layers.TokenAndPositionEmbedding(30, 6, 16, name="tables", tie_weights=False)(words)
    x = x + hub.layers.PositionEmbedding(6, name="positions")(x)
    x = hub.layers.CachedMultiHeadAttention(2, 8, name="attend")(x, x)
    plan = AutoInit(seed=1).plan(keras.Model(words, x))
    rows = {row.path: (row.role, row.fan_in) for row in plan if row.role != "bias"}
    assert rows == {
        "tables/token_embedding/embeddings": ("embeddings", 1),
        "tables/token_embedding/reverse_embeddings": ("reverse", 16),
        "tables/position_embedding/position_embeddings": ("positions", 1),
        "positions/position_embeddings": ("positions", 1),
        "attend/query/kernel": ("query", 16),
        "attend/key/kernel": ("key", 16),
        "attend/value/kernel": ("value", 16),
        "attend/attention_output/kernel": ("output", 16),
    }
    assert all(row.changed for row in plan if row.role != "bias")
    tied = hub.layers.TokenAndPositionEmbedding(30, 6, 16, name="tables")
    plan = AutoInit(seed=1).plan(keras.Model(words, tied(words)))
    assert {row.role: row.fan_in for row in plan} == {"tied": 16, "positions": 16}


def test_an_unbuilt_layer_has_axes_instead_of_numbers():
    row = row_of(keras.Sequential([layers.Conv2D(4, 3, groups=2, name="first"), layers.ReLU()]))
    assert (row.shape, row.fan_in, row.fan_out) == (None, None, None)
    assert row.new.config == {"input_axes": [0, 1, 2], "output_axes": [0, 1, 3], "blocks": 2}
