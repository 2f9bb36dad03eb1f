"""Constants are what Keras's own constants are: other code recognises a bias of zeros by its class."""

import math

import keras
import numpy as np
import pytest

from keras_autoinit import Constant, Ones, SchemeError, Zeros


def numbers(scheme, shape, dtype=None):
    return keras.ops.convert_to_numpy(scheme(shape, dtype=dtype)).tolist()


@pytest.mark.parametrize(
    ("scheme", "value"), [(Zeros(), 0.0), (Ones(), 1.0), (Constant(), 0.0), (Constant(-2.5), -2.5), (Constant(7), 7.0)]
)
def test_every_number_is_the_value(scheme, value):
    assert numbers(scheme, (2, 3)) == [[value] * 3] * 2


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 0, 3)])
def test_any_shape_is_filled(shape):
    assert numbers(Ones(), shape) == np.ones(shape).tolist()


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_weights_need_not_be_floats(dtype):
    tensor = Ones()((2,), dtype=dtype)
    assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    assert keras.ops.convert_to_numpy(tensor).tolist() == [1, 1]


def test_an_integer_weight_holds_the_exact_number():
    # One more than the integers that float32 counts without a gap.
    assert numbers(Constant(2**24 + 1), (1,), "int32") == [2**24 + 1]


def test_draws_are_memory_of_their_own():
    scheme = Zeros()
    one, other = scheme.array((2, 3), "float32"), scheme.array((2, 3), "float32")
    one += 1
    assert not other.any()


@pytest.mark.parametrize("kind", ["Zeros", "Ones"])
def test_who_looks_for_the_stock_class_finds_it(kind):
    ours = keras.initializers.get(f"autoinit>{kind.lower()}")
    assert isinstance(ours, getattr(keras.initializers, kind))


def test_biases_take_them():
    layer = keras.layers.LSTM(4, bias_initializer="autoinit>zeros", unit_forget_bias=True)
    layer.build((None, 3, 2))
    assert keras.ops.convert_to_numpy(layer.cell.bias).tolist() == [0] * 4 + [1] * 4 + [0] * 8


def test_equality_is_of_the_number():
    assert Constant(1) == Constant(1.0) != Constant(2.0)
    assert Constant(0.0) != Zeros()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(value):
    with pytest.raises(SchemeError, match=f"Expected `value` to be finite. Received: {value}"):
        Constant(value)


@pytest.mark.parametrize("value", ["1", None, True, {1.0}, 1j])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(SchemeError) as caught:
        Constant(value)
    assert "Expected `value` to be a number" in str(caught.value)
    assert repr(value) in str(caught.value)


def test_a_list_gives_each_place_along_the_last_axis_its_number():
    constant = Constant([1.0, 2.0, 3.0])
    assert np.asarray(constant((2, 3))).tolist() == [[1, 2, 3], [1, 2, 3]]
    assert Constant.from_config(constant.get_config()) == constant
    with pytest.raises(SchemeError, match="Received 3"):
        constant((4,))
