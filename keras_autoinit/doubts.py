"""What a plan by theory cannot promise: stretches that no scale helps, one draw of few numbers, mimetic attention."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from keras_autoinit.graphs import Call, Graph
from keras_autoinit.laws import law_with
from keras_autoinit.merges import MERGES, NORMALIZATIONS
from keras_autoinit.plans import Decision
from keras_autoinit.prediction import Prediction
from keras_autoinit.responses import chance_of, powers_of
from keras_autoinit.signals import Signal
from keras_autoinit.solving import Solver
from keras_autoinit.sums import chance_of_square

# A signal or a gradient that changes by more than this end to end is worth a note.
ALARMING = 1e4
# A spread that may be off by more, at two standard errors and in logarithms of two, is worth one too.
UNSURE = 0.5
# Over so little of a logarithm a function's power is that at one size.
SMALL = law_with(0.01)

MIMETIC = (
    "Attention that looks at what is alike hands on more of it, and takes it off its trunk: gradients are not "
    "predicted, and spreads behind mimetic attention may be half or twice as large as predicted."
)


def as_far_as_known(rows: tuple[Decision, ...]) -> tuple[tuple[Decision, ...], list[str]]:
    """Returns decisions without what is not known where attention's weights depend on each other, and a note on it."""
    if all(row.new.name != "autoinit>mimetic" for row in rows):
        return rows, []
    return tuple(dataclasses.replace(row, gradient_factor=None) for row in rows), [MIMETIC]


def stretch_notes(solver: Solver) -> list[str]:
    """Warns of stretches that no scale can help."""
    notes = []
    for stretch in {id(one): one for one in solver.structure.stretches.values()}.values():
        forward, backward = abs(math.log(stretch.target)), abs(math.log(max(stretch.growth, 1e-300)))
        if max(forward, backward) > math.log(ALARMING):
            name = stretch.activations[-1]
            notes.append(
                f"No scale can help a stretch of {len(stretch.activations)} layers with {name}: at best the signal "
                f"changes by a factor of {stretch.target:.3g} and the squared gradient by {stretch.growth:.3g}. "
                "Put normalizations or residual connections in, or take another activation."
            )
    return notes


def chance_notes(solver: Solver, prediction: Prediction) -> list[str]:
    """Names the layers of which one draw of the weights may make another spread than all draws on average."""
    chances, found = _chances(solver, prediction), []
    for key, (place, _) in solver.places.items():
        tensors = [tensor for call in solver.uses[key] for tensor in call.outputs[:1]]
        # The standard error of a spread is half that of its square.
        if any(math.sqrt(chances.get(tensor, 0.0)) / math.log(2) > UNSURE for tensor in tensors):
            found.append(place.path)
    if not found:
        return []
    listed = ", ".join(dict.fromkeys(found))
    return [
        "Few units that make nearly the same of every sample are few numbers: one draw of their weights may make a "
        f"spread that is more than 1.4 times as large or as small as predicted, in {listed}."
    ]


def _chances(solver: Solver, prediction: Prediction) -> dict[int, float]:
    """Returns how uneven the mean square of what each weight makes is over draws, since the last normalization."""
    mixing = {id(call) for calls in solver.uses.values() for call in calls}
    found: dict[int, float] = {}
    made: dict[int, float] = {}
    for call in solver.graph.calls:
        for tensor in call.outputs:
            signal, spec = prediction.signals[tensor], solver.graph.specs.get(tensor)
            if spec is None or _normalizes(solver.graph, call):
                continue
            found[tensor] = _inherited(call, signal, prediction, found)
            if id(call) in mixing:
                found[tensor] += chance_of_square(prediction.before.get(id(call), signal), spec.shape)
                made[tensor] = found[tensor]
            if signal.bent is not None and call.inputs and signal is not prediction.signals.get(call.inputs[0]):
                function, source = signal.bent
                given = (function, round(source.mean, 2), round(source.variance, 2), source.channels)
                # A gate is nearly the same whatever it is given.
                found[tensor] *= powers_of(*given, SMALL)[0] ** 2
                found[tensor] += chance_of(*given) * chance_of_square(source, spec.shape) / 2
    return made


def _inherited(call: Call, signal: Signal, prediction: Prediction, found: Mapping[int, float]) -> float:
    """Returns the chance of what a call takes: of a sum, by the squares of the parts' shares."""
    # What a layer makes of its weights alone may have no signal.
    known = set(call.inputs) & prediction.signals.keys()
    parts = [(prediction.signals[one].second_moment, found.get(one, 0.0)) for one in sorted(known)]
    if type(call.operation).__name__ not in MERGES:
        return max((chance for _, chance in parts), default=0.0)
    total = max(signal.second_moment, 1e-300)
    return sum(min(size / total, 1.0) ** 2 * chance for size, chance in parts)


def _normalizes(graph: Graph, call: Call) -> bool:
    """Whether a call divides by the spread of what it is given, as a layer or by hand."""
    makers = [graph.maker(tensor) for tensor in call.inputs]
    by_hand = any(maker is not None and type(maker.operation).__name__ == "Rsqrt" for maker in makers)
    return isinstance(call.operation, NORMALIZATIONS) or by_hand
