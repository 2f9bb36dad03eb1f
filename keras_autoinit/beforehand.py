"""Weights that are chosen before all others are solved around them: those of linear stretches, and fading ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from keras_autoinit.decisions import decision
from keras_autoinit.gains import Distribution, multiplied
from keras_autoinit.graphs import Graph
from keras_autoinit.linear_start import Part, recipe_of
from keras_autoinit.plans import Decision
from keras_autoinit.prediction import Prediction
from keras_autoinit.slots import Slot
from keras_autoinit.solving import GATE, Fixed, Solver
from keras_autoinit.stretches import fate_of, is_undone, opens_gates, puts_out_map, slot_calls
from keras_autoinit.ways import FADE, FADING, fading


def mirrored(plain: Callable[[], tuple[Decision, ...]], graph: Graph, parts: Mapping[str, Part]) -> dict[str, Fixed]:
    """Returns the weights that take part in a linear stretch, with what they are to be drawn from.

    Args:
        plain: decides without a linear start.
        graph: the model.
        parts: what the linear start says of each weight.
    """
    parts = _isometric(parts, graph)
    slots = {f"{place.path}/{slot.weight}": slot for place in graph.places for slot in place.slots}
    calls = [(place.path, call) for place in graph.places for call in graph.calls_of(place.layer)]
    maps = {path for path, call in calls if puts_out_map(graph, call)}
    gates = {path for path, call in calls if opens_gates(graph, call)}
    taking = {path: part for path, part in parts.items() if part.stretch is not None}
    by_others = {p for p, part in taking.items() if part.merges or not part.base or p.rpartition("/")[0] in maps}
    # What would stand in their place: the signal is not followed once more for nothing.
    rows = {row.path: row for row in plain() if row.path in by_others} if by_others else {}
    zeros = {path for path, row in rows.items() if row.new.name == "autoinit>zeros"}
    return {
        path: _mirrored_one(part, slots[path], rows.get(path), path.rpartition("/")[0] in gates)
        for path, part in taking.items()
        if path not in zeros
    }


def _isometric(parts: Mapping[str, Part], graph: Graph) -> dict[str, Part]:
    """Returns parts none of which is scaled for a sum that a batch normalization stands in front of."""
    layers = {place.path: place.layer for place in graph.places}
    summed = [path for path, part in parts.items() if part.merges]
    calls = {path: graph.calls_of(layers[path.rpartition("/")[0]]) for path in summed}
    free = {path for path in summed if is_undone(fate_of(graph, call.outputs[0]) for call in calls[path])}
    return {path: dataclasses.replace(part, merges=False) if path in free else part for path, part in parts.items()}


def _mirrored_one(part: Part, slot: Slot, other: Decision | None, opens: bool) -> Fixed:
    """Returns one weight of a linear stretch.

    Inside, a gain is one over the slope, whatever is lost at borders. Where a stretch begins, and where
    it ends in a branch or a map, which are to be as large as without it, the gain is solved.

    Args:
        part: what the linear start says of it.
        slot: the weight.
        other: what would stand in its place, if that decides on its size.
        opens: whether it opens gates.
    """
    recipe = recipe_of(part, slot, None if other is None else other.new)
    if not part.base:
        # A depthwise kernel keeps its own scheme and with it what it makes of a signal.
        return Fixed(recipe, part.reason)
    reads = part.pairs_in is not None
    # Two units of a pair are each read with half of the difference.
    unit_power = part.narrowing * (2.0 if reads else 1.0)
    fixed = Fixed(recipe, part.reason, power=unit_power * part.gain**2, centred=part.base == "delta_orthogonal")
    wanted = None if reads else part.variance
    if other is not None and other.output_std is not None:
        wanted = other.output_std**2
    if opens and part.pairs_out is None:
        wanted = GATE**2
    return fixed if wanted is None else dataclasses.replace(fixed, second_moment=wanted, unit_power=unit_power)


def calls_that_fade(graph: Graph) -> frozenset[int]:
    """Returns the calls at which a signal fades, by `id`."""
    slots = [(place, slot) for place in graph.places for slot in place.slots]
    calls = {id(call): call for place, slot in slots for call in slot_calls(graph, place.layer, slot)}
    return fading(graph, [call for call in graph.calls if id(call) in calls])


def faded(
    calls: frozenset[int], distribution: Distribution, solver: Solver, prediction: Prediction
) -> dict[str, Fixed]:
    """Returns every weight at which a signal fades: as it would be, but smaller.

    Args:
        calls: those at which it does, by `id`.
        distribution: what weights are drawn from.
        solver: of the model without fading signals.
        prediction: of the signals there.
    """
    met = {key: solver.places[key] for key in solver.powers if calls.issuperset(map(id, solver.uses[key]))}
    rows = {key: decision(distribution, solver, prediction, *found) for key, found in met.items()}
    return {
        row.path: Fixed(
            multiplied(row.new, math.sqrt(FADE)),
            f"{row.reason} {FADING}",
            power=solver.powers[key] * FADE,
            centred=solver.centred(met[key][0].layer, met[key][1]),
        )
        for key, row in rows.items()
    }
