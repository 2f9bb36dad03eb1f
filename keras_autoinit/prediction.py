"""Follows signals through a graph without running it, and gradients back."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_autoinit.bending import activated, within_pairs
from keras_autoinit.compositions import Composition, composed_activation, composition_at, raised_at
from keras_autoinit.graphs import Call, Graph
from keras_autoinit.laws import GRADIENTS, SIGNALS, Leaning
from keras_autoinit.ports import has_centre_only
from keras_autoinit.rules import Context, Effect, Gradients, Weights, apply_rule
from keras_autoinit.rules.base import Mirrored, mirrored_by
from keras_autoinit.signals import LARGEST, Signal, constant, fitting, independent
from keras_autoinit.sizes import bounded, with_chance
from keras_autoinit.slots import Slot
from keras_autoinit.sums import added, mixed_sizes


@dataclass(frozen=True)
class Prediction:
    """What was found.

    Attributes:
        graph: what was followed.
        signals: the signal of each tensor, by number.
        gradients: the gradient at each tensor that one reaches, relative to unit gradients at the
            model's outputs.
        before: the signal inside a layer, before its own activation, by the call's `id`.
        notes: what could not be told.
    """

    graph: Graph
    signals: dict[int, Signal]
    gradients: dict[int, Signal] = field(repr=False)
    before: dict[int, Signal] = field(repr=False)
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """The weights as they are now."""

    orthogonal: bool = False

    def power(self, owner: Any, slot: Slot, base: float) -> float:
        """Returns fan-in times the second moment of a layer's weight."""
        variable = slot.variable(owner)
        if variable is None or slot.axes is None:
            return 1.0
        return second_moment(variable) * slot.axes.fans(tuple(variable.shape))[0]

    def centred(self, owner: Any, slot: Slot) -> bool:
        """Whether of a convolution's taps only the one in the centre is not zero."""
        return has_centre_only(owner, slot)

    def mirrored(self, owner: Any, slot: Slot) -> Mirrored:
        """Returns what the initializer says that the layer keeps."""
        return mirrored_by(None if slot.argument is None else slot.recipe(owner), slot)

    def variable(self, variable: Any, base: float) -> float | None:
        """Has every variable read."""
        return None


def second_moment(variable: Any) -> float:
    """Returns the mean square of a variable's numbers."""
    return float((keras.ops.convert_to_numpy(variable).astype("float64") ** 2).mean())


def follow(graph: Graph, weights: Weights, signals: dict[int, Signal] | None = None) -> Prediction:
    """Predicts every signal and every gradient.

    Args:
        graph: the model.
        weights: how large its weights are; asked in the order in which the signal meets them.
        signals: where to put the signals, for whoever wants to see them on the way.
    """
    signals = {} if signals is None else signals
    for number in graph.inputs:
        signals[number] = _unit_numbers(("input", number), graph.specs.get(number))
    _constants(graph, weights, signals)
    wholes, inside = _compositions(graph)
    effects: dict[int, Effect] = {}
    before: dict[int, Signal] = {}
    notes: list[str] = []
    for call in graph.calls:
        given = tuple(signals.get(number) or _constant(graph, number) for number in call.inputs)
        whole = wholes.get(id(call))
        context = Context(call, graph, given, weights, functools.partial(_differences, graph, call, signals, weights))
        effect = apply_rule(context) if whole is None else _composed(whole, context, signals)
        effects[id(call)] = effect
        for index, (number, signal) in enumerate(zip(call.outputs, effect.outputs)):
            signals[number] = _sized(fitting(signal, context.shape_out(index)), given)
            if not abs(signal.second_moment) <= LARGEST:
                notes.append(f"What {call.name!r} makes grows without bounds: taken for a unit signal from there on.")
        if effect.before is not None:
            before[id(call)] = effect.before
        if effect.note is not None:
            notes.append(effect.note)
    gradients = _gradients(graph, effects, wholes, inside)
    return Prediction(graph, signals, gradients, before, tuple(dict.fromkeys(notes)))


def _unit_numbers(key: Hashable, spec: Any) -> Signal:
    """Returns the signal of independent unit numbers; samples of few are not equally large."""
    shape = spec.shape if spec else (2, 1)
    few = "float" in str(spec.dtype) if spec else False
    sizes = with_chance({}, key, 2 / max(math.prod(shape[1:]), 1) if few else 0.0)
    return dataclasses.replace(independent(shape), sizes=sizes)


def _constants(graph: Graph, weights: Weights, signals: dict[int, Signal]) -> None:
    """Puts in what depends on no input: numbers, and what layers make of their weights alone, as of positions."""
    numbers = {number: value for number, value in graph.constants.items() if keras.ops.is_tensor(value)}
    signals.update((number, constant(keras.ops.convert_to_numpy(value))[0]) for number, value in numbers.items())
    for place in graph.places:
        for tensor in graph.expanded.get(id(place.layer), ()):
            spec = graph.specs.get(tensor)
            if place.slots and spec and tensor not in graph.inputs and graph.maker(tensor) is None:
                power = weights.power(place.layer, place.slots[0], 1.0)
                signals[tensor] = Signal(power, 0.0, (power, *[0.0] * (len(spec.shape) - 1)))


def _constant(graph: Graph, number: int) -> Signal:
    spec = graph.specs.get(number)
    return independent(spec.shape if spec else ())


def _compositions(graph: Graph) -> tuple[dict[int, Composition], set[int]]:
    """Returns activations written out by hand, by the `id` of their last call, and the `id` of their others."""
    wholes: dict[int, Composition] = {}
    inside: set[int] = set()
    for call in graph.calls:
        for tensor in call.outputs:
            whole = composition_at(graph, tensor) or raised_at(graph, tensor)
            if whole is not None and composed_activation(whole) is not None:
                wholes[id(whole.calls[-1])] = whole
                inside.update(map(id, whole.calls[:-1]))
    return wholes, inside


def _differences(graph: Graph, call: Call, signals: dict[int, Signal], weights: Weights) -> tuple[Signal, ...] | None:
    """Returns the signals of what mirrored pairs differ in, of all that a call takes; `None` where it cannot be told.

    They are made by the odd part of the activation that the pairs have met last, and whatever they have
    passed since does to them what it does to any signal.
    """
    found = tuple(_difference(graph, number, signals, weights) for number in call.inputs)
    known = tuple(one for one in found if one is not None)
    return known if len(known) == len(found) else None


def _difference(graph: Graph, number: int, signals: dict[int, Signal], weights: Weights) -> Signal | None:
    signal, call = signals[number], graph.maker(number)
    if signal.bent is not None:
        function, before = signal.bent
        return activated(before, within_pairs(function))[0]
    given = None if call is None or not call.inputs else _differences(graph, call, signals, weights)
    if call is None or given is None:
        return None
    if "normalization" in call.name:
        # It divides by what single units vary by.
        return given[0].times(math.sqrt(signal.variance / max(signals[call.inputs[0]].variance, 1e-24)))
    return apply_rule(Context(call, graph, given, weights)).outputs[call.outputs.index(number)]


def _composed(whole: Composition, context: Context, signals: dict[int, Signal]) -> Effect:
    function = composed_activation(whole)
    assert function is not None
    made, back = activated(signals[whole.source], function)
    return Effect((made,), lambda gradients: (back(gradients[0]),))


def _gradients(
    graph: Graph, effects: dict[int, Effect], wholes: dict[int, Composition], inside: set[int]
) -> dict[int, Signal]:
    parts: dict[int, list[Signal]] = {}
    for number in graph.outputs:
        parts.setdefault(number, []).append(_unit_numbers(("output", number), graph.specs.get(number)))
    found: dict[int, Signal] = {}
    for call in reversed(graph.calls):
        at_outputs: Gradients = tuple(_whole(parts.get(number)) for number in call.outputs)
        found.update((n, g) for n, g in zip(call.outputs, at_outputs) if g is not None)
        if id(call) in inside or all(one is None for one in at_outputs):
            continue
        targets = (wholes[id(call)].source,) if id(call) in wholes else call.inputs
        known = [one for one in at_outputs if one is not None]
        for number, gradient in zip(targets, effects[id(call)].backward(at_outputs)):
            if gradient is not None:
                spec = graph.specs.get(number)
                kept = fitting(gradient, spec.shape) if spec and gradient.profile else gradient
                parts.setdefault(number, []).append(_sized(kept, known, GRADIENTS))
    return found


def _sized(signal: Signal, made_from: Sequence[Signal], leaning: Leaning = SIGNALS) -> Signal:
    """Returns a signal with sizes of samples: those of what it was made from, where the rule does not say."""
    power = made_from[0].mean_power if signal.mean_power is None and made_from else signal.mean_power
    sizes = mixed_sizes(made_from, leaning) if signal.sizes is None else signal.sizes
    return dataclasses.replace(signal, sizes=bounded(sizes), mean_power=power)


def _whole(parts: list[Signal] | None) -> Signal | None:
    """Returns the sum of what comes back along several ways."""
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else _sized(added(parts), parts, GRADIENTS)
