"""Where a weighted layer reads units and where it makes them: axes of its tensors, not of its kernel."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_autoinit.slots import Slot, slots_of


@dataclass(frozen=True)
class Port:
    """A full kernel, which mixes units, between two tensors.

    Attributes:
        slot: the weight.
        axis_in: the axis of the input along which it sums units, the innermost if several.
        axis_out: the axis of the output along which it makes units, likewise.
        units_in: how many units along that axis one group of outputs reads.
        units_out: how many units along that axis one group makes.
        inputs: how many units one output reads, taps of a convolution not counted.
        outputs: how many units one group makes, along all axes.
        taps: how many positions of a convolution's input one output reads.
        centred: whether the taps have a centre, and the output as many positions as the input.
    """

    slot: Slot
    axis_in: int
    axis_out: int
    units_in: int
    units_out: int
    inputs: int
    outputs: int
    taps: int = 1
    centred: bool = False


@dataclass(frozen=True)
class Depthwise:
    """A kernel that sees each unit by itself.

    Attributes:
        slot: the weight.
        axis: the axis of the units.
        multiplier: how many outputs it makes of each.
    """

    slot: Slot
    axis: int
    multiplier: int


Ports = tuple[Depthwise | None, Port | None]


@functools.singledispatch
def ports_of(layer: Any, rank: int) -> Ports:
    """Returns the kernels of a layer in the order in which the signal meets them.

    Args:
        layer: a layer or an operation.
        rank: how many axes its input has.

    Returns:
        A depthwise kernel and a full one; `None` for each that it lacks, or that is not built.
    """
    return None, None


def _slot(layer: Any, weight: str = "kernel") -> Slot | None:
    """Returns a slot whose weight is built."""
    slots = (slot for slot in slots_of(layer) if slot.weight == weight)
    return next((slot for slot in slots if slot.variable(layer) is not None), None)


@ports_of.register(keras.layers.Dense)
def _dense(layer: keras.layers.Dense, rank: int) -> Ports:
    slot = _slot(layer)
    if slot is None:
        return None, None
    rows, columns = layer.kernel.shape
    return None, Port(slot, rank - 1, rank - 1, rows, columns, rows, columns)


@ports_of.register(keras.layers.EinsumDense)
def _einsum_dense(layer: keras.layers.EinsumDense, rank: int) -> Ports:
    slot = _slot(layer)
    if slot is None or slot.axes is None or not (slot.axes.inputs and slot.axes.outputs):
        return None, None
    left, _, made = layer.equation.replace(" ", "").partition("->")
    read, _, kernel = left.partition(",")
    if len(slot.axes.inputs) + len(slot.axes.outputs) < len(kernel):
        # Letters that all three have: one matrix for each.
        return None, None
    shape = tuple(layer.kernel.shape)
    last_in, last_out = slot.axes.inputs[-1], slot.axes.outputs[-1]
    rank_out = rank + len(made.replace("...", "")) - len(read.replace("...", ""))
    inputs, outputs = (math.prod(shape[axis] for axis in some) for some in (slot.axes.inputs, slot.axes.outputs))
    axes = _axis_of(kernel[last_in], read, rank), _axis_of(kernel[last_out], made, rank_out)
    return None, Port(slot, *axes, shape[last_in], shape[last_out], inputs, outputs)


def _axis_of(letter: str, axes: str, rank: int) -> int:
    """Returns the axis that a letter of an equation stands for."""
    before, dots, after = axes.partition("...")
    return rank - len(after) + after.index(letter) if dots and letter in after else before.index(letter)


@ports_of.register(keras.layers.Conv1D)
@ports_of.register(keras.layers.Conv2D)
@ports_of.register(keras.layers.Conv3D)
@ports_of.register(keras.layers.Conv1DTranspose)
@ports_of.register(keras.layers.Conv2DTranspose)
@ports_of.register(keras.layers.Conv3DTranspose)
def _convolution(layer: Any, rank: int) -> Ports:
    return None, _convolution_port(layer, _slot(layer), rank)


@ports_of.register(keras.layers.DepthwiseConv1D)
@ports_of.register(keras.layers.DepthwiseConv2D)
def _depthwise(layer: Any, rank: int) -> Ports:
    return _depthwise_port(layer, _slot(layer), rank), None


@ports_of.register(keras.layers.SeparableConv1D)
@ports_of.register(keras.layers.SeparableConv2D)
def _separable(layer: Any, rank: int) -> Ports:
    first, second = _slot(layer, "depthwise_kernel"), _slot(layer, "pointwise_kernel")
    return _depthwise_port(layer, first, rank), _convolution_port(layer, second, rank)


def _channels(layer: Any, rank: int) -> int:
    return 1 if layer.data_format == "channels_first" else rank - 1


def _depthwise_port(layer: Any, slot: Slot | None, rank: int) -> Depthwise | None:
    return None if slot is None else Depthwise(slot, _channels(layer, rank), layer.depth_multiplier)


def _convolution_port(layer: Any, slot: Slot | None, rank: int) -> Port | None:
    variable = None if slot is None else slot.variable(layer)
    if slot is None or slot.axes is None or variable is None:
        return None
    shape, axis = tuple(variable.shape), _channels(layer, rank)
    taps = [one for one in slot.axes.inputs if one in slot.axes.outputs]
    rows = math.prod(shape[one] for one in slot.axes.inputs if one not in taps)
    columns = math.prod(shape[one] for one in slot.axes.outputs if one not in taps) // slot.axes.blocks
    sides = [shape[one] for one in taps]
    strides = layer.strides if isinstance(layer.strides, (tuple, list)) else (layer.strides,)
    centred = all(side % 2 for side in sides) and all(stride == 1 for stride in strides) and max(sides) > 1
    return Port(slot, axis, axis, rows, columns, rows, columns, math.prod(sides), centred)


def can_be_centred(layer: Any, slot: Slot) -> bool:
    """Whether a kernel can leave every position to itself: it has a centre, loses no position and no unit."""
    full = ports_of(layer, getattr(layer, "rank", 0) + 2)[1] if hasattr(layer, "rank") else None
    return full is not None and full.slot == slot and full.centred and full.units_out >= full.units_in


def has_centre_only(layer: Any, slot: Slot) -> bool:
    """Whether of a kernel's taps only the one in the centre is not zero."""
    if not can_be_centred(layer, slot):
        return False
    kernel = keras.ops.convert_to_numpy(slot.variable(layer))
    centre = tuple(side // 2 for side in kernel.shape[:-2])
    return bool(np.count_nonzero(kernel) == np.count_nonzero(kernel[centre]) > 0)
