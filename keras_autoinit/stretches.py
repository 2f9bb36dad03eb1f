"""What each weight should make: read off the graph before any signal is followed.

A **stretch** is a chain of weights and activations with no normalization and no merge in it: its
scale is one choice. A **chain** of residual merges is one choice too: how fast its trunk grows.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np

from keras_autoinit.activations import Activation, activation
from keras_autoinit.compositions import composed_activation, composition_at
from keras_autoinit.graphs import Call, Graph, activation_of, passes
from keras_autoinit.merges import NORMALIZATIONS, Merge, is_merge, merges_of
from keras_autoinit.responses import respond
from keras_autoinit.slots import Slot

# Second moments before an activation that a stretch may choose from.
CHOICES = np.exp(np.linspace(math.log(1e-4), math.log(1e4), 401))
# How far a sample may stray from the mean: by a factor of about e, in steps of `CHOICES`.
STRAY = 22
# A stretch whose gradient changes by no more than this end to end keeps unit signals.
TOLERATED = math.log(1.5)
# Shorter ones, the gates and heads of otherwise normalized networks, are left at unit signals.
SHORTEST = 3

# As far out, gates are open or shut.
FAR = 100.0

# Tensors to look back over: enough for a rotation of positions written out.
NEAR = 24


@dataclass(frozen=True)
class Fate:
    """Where what a call makes ends up first.

    Attributes:
        kind: what it meets: an activation, a normalization, a merge with another signal, or the end.
        tensor: what stands there: the tensor that meets it.
        call: the normalization, or the merge.
        activation: the activation.
        made: the tensor that the activation makes.
    """

    kind: Literal["activation", "normalization", "merge", "end"]
    tensor: int
    call: Call | None = None
    activation: Activation | None = None
    made: int | None = None


@dataclass(frozen=True)
class Stretch:
    """A chain of weights and activations.

    Attributes:
        activations: those on its longest way, in order.
        target: second moment before each of them.
        growth: factor on the squared gradient from its end to its beginning.
    """

    activations: tuple[Activation, ...]
    target: float
    growth: float


@dataclass
class Structure:
    """What each call's output is for.

    Attributes:
        fates: where the output of a call with weights ends up, by the call's `id`.
        stretches: the stretch that it belongs to, likewise.
        merges: every merge, by the `id` of its call.
    """

    fates: dict[int, Fate] = field(default_factory=dict)
    stretches: dict[int, Stretch] = field(default_factory=dict)
    merges: dict[int, Merge] = field(default_factory=dict)


def structure_of(graph: Graph, calls: list[Call]) -> Structure:
    """Reads the structure.

    Args:
        graph: the model.
        calls: those that mix with a weight, in order.
    """
    order = {id(call): index for index, call in enumerate(graph.calls)}
    fates = {id(call): _fate(graph, call) for call in calls}
    return Structure(fates, _stretches(graph, calls, fates), merges_of(graph, order))


def _fate(graph: Graph, call: Call) -> Fate:
    """Searches breadth first for what bends, normalizes or adds what a call makes."""
    own = activation(getattr(call.operation, "activation", None)) if _has_own(call) else None
    if own is not None and not own.linear:
        return Fate("activation", call.outputs[0], activation=own, made=call.outputs[0])
    return fate_of(graph, call.outputs[0])


def fate_of(graph: Graph, source: int) -> Fate:
    """Searches breadth first for what bends, normalizes or adds a tensor."""
    queue, seen = deque([source]), {source}
    while queue:
        tensor = queue.popleft()
        whole = composition_at(graph, tensor)
        composed = None if whole is None else composed_activation(whole)
        if whole is not None and composed is not None:
            return Fate("activation", tensor, activation=composed, made=whole.output)
        for reader in graph.readers(tensor):
            met = activation_of(reader)
            if met is not None and not met.linear:
                return Fate("activation", tensor, activation=met, made=reader.outputs[0])
            if isinstance(reader.operation, NORMALIZATIONS):
                return Fate("normalization", tensor, call=reader)
            own = is_merge(reader) and _all_from(graph, reader, source)
            if is_merge(reader) and not own:
                return Fate("merge", tensor, call=reader)
            if own or ((met is not None or passes(reader)) and len(set(reader.inputs)) == 1):
                queue.extend(out for out in reader.outputs if out not in seen)
                seen.update(reader.outputs)
    return Fate("end", source)


def _all_from(graph: Graph, call: Call, source: int) -> bool:
    """Whether all that a call adds is made from one tensor by a few operations, as in a rotation of positions."""
    return all(_made_from(graph, tensor, source) for tensor in set(call.inputs) - {source})


def _made_from(graph: Graph, tensor: int, source: int) -> bool:
    stack, seen = [tensor], {tensor}
    while stack and len(seen) < NEAR:
        maker = graph.maker(stack.pop())
        if maker is None or isinstance(maker.operation, keras.Layer):
            return False
        if source in maker.inputs:
            return True
        stack.extend(set(maker.inputs) - seen)
        seen.update(maker.inputs)
    return False


def _has_own(call: Call) -> bool:
    return isinstance(call.operation, keras.Layer) and not isinstance(call.operation, keras.layers.RNN)


def _stretches(graph: Graph, calls: list[Call], fates: dict[int, Fate]) -> dict[int, Stretch]:
    """Joins the weights whose inputs come from one another's activations."""
    makers = {fate.made: call for call in calls if (fate := fates[id(call)]).kind == "activation"}
    before: dict[int, list[Call]] = {}
    depth: dict[int, int] = {}
    group: dict[int, list[Call]] = {}
    for call in calls:
        if fates[id(call)].kind != "activation":
            continue
        found = _sources(graph, call, makers)
        before[id(call)] = found
        depth[id(call)] = 1 + max((depth.get(id(one), 0) for one in found), default=0)
        members = [call]
        for one in found:
            other = group.get(id(one), [])
            if other is not members:
                members = [*other, *members] if len(other) < len(members) else _extended(other, members)
        for member in members if len(found) != 1 else [call]:
            group[id(member)] = members
    chosen: dict[int, Stretch] = {}
    result = {}
    for key, members in group.items():
        if id(members) not in chosen:
            chosen[id(members)] = _chosen(members, before, depth, fates)
        result[key] = chosen[id(members)]
    return result


def _extended(members: list[Call], more: list[Call]) -> list[Call]:
    members.extend(one for one in more if one not in members) if len(more) > 1 else members.extend(more)
    return members


def _sources(graph: Graph, call: Call, makers: dict[int | None, Call]) -> list[Call]:
    """Returns the calls whose activations a call reads with nothing but passing operations between."""
    found: list[Call] = []
    stack, seen = list(call.inputs), set(call.inputs)
    while stack:
        tensor = stack.pop()
        if tensor in makers:
            found.append(makers[tensor])
            continue
        maker = graph.maker(tensor)
        if maker is None or isinstance(maker.operation, NORMALIZATIONS) or is_merge(maker) or not passes(maker):
            continue
        stack.extend(number for number in maker.inputs if number not in seen)
        seen.update(maker.inputs)
    return found


def _chosen(
    members: list[Call], before: dict[int, list[Call]], depth: dict[int, int], fates: dict[int, Fate]
) -> Stretch:
    last = max(members, key=lambda call: depth[id(call)])
    way: list[Activation] = []
    while True:
        met = fates[id(last)].activation
        assert met is not None
        way.append(met)
        if not before[id(last)]:
            break
        last = max(before[id(last)], key=lambda call: depth[id(call)])
    return stretch(tuple(reversed(way)))


def stretch(activations: tuple[Activation, ...]) -> Stretch:
    """Chooses the second moment before each activation of a chain.

    The one for which the worst of three distortions is smallest: of the signal, by which that
    second moment differs from one; of the gradient, which grows by `chi` at every activation; and
    of a chance deviation at the beginning, which grows too where an activation is steeper for a
    larger signal (silu, gelu).
    """
    bending = [one for one in activations if one.function is not None]
    at_one = sum(log_chi(one, 1.0) for one in bending)
    if len(bending) < SHORTEST or abs(at_one) <= TOLERATED:
        return Stretch(activations, 1.0, math.exp(min(at_one, 700.0)))
    counts = {one: bending.count(one) for one in set(bending)}
    growth, steepness = np.sum([count * _growths(one) for one, count in counts.items()], axis=0)
    best = int(np.argmin(np.max([np.abs(np.log(CHOICES)), np.abs(growth), steepness], axis=0)))
    return Stretch(activations, float(f"{CHOICES[best]:.6g}"), float(np.exp(min(growth[best], 700.0))))


def log_chi(function: Activation, variance: float) -> float:
    """Returns the logarithm of the squared gradient's growth per layer that keeps this variance."""
    response = respond(function, 0.0, float(variance))
    if response.second_moment <= 0 or response.slope <= 0:
        return -700.0
    return math.log(variance * response.slope / response.second_moment)


@functools.lru_cache(maxsize=256)
def _growths(function: Activation) -> np.ndarray:
    """Returns, for each choice, the logarithm of `chi` and that of a deviation's growth per layer."""
    chis = np.array([log_chi(function, float(choice)) for choice in CHOICES])
    made = [respond(function, 0.0, float(choice)).second_moment for choice in CHOICES]
    exponents = np.gradient(np.log(np.maximum(made, 1e-300)), np.log(CHOICES))
    # Samples that are larger than the rest by chance meet what is steepest up to there.
    exponents = np.array([exponents[i : i + STRAY].max() for i in range(len(exponents))])
    return np.stack([chis, np.log(np.maximum(exponents, 1e-3))])


def is_undone(fates: Iterable[Fate | None]) -> bool:
    """Whether batch normalizations undo the scale of what ends up so."""
    met = [None if fate is None or fate.call is None else fate.call.operation for fate in fates]
    return bool(met) and all(isinstance(one, keras.layers.BatchNormalization) for one in met)


def puts_out_map(graph: Graph, call: Call) -> bool:
    """Whether a call is a convolution without an activation whose output the model puts out."""
    convolves = isinstance(call.operation, keras.Layer) and hasattr(call.operation, "kernel_size")
    return convolves and _has_own(call) and call.outputs[0] in graph.outputs and _fate(graph, call).kind == "end"


def opens_gates(graph: Graph, call: Call) -> bool:
    """Whether a call makes gates, each of which lets through many entries of another signal of its sample.

    So do those of squeeze and excitation, one for a whole channel.
    """
    fate = _fate(graph, call)
    if fate.made is None or not _is_gate(fate.activation):
        return False
    waiting, seen = [fate.made], {fate.made}
    while waiting:
        for reader in graph.readers(waiting.pop()):
            if type(reader.operation).__name__ == "Multiply" and len(set(reader.inputs)) > 1:
                return _entries(graph, reader.outputs[0]) > _entries(graph, fate.made)
            if passes(reader):
                waiting.extend(set(reader.outputs) - seen)
                seen.update(reader.outputs)
    return False


def _is_gate(function: Activation | None) -> bool:
    """Whether a function never changes a sign, and lets through no more than so much."""
    if function is None or function.function is None:
        return False
    ends = np.asarray(function.function(np.array([-FAR, FAR])))
    return bool(abs(ends[0]) < 1e-6 < ends[1] < FAR / 2)


def _entries(graph: Graph, tensor: int) -> int:
    spec = graph.specs.get(tensor)
    return math.prod(spec.shape[1:]) if spec else 0


def slot_calls(graph: Graph, layer: Any, slot: Slot) -> list[Call]:
    """Returns the calls that mix with a weight: of its layer, or operations that it is handed to."""
    return graph.uses(slot.variable(layer)) or graph.calls_of(layer)
