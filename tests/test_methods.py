"""A method is a name or an object; an object of a person's own is as good as ours."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_autoinit import AutoInit, Data, Recipe, SelectionError, Table, Theory
from keras_autoinit.methods import METHODS, Method, method_of


@pytest.mark.parametrize(("name", "kind"), [("data", Data), ("table", Table), ("theory", Theory)])
def test_a_name_gives_the_method_with_its_own_defaults(name, kind):
    assert method_of(name) == kind()
    assert isinstance(method_of(name), Method)


def test_every_name_is_tested():
    assert set(METHODS) == {"data", "table", "theory"}


@pytest.mark.parametrize("wrong", ["tabel", None, 3, Table])
def test_anything_else_is_refused_with_the_names(wrong):
    with pytest.raises(SelectionError, match="'data', 'table', 'theory'"):
        method_of(wrong)


class Orthogonal(Table):
    """The table's decisions, every kernel orthogonal."""

    def decided(self, model, inputs, selection, seed):
        graph, rows, notes = super().decided(model, inputs, selection, seed)
        new = Recipe("autoinit>orthogonal")
        return graph, tuple(dataclasses.replace(row, new=new) for row in rows), (*notes, "All orthogonal.")


def test_a_method_of_ones_own():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    plan = AutoInit(Orthogonal(), seed=1).apply(model)
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(8), atol=1e-5)
    assert plan.notes == ("All orthogonal.",)
