"""Gives the weights of one layer the scale at which its output on a batch has the spread that is wanted.

A layer's output is linear in its kernel, so one computation is enough: the output is scaled with
the weight, not computed again. Layers of which that is not known are computed a few times more.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_autoinit.execution import Arguments, computed
from keras_autoinit.spreads import pooled_std
from keras_autoinit.twins import activated, is_own, without_activation

# A layer that is scaled by trial is computed this often at most, and is done when its spread is this near the target.
TRIALS = 8
NEAR = 2e-4


@dataclass(frozen=True)
class Weight:
    """A weight that is to be scaled.

    Attributes:
        path: as in its row.
        role: likewise.
        variable: the variable.
        value: what has been drawn for it.
    """

    path: str
    role: str
    variable: Any
    value: Any


@dataclass(frozen=True)
class Measured:
    """What a run has told of one weight.

    Attributes:
        factor: what its draw is to be multiplied by.
        reason: one sentence.
        output_std: spread of what it makes, then.
        scaled: whether the factor brings that about.
        bias: start of the layer's bias, where that is to be set.
    """

    factor: float
    reason: str
    output_std: float | None = None
    scaled: bool = False
    bias: Any = None


@dataclass(frozen=True)
class Task:
    """Calls of one operation, whose weights are to be scaled together.

    Attributes:
        operation: the layer or operation.
        arguments: those of each call.
        weights: the weights to be scaled.
        fixed: variables that are to have another value meanwhile.
        center: whether the bias is to take away each unit's mean.
        target: the standard deviation that the output is to have.
        why: why that is not one, a sentence.
    """

    operation: Any
    arguments: list[Arguments]
    weights: tuple[Weight, ...]
    fixed: tuple[tuple[Any, Any], ...] = ()
    center: bool = False
    target: float = 1.0
    why: str = ""

    def run(self, factors: Mapping[str, float] | float = 1.0, operation: Any = None, **fixed: Any) -> list[Any]:
        """Returns what each call puts out with the weights multiplied by these factors."""
        pairs = [(w.variable, multiplied(w.value, _factor(factors, w))) for w in self.weights]
        substitutes = [*self.fixed, *pairs, *fixed.get("also", ())]
        return [computed(operation or self.operation, each, substitutes) for each in self.arguments]


@dataclass(frozen=True)
class Outcome:
    """What the calls of a task put out, and what has been measured of each weight, by path."""

    outputs: list[Any]
    measured: dict[str, Measured] = field(default_factory=dict)


@functools.singledispatch
def scaled(operation: Any, task: Task) -> Outcome:
    """Scales the weights of an operation together until its output has its target's spread, and computes it.

    Registered on the class of the operation; one that is not known is scaled by trial.
    """
    factor, spread = 1.0, math.nan
    last: tuple[float, float] | None = None
    for _ in range(TRIALS):
        outputs = task.run(factor, without_activation(operation))
        spread = pooled_std(outputs)
        off = spread / task.target
        if not is_usable(spread) or abs(off - 1) < NEAR:
            break
        degree = 1.0 if last is None else math.log(spread / last[1]) / math.log(factor / last[0])
        if last is not None and abs(degree) < 0.1:
            reason = "Its layer's output hardly depends on its scale, which is kept."
            return Outcome(task.run(), _all(task, Measured(1.0, reason, pooled_std(task.run()))))
        last = (factor, spread)
        factor *= off ** (-1 / degree)
    if not is_usable(spread) or abs(spread / task.target - 1) >= NEAR:
        return _unscaled(task, spread)
    outputs = [activated(operation, each) for each in outputs]
    return Outcome(outputs, _all(task, Measured(factor, _together(task), spread, True)))


def _linear(layer: Any, task: Task) -> Outcome:
    """Scales a layer whose output, before its own activation, is linear in its one kernel."""
    if not is_own(layer) or len(task.weights) != 1:
        return scaled.dispatch(object)(layer, task)
    bias: Any = getattr(layer, "bias", None)
    biased = bias is not None and _is_set(bias, task.fixed)
    bare = without_activation(layer)
    off = [(bias, ops.zeros(bias.shape, bias.dtype))] if biased else ()
    outputs = task.run(1.0, bare, also=off)
    if task.center and bias is not None:
        return _centered(layer, task, outputs, bias)
    first = pooled_std(outputs)
    if not is_usable(first):
        return _unscaled(task, first)
    factor = task.target / first
    if biased:
        whole = task.run(1.0, bare)
        solved = _beside(outputs, [ops.subtract(w, o) for w, o in zip(whole, outputs)], task.target)
        if solved is None:
            reason = f"The layer's bias alone spreads its output by more than {task.target:.3g}: the scale is kept."
            return Outcome(task.run(), _all(task, Measured(1.0, reason, pooled_std(whole))))
        factor = solved
        outputs = task.run(factor, bare)
        spread, outputs = pooled_std(outputs), [activated(layer, each) for each in outputs]
    else:
        spread, outputs = task.target, [activated(layer, each, factor) for each in outputs]
    return Outcome(outputs, _all(task, Measured(factor, _had(first, task.why), spread, True)))


for _kind in (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Embedding,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
):
    scaled.register(_kind, _linear)


@scaled.register(keras.layers.SeparableConv1D)
@scaled.register(keras.layers.SeparableConv2D)
def _separable(layer: Any, task: Task) -> Outcome:
    """Scales the depthwise kernel by what it makes, then the pointwise one by what that makes."""
    depthwise = next((w for w in task.weights if w.role == "depthwise"), None)
    pointwise = tuple(w for w in task.weights if w is not depthwise)
    if not is_own(layer) or layer.padding == "causal":
        return scaled.dispatch(object)(layer, task)
    measured: dict[str, Measured] = {}
    fixed = task.fixed
    if depthwise is not None:
        spread = pooled_std([_depthwise(layer, args[0], depthwise.value) for args, _ in task.arguments])
        factor = 1 / spread if is_usable(spread) else 1.0
        measured[depthwise.path] = (
            Measured(factor, _had(spread), 1.0, True) if is_usable(spread) else Measured(1.0, _why_not(spread))
        )
        fixed = (*fixed, (depthwise.variable, multiplied(depthwise.value, factor)))
    rest = dataclasses.replace(task, weights=pointwise, fixed=fixed)
    outcome = _linear(layer, rest) if pointwise else Outcome(rest.run())
    return Outcome(outcome.outputs, {**measured, **outcome.measured})


def _depthwise(layer: Any, x: Any, kernel: Any) -> Any:
    """Returns what goes from the first kernel to the second."""
    options = {name: getattr(layer, name) for name in ("strides", "padding", "data_format", "dilation_rate")}
    return ops.depthwise_conv(ops.cast(x, layer.compute_dtype), ops.cast(kernel, layer.compute_dtype), **options)


@scaled.register(keras.layers.RNN)
@scaled.register(keras.layers.Bidirectional)
def _recurrent(layer: Any, task: Task) -> Outcome:
    """Scales the kernels on what the input contributes to the gates; recurrent kernels are left as drawn."""
    kernels = {id(cell.kernel): cell for cell in _cells(layer)}
    measured: dict[str, Measured] = {}
    for weight in task.weights:
        cell = kernels.get(id(weight.variable))
        if cell is not None:
            spread = pooled_std([_contribution(cell, args[0], weight.value) for args, _ in task.arguments])
            measured[weight.path] = _on_gates(spread)
        elif weight.role == "recurrent":
            measured[weight.path] = Measured(1.0, "Recurrent: its scale is what keeps length from step to step.")
        else:
            measured[weight.path] = Measured(1.0, "Inside a recurrent layer, where its own output is not seen.")
    return Outcome(task.run({path: each.factor for path, each in measured.items()}), measured)


def _on_gates(spread: float) -> Measured:
    if not is_usable(spread):
        return Measured(1.0, _why_not(spread))
    reason = f"Scaled on what the input contributes to the gates, whose spread was {spread:.3g}."
    return Measured(1 / spread, reason, 1.0, True)


def _cells(layer: Any) -> list[Any]:
    """Returns the cells that take a layer's input itself."""
    if isinstance(layer, keras.layers.Bidirectional):
        return [*_cells(layer.forward_layer), *_cells(layer.backward_layer)]
    cell = getattr(layer, "cell", None)
    cell = cell.cells[0] if isinstance(cell, keras.layers.StackedRNNCells) else cell
    return [cell] if getattr(cell, "kernel", None) is not None else []


def _contribution(cell: Any, x: Any, kernel: Any) -> Any:
    """Returns what a recurrent cell's kernel makes of a sequence, all time steps and gates together."""
    x, kernel = ops.cast(x, "float32"), ops.cast(kernel, "float32")
    if len(kernel.shape) == 2:
        return ops.matmul(x, kernel)
    frames = ops.reshape(x, (-1, *x.shape[2:]))
    options = {name: getattr(cell, name) for name in ("strides", "padding", "data_format", "dilation_rate")}
    return ops.conv(frames, kernel, **options)


def is_usable(spread: float) -> bool:
    """Whether a spread can be scaled to one: it is finite and not zero."""
    return math.isfinite(spread) and spread > 1e-30


def _centered(layer: Any, task: Task, outputs: list[Any], bias: Any) -> Outcome:
    """Takes each unit's mean away by the bias, then scales."""
    axes = _unit_axes(layer, outputs[0], bias)
    count = sum(math.prod(each.shape) for each in outputs)
    mean = sum(ops.sum(ops.cast(each, "float32"), axes, keepdims=True) for each in outputs)
    mean = ops.divide(mean, count / math.prod(mean.shape))
    outputs = [ops.subtract(each, ops.cast(mean, each.dtype)) for each in outputs]
    spread = pooled_std(outputs)
    if not is_usable(spread):
        return _unscaled(task, spread)
    factor = task.target / spread
    start = -np.asarray(ops.convert_to_numpy(mean), np.float64).reshape(bias.shape) * factor
    outputs = [activated(layer, each, factor) for each in outputs]
    return Outcome(outputs, _all(task, Measured(factor, _had(spread, task.why), task.target, True, start)))


def _unit_axes(layer: Any, output: Any, bias: Any) -> tuple[int, ...]:
    """Returns the axes of an output along which a bias is the same."""
    rank = len(output.shape)
    if getattr(layer, "data_format", None) == "channels_first":
        return tuple(axis for axis in range(rank) if axis != 1)
    lengths = (1,) * (rank - len(bias.shape)) + tuple(bias.shape)
    return tuple(axis for axis, length in enumerate(lengths) if length == 1)


def _beside(outputs: list[Any], biases: list[Any], target: float) -> float | None:
    """Returns the factor at which outputs, beside a bias that is not scaled, have the target's spread together."""
    plain, bias = pooled_std(outputs) ** 2, pooled_std(biases) ** 2
    both = pooled_std([ops.add(o, b) for o, b in zip(outputs, biases)]) ** 2
    shared = (both - plain - bias) / 2
    inside = shared**2 - plain * (bias - target**2)
    factor = (math.sqrt(inside) - shared) / plain if inside >= 0 else 0.0
    return factor if factor > 0 else None


def _unscaled(task: Task, spread: float) -> Outcome:
    known = spread if math.isfinite(spread) else None
    return Outcome(task.run(), _all(task, Measured(1.0, _why_not(spread, task.target), known)))


def _why_not(spread: float, target: float = 1.0) -> str:
    if not math.isfinite(spread):
        return "The scale is kept: what it makes on this batch is not finite."
    if not is_usable(spread):
        return "The scale is kept: what it makes on this batch is constant."
    return f"The scale is kept: trials brought its output's spread to {spread:.3g} and not to {target:.3g}."


def _had(spread: float, why: str = "") -> str:
    return f"Scaled by its output on the batch, whose spread was {spread:.3g}. {why}".rstrip()


def _together(task: Task) -> str:
    how = "." if len(task.weights) == 1 else ", with its layer's other weights."
    return f"Scaled by trial on the output{how} {task.why}".rstrip()


def _all(task: Task, measured: Measured) -> dict[str, Measured]:
    return {weight.path: measured for weight in task.weights}


def _factor(factors: Mapping[str, float] | float, weight: Weight) -> float:
    return factors.get(weight.path, 1.0) if isinstance(factors, Mapping) else factors


def multiplied(value: Any, factor: float) -> Any:
    """Returns an array times a number, in the array's precision."""
    return value if factor == 1 else value * value.dtype.type(factor)


def _is_set(bias: Any, fixed: Sequence[tuple[Any, Any]]) -> bool:
    """Whether a bias holds anything but zeros."""
    value = _value(bias, fixed)
    return bool((value.numpy() if value is bias else ops.convert_to_numpy(value)).any())


def _value(variable: Any, fixed: Sequence[tuple[Any, Any]]) -> Any:
    return next((value for one, value in fixed if one is variable), variable)
