"""Attention's two products, each head's own: what the paper asks of them, on the factors as layers hold them.

A factor alone says little; that four weights, drawn apart, multiply to the stated matrices is the claim.
"""

import keras
import numpy as np
import pytest

from keras_autoinit import ICNR, Mimetic, SchemeError

D, HEADS, SIZE = 64, 4, 16
READS, MAKES = {"input_axes": [0], "output_axes": [1, 2]}, {"input_axes": [0, 1], "output_axes": [2]}


def drawn(role, shape, seed=1, **config):
    axes = {} if len(shape) == 2 or "input_axes" in config else MAKES if role == "output" else READS
    return Mimetic(role, seed=seed, **axes, **config).array(shape, "float64")


def scores(size, heads=HEADS, group=1, seed=1, **config):
    """Returns the product of each query head with the key that it meets."""
    query = drawn("query", (D, heads, size), seed, group=group, **config)
    key = drawn("key", (D, heads // group, size), seed, group=group, **config)
    return [query[:, head] @ key[:, head // group].T for head in range(heads)]


def values(units, group=1, heads=HEADS, **config):
    """Returns the product of values and outputs, summed over all heads."""
    size = units // (heads // group)
    value = drawn("value", (D, heads // group, size), group=group, **config)
    output = drawn("output", (heads, size, D), group=group, **config)
    return sum(value[:, head // group] @ output[head] for head in range(heads))


def best(matrix, rank):
    left, sizes, right = np.linalg.svd(matrix)
    return (left[:, :rank] * sizes[:rank]) @ right[:rank]


def assert_near_identity(product, alpha, beta):
    """Asserts the stated mean of the diagonal and the spread beside it, within five standard errors.

    The diagonal is the mean of D normal numbers of spread alpha / sqrt(D); a standard deviation
    from n of them is off by 1 / sqrt(2 n) of itself.
    """
    beside = product[~np.eye(D, dtype=bool)]
    assert abs(np.mean(np.diagonal(product)) - beta) < 5 * alpha / D
    assert abs(np.std(beside) / (alpha / np.sqrt(D)) - 1) < 5 / np.sqrt(2 * beside.size)


@pytest.mark.parametrize("config", [{}, {"alpha": 0.3, "beta": 1.2}, {"beta": -0.5}])
def test_queries_meet_keys_near_a_positive_identity(config):
    for product in scores(D, **config):
        assert_near_identity(product, config.get("alpha", 0.7), config.get("beta", 0.7))


@pytest.mark.parametrize("config", [{}, {"alpha": 0.3, "beta": 1.2}])
def test_values_meet_outputs_near_a_negative_identity(config):
    assert_near_identity(values(D, **config), config.get("alpha", 0.4), -config.get("beta", 0.4))


def test_a_narrow_head_keeps_the_best_of_its_matrix():
    for whole, narrow in zip(scores(D), scores(SIZE)):
        np.testing.assert_allclose(narrow, best(whole, SIZE), atol=1e-10)
    np.testing.assert_allclose(values(SIZE), best(values(D), SIZE), atol=1e-10)


def test_in_a_wide_stream_a_narrow_head_keeps_nearly_the_best():
    width, size = 320, 20
    whole, narrow = (
        drawn("query", (width, 1, units))[:, 0] @ drawn("key", (width, 1, units))[:, 0].T for units in (width, size)
    )
    # What it carries is the matrix along its directions, and as much of it as any of its rank but for a hundredth.
    basis = np.linalg.svd(narrow)[2][:size]
    np.testing.assert_allclose(narrow, whole @ basis.T @ basis, atol=1e-10)
    assert np.sum(narrow**2) > 0.99 * np.sum(best(whole, size) ** 2)


def test_a_wide_head_has_the_same_product_and_no_idle_unit():
    for whole, wide in zip(scores(D), scores(D + 8)):
        np.testing.assert_allclose(wide, whole, atol=1e-10)
    np.testing.assert_allclose(values(2 * D), values(D), atol=1e-10)
    assert np.abs(drawn("value", (D, 2, D))).sum(0).min() > 0
    assert np.abs(drawn("query", (D, 1, 2 * D))).sum(0).min() > 0


def test_queries_that_share_a_key_match_matrices_of_their_own():
    whole = scores(D, group=2)
    key = drawn("key", (D, 2, SIZE), group=2)
    for head, product in enumerate(scores(SIZE, group=2)):
        # Of each matrix what the directions of its key can carry.
        basis = np.linalg.qr(key[:, head // 2])[0]
        np.testing.assert_allclose(product, whole[head] @ basis @ basis.T, atol=1e-9)
        assert_near_identity(whole[head], 0.7, 0.7)


def test_outputs_that_share_a_value_sum_to_its_partner():
    np.testing.assert_allclose(values(D, group=2), values(D), atol=1e-10)
    assert_near_identity(values(D, group=2), 0.4, -0.4)


def test_no_two_heads_are_equal():
    shapes = {**dict.fromkeys(("query", "key", "value"), (D, 4, SIZE)), "output": (4, SIZE, D)}
    for role, shape in shapes.items():
        heads = np.moveaxis(drawn(role, shape, group=2 if role in ("query", "output") else 1), shape.index(4), 0)
        for one in range(4):
            for other in range(one):
                assert np.abs(heads[one] - heads[other]).max() > 0.01


@pytest.mark.parametrize("role", ["query", "key", "value", "output"])
def test_another_seed_or_pair_is_another_layer(role):
    shape = (HEADS, SIZE, D) if role == "output" else (D, HEADS, SIZE)
    one = drawn(role, shape)
    np.testing.assert_array_equal(one, drawn(role, shape))
    for other in (drawn(role, shape, seed=2), drawn(role, shape, pair="another")):
        assert np.abs(one - other).max() > 0.01


def test_heads_lie_where_the_axes_say():
    stacked = drawn("query", (HEADS, D, SIZE), input_axes=[1], output_axes=[0, 2])
    np.testing.assert_array_equal(np.moveaxis(stacked, 0, 1), drawn("query", (D, HEADS, SIZE)))
    packed = drawn("key", (D, HEADS * SIZE), heads=HEADS)
    np.testing.assert_array_equal(packed.reshape(D, HEADS, SIZE), drawn("key", (D, HEADS, SIZE)))
    flat = drawn("output", (HEADS * SIZE, D), heads=HEADS, group=2)
    np.testing.assert_array_equal(flat.reshape(HEADS, SIZE, D), drawn("output", (HEADS, SIZE, D), group=2))


def test_a_real_layer_looks_at_what_is_alike():
    layer = keras.layers.MultiHeadAttention(HEADS, SIZE)
    x = np.random.default_rng(0).standard_normal((2, 12, D)).astype("float32")
    layer(x, x)
    for role, each in (("query", layer.query_dense), ("key", layer.key_dense)):
        each.kernel.assign(Mimetic(role, seed=3, **READS)(tuple(each.kernel.shape)))
    _, weights = layer(x, x, return_attention_scores=True)
    # The score with itself is 64 x 0.7 / 4 by the trace, less what rank 16 drops; others have no mean.
    own = np.diagonal(keras.ops.convert_to_numpy(weights), axis1=-2, axis2=-1)
    assert own.mean() > 0.5


@pytest.mark.parametrize(
    ("config", "shape", "words"),
    [
        ({"heads": 3}, (D, 64), ["3 heads", "(64, 64)"]),
        ({"heads": 4, "group": 3}, (D, 64), ["3", "group", "4 heads"]),
        ({}, (D,), ["(64,)", "variance_scaling"]),
        ({}, (3, 3, D, D), ["(3, 3, 64, 64)", "variance_scaling"]),
    ],
)
def test_a_weight_that_holds_no_such_heads_is_refused(config, shape, words):
    with pytest.raises(SchemeError) as caught:
        Mimetic(**config, seed=1)(shape)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("config", [{"role": "keys"}, {"alpha": 0}, {"beta": "much"}, {"heads": 0}, {"group": 1.5}])
def test_an_argument_out_of_range_is_refused(config):
    with pytest.raises(SchemeError):
        Mimetic(**config)


def test_it_is_no_base_of_another_scheme():
    with pytest.raises(SchemeError, match="base"):
        ICNR("mimetic")
