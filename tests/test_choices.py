"""Mixtures of experts: who is chosen, by how much, and what of a gradient comes back to experts and to the router."""

import keras
import numpy as np
import pytest
from both_ways import at_every_call, named
from keras import layers, ops

from keras_autoinit.graphs import read
from keras_autoinit.prediction import Given, follow

EXPERTS, CHOSEN, WIDTH, SAMPLES = 6, 2, 64, 2048


def dense(units):
    return layers.Dense(units, kernel_initializer="lecun_normal")


def chosen_before_the_softmax(logits):
    values, places = ops.top_k(logits, CHOSEN)
    return ops.softmax(values), places


def chosen_behind_the_softmax(logits):
    return ops.top_k(ops.softmax(logits), CHOSEN)


def shares_of_the_chosen(logits):
    values, places = ops.top_k(ops.softmax(logits), CHOSEN)
    return values / ops.sum(values, axis=-1, keepdims=True), places


ROUTES = [chosen_before_the_softmax, chosen_behind_the_softmax, shares_of_the_chosen]


@pytest.mark.parametrize("route", ROUTES)
def test_a_mixture_is_as_large_as_measured_and_experts_hear_as_much(route):
    keras.utils.set_random_seed(0)
    x = keras.Input((WIDTH,))
    weights, places = route(dense(EXPERTS)(x))
    marks = ops.one_hot(places, EXPERTS)
    gates = ops.sum(marks * ops.expand_dims(weights, -1), axis=1)
    experts = ops.stack([dense(WIDTH)(x) for _ in range(EXPERTS)], axis=1)
    model = keras.Model(x, ops.sum(experts * ops.expand_dims(gates, -1), axis=1))
    source = np.random.default_rng(0)
    rows = at_every_call(model, source.normal(size=(SAMPLES, WIDTH)).astype("float32"), source)
    assert abs(named(rows, "top_k")[0].off) < 0.12
    assert abs(named(rows, "one_hot")[0].off) < 1e-6
    assert abs(rows[-1].off) < 0.12
    # All but the router: what reaches it goes by how much a gate changes, which depends on which are chosen. One draw
    # of its weights makes some experts favourites: it is the mean of all that is known.
    experts = named(rows, "dense")[1:]
    assert len(experts) == EXPERTS
    assert np.mean([row.back for row in experts]) == pytest.approx(experts[0].gradient, rel=0.12)


@pytest.mark.parametrize(("count", "few"), [(4, 1), (6, 2), (16, 8), (3, 3)])
def test_the_largest_of_gaussians_are_as_large_as_they_are(count, few):
    inputs = keras.Input((count,))
    graph = read(keras.Model(inputs, ops.top_k(inputs, few)[0]))
    signal = follow(graph, Given()).signals[graph.outputs[0]]
    rows = np.sort(np.random.default_rng(1).normal(size=(50_000, count)), axis=1)[:, count - few :]
    pairs = (np.sum(rows, 1) ** 2 - np.sum(rows**2, 1)).mean() / max(few * (few - 1), 1)
    # The rule's own draws are 4096 rows: two per cent of a unit number.
    assert signal.mean == pytest.approx(rows.mean(), abs=0.04)
    assert signal.second_moment == pytest.approx(np.mean(rows**2), abs=0.06)
    assert few == 1 or signal.along[1] == pytest.approx(pairs, abs=0.06)


def test_two_choices_are_never_the_same():
    inputs, places = keras.Input((EXPERTS,)), keras.Input((CHOSEN,), dtype="int32")
    signals = []
    for given, chosen in ((inputs, ops.top_k(inputs, CHOSEN)[1]), (places, places)):
        graph = read(keras.Model(given, ops.one_hot(chosen, EXPERTS)))
        signals.append(follow(graph, Given()).signals[graph.outputs[0]])
    assert signals[0].along[1] == 0
    assert signals[1].along[1] == pytest.approx(1 / EXPERTS**2)
