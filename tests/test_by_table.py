"""The main claim: each weight gets the scheme that what it feeds asks for, and the row says why."""

import functools

import keras
import pytest
from keras import layers

from keras_autoinit import ActivationError, AutoInit, HeNormal, Recipe, Table
from keras_autoinit.recommendations import ACTIVATIONS


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
    roles = {row.path: (row.role, row.new.name.removeprefix("autoinit>")) for row in plan}
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


def test_an_unbuilt_layer_has_axes_instead_of_numbers():
    row = row_of(keras.Sequential([layers.Conv2D(4, 3, groups=2, name="first"), layers.ReLU()]))
    assert (row.shape, row.fan_in, row.fan_out) == (None, None, None)
    assert row.new.config == {"input_axes": [0, 1, 2], "output_axes": [0, 1, 3], "blocks": 2}
