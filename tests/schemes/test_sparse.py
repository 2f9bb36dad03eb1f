"""Units read as many inputs as stated, and keep a unit second moment."""

import math

import numpy as np
import pytest
from drawing import DEPTHWISE, drawn

from keras_autoinit import SchemeError, Sparse


@pytest.mark.parametrize("shape", [(40, 30), (3, 3, 8, 16), (5, 8, 16)])
def test_every_unit_reads_so_many_inputs(shape):
    kernel = drawn(Sparse(nonzeros=7, seed=1), shape).reshape(-1, shape[-1])
    assert (np.count_nonzero(kernel, axis=0) == 7).all()


def test_every_unit_of_every_channel_reads_so_many_taps():
    kernel = drawn(Sparse(nonzeros=4, **DEPTHWISE, seed=1), (3, 3, 8, 2))
    assert (np.count_nonzero(kernel, axis=(0, 1)) == 4).all()


def test_units_may_read_all_inputs():
    assert np.count_nonzero(drawn(Sparse(nonzeros=20, seed=1), (20, 30))) == 600


def test_units_read_different_inputs():
    patterns = drawn(Sparse(nonzeros=5, seed=1), (40, 30)) != 0
    # Two of the 658,008 ways to choose 5 of 40 are equal for one of the 435 pairs of 30 units with
    # a chance of 0.0007.
    assert len({tuple(column) for column in patterns.T}) == 30


def test_every_input_is_read_as_often():
    reads = np.count_nonzero(drawn(Sparse(nonzeros=5, seed=1), (20, 10_000)), axis=1)
    # Binomial: 10,000 units read an input with the chance 1/4.
    assert (np.abs(reads - 2500) < 5 * math.sqrt(10_000 * 1 / 4 * 3 / 4)).all()


def test_the_weights_that_are_read_have_the_stated_spread():
    kernel = drawn(Sparse(nonzeros=16, gain=3.0, seed=1), (50, 2000))
    second_moment = np.mean(kernel[kernel != 0] ** 2)
    # Normal numbers: five standard errors of the mean of their squares.
    assert second_moment == pytest.approx(9 / 16, rel=5 * math.sqrt(2 / (16 * 2000)))


def test_which_inputs_are_read_does_not_depend_on_how_a_partition_is_ordered(monkeypatch):
    # NumPy leaves open in which order a partition returns the smallest, and its code for AVX-512
    # returns another order than its code for AVX2.
    scheme, partition = Sparse(nonzeros=7, seed=1), np.argpartition

    def other_order(values, place, axis):
        order = partition(values, place, axis=axis)
        first, rest = np.split(order, [place + 1], axis)
        return np.concatenate([np.flip(first, axis), np.flip(rest, axis)], axis)

    expected = scheme.array((40, 30), "float32")
    monkeypatch.setattr(np, "argpartition", other_order)
    np.testing.assert_array_equal(scheme.array((40, 30), "float32"), expected)


@pytest.mark.parametrize(("shape", "inputs"), [((14, 4), 14), ((3, 3, 1, 4), 9)])
def test_more_inputs_than_there_are_cannot_be_read(shape, inputs):
    with pytest.raises(SchemeError) as caught:
        Sparse(nonzeros=15)(shape)
    assert all(word in str(caught.value) for word in ["at least 15", str(shape), f"have {inputs}", "give `nonzeros`"])


@pytest.mark.parametrize("nonzeros", [0, -1, 1.5, True, None])
def test_a_count_of_inputs_is_a_count(nonzeros):
    with pytest.raises(SchemeError) as caught:
        Sparse(nonzeros=nonzeros)
    assert all(word in str(caught.value) for word in ["`nonzeros`", "integer of 1 or more", repr(nonzeros)])
