"""Arithmetic on several signals: sums, products, quotients, the larger of two, one or the other."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_autoinit.axes import aligned, summed_back
from keras_autoinit.bending import activated, larger_where
from keras_autoinit.graphs import Call
from keras_autoinit.laws import GRADIENTS
from keras_autoinit.rectified import RELU, Law, law_of_all, rectified
from keras_autoinit.rules.base import (
    Context,
    Effect,
    Gradients,
    Operand,
    for_layers,
    for_operations,
    scale,
)
from keras_autoinit.rules.elementwise import function_named
from keras_autoinit.rules.masks import BARRED, bars_all, numbers_of
from keras_autoinit.signals import Shape, Signal, constant
from keras_autoinit.sizes import Sizes, variance_of, with_chance
from keras_autoinit.sums import added, blended, chance_of_sum, mixed_sizes, multiplied


@for_layers("Add")
@for_operations("Add")
def add(context: Context) -> Effect:
    """Adds independent signals; one that is added twice counts with its double."""
    return _sum(context, [1.0] * len(context.operands))


@for_layers("Subtract")
@for_operations("Subtract")
def subtract(context: Context) -> Effect:
    """Subtracts independent signals; a mean of the other one is taken off exactly, its largest is no signal."""
    first, second = (*context.operands, *context.operands)[:2]
    maker = _made_by(context, second)
    if maker is not None and type(maker.operation).__name__ == "Max" and maker.inputs[:1] == (first.number,):
        # So that nothing overflows: the soft-max behind it does not see that.
        return Effect((first.signal,), lambda gradients: (gradients[0], None))
    if maker is not None and type(maker.operation).__name__ == "Mean" and maker.inputs[:1] == (first.number,):
        return _centred(context, first, second)
    return _sum(context, [1.0, -1.0])


def _made_by(context: Context, operand: Operand) -> Call | None:
    """Returns the call that has made an operand, past one that stops gradients."""
    call = None if operand.number is None else context.graph.maker(operand.number)
    stopped = call is not None and type(call.operation).__name__ == "StopGradient"
    return context.graph.maker(call.inputs[0]) if call is not None and stopped else call


@for_layers("Average")
def average(context: Context) -> Effect:
    """Averages independent signals."""
    return _sum(context, [1 / len(context.operands)] * len(context.operands))


def _centred(context: Context, whole: Operand, mean: Operand) -> Effect:
    """A signal less its own mean: the mean's second moment goes off once."""
    centre = aligned(mean.signal, mean.shape, whole.shape)
    along = tuple(value - other for value, other in zip(whole.signal.along, centre.along))
    made = Signal(max(whole.signal.second_moment - centre.second_moment, 0.0), 0.0, along)
    return Effect((made,), lambda gradients: (gradients[0], None))


def _sum(context: Context, factors: Sequence[float]) -> Effect:
    shape = context.shape_out()
    operands = [_without_mask(context, one) for one in context.operands]
    keys = [_key_of(context, index, operand) for index, operand in enumerate(operands)]
    times = {key: sum(factor for own, factor in zip(keys, factors) if own == key) for key in keys}
    ones = {key: operands[keys.index(key)] for key in times}
    # Shifts that start at zero leave everything as it is.
    kept = [key for key in times if ones[key].number is not None or not _is_all(ones[key], 0.0)]
    if len(kept) == 1 < len(times) and times[kept[0]] == 1.0 and ones[kept[0]].shape == shape:
        only = ones[kept[0]]
        return Effect((only.signal,), lambda gradients: tuple(gradients[0] for _ in context.call.inputs))
    given = list(ones.values()), list(times.values())
    parts = [aligned(one.signal, one.shape, shape).times(factor) for one, factor in zip(*given)]
    made = parts[0] if len(parts) == 1 else added(parts)
    rectified_one, parts_made = _rectified_part(*given)
    sizes = with_chance(_sizes_of_sum(*given), (id(context.call), "added"), chance_of_sum(parts, shape))
    made = dataclasses.replace(made, parts=parts_made, joined=_sum_of_each(*given), sizes=sizes)
    # What is there more than once adds up on its way back, too: all of it comes back at the first one.
    numbers = context.call.inputs
    shares = {numbers.index(one.number): times[key] for key, one in ones.items() if one.number is not None}

    def backward(gradients: Gradients) -> Gradients:
        tilt = None if gradients[0] is None else gradients[0].tilt
        found = [
            _to(scale(gradients[0], shares[index] ** 2), shape, context.shape_in(index)) if index in shares else None
            for index in range(len(numbers))
        ]
        # It is the rectified signal that the gradient goes with, not what is added to it.
        return tuple(
            dataclasses.replace(one, tilt=tilt) if one is not None and number == rectified_one else one
            for one, number in zip(found, numbers)
        )

    return Effect((made,), backward)


def _key_of(context: Context, index: int, operand: Operand) -> Any:
    """Returns what two operands have in common if they are the same numbers."""
    return index if operand.number is None else ("tensor", context.graph.firsts.get(operand.number, operand.number))


def _without_mask(context: Context, operand: Operand) -> Operand:
    """Returns an operand, of a mask what it adds to logits that it does not bar: those it bars, a soft-max drops."""
    if operand.signal.second_moment <= abs(BARRED) or not operand.shape:
        return operand
    numbers = numbers_of(context.graph, operand.value)
    if numbers is None or (numbers <= BARRED).all():
        return operand
    return dataclasses.replace(operand, signal=constant(np.where(numbers <= BARRED, 0.0, numbers))[0])


def _sizes_of_sum(operands: list[Operand], factors: list[float]) -> Sizes:
    signals = [dataclasses.replace(one.signal.times(f), sizes=one.signal.sizes) for one, f in zip(operands, factors)]
    return mixed_sizes(signals)


def _rectified_part(operands: list[Operand], factors: list[float]) -> tuple[int | None, tuple[Law, Signal] | None]:
    """Returns which tensor is a rectified signal, its law and what is added to it, where a sum is of two such."""
    if factors != [1.0, 1.0] or operands[0].shape != operands[1].shape:
        return None, None
    one, other = operands
    first, second = _law_of(one.signal), _law_of(other.signal)
    if first is not None and second is None:
        return one.number, (first, other.signal)
    return (other.number, (second, one.signal)) if second is not None and first is None else (None, None)


def _sum_of_each(operands: list[Operand], factors: list[float]) -> Any:
    """Returns the sums of signals side by side with another one; `None` where there are no such."""
    if factors != [1.0, 1.0] or operands[0].shape != operands[1].shape:
        return None
    one, other = (operand.signal for operand in operands)
    if (one.joined is None) == (other.joined is None):
        return None
    trunk, branch = (one, other) if one.joined is not None else (other, one)
    assert trunk.joined is not None
    axis, parts = trunk.joined
    laws = [None if _law_of(branch) is not None else _law_of(part) for _, part in parts]
    sums = [
        dataclasses.replace(
            added([part, branch]), parts=None if law is None else (law, branch), sizes=mixed_sizes([part, branch])
        )
        for (_, part), law in zip(parts, laws)
    ]
    return axis, tuple((count, one) for (count, _), one in zip(parts, sums))


def _law_of(signal: Signal) -> Law | None:
    """Returns the law of a rectified signal, or of several side by side; `None` for one that is not rectified."""
    if signal.law is None and signal.joined is not None:
        laws = [_law_of(one) for _, one in signal.joined[1]]
        known = [law for law in laws if law is not None]
        return law_of_all(known, [count for count, _ in signal.joined[1]], signal) if len(known) == len(laws) else None
    if signal.law is None and signal.bent is not None and signal.bent[0] == RELU:
        return rectified(signal.bent[1])
    law: Law | None = signal.law
    return law


def _to(gradient: Signal | None, shape: Shape, wanted: Shape) -> Signal | None:
    if gradient is None or shape == wanted or not shape:
        return gradient
    return summed_back(gradient, shape, wanted)


@for_layers("Multiply")
@for_operations("Multiply")
def multiply(context: Context) -> Effect:
    """Multiplies independent signals: a gate, a mask, a scale. A square is one function."""
    numbers = {operand.number for operand in context.operands}
    if len(context.operands) == 2 and len(numbers) == 1 and None not in numbers:
        made, back = activated(context.signal, function_named("Square"))
        return Effect((made,), lambda gradients: (back(gradients[0]), None))
    return _product(context, list(context.operands))


@for_operations("Divide", "TrueDivide")
def divide(context: Context) -> Effect:
    """Divides: multiplies by the reciprocal; by the sum of what is divided, it is shares."""
    first, second = context.operands
    maker = _made_by(context, second)
    if maker is not None and type(maker.operation).__name__ == "Sum" and maker.inputs[:1] == (first.number,):
        return _shares_of_sum(context, first, second)
    if second.number is None:
        values = second.signal
        inverse = Signal(
            1 / values.second_moment,
            math.copysign(1 / math.sqrt(values.second_moment), values.mean),
            tuple(1 / values.second_moment for _ in values.along),
        )
        return _product(context, [first, Operand(inverse, second.shape, None)])
    inverse, back = activated(second.signal, function_named("Reciprocal"))
    effect = _product(context, [first, Operand(inverse, second.shape, second.number)])

    def backward(gradients: Gradients) -> Gradients:
        found = zip(context.call.inputs, effect.backward(gradients))
        return tuple(back(one) if number == second.number else one for number, one in found)

    return Effect(effect.outputs, backward)


def _shares_of_sum(context: Context, first: Operand, whole: Operand) -> Effect:
    """Positive numbers by their sum: a gradient that all have in common does not come back."""
    square = max(whole.signal.second_moment, 1e-24)
    count = math.prod(first.shape) / max(math.prod(whole.shape), 1) if first.shape else 1.0

    def backward(gradients: Gradients) -> Gradients:
        back = scale(gradients[0], (1 - 1 / max(count, 1.0)) / square)
        return tuple(back if number == first.number else None for number in context.call.inputs)

    return Effect((first.signal.times(1 / math.sqrt(square)),), backward)


def _product(context: Context, operands: list[Operand]) -> Effect:
    shape = context.shape_out()
    plain = [one for one in operands if one.number is not None or not _is_all(one, 1.0)]
    if len(plain) == 1 and plain[0].number is not None and plain[0].shape == shape:
        return Effect((plain[0].signal,), lambda gradients: gradients)
    parts = [_sized(aligned(one.signal, one.shape, shape)) for one in operands]
    sources = [one.signal for one in operands]

    def backward(gradients: Gradients) -> Gradients:
        if gradients[0] is None:
            return (None,) * len(context.call.inputs)
        gradient, found = _sized(gradients[0]), []
        for index, number in enumerate(context.call.inputs):
            others = [place for place, one in enumerate(operands) if one.number != number]
            # What a gradient has come back through has not made it.
            more = _larger_together([dataclasses.replace(gradient, bent=None), *[sources[place] for place in others]])
            product = multiplied([gradient, *[parts[place] for place in others]], GRADIENTS, more)
            found.append(_to(product, shape, context.shape_in(index)))
        return tuple(found)

    return Effect((multiplied(parts, more=_larger_together(sources)),), backward)


def _is_all(operand: Operand, number: float) -> bool:
    """Whether all entries of an operand are one number, such as scales that start at one."""
    return operand.signal.mean == number and operand.signal.second_moment == number**2


def _larger_together(factors: list[Signal]) -> float | None:
    """Returns how much larger a product of two is for one going with the other, if what made the more even is known."""
    if len(factors) != 2:
        return None
    even, uneven = sorted(factors, key=lambda one: variance_of(one.sizes or {}))
    return larger_where(even, uneven.sizes or {})


def _sized(signal: Signal) -> Signal:
    return signal if signal.sizes is not None else dataclasses.replace(signal, sizes={})


@for_layers("Maximum", "Minimum")
@for_operations("Maximum", "Minimum")
def larger(context: Context) -> Effect:
    """Takes the larger of two independent Gaussians, or of one and a number (Clark 1961)."""
    sign = 1.0 if type(context.layer).__name__ == "Maximum" else -1.0
    shape = context.shape_out()
    parts = [aligned(one.signal, one.shape, shape).times(sign) for one in context.operands]
    made = functools.reduce(_larger_of_two, parts)
    share = 1 / max(len(context.call.inputs), 1) if len(parts) == len(context.call.inputs) else 0.5
    return Effect((made.times(sign),), lambda gradients: (scale(gradients[0], share),) * len(context.call.inputs))


def _larger_of_two(first: Signal, second: Signal) -> Signal:
    spread = math.sqrt(first.variance + second.variance) or 1e-12
    gap = (first.mean - second.mean) / spread
    above, density = 0.5 * (1 + math.erf(gap / math.sqrt(2))), math.exp(-(gap**2) / 2) / math.sqrt(2 * math.pi)
    mean = first.mean * above + second.mean * (1 - above) + spread * density
    second_moment = first.second_moment * above + second.second_moment * (1 - above)
    second_moment += (first.mean + second.mean) * spread * density
    along = tuple(
        mean**2 + (a - first.mean**2) * above**2 + (b - second.mean**2) * (1 - above) ** 2
        for a, b in zip(first.along, second.along)
    )
    return Signal(second_moment, mean, along)


@for_operations("Where")
def where(context: Context) -> Effect:
    """Takes one of two signals, as often the one as the other; what a mask lets through of logits, or of whole rows."""
    chosen, shape = context.operands[-2:], context.shape_out()
    shares = _shares_of_masked(context, chosen)
    parts = [aligned(one.signal, one.shape, shape) for one in chosen]
    shared = {one.number: share for one, share in zip(chosen, shares)}
    backward = lambda gradients: tuple(  # noqa: E731
        _to(scale(gradients[0], shared[number]), shape, context.shape_in(i)) if shared.get(number) else None
        for i, number in enumerate(context.call.inputs)
    )
    return Effect((blended(parts, shares),), backward)


def _shares_of_masked(context: Context, chosen: Sequence[Operand]) -> list[float]:
    """Returns how often each of two signals is taken: of rows that a mask bars there are few, as of padding."""
    condition, shape = context.operands[0], context.shape_out()
    barred = [bars_all(context.graph, one.value) for one in chosen]
    if sum(barred) == 1:
        return [0.0 if one else 1.0 for one in barred]
    masks = len(context.operands) == 3 and condition.shape != shape
    nothing = [one.signal.second_moment == 0 for one in chosen]
    return [0.0 if zero else 1.0 for zero in nothing] if masks and sum(nothing) == 1 else [0.5, 0.5]
