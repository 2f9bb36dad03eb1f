"""A restarted optimizer must hold what a fresh one would: zeros are wrong for some, and ruin training."""

import keras
import numpy as np
import pytest

from keras_autoinit.optimizers import first_state, optimized_variables


def trained(optimizer):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    model.fit(np.ones((8, 4), "float32"), np.ones((8, 1), "float32"), verbose=0)
    return model


@pytest.mark.parametrize(
    ("optimizer", "start"),
    [
        (lambda: keras.optimizers.Adam(0.1), 0.0),
        (lambda: keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.3), 0.3),
        (lambda: keras.optimizers.Adam(lambda: 0.1), 0.0),
    ],
    ids=["adam", "adagrad", "a function for a learning rate"],
)
def test_every_average_starts_where_a_fresh_one_does(optimizer, start):
    model = trained(optimizer())
    state = {
        variable.name: np.asarray(keras.ops.convert_to_numpy(value)) for variable, value in first_state(model.optimizer)
    }
    assert state.pop("iteration") == 0
    assert "learning_rate" not in state
    assert state
    assert all((value == np.float32(start)).all() for value in state.values())


def test_the_scale_of_a_loss_is_no_average():
    model = trained(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1024.0))
    values = {variable.name: value for variable, value in first_state(model.optimizer)}
    assert float(keras.ops.convert_to_numpy(values["dynamic_scale"])) == 1024


def test_the_weights_are_those_that_it_was_built_for():
    model = trained("adam")
    before = [variable.path for variable in model.trainable_variables]
    model.layers[0].trainable = False
    assert [variable.path for variable in optimized_variables(model.optimizer)] == before


def test_reading_leaves_the_optimizer_as_it_was():
    model = trained(keras.optimizers.Adam(0.25))
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.optimizer.variables]
    first_state(model.optimizer)
    assert all(map(np.array_equal, before, map(keras.ops.convert_to_numpy, model.optimizer.variables)))
    assert float(model.optimizer.learning_rate) == 0.25
