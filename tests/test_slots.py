"""Axes are the library's claim to right fans: each layer's must be counted as its own output sums."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit import Axes, SchemeError, Slot, register_slots
from keras_autoinit.slots import einsum_axes, slots_of

# Layer, input shape, and per weight: role, fan-in, fan-out counted by hand.
CASES = [
    (layers.Dense(5), (None, 7), [("kernel", 7, 5)]),
    (layers.Conv1D(6, 3), (None, 9, 4), [("kernel", 12, 18)]),
    (layers.Conv2D(6, (3, 2)), (None, 9, 9, 4), [("kernel", 24, 36)]),
    (layers.Conv2D(6, 3, groups=2), (None, 9, 9, 4), [("kernel", 18, 27)]),
    (layers.Conv3D(6, 2), (None, 5, 5, 5, 4), [("kernel", 32, 48)]),
    (layers.Conv1DTranspose(6, 4, strides=2), (None, 9, 4), [("kernel", 8, 24)]),
    (layers.Conv2DTranspose(6, 3), (None, 9, 9, 4), [("kernel", 36, 54)]),
    (layers.Conv2DTranspose(6, 4, strides=2), (None, 9, 9, 4), [("kernel", 16, 96)]),
    (layers.Conv2DTranspose(6, 3, strides=(2, 1)), (None, 9, 9, 4), [("kernel", 18, 54)]),
    (layers.Conv3DTranspose(6, 2, strides=2), (None, 3, 3, 3, 4), [("kernel", 4, 48)]),
    (layers.DepthwiseConv1D(3, depth_multiplier=2), (None, 9, 4), [("depthwise", 3, 6)]),
    (layers.DepthwiseConv2D(3), (None, 9, 9, 4), [("depthwise", 9, 9)]),
    (layers.DepthwiseConv2D(3, depth_multiplier=3), (None, 9, 9, 4), [("depthwise", 9, 27)]),
    (layers.SeparableConv1D(6, 3), (None, 9, 4), [("depthwise", 3, 3), ("pointwise", 4, 6)]),
    (layers.SeparableConv2D(6, 3, depth_multiplier=3), (None, 9, 9, 4), [("depthwise", 9, 27), ("pointwise", 12, 6)]),
    (layers.EinsumDense("abc,cde->abde", (None, 3, 5)), (None, 9, 4), [("kernel", 4, 15)]),
    (layers.EinsumDense("abcd,cde->abe", (None, 5)), (None, 9, 4, 3), [("kernel", 12, 5)]),
    (layers.EinsumDense("btd,ndh->btnh", (None, 2, 3)), (None, 9, 4), [("kernel", 4, 6)]),
    (layers.EinsumDense("...x,xy->...y", 5), (None, 9, 4), [("kernel", 4, 5)]),
    (layers.EinsumDense("ebd,edh->ebh", (None, 5)), (3, 9, 4), [("kernel", 4, 5)]),
    (layers.Embedding(11, 4), (None, 3), [("embeddings", 1, 4)]),
    (layers.SimpleRNNCell(5), (None, 4), [("input", 4, 5), ("recurrent", 5, 5)]),
    (layers.GRUCell(5), (None, 4), [("input", 4, 5), ("recurrent", 5, 5)]),
    (layers.LSTMCell(5), (None, 4), [("input", 4, 5), ("recurrent", 5, 5)]),
]


def described(case):
    layer, shape, _ = case
    return f"{type(layer).__name__}-{shape}"


@pytest.mark.parametrize(("layer", "shape", "expected"), CASES, ids=map(described, CASES))
def test_fans(layer, shape, expected):
    layer.build(shape)
    found = [(slot.role, *slot.axes.fans(slot.variable(layer).shape)) for slot in slots_of(layer)]
    assert found == expected


@pytest.mark.parametrize(("layer", "shape", "expected"), CASES, ids=map(described, CASES))
def test_slots_are_known_before_the_layer_is_built(layer, shape, expected):
    fresh = type(layer).from_config(layer.get_config())
    assert [slot.role for slot in slots_of(fresh)] == [role for role, _, _ in expected]
    assert all(slot.variable(fresh) is None for slot in slots_of(fresh))


def test_every_argument_named_by_a_slot_exists():
    for layer, _, _ in CASES:
        for slot in slots_of(layer):
            assert isinstance(slot.initializer(layer), keras.Initializer)


def test_a_subclass_is_served_as_its_base():
    class Mine(layers.Conv2D):
        pass

    assert slots_of(Mine(3, 3))[0].axes == Axes((0, 1, 2), (0, 1, 3))


@pytest.mark.parametrize("equation", ["ab,bc", "abc->ac", ""])
def test_a_bad_equation_is_named(equation):
    with pytest.raises(SchemeError, match="Expected an equation"):
        einsum_axes(equation)


class Generic(layers.Layer):
    def __init__(self):
        super().__init__()
        self.projection_initializer = keras.initializers.get("glorot_uniform")
        self.bias_initializer = keras.initializers.get("zeros")

    def build(self, shape):
        self.projection = self.add_weight(shape=(shape[-1], 3), initializer=self.projection_initializer)
        self.bias = self.add_weight(shape=(3,), initializer=self.bias_initializer)


def test_an_unknown_layer_has_its_generic_slots():
    layer = Generic()
    layer.build((None, 4))
    (slot,) = slots_of(layer)
    assert (slot.role, slot.axes.fans((4, 3))) == ("projection", (4, 3))


def test_both_kernels_of_an_unregistered_recurrent_cell_are_found():
    layer = layers.ConvLSTM2D(3, 2)
    layer.build((None, 4, 5, 5, 2))
    assert [slot.weight for slot in slots_of(layer.cell)] == ["kernel", "recurrent_kernel"]


def test_register_slots_teaches_a_custom_layer():
    class Registered(Generic):
        pass

    @register_slots(Registered)
    def registered(layer):
        return (Slot("kernel", "projection", "projection_initializer", Axes((1,), (0,))),)

    layer = Registered()
    layer.build((None, 4))
    (slot,) = slots_of(layer)
    assert slot.axes.fans((4, 3)) == (3, 4)


def test_a_lora_kernel_is_no_plain_variable():
    layer = layers.Dense(4)
    layer.build((None, 4))
    layer.enable_lora(2)
    (slot,) = slots_of(layer)
    assert slot.variable(layer) is None


def test_fans_of_a_real_transposed_convolution_are_what_its_output_sums():
    """Counts, with ones everywhere, how many products reach an output: on average the fan-in."""
    layer = layers.Conv2DTranspose(1, 3, strides=2, use_bias=False, kernel_initializer="ones")
    output = np.asarray(keras.ops.convert_to_numpy(layer(np.ones((1, 40, 40, 4), "float32"))))
    (slot,) = slots_of(layer)
    assert output[0, 20:60, 20:60].mean() == pytest.approx(slot.axes.fans(layer.kernel.shape)[0])
