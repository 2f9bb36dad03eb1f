"""A weighted layer's kernel has axes of its own; the tensors on both sides have theirs, told apart here."""

import keras
import pytest
from keras import layers

from keras_autoinit.ports import ports_of


def port_of(layer, shape):
    layer.build((None, *shape))
    return ports_of(layer, len(shape) + 1)


@pytest.mark.parametrize(
    ("layer", "shape", "axes", "units", "taps", "centred"),
    [
        (layers.Dense(6), (5, 4), (2, 2), (4, 6), 1, False),
        (layers.Conv1D(6, 3), (9, 4), (2, 2), (4, 6), 3, True),
        (layers.Conv2D(6, 3, strides=2), (9, 9, 4), (3, 3), (4, 6), 9, False),
        (layers.Conv2D(6, 2), (9, 9, 4), (3, 3), (4, 6), 4, False),
        (layers.Conv2D(6, 1), (9, 9, 4), (3, 3), (4, 6), 1, False),
        (layers.Conv2D(6, 3, groups=2), (9, 9, 4), (3, 3), (2, 3), 9, True),
        (layers.Conv2D(6, 3, data_format="channels_first"), (4, 9, 9), (1, 1), (4, 6), 9, True),
        (layers.Conv2DTranspose(6, 3), (9, 9, 4), (3, 3), (4, 6), 9, True),
        (layers.EinsumDense("abc,cd->abd", (5, 6)), (5, 4), (2, 2), (4, 6), 1, False),
        (layers.EinsumDense("abc,bd->acd", (4, 6)), (5, 4), (1, 2), (5, 6), 1, False),
        (layers.EinsumDense("...c,cd->...d", (6,)), (5, 4), (2, 2), (4, 6), 1, False),
        (layers.EinsumDense("abc,cde->abde", (5, 2, 3)), (5, 4), (2, 3), (4, 3), 1, False),
        (layers.EinsumDense("abcd,cde->abe", (5, 6)), (5, 2, 4), (3, 2), (4, 6), 1, False),
    ],
)
def test_where_a_full_kernel_reads_and_makes_units(layer, shape, axes, units, taps, centred):
    depthwise, port = port_of(layer, shape)
    assert depthwise is None
    assert (port.axis_in, port.axis_out) == axes
    assert (port.units_in, port.units_out) == units
    assert (port.taps, port.centred) == (taps, centred)


def test_all_axes_of_an_einsum_count():
    _, port = port_of(layers.EinsumDense("abcd,cdef->abef", (5, 2, 3)), (5, 6, 4))
    assert (port.inputs, port.outputs) == (24, 6)


def test_an_einsum_with_a_matrix_for_each_position_has_no_port():
    assert port_of(layers.EinsumDense("abc,bcd->abd", (5, 6)), (5, 4)) == (None, None)


@pytest.mark.parametrize("kind", [layers.DepthwiseConv2D, layers.SeparableConv2D])
def test_depthwise_kernels_come_first(kind):
    options = {"filters": 6} if kind is layers.SeparableConv2D else {}
    depthwise, port = port_of(kind(kernel_size=3, depth_multiplier=2, **options), (9, 9, 4))
    assert (depthwise.axis, depthwise.multiplier) == (3, 2)
    assert (port is None) == (kind is layers.DepthwiseConv2D)
    if port is not None:
        assert (port.units_in, port.units_out, port.taps) == (8, 6, 1)


@pytest.mark.parametrize("layer", [layers.ReLU(), layers.LSTM(4), layers.Embedding(5, 4), layers.Dense(4)])
def test_other_layers_and_those_that_are_not_built_have_none(layer):
    assert ports_of(layer, 3) == (None, None)


def test_a_subclass_is_what_it_derives_from():
    class Mine(keras.layers.Conv2D):
        pass

    assert port_of(Mine(6, 3), (9, 9, 4))[1].units_out == 6
