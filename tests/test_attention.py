"""Attention that starts well must be found in the layers that people use, and stay whole on every way.

Four weights, each with a row and a stored initializer of its own, are one start: drawn apart they must
still be partners, after a redraw too. Where the paper's reasons do not hold, the row says so.
"""

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit import AutoInit, Data, Mimetic, Plan, SchemeError, Theory, reinitialize
from keras_autoinit.attention import factor_powers

WIDTH, TOKENS, HEADS, SIZE = 32, 10, 4, 8
MIMETIC = Theory(attention="mimetic")
# The mean diagonal of a product of plain starts, whose entries have a spread of about 1 / sqrt(d), has one of 1 / d.
CHANCE = 5 / WIDTH


@pytest.fixture
def keras_hub():
    """Not an extra of the README's test command, so asked for where a test needs it."""
    return pytest.importorskip("keras_hub")


class Positions(layers.Layer):
    """A table added to the tokens, made by `add_weight` alone."""

    def build(self, shape):
        self.table = self.add_weight(shape=(1, *shape[1:]), initializer="random_normal", name="table")

    def call(self, x):
        return x + self.table


def transformer(attention, context=None, positions=None, name=None):
    """Returns a model with one block around an attention layer; one with positions reads words."""
    inputs = keras.Input((TOKENS, WIDTH)) if positions is None else keras.Input((TOKENS,), dtype="int32")
    tokens = layers.Dense(WIDTH) if positions is None else layers.Embedding(20, WIDTH, name="tokens")
    x = tokens(inputs) if positions is None else positions(tokens(inputs))
    normal = layers.LayerNormalization()(x)
    other = keras.Input((TOKENS, context)) if context else None
    x = x + attention(normal, normal if other is None else other)
    return keras.Model(inputs if other is None else [inputs, other], layers.Dense(3, name="head")(x))


def multi_head(**config):
    return layers.MultiHeadAttention(HEADS, SIZE, name="attention", **config)


def grouped():
    return layers.GroupQueryAttention(SIZE, HEADS, 2, name="attention")


def kernels(attention):
    """Returns the four kernels, by role, each with its heads on the second axis, but the output."""
    return {
        "query": keras.ops.convert_to_numpy(attention._query_dense.kernel),
        "key": keras.ops.convert_to_numpy(attention._key_dense.kernel),
        "value": keras.ops.convert_to_numpy(attention._value_dense.kernel),
        "output": keras.ops.convert_to_numpy(attention._output_dense.kernel),
    }


def products(found):
    """Returns the query-key product of every head, and the value-output product."""
    heads, group = found["query"].shape[1], found["query"].shape[1] // found["key"].shape[1]
    scores = [found["query"][:, head] @ found["key"][:, head // group].T for head in range(heads)]
    return scores, sum(found["value"][:, head // group] @ found["output"][head] for head in range(heads))


def assert_partners(found):
    scores, whole = products(found)
    width = whole.shape[0]
    assert all(np.trace(product) / width > CHANCE for product in scores)
    assert np.trace(whole) / width < -CHANCE
    if found["value"].shape[1] * found["value"].shape[2] >= width:
        # Of full rank the mean diagonal is beta, within five standard errors of 0.4 / width.
        assert abs(np.trace(whole) / width + 0.4) < 2 / width


def roles(plan):
    return {row.role: row for row in plan if row.role in ("query", "key", "value", "output")}


@pytest.fixture(params=["multi_head", "grouped"])
def applied(request):
    model = transformer({"multi_head": multi_head, "grouped": grouped}[request.param]())
    return model, AutoInit(MIMETIC, seed=1).apply(model)


def test_the_four_weights_are_partners(applied):
    model, plan = applied
    assert_partners(kernels(model.get_layer("attention")))
    found = roles(plan)
    assert {row.new.config["role"] for row in found.values()} == set(found)
    assert {row.new.config["pair"] for row in found.values()} == {"attention"}
    for role, partner in (("query", "key"), ("key", "query"), ("value", "output"), ("output", "value")):
        assert found[partner].path in found[role].reason
        assert "2305.09828" in found[role].reason


def test_no_two_heads_of_a_layer_are_equal(applied):
    for role, kernel in kernels(applied[0].get_layer("attention")).items():
        heads = np.moveaxis(kernel, 0 if role == "output" else 1, 0)
        assert all(np.abs(one - other).max() > 0.01 for i, one in enumerate(heads) for other in heads[:i])


def test_each_stored_initializer_repeats_its_own_factor(applied):
    attention = applied[0].get_layer("attention")
    for dense in (attention._query_dense, attention._key_dense, attention._value_dense, attention._output_dense):
        again = dense.kernel_initializer(tuple(dense.kernel.shape))
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (again, dense.kernel)))
        copy = layers.EinsumDense.from_config(dense.get_config())
        assert copy.kernel_initializer == dense.kernel_initializer


def test_a_file_brings_the_weights_back(applied, tmp_path):
    model, _ = applied
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_a_portable_file_has_the_weights_and_stock_initializers():
    model = transformer(multi_head())
    plan = AutoInit(MIMETIC, seed=1, portable=True).apply(model)
    assert_partners(kernels(model.get_layer("attention")))
    for row in roles(plan).values():
        assert row.stored.name == "TruncatedNormal"
        assert "only be of their size" in row.reason


def test_a_plan_as_json_draws_the_same(applied):
    model, plan = applied
    before = kernels(model.get_layer("attention"))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    AutoInit(MIMETIC).apply(model, plan=again)
    assert all((before[role] == each).all() for role, each in kernels(model.get_layer("attention")).items())


def test_measured_scales_leave_partners_as_they_are():
    model = transformer(multi_head())
    batch = np.random.default_rng(0).normal(size=(8, TOKENS, WIDTH)).astype("float32")
    plan = AutoInit(Data(base=MIMETIC), seed=1).apply(model, batch)
    assert_partners(kernels(model.get_layer("attention")))
    for row in roles(plan).values():
        assert "partner" in row.reason
        assert "gain" not in row.new.config


def test_a_redraw_gives_other_partners(applied):
    attention = applied[0].get_layer("attention")
    before = kernels(attention)
    reinitialize(applied[0], seed=5)
    after = kernels(attention)
    assert_partners(after)
    assert all(np.abs(before[role] - after[role]).max() > 0.01 for role in before)
    reinitialize(applied[0], seed=5)
    assert all((after[role] == kernels(attention)[role]).all() for role in after)


def test_layers_of_one_model_differ_and_a_seed_names_them_all():
    inputs = keras.Input((TOKENS, WIDTH))
    x = inputs
    for _ in range(2):
        normal = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(HEADS, SIZE)(normal, normal)
    model = keras.Model(inputs, x)
    found = [layer for layer in model.layers if isinstance(layer, layers.MultiHeadAttention)]
    AutoInit(MIMETIC, seed=1).apply(model)
    first, second = map(kernels, found)
    assert all(np.abs(first[role] - second[role]).max() > 0.01 for role in first)
    AutoInit(MIMETIC, seed=1).apply(model)
    assert all((first[role] == kernels(found[0])[role]).all() for role in first)


@pytest.mark.parametrize(("context", "why"), [(WIDTH, "different signals"), (WIDTH // 2, "different signals")])
def test_cross_attention_starts_plain_and_says_why(context, why):
    plan = AutoInit(MIMETIC, seed=1).plan(transformer(multi_head(), context))
    for row in roles(plan).values():
        assert "mimetic" not in row.new.name
        assert f"No mimetic start: queries and keys read {why}." in row.reason


def test_an_output_of_another_width_leaves_scores_mimetic():
    inputs = keras.Input((TOKENS, WIDTH))
    model = keras.Model(inputs, multi_head(output_shape=7)(inputs, inputs))
    found = roles(AutoInit(MIMETIC, seed=1).plan(model))
    assert found["query"].new.name == found["key"].new.name == "autoinit>mimetic"
    assert found["output"].new.name != "autoinit>mimetic"
    assert "32 by 7" in found["value"].reason


def test_a_partner_that_is_left_alone_leaves_the_other_plain():
    model = transformer(multi_head())
    model.get_layer("attention")._key_dense.trainable = False
    found = roles(AutoInit(MIMETIC, seed=1).plan(model))
    assert "attention/key/kernel is left alone" in found["query"].reason
    assert found["value"].new.name == "autoinit>mimetic"


def test_a_layer_that_is_not_built_starts_plain():
    model = keras.Sequential([multi_head()])
    assert all(row.new.name != "autoinit>mimetic" for row in AutoInit(MIMETIC, seed=1).plan(model))


def test_theory_starts_attention_mimetic_unless_asked_for_plain():
    model = transformer(multi_head(), positions=Positions())
    rows = AutoInit("theory", seed=1).plan(model)
    assert rows == AutoInit(Theory(attention="mimetic"), seed=1).plan(model)
    assert sum(row.new.name == "autoinit>mimetic" for row in rows) == 4
    assert all(row.gradient_factor is None for row in rows)
    assert "mimetic attention" in rows.notes[-1]
    plain = AutoInit(Theory(attention="plain"), seed=1).plan(model)
    assert not any(row.new.name in ("autoinit>mimetic", "autoinit>sinusoids") for row in plain)


def test_an_unknown_start_is_refused():
    with pytest.raises(SchemeError, match="'mimetic', 'plain'"):
        Theory(attention="memetic")


# --- Positions ---


def test_a_bare_table_of_positions_has_the_spread_of_its_tokens():
    model = transformer(multi_head(), positions=Positions(name="positions"))
    plan = AutoInit(MIMETIC, seed=1).apply(model)
    row = plan["positions/table"]
    assert row.new.name == "autoinit>sinusoids"
    table = keras.ops.convert_to_numpy(model.get_layer("positions").table)
    # Sines and cosines in pairs: the second moment is half the scale's square, exactly.
    assert np.sqrt(np.mean(table**2)) == pytest.approx(plan["tokens/embeddings"].output_std, rel=1e-4)


def assert_positions_are_sinusoids(layer):
    """Fails unless the table of a layer that adds positions, and it alone, starts as sines."""
    plan = AutoInit(MIMETIC, seed=1).apply(transformer(multi_head(), positions=layer))
    found = [row for row in plan if row.new.name == "autoinit>sinusoids"]
    assert [row.path.partition("/")[0] for row in found] == ["positions"]
    assert "Sines and cosines" in found[0].reason
    assert f"{plan['tokens/embeddings'].output_std:.3g}" in found[0].reason


def test_a_layer_of_positions_is_found():
    class Own(layers.Layer):
        def __init__(self, **config):
            super().__init__(**config)
            self.table = layers.Embedding(TOKENS, WIDTH, name="table")

        def call(self, x):
            return x + self.table(keras.ops.arange(TOKENS))

    assert_positions_are_sinusoids(Own(name="positions"))


def test_a_layer_of_positions_of_keras_hub_is_found(keras_hub):
    table = keras_hub.layers.PositionEmbedding(TOKENS, name="positions")
    assert_positions_are_sinusoids(lambda x: x + table(x))


def test_positions_of_an_image_are_as_any_other_weight():
    inputs = keras.Input((TOKENS, WIDTH))
    patches = Positions(name="positions")(layers.Dense(WIDTH)(inputs))
    model = keras.Model(inputs, patches + multi_head()(patches, patches))
    row, plain = (
        AutoInit(theory, seed=1).plan(model)["positions/table"] for theory in (MIMETIC, Theory(attention="plain"))
    )
    assert row.new == plain.new
    assert "looked up in no table" in row.reason


def test_what_is_no_position_is_no_sinusoid():
    inputs = keras.Input((TOKENS,), dtype="int32")
    tokens = layers.Embedding(20, WIDTH, name="words")(inputs) + layers.Embedding(2, WIDTH, name="kinds")(inputs)
    model = keras.Model(inputs, multi_head()(tokens, tokens))
    plan = AutoInit(MIMETIC, seed=1).plan(model)
    assert plan["attention/query/kernel"].new.name == "autoinit>mimetic"
    assert not any(row.new.name == "autoinit>sinusoids" for row in plan)


# --- Layers of Keras Hub ---


def test_a_vision_transformer_of_keras_hub(keras_hub):
    model = keras_hub.models.ViTBackbone((28, 28, 1), 4, 1, 2, 16, 32)
    plan = AutoInit(MIMETIC, seed=1).apply(model)
    names = {row.path.rpartition("/")[0].rpartition("/")[2]: row.new.name for row in plan if row.role != "bias"}
    assert names["query"] == names["attention_output"] == "autoinit>mimetic"
    assert names["position_embedding"] != "autoinit>sinusoids"
    (token,) = [row for row in plan if row.role == "token"]
    assert token.new.config["gain"] == 0.02
    assert_partners(kernels(attention_of(model)))


def attention_of(model):
    return next(one for one in model._flatten_layers() if isinstance(one, layers.MultiHeadAttention))


def test_a_causal_model_of_keras_hub_and_its_tied_table(keras_hub):
    model = keras_hub.models.GPT2Backbone(50, 1, 2, 16, 32, max_sequence_length=TOKENS)
    plan = AutoInit(MIMETIC, seed=1).apply(model, {name: np.zeros((2, TOKENS), "int32") for name in model.input})
    assert plan["transformer_layer_0/self_attention/query/kernel"].new.name == "autoinit>mimetic"
    positions, words = plan["position_embedding/position_embeddings"], plan["token_embedding/embeddings"]
    assert positions.new.name == "autoinit>sinusoids"
    assert positions.output_std == pytest.approx(words.output_std, rel=1e-4)
    assert_partners(kernels(attention_of(model)))


def test_stacked_kernels_and_shared_keys_of_keras_hub(keras_hub):
    model = keras_hub.models.GemmaBackbone(50, 1, 4, 2, 16, 32, head_dim=8)
    AutoInit(MIMETIC, seed=1).apply(model, {name: np.zeros((2, TOKENS), "int32") for name in model.input})
    attention = model.get_layer("decoder_block_0").attention
    found = {
        role: keras.ops.convert_to_numpy(getattr(attention, f"{role}_dense").kernel)
        for role in ("query", "key", "value", "output")
    }
    reading = ("query", "key", "value")
    assert_partners({role: np.moveaxis(each, 0, 1) if role in reading else each for role, each in found.items()})


# --- Attention written out ---


def written(x, width=WIDTH, names=("q", "k", "v", "o"), scaled=True, masked=False):
    """Returns what a transformer's attention makes, by dense layers and operations alone."""
    query, key, value = (layers.Dense(width, use_bias=False, name=name)(x) for name in names[:3])
    query, key, value = (
        keras.ops.transpose(keras.ops.reshape(each, (-1, TOKENS, HEADS, width // HEADS)), (0, 2, 1, 3))
        for each in (query, key, value)
    )
    scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 1, 3, 2)))
    scores = scores / SIZE**0.5 if scaled else scores
    if masked:
        scores = keras.ops.where(np.tri(TOKENS, dtype=bool), scores, -1e9)
    made = keras.ops.matmul(layers.Dropout(0.1)(keras.ops.softmax(scores)), value)
    made = keras.ops.reshape(keras.ops.transpose(made, (0, 2, 1, 3)), (-1, TOKENS, width))
    return layers.Dense(WIDTH, use_bias=False, name=names[3])(made)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_written_out_is_found_and_survives_a_clone(masked):
    inputs = keras.Input((TOKENS, WIDTH))
    normal = layers.LayerNormalization()(inputs)
    model = keras.Model(inputs, inputs + written(normal, masked=masked))
    plan = AutoInit(MIMETIC, seed=1).apply(model)
    assert all(plan[f"{name}/kernel"].new.name == "autoinit>mimetic" for name in "qkvo")

    def heads_of(whole):
        found = {name: keras.ops.convert_to_numpy(whole.get_layer(name).kernel) for name in "qkvo"}
        reading = {name: found[name].reshape(WIDTH, HEADS, SIZE) for name in "qkv"}
        return {**dict(zip(("query", "key", "value"), reading.values())), "output": found["o"].reshape(HEADS, SIZE, -1)}

    assert_partners(heads_of(model))
    clone = keras.models.clone_model(model)
    assert all((one == other).all() for one, other in zip(heads_of(model).values(), heads_of(clone).values()))
    reinitialize(model, seed=2)
    assert_partners(heads_of(model))


def test_one_head_written_with_einsum():
    inputs = keras.Input((TOKENS, WIDTH))
    query, key, value = (layers.Dense(SIZE, use_bias=False, name=name)(inputs) for name in "qkv")
    weights = layers.Softmax()(keras.ops.einsum("btd,bsd->bts", query, key))
    made = layers.Dense(WIDTH, name="o")(keras.ops.einsum("bts,bsd->btd", weights, value))
    plan = AutoInit(MIMETIC, seed=1).plan(keras.Model(inputs, inputs + made))
    assert all(plan[f"{name}/kernel"].new.name == "autoinit>mimetic" for name in "qkvo")
    assert "q/kernel" in plan["k/kernel"].reason


def test_a_soft_max_that_is_no_attention_is_none():
    inputs = keras.Input((TOKENS, WIDTH))
    shares = layers.Softmax(axis=1)(layers.Dense(1, name="shares")(inputs))
    pooled = keras.ops.einsum("btd,bto->bd", layers.Dense(WIDTH, name="values")(inputs), shares)
    gated = layers.Dense(4, "gelu", name="gate")(pooled)
    model = keras.Model(inputs, layers.Dense(3, "softmax", name="head")(gated))
    assert not any(row.new.name == "autoinit>mimetic" for row in AutoInit(MIMETIC, seed=1).plan(model))


# --- What the solver is told ---


@pytest.mark.parametrize(("width", "size", "group"), [(256, 64, 1), (192, 24, 2)])
def test_the_powers_of_factors_hold_at_any_width(width, size, group):
    powers = factor_powers(width, size, group)
    heads = {"query": (width, group, size), "key": (width, 1, size)}
    for role, shape in heads.items():
        kernel = Mimetic(role, group=group, seed=3, input_axes=[0], output_axes=[1, 2]).array(shape, "float64")
        # Sums of singular values fluctuate by about 1 / width of themselves; ten such at the smaller width.
        assert width * np.mean(kernel**2) == pytest.approx(powers[role], rel=10 / 96)
