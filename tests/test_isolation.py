"""What is built apart must leave no trace: a user's later layer names and random numbers may not depend on it."""

import random

import keras
import numpy as np
import pytest

from keras_autoinit.isolation import apart, lent_chance, without_values


def test_names_that_keras_counts_are_as_before():
    before = keras.layers.Dense(1).name
    name = apart(lambda: [keras.layers.Dense(1).name for _ in range(5)])[0]
    assert name == "dense"
    number = int(before.partition("_")[2] or 0)
    assert keras.layers.Dense(1).name == f"dense_{number + 1}"


def seed_everything():
    # In older Keras versions, setting the seed leaves a global generator that exists as it is.
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)


def test_the_global_seed_of_keras_is_as_before():
    seed_everything()
    expected = [keras.ops.convert_to_numpy(keras.random.normal((3,))) for _ in range(2)]
    seed_everything()
    first = keras.ops.convert_to_numpy(keras.random.normal((3,)))
    apart(lambda: keras.random.normal((3,)))
    second = keras.ops.convert_to_numpy(keras.random.normal((3,)))
    np.testing.assert_array_equal(expected, [first, second])


def test_the_dtype_policy_of_the_caller_holds():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert apart(lambda: keras.layers.Dense(1).compute_dtype) == "bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_errors_come_back():
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 / 0)


def test_a_variable_without_a_value_draws_when_read():
    def work():
        with without_values():
            return keras.layers.Dense(1).add_weight(shape=(3,), initializer=lambda shape, dtype: calls.append(shape))

    calls = []
    variable = apart(work)
    assert calls == []
    assert variable.shape == (3,)


def test_lent_chance_decides_and_is_put_back():
    python, arrays = random.getstate(), np.random.get_state()[1].copy()
    drawn = []
    for _ in range(2):
        with lent_chance(7):
            drawn.append((random.random(), np.random.rand(), keras.initializers.HeNormal().seed))
    assert drawn[0] == drawn[1]
    assert random.getstate() == python
    np.testing.assert_array_equal(np.random.get_state()[1], arrays)


def test_lent_chance_is_put_back_after_an_error():
    python = random.getstate()
    with pytest.raises(ZeroDivisionError), lent_chance(7):
        _ = 1 / 0
    assert random.getstate() == python
