"""A row holds what is drawn, and the spread and the gradient that are found when it is."""

import keras
import numpy as np
import pytest
from models import normal, stack

from keras_autoinit import AutoInit, Theory


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "selu", "softplus"])
def test_what_a_plan_predicts_is_what_comes_out(activation):
    model = stack(4, activation, width=512)
    plan = AutoInit("theory", seed=0).apply(model)
    x = normal((64, 512))
    for layer in model.layers:
        x = keras.ops.convert_to_numpy(layer(x))
        assert np.std(x) == pytest.approx(plan[f"{layer.name}/kernel"].output_std, rel=0.2)


def test_frozen_and_excluded_weights_stay_and_are_counted_as_they_are():
    model = stack(2, "relu")
    model.layers[0].trainable = False
    plan = AutoInit("theory", seed=0, exclude="head").plan(model)
    assert plan["dense0/kernel"].new == plan["dense0/kernel"].old
    assert plan["head/kernel"].new == plan["head/kernel"].old
    # Glorot's ReLU layer puts out half of what the next one wants: it makes up for that.
    assert plan["dense1/kernel"].new.config["gain"] == pytest.approx(2**0.5, rel=0.02)


@pytest.mark.parametrize("linear_start", [True, False])
def test_every_row_says_what_comes_back(linear_start):
    plan = AutoInit(Theory(linear_start=linear_start), seed=0).plan(stack(6, "gelu"))
    assert all(row.gradient_factor is not None for row in plan)
    assert not plan.notes
