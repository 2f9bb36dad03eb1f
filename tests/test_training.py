"""To draw a trained model anew is to lose it, and to refuse a fresh one is to be useless.

So a model that nobody trained must show no sign of it, whatever its layers, initializers and precision,
and a trained one must show which layers learned.
"""

import keras
import numpy as np
import pytest
from keras import layers
from models import everything, mlp, regression, samples

from keras_autoinit import AutoInit
from keras_autoinit.graphs import read
from keras_autoinit.training import signs_of_training


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(1)


def signs(model):
    return signs_of_training(getattr(model, "optimizer", None), read(model).places)


def sequential(*stack, shape=(6, 6, 4)):
    return keras.Sequential([keras.Input(shape), *stack])


def recurrent(make):
    return lambda: sequential(make(), shape=(5, 3))


def attention(make):
    def build():
        inputs = keras.Input((5, 8))
        return keras.Model(inputs, make()(inputs, inputs))

    return build


def residual():
    """Two blocks as in a ResNet."""
    inputs = x = keras.Input((8, 8, 8))
    for stride in (1, 2):
        y = layers.Conv2D(8, 3, stride, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
        x = layers.ReLU()(layers.Add()([layers.Conv2D(8, 1, stride)(x), y]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def random_bias(shape, dtype=None):
    return keras.random.normal(shape, dtype=dtype, seed=1)


# No binary fraction: its double is not its float.
TENTH = keras.initializers.Constant(0.1)
SHARES = keras.initializers.Constant(np.array([0.1, 0.2, 0.7]))

# Keras cannot draw an orthogonal matrix in bfloat16.
NO_ORTHOGONAL = {"recurrent_initializer": "glorot_uniform"}

# Younger Keras versions have more layers than the oldest that is supported.
YOUNG = {
    "rms_normalization": lambda: sequential(layers.RMSNormalization()),
    "group_query_attention": attention(lambda: layers.GroupQueryAttention(4, 4, 2)),
}
if not hasattr(layers, "RMSNormalization"):
    YOUNG.clear()
if hasattr(layers, "ReversibleEmbedding"):
    YOUNG["reversible"] = lambda: sequential(layers.ReversibleEmbedding(9, 4, tie_weights=False), shape=(5,))

FRESH = {
    **YOUNG,
    "dense": lambda: mlp(8, 1),
    "convolutions": lambda: sequential(
        layers.Conv2D(8, 3, groups=2), layers.SeparableConv2D(8, 3), layers.Conv2DTranspose(4, 2)
    ),
    "depthwise": lambda: sequential(layers.DepthwiseConv2D(3)),
    "lstm": recurrent(lambda: layers.LSTM(4)),
    "lstm_no_forget_bias": recurrent(lambda: layers.LSTM(4, unit_forget_bias=False)),
    "lstm_constant_bias": recurrent(lambda: layers.LSTM(4, bias_initializer=TENTH)),
    "lstm_no_orthogonal": recurrent(lambda: layers.LSTM(4, **NO_ORTHOGONAL, bias_initializer=TENTH)),
    "gru_no_orthogonal": recurrent(lambda: layers.GRU(4, **NO_ORTHOGONAL)),
    "lstm_random_bias": recurrent(lambda: layers.LSTM(4, bias_initializer="random_normal")),
    "lstm_no_bias": recurrent(lambda: layers.LSTM(4, use_bias=False)),
    "gru": recurrent(lambda: layers.GRU(4)),
    "gru_reset_before": recurrent(lambda: layers.GRU(4, reset_after=False)),
    "simple_rnn": recurrent(lambda: layers.SimpleRNN(4)),
    "stacked_cells": recurrent(lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(4)])),
    "bidirectional": recurrent(lambda: layers.Bidirectional(layers.LSTM(4))),
    "time_distributed": recurrent(lambda: layers.TimeDistributed(layers.Dense(4))),
    "conv_lstm_1d": lambda: sequential(layers.ConvLSTM1D(4, 3)),
    "conv_lstm_2d": lambda: sequential(layers.ConvLSTM2D(4, 3), shape=(5, 6, 6, 3)),
    "batch_normalization": lambda: sequential(layers.BatchNormalization()),
    "batch_normalization_zero": lambda: sequential(layers.BatchNormalization(gamma_initializer="zeros")),
    "layer_normalization_of_two_axes": lambda: sequential(layers.LayerNormalization(axis=(2, 3))),
    "conv_lstm_3d": lambda: sequential(layers.ConvLSTM3D(2, 2), shape=(2, 3, 3, 3, 2)),
    "layer_normalization": lambda: sequential(layers.LayerNormalization()),
    "group_normalization": lambda: sequential(layers.GroupNormalization(2)),
    "spectral_normalization": lambda: sequential(layers.SpectralNormalization(layers.Conv2D(8, 3))),
    "prelu": lambda: sequential(layers.PReLU()),
    "prelu_quarter": lambda: sequential(layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25))),
    "embedding": lambda: sequential(layers.Embedding(9, 4), shape=(5,)),
    "multi_head_attention": attention(lambda: layers.MultiHeadAttention(2, 4)),
    "einsum_dense": lambda: sequential(layers.EinsumDense("abcd,de->abce", (None, None, 5), bias_axes="e")),
    "residual": residual,
    "everything": everything,
    "bias_constant": lambda: mlp(8, bias=TENTH),
    "bias_constant_each": lambda: mlp(3, bias=SHARES),
    "bias_ones": lambda: mlp(8, bias="ones"),
    "bias_class": lambda: mlp(8, bias=keras.initializers.Zeros),
    "bias_random": lambda: mlp(8, bias="random_normal"),
    "bias_function": lambda: mlp(8, bias=random_bias),
    "bias_scheme": lambda: mlp(8, bias="autoinit>ones"),
    "unbuilt": lambda: keras.Sequential([layers.Dense(4), layers.LSTM(4)]),
}


@pytest.mark.parametrize("name", FRESH)
def test_a_fresh_model_shows_no_sign(name):
    assert signs(FRESH[name]()) == ()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    "name",
    ["residual", "lstm_no_orthogonal", "gru_no_orthogonal", "bias_constant", "bias_constant_each", "prelu_quarter"],
)
def test_a_fresh_model_shows_no_sign_in_any_precision(name, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        assert signs(FRESH[name]()) == ()
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_compiled_model_shows_no_sign(optimizer, policy):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, dtype=policy)])
    model.compile(optimizer, "mse", auto_scale_loss=True)
    model.optimizer.build(model.trainable_variables)
    assert signs(model) == ()


def test_what_the_package_drew_is_no_sign():
    model = everything()
    AutoInit(seed=1).apply(model)
    assert signs(model) == ()


def test_a_fresh_model_from_a_file_shows_no_sign(tmp_path):
    model = mlp(3, bias=SHARES)
    model.save(tmp_path / "model.keras")
    assert signs(keras.saving.load_model(tmp_path / "model.keras")) == ()


def fitted(model, inputs, targets, loss="mse"):
    """A model after one step."""
    model.compile("adam", loss, jit_compile=False)
    model.fit(inputs, targets, epochs=1, batch_size=len(targets), verbose=0)
    return model


@pytest.fixture(scope="module")
def trained():
    model = everything()
    AutoInit(seed=1).apply(model)
    return fitted(model, *samples(), loss="sparse_categorical_crossentropy")


def test_one_step_shows_in_the_optimizer_and_every_layer_with_a_bias(trained):
    # Softmax does not feel a bias of the keys, which shifts all scores of a query alike: only rounding moves it.
    assert set(signs(trained)) - {"sentence/attention/key"} == {
        "optimizer",
        "picture/stem/grouped",
        "picture/stem/norm",
        "picture/depthwise",
        "picture/separable",
        "picture/transposed",
        "picture/convolution",
        "sentence/attention/query",
        "sentence/attention/value",
        "sentence/attention/attention_output",
        "sentence/einsum",
        "sentence/both/forward_lstm/lstm_cell",
        "sentence/both/backward_lstm/lstm_cell",
        "shared",
        "head",
    }


def test_the_optimizer_is_named_first(trained):
    assert signs(trained)[0] == "optimizer"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_one_step_shows_in_any_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = fitted(mlp(4, 4, 1), *regression())
    finally:
        keras.config.set_dtype_policy(before)
    assert "dense1" in signs(model)


def test_a_step_shows_in_the_optimizer_where_no_weight_is_constant():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
    assert signs(fitted(model, *regression())) == ("optimizer",)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_trained_model_from_a_file_shows_it(trained, suffix, compiled, tmp_path):
    trained.save(tmp_path / f"model.{suffix}")
    loaded = keras.saving.load_model(tmp_path / f"model.{suffix}", compile=compiled)
    assert signs(loaded) == (signs(trained) if compiled else signs(trained)[1:])


def test_trained_weights_show_in_a_model_that_was_never_compiled(trained):
    model = everything()
    model.set_weights(trained.get_weights())
    assert signs(model) == signs(trained)[1:]


def test_one_bias_names_its_layer():
    model = mlp(8, 8, 1)
    model.layers[1].bias.assign(np.eye(8)[3])
    assert signs(model) == ("dense1",)


def test_a_constant_bias_names_its_layer_when_it_moves():
    model = mlp(3, 3, bias=TENTH)
    model.layers[0].bias.assign([0.1, 0.1, 0.0])
    assert signs(model) == ("dense0",)


@pytest.mark.parametrize("gate", range(4))
def test_a_forget_bias_names_its_cell_when_it_moves(gate):
    model = sequential(layers.LSTM(2, name="lstm"), shape=(5, 3))
    bias = model.layers[0].cell.bias
    bias.assign(bias + np.eye(8)[2 * gate])
    assert signs(model) == ("lstm/lstm_cell",)


def test_moved_averages_name_their_layer():
    model = sequential(layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm"))
    model(np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32"), training=True)
    assert signs(model) == ("norm",)


@pytest.mark.parametrize("weight", ["gamma", "beta", "moving_mean", "moving_variance"])
def test_each_weight_of_a_normalization_is_watched(weight):
    model = sequential(layers.BatchNormalization(name="norm"))
    getattr(model.layers[0], weight).assign([0.5, 0.5, 0.5, 0.5])
    assert signs(model) == ("norm",)


def test_a_random_bias_shows_nothing_by_itself():
    model = mlp(8, 1, bias="random_normal")
    model.layers[0].bias.assign(np.ones(8))
    assert signs(model) == ()
