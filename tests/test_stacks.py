"""The factors of T-Fixup, DeepNorm and GPT-2 count layers: they must find them in the models that people write.

What is asked of each weight is the formula of its paper, not a number that the code itself printed.
"""

import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit import AutoInit, Theory
from keras_autoinit.graphs import read
from keras_autoinit.merges import merges_of
from keras_autoinit.schemes import make
from keras_autoinit.stacks import stacks_of

WIDTH, TOKENS, WIDE = 32, 6, 64


def attend(x, context=None, name=None):
    return layers.MultiHeadAttention(4, WIDTH // 4, name=name)(x, x if context is None else context)


def mix(x, name):
    return layers.Dense(WIDTH, name=f"{name}_down")(layers.Dense(WIDE, "gelu", name=f"{name}_up")(x))


def normalized_first(x, branch):
    return x + branch(layers.LayerNormalization()(x))


def normalized_last(x, branch, alpha=1.0):
    return layers.LayerNormalization()(x * alpha + branch(x))


def bare(x, branch):
    return x + branch(x)


def stack(x, number, add=normalized_first, context=None, name="encoder"):
    for i in range(number):
        x = add(x, lambda y, i=i: attend(y, name=f"{name}{i}_self"))
        if context is not None:
            x = add(x, lambda y, i=i: attend(y, context, f"{name}{i}_cross"))
        x = add(x, lambda y, i=i: mix(y, f"{name}{i}"))
    return x


def encoder(number=3, add=normalized_first):
    words = keras.Input((TOKENS,), dtype="int32")
    x = stack(layers.Embedding(20, WIDTH, name="words")(words), number, add)
    return keras.Model(words, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(x)))


def both(encoders=2, decoders=3, add=normalized_first):
    words, said = (keras.Input((TOKENS,), dtype="int32") for _ in range(2))
    context = stack(layers.Embedding(20, WIDTH, name="words")(words), encoders, add)
    context = layers.LayerNormalization()(context)
    x = stack(layers.Embedding(20, WIDTH, name="said")(said), decoders, add, context, "decoder")
    return keras.Model([words, said], layers.Dense(20, name="head")(x))


def planned(model, residual, **options):
    return AutoInit(Theory(residual=residual), seed=1, **options).plan(model)


def stated(row):
    """Returns the spread that a row's scheme states for its shape."""
    return math.sqrt(make(row.new, 1).variance(row.shape))


def xavier(row):
    return math.sqrt(2 / (row.fan_in + row.fan_out))


def factors(plan, name):
    """Returns by what each weight of the layers so named is smaller than Xavier's."""
    return {row.path: stated(row) / xavier(row) for row in plan if row.path.startswith(name) and "bias" not in row.path}


def assert_factors(plan, name, factor, scheme):
    found = factors(plan, name)
    assert found
    for path, value in found.items():
        assert plan[path].new.name == f"autoinit>{scheme}"
        assert value == pytest.approx(1 if "query" in path or "key" in path else factor, rel=1e-5)


# --- What is a stack ---


@pytest.mark.parametrize("add", [normalized_first, normalized_last, bare])
def test_layers_are_counted_through_normalizations(add):
    (found,) = stacks_of(read(encoder(3, add)))
    assert (found.branches, found.layers, found.crosses) == (6, 3, False)
    assert {path.split("/")[0] for path in found.weights} == {
        f"encoder{i}{part}" for i in range(3) for part in ("_self", "_up", "_down")
    }


def test_a_factor_on_the_trunk_hides_nothing():
    (found,) = stacks_of(read(encoder(3, lambda x, branch: normalized_last(x, branch, 1.5))))
    assert (found.branches, found.layers) == (6, 3)


def test_an_encoder_and_a_decoder_are_two():
    first, second = stacks_of(read(both(2, 3)))
    assert (first.layers, first.crosses, second.layers, second.crosses) == (2, False, 3, True)
    assert not set(first.weights) & set(second.weights)
    assert "decoder0_cross/value/kernel" in second.weights


def test_parallel_branches_count_each():
    inputs = keras.Input((TOKENS, WIDTH))
    x = inputs
    for i in range(2):
        normal = layers.LayerNormalization()(x)
        x = layers.Add()([x, attend(normal), mix(normal, f"block{i}")])
    (found,) = stacks_of(read(keras.Model(inputs, x)))
    assert found.layers == 2


def test_residual_blocks_without_attention_are_none():
    inputs = keras.Input((TOKENS, WIDTH))
    model = keras.Model(inputs, normalized_first(inputs, lambda x: mix(x, "block")))
    assert stacks_of(read(model)) == []
    for residual in ("t_fixup", "deepnorm"):
        plan = planned(model, residual)
        assert any("no residual blocks with attention" in note for note in plan.notes)
        assert "at most double" in plan["block_down/kernel"].reason


def test_a_rotation_of_positions_is_no_trunk():
    inputs = keras.Input((TOKENS, WIDTH))
    table = np.random.default_rng(0).normal(size=(TOKENS, WIDTH)).astype("float32")
    model = keras.Model(inputs, inputs * table + keras.ops.flip(inputs, -1) * table)
    graph = read(model)
    order = {id(call): index for index, call in enumerate(graph.calls)}
    assert [merge.trunk for merge in merges_of(graph, order).values()] == [None]


# --- The papers' spreads ---


@pytest.mark.parametrize("number", [1, 3])
def test_t_fixup_in_an_encoder(number):
    plan = planned(encoder(number, bare), "t_fixup")
    assert_factors(plan, "encoder", 0.67 * number**-0.25, "xavier_uniform")
    assert plan["words/embeddings"].new.config["stddev"] == pytest.approx(WIDTH**-0.5 * (9 * number) ** -0.25)
    assert any("without normalization" in note for note in plan.notes)


def test_t_fixup_in_an_encoder_and_a_decoder():
    plan = planned(both(2, 3, bare), "t_fixup")
    assert_factors(plan, "encoder", 0.67 * 2**-0.25, "xavier_uniform")
    assert_factors(plan, "decoder", 27**-0.25, "xavier_uniform")
    for table in ("words", "said"):
        assert plan[f"{table}/embeddings"].new.config["stddev"] == pytest.approx(WIDTH**-0.5 * 27**-0.25)


def test_deepnorm_in_an_encoder():
    plan = planned(encoder(3, normalized_last), "deepnorm")
    assert_factors(plan, "encoder", 24**-0.25, "xavier_normal")
    assert any(f"{6**0.25:.4g}" in note for note in plan.notes)


def test_deepnorm_in_an_encoder_and_a_decoder():
    plan = planned(both(2, 3, normalized_last), "deepnorm")
    assert_factors(plan, "encoder", 0.87 * (2**4 * 3) ** (-1 / 16), "xavier_normal")
    assert_factors(plan, "decoder", 36**-0.25, "xavier_normal")
    alphas = (0.81 * (2**4 * 3) ** (1 / 16), 9**0.25)
    assert all(any(f"{alpha:.4g}" in note for note in plan.notes) for alpha in alphas)


@pytest.mark.parametrize(("build", "name", "branches"), [(encoder, "encoder", 6), (both, "decoder", 9)])
def test_depth_scaled_ends_of_branches(build, name, branches):
    one, other = (
        AutoInit(Theory(residual=residual, attention="plain"), seed=1).plan(build())
        for residual in ("none", "depth_scaled")
    )
    for row in one:
        if not row.path.startswith(name) or "bias" in row.path:
            continue
        ends = "output" in row.path or "down" in row.path
        # A plan rounds gains to six digits; what a query makes depends a little on its trunk.
        expected = branches**-0.5 if ends else 1
        assert other[row.path].output_std / row.output_std == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("residual", ["t_fixup", "deepnorm"])
def test_what_is_drawn_has_the_stated_spread(residual):
    model = both()
    plan = AutoInit(Theory(residual=residual), seed=1).apply(model)
    kernel = keras.ops.convert_to_numpy(model.get_layer("decoder0_down").kernel)
    # Five standard errors of a spread from that many numbers.
    assert np.std(kernel) == pytest.approx(stated(plan["decoder0_down/kernel"]), rel=5 / math.sqrt(2 * kernel.size))


def test_what_is_frozen_stays():
    model = encoder()
    model.get_layer("encoder0_down").trainable = False
    plan = planned(model, "deepnorm")
    assert not plan["encoder0_down/kernel"].changed
    assert plan["encoder1_down/kernel"].new.name == "autoinit>xavier_normal"


def test_a_paper_decides_on_attention_too():
    for attention in ("plain", "mimetic"):
        plan = AutoInit(Theory(residual="deepnorm", attention=attention), seed=1).plan(encoder())
        assert plan["encoder0_self/value/kernel"].new.name == "autoinit>xavier_normal"
    plan = AutoInit(Theory(residual="depth_scaled", attention="mimetic"), seed=1).plan(encoder())
    assert plan["encoder0_self/value/kernel"].new.name == "autoinit>mimetic"
