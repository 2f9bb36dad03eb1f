"""Products of two tensors, and the soft-max that stands between them in attention."""

from __future__ import annotations

import dataclasses
import functools
import math
import string
from typing import Any

import keras
import numpy as np

from keras_autoinit.averages import averaged_signal
from keras_autoinit.graphs import Ref
from keras_autoinit.rules.base import Context, Effect, Gradients, Operand, axes_of, for_layers, for_operations
from keras_autoinit.rules.masks import added_keys, causal, keys_of_mask, open_keys
from keras_autoinit.signals import Shape, Signal

# Draws over which the average over tokens is taken; fixed, so that every plan is the same.
DRAWS = 400


@for_operations("Einsum")
def einsum(context: Context) -> Effect:
    """Sums products of independent tensors, as an equation says."""
    equation = context.layer.subscripts.replace(" ", "")
    first, second = context.operands
    left, output = equation.split("->")
    one, other = left.split(",")
    dots = string.ascii_uppercase[: len(first.shape) - len(one.replace("...", ""))]
    if "..." in left:
        one, other, output = (text.replace("...", dots) for text in (one, other, output))
    return _contraction(context, (first, second), (one, other, output))


@for_operations("Matmul", "Dot")
def matmul(context: Context) -> Effect:
    """Sums products over the last axis of one and the last but one of the other."""
    first, second = context.operands
    batch = string.ascii_uppercase[: max(len(first.shape), len(second.shape)) - 2]
    one = batch[len(batch) - len(first.shape) + 2 :] + "ij"
    other = batch[len(batch) - len(second.shape) + 2 :] + "jk"
    return _contraction(context, (first, second), (one, other, batch + "ik"))


@for_layers("Dot")
def dot_layer(context: Context) -> Effect:
    """Sums products over an axis of each, sample by sample."""
    first, second = context.operands
    axes = context.layer.axes
    axes = (axes, axes) if isinstance(axes, int) else tuple(axes)
    one = ["A", *string.ascii_lowercase[: len(first.shape) - 1]]
    other = ["A", *string.ascii_lowercase[12 : 12 + len(second.shape) - 1]]
    one[axes[0]] = other[axes[1]] = "z"
    output = ["A", *(x for x in one[1:] if x != "z"), *(x for x in other[1:] if x != "z")]
    names: list[str] = ["".join(one), "".join(other), "".join(output)]
    if len(names[2]) == 1:
        names[2] = "A"
    return _contraction(context, (first, second), (names[0], names[1], names[2]))


def _contraction(context: Context, operands: tuple[Operand, Operand], names: tuple[str, str, str]) -> Effect:
    signals, shapes = tuple(one.signal for one in operands), tuple(one.shape for one in operands)
    sizes = {letter: size for name, shape in zip(names, shapes) for letter, size in zip(name, shape)}
    made = contracted(signals[0], signals[1], names, sizes)

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None:
            return (None,) * len(context.call.inputs)
        found = {
            operands[0].number: contracted(gradient, signals[1], (names[2], names[1], names[0]), sizes),
            operands[1].number: contracted(gradient, signals[0], (names[2], names[0], names[1]), sizes),
        }
        return tuple(found.get(number) for number in context.call.inputs)

    if len(made.along) != len(context.shape_out()) and context.shape_out():
        made = made.with_axes([*made.along, *[0.0] * 8][: len(context.shape_out())])
    return Effect((made,), backward)


def contracted(first: Signal, second: Signal, names: tuple[str, str, str], sizes: dict[str, int]) -> Signal:
    """Returns the sum of products over every letter that the output lacks.

    Args:
        first: one factor.
        second: the other, independent of it.
        names: a letter for each axis of the factors and of the output.
        sizes: the length of each letter's axis.
    """
    letters = list(dict.fromkeys(names[2] + names[0] + names[1]))
    along = [_agreement(first, names[0], letter) * _agreement(second, names[1], letter) for letter in letters]
    product = Signal(first.second_moment * second.second_moment, first.mean * second.mean, tuple(along))
    if names[0][0] == names[1][0] == letters[0]:
        apart = [_agreement(first, names[0], x, True) * _agreement(second, names[1], x, True) for x in letters]
        product = dataclasses.replace(product, apart=tuple(apart))
    summed = {axis: float(sizes.get(letter, 1)) for axis, letter in enumerate(letters) if letter not in names[2]}
    whole = averaged_signal(product, summed).times(math.prod(summed.values()))
    return whole.with_axes(whole.along[: len(names[2])], whole.apart[: len(names[2])])


def _agreement(signal: Signal, name: str, letter: str, samples: bool = False) -> float:
    """Returns how far entries agree that differ on a letter's axis: wholly where they have none.

    Args:
        signal: one factor.
        name: a letter for each of its axes.
        letter: that of the axis.
        samples: whether they are of different samples, too.
    """
    axis, first = name.find(letter), {0} if samples and signal.along else set()
    if axis < 0 or axis >= len(signal.along):
        return signal.agreement(first)
    return signal.agreement({*first, axis})


@for_layers("Softmax")
@for_operations("Softmax")
def softmax(context: Context) -> Effect:
    """Weights that sum to one: the more the logits differ, the fewer of them count."""
    rank = len(context.signal.along)
    axes = axes_of(context.option("axis", -1), rank)
    made, back = weighted(context.signal, axes, context.shape_in(), _seen(context) if axes == (rank - 1,) else None)
    return Effect((made,), lambda gradients: (back(gradients[0]), *[None] * (len(context.call.inputs) - 1)))


def _seen(context: Context) -> tuple[int, ...] | None:
    """Returns how many keys each query sees: by the mask that the layer is given, or by what was added before."""
    shape = context.shape_in()
    if len(context.call.inputs) > 1:
        return keys_of_mask(context, Ref(context.call.inputs[1]), shape)
    return open_keys(context, shape) if shape else None


def weighted(signal: Signal, axes: tuple[int, ...], shape: Shape, seen: tuple[int, ...] | None = None) -> Any:
    """Returns the soft-max of a signal, and what it does to a gradient.

    Args:
        signal: logits.
        axes: those it sums to one over.
        shape: of the logits.
        seen: over how many of them, query by query; `None` for all.
    """
    count = math.prod(shape[axis] for axis in axes) if shape else 8
    same = min((signal.along[axis] for axis in axes), default=0.0)
    variance = max(signal.second_moment - same, 0.0)
    rounded = float(f"{variance:.6g}")
    share, slope = concentration(rounded, count) if seen is None else masked_concentration(rounded, count, seen)
    uniform = 1 / count**2

    def agreeing(value: float, common: float) -> float:
        agreement = max(value - min(value, common), 0.0) / variance if variance > 1e-12 else 1.0
        return uniform * (share * count) ** agreement

    def along(axis: int) -> float:
        if axis in axes:
            return (1 - share) / (count * (count - 1)) if count > 1 else 1.0
        return agreeing(signal.along[axis], signal.agreement({axis, *axes}))

    def apart(axis: int) -> float:
        if axis in axes:
            # All of two soft-maxes' products sum to one.
            return (1 - count * along(0)) / (count * (count - 1)) if count > 1 else 1.0
        return agreeing(signal.agreement({0, axis}), signal.agreement({0, *axes}))

    ranks = range(len(signal.along))
    made = Signal(share / count, 1 / count, tuple(map(along, ranks)))
    if signal.apart and 0 not in axes:
        made = dataclasses.replace(made, apart=tuple(map(apart, ranks)))

    # Of two independent soft-maxes a and b: E a b (1 - a - b + sum a b), of the same place.
    square, pair = share / count, (1 - share) / count / max(count - 1, 1)
    together = uniform - 2 * square / count + square**2 + (count - 1) * pair**2

    def back(gradient: Signal | None) -> Signal | None:
        if gradient is None:
            return None
        apart = max(gradient.second_moment - min((gradient.along[axis] for axis in axes), default=0.0), 0.0)
        own = apart / gradient.second_moment if gradient.second_moment > 0 else 0.0
        # It sums to zero over what is weighed: what keys have in common, queries hear nothing of, and as little of
        # it as is common to queries too: of a product of gradients and values, each agrees on an axis of its own.
        opposed = -apart * slope / max(count - 1, 1)
        return Signal(
            apart * slope,
            0.0,
            tuple(opposed if i in axes else max(v, 0.0) * own * together for i, v in enumerate(gradient.along)),
        )

    return made, back


@functools.lru_cache(maxsize=512)
def concentration(variance: float, count: int) -> tuple[float, float]:
    """Returns the expected sum of squares of the soft-max of this many Gaussian logits.

    One over the number that count: `1 / count` for equal logits, one for a single winner. And
    the factor on squared gradients, `E a^2 (1 - 2 a + sum a^2)`.
    """
    logits = math.sqrt(variance) * np.random.default_rng(0).standard_normal((DRAWS, min(count, 1024)))
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    squares = (weights**2).sum(1, keepdims=True)
    share = min(count, 1024) / count
    slope = float((weights**2 * (1 - 2 * weights + squares)).mean())
    return float(squares.mean()) * share, slope * share**2


@functools.lru_cache(maxsize=512)
def masked_concentration(variance: float, count: int, seen: tuple[int, ...]) -> tuple[float, float]:
    """Returns the same of queries that see so many keys each, such as one, two, three and so on."""
    found = np.array([concentration(variance, number) for number in seen])
    return float(found[:, 0].mean()), float((found[:, 1] * seen / count).mean())


@for_operations("DotProductAttention")
def attention(context: Context) -> Effect:
    """Queries meet keys, a soft-max weighs the values: axes are sample, token, head, feature."""
    query, key, value, *_ = context.operands
    width = query.shape[-1]
    sizes = {**dict(zip("BTHD", query.shape)), **dict(zip("BSHD", key.shape))}
    scale = context.option("scale") or width**-0.5
    logits = contracted(query.signal, key.signal, ("BTHD", "BSHD", "BHTS"), sizes).times(scale)
    shape = tuple(sizes[letter] for letter in "BHTS")
    weights, back = weighted(logits, (3,), shape, _seen_by_queries(context, shape))
    made = contracted(weights, value.signal, ("BHTS", "BSHD", "BTHD"), sizes)
    # Two tokens of d features agree by chance, by 1 / d squared, in their keys as in their values: of the queries'
    # gradient, sum_st a_s a_t K_st V_st, that leaves (1 - sum a^2) / d beside the sum of a^2.
    share = min(weights.second_moment * sizes["S"], 1.0)
    alike = math.sqrt(1 + (1 - share) / share / _features(context, key, value)) if share > 0 else 1.0

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None:
            return (None,) * len(context.call.inputs)
        at_weights = contracted(gradient, value.signal, ("BTHD", "BSHD", "BHTS"), sizes)
        at_logits = back(at_weights).times(scale)
        found = {
            value.number: contracted(gradient, weights, ("BTHD", "BHTS", "BSHD"), sizes),
            query.number: contracted(at_logits, key.signal, ("BHTS", "BSHD", "BTHD"), sizes).times(alike),
            key.number: contracted(at_logits, query.signal, ("BHTS", "BTHD", "BSHD"), sizes),
        }
        return tuple(found.get(number) for number in context.call.inputs)

    return Effect((made,), backward)


def _seen_by_queries(context: Context, shape: Shape) -> tuple[int, ...] | None:
    """Returns how many keys each query sees, by what an attention is told."""
    if context.option("is_causal", False):
        return causal(shape)
    args, kwargs = context.call.args, context.call.kwargs
    bias, mask = (kwargs.get(name, args[at] if len(args) > at else None) for at, name in ((3, "bias"), (4, "mask")))
    seen = None if mask is None else keys_of_mask(context, mask, shape)
    return added_keys(context, bias, shape) if seen is None and bias is not None else seen


def _features(context: Context, key: Operand, value: Operand) -> float:
    """Returns how many features both keys and values are made from; without bounds if not from the same."""
    sources = [_mixed_from(context, one.number) for one in (key, value)]
    spec = context.graph.specs.get(sources[0]) if sources[0] is not None and sources[0] == sources[1] else None
    return float(spec.shape[-1]) if spec is not None and spec.shape else math.inf


def _mixed_from(context: Context, number: int | None) -> int | None:
    """Returns the tensor that weights have turned into another, or into what that was made from entry by entry."""
    while number is not None:
        call = context.graph.maker(number)
        if call is None or not call.inputs:
            return None
        number = call.inputs[0]
        if isinstance(call.operation, (keras.layers.Dense, keras.layers.EinsumDense)):
            return number
    return None
