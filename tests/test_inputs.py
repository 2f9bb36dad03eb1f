"""A model is measured on what a person trains it on; without that, on numbers of the kinds that its inputs ask for."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_autoinit.errors import DataError
from keras_autoinit.graphs import read
from keras_autoinit.inputs import LENGTH, PICTURE, as_taken, drawn_batch, given_batch, words_of

X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
Y = np.arange(20)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


def dense():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)])


FORMS = {
    "arrays": lambda: (X, Y),
    "a pair": lambda: ((X, Y), None),
    "with weights": lambda: ((X, Y, np.ones(20)), None),
    "PyDataset": lambda: (Batches(), None),
    "generator": lambda: ((Batches()[index] for index in range(5)), None),
    "lists": lambda: (iter([[X[:12], Y[:12]]]), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_samples_come_with_their_labels(form):
    batch, labels = given_batch(dense(), *FORMS[form](), 6)
    assert np.array_equal(batch, X[:6])
    assert np.array_equal(labels, Y[:6])


@pytest.mark.parametrize("x", [X, (X,), iter([X[:12]]), iter([(X[:12],)])], ids=["array", "tuple", "batch", "tuples"])
def test_without_labels_there_are_none(x):
    batch, labels = given_batch(dense(), x, None, 6)
    assert np.array_equal(batch, X[:6])
    assert labels is None


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
def test_a_loader_gives_the_same_again():
    import torch

    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    own = torch.Generator().manual_seed(3)
    loader = torch.utils.data.DataLoader(pairs, batch_size=4, shuffle=True, generator=own)
    batch, labels = given_batch(dense(), loader, None, 6)
    assert np.array_equal(batch, X[labels])
    assert np.array_equal(next(iter(loader))[1].numpy(), labels[:4])


def test_other_numbers_of_labels_are_refused():
    with pytest.raises(DataError, match=r"as many labels as samples. Received arrays of the lengths \[3, 6\]"):
        given_batch(dense(), X, Y[:3], 6)


def test_samples_take_the_types_that_the_model_converts_them_to():
    tokens, numbers = keras.Input((3,), dtype="int32", name="tokens"), keras.Input((4,), name="numbers")
    model = keras.Model([tokens, numbers], [tokens, numbers])
    ids = np.ones((2, 3), "int64")
    assert [one.dtype for one in as_taken(model, [ids, ids])] == ["int32", "float32"]
    assert as_taken(model, {"numbers": ids})["numbers"].dtype == "float32"
    # What does not fit is left to the model to complain of.
    assert as_taken(model, ids) is ids
    assert as_taken(keras.Sequential([layers.Dense(2)]), ids) is ids


def test_sizes_that_a_model_leaves_open_are_filled():
    picture, series = keras.Input((None, None, 3)), keras.Input((None, 5))
    model = keras.Model([picture, series], [picture, series])
    assert [one.shape for one in drawn_batch(model, 2)] == [(2, PICTURE, PICTURE, 3), (2, LENGTH, 5)]


def test_what_is_drawn_is_unit_normal_and_the_same_each_time():
    model = keras.Sequential([keras.Input((1000,)), layers.Dense(1)])
    drawn = drawn_batch(model, 10)
    # Five standard errors of ten thousand numbers.
    assert abs(drawn.mean()) < 0.05
    assert drawn.std() == pytest.approx(1, abs=0.036)
    assert np.array_equal(drawn, drawn_batch(model, 10))


def test_tokens_are_of_the_smallest_embedding_that_they_go_into():
    tokens = keras.Input((500,), dtype="int32")
    numbers = keras.Input((2,))
    small, large = layers.Embedding(5, 2)(ops.reshape(tokens, (-1, 500))), layers.Embedding(50, 2)(tokens)
    model = keras.Model([tokens, numbers], [small + large, numbers])
    drawn = drawn_batch(model, 4)[0]
    assert (drawn.dtype, drawn.min(), drawn.max()) == ("int32", 0, 4)
    graph = read(model)
    assert [words_of(graph, number) for number in graph.inputs] == [5, None]


def test_masks_are_ones_and_other_integers_zeros():
    mask, kind = keras.Input((3,), dtype="int32", name="padding_mask"), keras.Input((3,), dtype="int32", name="kind")
    drawn = drawn_batch(keras.Model({"padding_mask": mask, "kind": kind}, [mask, kind]), 2)
    assert drawn["padding_mask"].min() == 1
    assert drawn["kind"].max() == 0


def test_what_comes_out_of_a_models_own_scaling_is_unit_normal():
    scalings = [layers.Rescaling(1 / 50, offset=-2.0), layers.Normalization(axis=None, mean=3.0, variance=4.0)]
    model = keras.Sequential([keras.Input((2000,)), *scalings])
    drawn = drawn_batch(model, 10)
    made = keras.ops.convert_to_numpy(model(drawn))
    # Before it, 50 * (2 * z + 3 + 2); after it z again, to rounding. Five standard errors of 20,000 numbers.
    assert drawn.mean() == pytest.approx(250, abs=4)
    assert abs(made.mean()) < 0.036
    assert made.std() == pytest.approx(1, abs=0.026)


class Doubled(keras.Model):
    def __init__(self):
        super().__init__(name="doubled")
        self.dense = layers.Dense(2)

    def call(self, x):
        return 2 * self.dense(x)


def test_a_model_that_does_not_say_what_it_is_called_on_is_refused():
    model = Doubled()
    with pytest.raises(DataError, match=r"'doubled' does not say what it is called on\. Pass `x`"):
        drawn_batch(model, 2)
    model(X)
    assert drawn_batch(model, 2).shape == (2, 4)
