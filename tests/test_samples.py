"""Data come in many forms; whatever form, the first samples are taken and nothing else is used up."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_autoinit import peek
from keras_autoinit.errors import DataError
from keras_autoinit.samples import first_samples, is_once_only

X = np.arange(40, dtype="float32").reshape(20, 2)
Y = np.zeros(20)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[:4]


def generator():
    yield from (Batches()[index] for index in range(5))


FORMS = {
    "array": X,
    "pair": (X, Y),
    "weighted": (X, Y, Y),
    "PyDataset": Batches(),
    "list of pairs": ((X[i : i + 3], Y[i : i + 3]) for i in range(0, 20, 3)),
    "generator": generator(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_first_samples_in_order(form):
    assert np.array_equal(first_samples(FORMS[form], 7), X[:7])


def test_structures_are_kept():
    found = first_samples({"a": X, "b": [X, X.astype("float64")]}, 3)
    assert found["a"].shape == (3, 2)
    assert found["b"][1].dtype == np.float32
    assert first_samples([X, X], 3)[1].shape == (3, 2)


@pytest.mark.skipif(not importlib.util.find_spec("tensorflow"), reason="needs TensorFlow")
def test_a_tensorflow_data_set():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    assert np.array_equal(first_samples(data, 7), X[:7])
    assert len(list(data)) == 5


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
def test_a_torch_loader_and_the_random_states_that_it_draws_from():
    import torch

    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    own = torch.Generator().manual_seed(3)
    loader = torch.utils.data.DataLoader(pairs, batch_size=4, shuffle=True, generator=own)
    before = torch.get_rng_state(), own.get_state()
    found = first_samples(loader, 7)
    assert all(map(torch.equal, before, (torch.get_rng_state(), own.get_state())))
    assert np.array_equal(found[:4], next(iter(loader))[0].numpy())


def test_a_generator_that_was_peeked_at_gives_everything():
    x, batches = peek(generator(), samples=6)
    assert np.array_equal(x, X[:6])
    assert np.array_equal(np.concatenate([batch for batch, _ in batches]), X)
    assert is_once_only(generator())
    assert not is_once_only(Batches())


@pytest.mark.parametrize("data", [iter(()), np.zeros((0, 3)), np.float32(1.0), (X, Y, Y, Y), ["text"], 3])
def test_what_holds_no_sample_is_refused(data):
    with pytest.raises(DataError, match="Expected"):
        first_samples(data, 4)
