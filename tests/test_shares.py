"""A branch without a normalization at its end has a share of its trunk; all others have none."""

import math

import keras
import pytest
from keras import layers

from keras_autoinit.graphs import read
from keras_autoinit.shares import Share, shares_of


def shares(build, shape=(8,)):
    """The share of each layer that has one, by its name."""
    inputs = keras.Input(shape)
    graph = read(keras.Model(inputs, build(inputs)))
    weighted = [call for call in graph.calls if isinstance(call.operation, layers.Dense)]
    names = {id(call): call.operation.name for call in weighted}
    return {names[key]: share for key, share in shares_of(graph, weighted).items()}


def chain(x, length=3, last=lambda y: y, activation=None):
    for i in range(length):
        x = layers.Add()([x, last(layers.Dense(8, activation, name=f"branch{i}")(layers.ReLU()(x)))])
    return x


def test_branches_of_a_chain_together_double_its_variance():
    found = shares(chain)
    assert set(found) == {"branch0", "branch1", "branch2"}
    assert math.prod(1 + share.fraction for share in found.values()) == pytest.approx(2)
    assert found["branch1"].target(3.0) == pytest.approx(3 * math.sqrt(2 ** (1 / 3) - 1))


def test_a_normalization_at_the_end_decides_itself():
    assert shares(lambda x: chain(x, last=layers.LayerNormalization())) == {}


def test_a_trunk_and_signals_without_one_have_none():
    assert shares(lambda x: layers.Add()([layers.Dense(8)(x), layers.Dense(8)(x)])) == {}
    assert "stem" not in shares(lambda x: chain(layers.Dense(8, name="stem")(x)))


@pytest.mark.parametrize("last", [lambda y: y, layers.Dropout(0.1)])
def test_an_activation_at_the_end_is_told(last):
    share = shares(lambda x: chain(x, 1, last, "relu"))["branch0"]
    assert str(share.function) == "relu"
    # A ReLU halves the second moment.
    assert share.target(1.0) == pytest.approx(math.sqrt(2), rel=1e-2)


def test_an_activation_that_cannot_make_so_little_is_given_a_unit_signal():
    share = shares(lambda x: chain(x, 1, activation="sigmoid"))["branch0"]
    assert Share(share.trunk, 0.01, 1, share.function).target(1.0) == 1
