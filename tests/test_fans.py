"""A spread is only right if its fans are: they must count what real layers sum, and refuse nonsense."""

import keras
import numpy as np
import pytest

from keras_autoinit import Axes, SchemeError, VarianceScaling
from keras_autoinit.fans import checked_axes, default_axes

# Layer and an input large enough that its middle is far from every edge.
LAYERS = [
    (keras.layers.Dense(5, use_bias=False), (7,)),
    (keras.layers.Conv1D(6, 3, use_bias=False), (9, 4)),
    (keras.layers.Conv2D(3, (3, 2), use_bias=False), (8, 8, 5)),
    (keras.layers.Conv3D(2, (1, 2, 3), use_bias=False), (6, 6, 6, 3)),
]
NAMES = [type(layer).__name__ for layer, _ in LAYERS]


def run_with_ones(layer, inputs):
    """Returns the kernel's shape and the output when every weight is one: the output counts products."""
    layer = type(layer).from_config(layer.get_config() | {"kernel_initializer": "ones"})
    output = layer(keras.ops.convert_to_tensor(inputs[None], "float32"))
    return tuple(layer.kernel.shape), keras.ops.convert_to_numpy(output)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=NAMES)
def test_fan_in_counts_the_products_summed_into_one_output(layer, shape):
    kernel, output = run_with_ones(layer, np.ones(shape))
    assert default_axes(len(kernel)).fans(kernel)[0] == output.max() == output.min()


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=NAMES)
def test_fan_out_counts_the_outputs_that_one_input_reaches(layer, shape):
    impulse = np.zeros(shape)
    impulse[(*(length // 2 for length in shape[:-1]), 0)] = 1
    kernel, output = run_with_ones(layer, impulse)
    assert default_axes(len(kernel)).fans(kernel)[1] == output.sum()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((), (1, 1)), ((7,), (7, 7)), ((4, 5), (4, 5)), ((3, 4, 5), (12, 15)), ((3, 2, 4, 5), (24, 30))],
    ids=str,
)
def test_default_axes_by_rank(shape, expected):
    assert default_axes(len(shape)).fans(shape) == expected


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        (Axes((1,), (0,)), (4, 5), (5, 4)),
        (Axes((0, 1), (2,)), (2, 3, 8), (6, 8)),
        (Axes((0,), (1, 2)), (6, 2, 3), (6, 6)),
        (Axes((-2,), (-1,)), (9, 4, 5), (4, 5)),
        (Axes((), (1,)), (11, 4), (1, 4)),
    ],
    ids=["transposed", "two inputs", "two outputs", "from the end", "no input"],
)
def test_stated_axes_are_the_ones_counted(axes, shape, expected):
    assert axes.fans(shape) == expected


def test_blocks_share_the_outputs_and_not_the_inputs():
    assert Axes((0,), (1,), blocks=4).fans((6, 20)) == (6, 5)


def test_the_divisor_shares_out_the_inputs_and_not_the_outputs():
    assert Axes((0, 1, 3), (0, 1, 2), divisor=4.0).fans((4, 4, 6, 8)) == (32, 96)


def test_a_fan_in_may_fall_below_one():
    """Taps of a transposed convolution that leaves gaps: on average an output meets half a product."""
    assert Axes((0, 2), (0, 1), divisor=2.0).fans((1, 3, 1)) == (0.5, 3)


def test_axes_are_values():
    assert len({Axes((0,), (1,)), Axes((0,), (1,), 1, 1.0), Axes((1,), (0,)), Axes((0,), (1,), blocks=2)}) == 3


def test_config_says_only_what_is_not_usual():
    assert Axes((0,), (1,)).config() == {"input_axes": [0], "output_axes": [1]}


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (Axes((0,), (1,)), (6, 8)),
        (Axes((1,), (0,), blocks=2), (6, 8)),
        (Axes((0, 1, 3), (0, 1, 2), divisor=4.0), (4, 4, 6, 8)),
        (Axes((0,), (1, 2), 3, 2.0), (6, 2, 9)),
    ],
    ids=str,
)
def test_a_scheme_made_from_the_config_counts_the_same(axes, shape):
    assert VarianceScaling(**axes.config()).axes(shape).fans(shape) == axes.fans(shape)


@pytest.mark.parametrize("axes", [(0, 2), [0, 2], range(0, 4, 2), (-3, -1), ()], ids=str)
def test_checked_axes_are_a_tuple(axes):
    assert checked_axes(axes, "input_axes") == tuple(axes)


def test_no_axes_stay_none():
    assert checked_axes(None, "input_axes") is None


@pytest.mark.parametrize("axes", ["01", b"01", (0.0, 1.0), ["0"], (None,), [[0]]], ids=repr)
def test_bad_axes_are_named(axes):
    with pytest.raises(SchemeError) as caught:
        checked_axes(axes, "output_axes")
    assert "`output_axes` should be a list of integers" in str(caught.value)
    assert f"Received: {axes!r}." in str(caught.value)
