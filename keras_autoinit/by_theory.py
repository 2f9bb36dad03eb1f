"""From a graph to decisions by theory: every scale solved from predicted signals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_autoinit.activations import Activation
from keras_autoinit.by_table import feeds_of, reason_to_keep, role_of
from keras_autoinit.errors import SchemeError
from keras_autoinit.graphs import Call, Graph, Place
from keras_autoinit.plans import Decision
from keras_autoinit.prediction import Prediction, follow, second_moment
from keras_autoinit.recipes import Recipe
from keras_autoinit.responses import respond
from keras_autoinit.schemes import with_axes
from keras_autoinit.selection import Selection
from keras_autoinit.signals import Signal
from keras_autoinit.slots import Slot
from keras_autoinit.stretches import Fate, Structure, fate_of, slot_calls, structure_of

Distribution = Literal["truncated_normal", "normal", "uniform", "orthogonal", "delta_orthogonal"]
DISTRIBUTIONS = ("delta_orthogonal", "normal", "orthogonal", "truncated_normal", "uniform")
Residual = Literal["balanced", "zero", "none"]
RESIDUALS = ("balanced", "none", "zero")

# A signal or a gradient that changes by more than this end to end is worth a note.
ALARMING = 1e4


@dataclass(frozen=True)
class Fixed:
    """A weight whose recipe another part of the package has chosen.

    Attributes:
        recipe: what it is to be drawn from.
        reason: one sentence.
        second_moment: that of what the weight makes, where it is known; predicted from the
            recipe's power otherwise.
        power: fan-in times the second moment of the weight.
    """

    recipe: Recipe
    reason: str
    second_moment: float | None = None
    power: float = 1.0


@dataclass(frozen=True)
class Theory:
    """Solves each scale from predicted signals: forward, backward, and between two inputs.

    When to use: for networks that no table row describes: unusual activations, deep stacks,
    residual branches without normalization. It needs no data; shapes make it exact at borders.

    Assumption: weights are independent and layers are wide, so that sums are Gaussian (Poole et
    al. 2016, arXiv 1606.05340; Schoenholz et al. 2017, arXiv 1611.01232).

    Args:
        distribution: `"truncated_normal"`, `"normal"`, `"uniform"`, `"orthogonal"`, or
            `"delta_orthogonal"` (for convolutions with odd sides and stride one; orthogonal
            elsewhere).
        residual: `"balanced"`: the branches of a chain of merges together as large as its
            trunk, so that the second moment at most doubles; `"zero"`: branches start at zero
            (Zhang et al. 2019, arXiv 1901.09321; De and Smith 2020, arXiv 2002.10444);
            `"none"`: each branch as large as a unit signal.

    Raises:
        SchemeError: an option is none of these.

    Example:
        >>> Theory(residual="zero").residual
        'zero'
    """

    distribution: Distribution = "truncated_normal"
    residual: Residual = "balanced"

    def __post_init__(self) -> None:
        for name, allowed in (("distribution", DISTRIBUTIONS), ("residual", RESIDUALS)):
            value = getattr(self, name)
            if value not in allowed:
                listed = ", ".join(repr(word) for word in allowed)
                raise SchemeError(f"Expected `{name}` to be one of {listed}. Received: {value!r}.")

    def decide(
        self, graph: Graph, selection: Selection, fixed: Mapping[str, Fixed] | None = None
    ) -> tuple[Decision, ...]:
        """Returns one decision per weight; looks, runs and changes nothing."""
        return self.solve(graph, selection, fixed)[0]

    def solve(
        self, graph: Graph, selection: Selection, fixed: Mapping[str, Fixed] | None = None
    ) -> tuple[tuple[Decision, ...], tuple[str, ...]]:
        """Returns one decision per weight, and notes on the whole.

        Args:
            graph: the model.
            selection: what may be touched.
            fixed: recipes that others have chosen, by the path of the weight.
        """
        solver = Solver.of(self, graph, selection, fixed or {})
        prediction = follow(graph, solver, solver.signals)
        rows = tuple(
            _decision(solver, prediction, place, slot, selection) for place in graph.places for slot in place.slots
        )
        return rows, (*prediction.notes, *_stretch_notes(solver))


@dataclass
class Solver:
    """Decides the power of each weight when the signal first meets it."""

    theory: Theory
    graph: Graph
    structure: Structure
    places: dict[tuple[int, str], tuple[Place, Slot]]
    uses: dict[tuple[int, str], list[Call]]
    kept: set[tuple[int, str]]
    fixed: dict[tuple[int, str], Fixed]
    of_variables: dict[int, tuple[int, str]]
    signals: dict[int, Signal] = field(default_factory=dict)
    powers: dict[tuple[int, str], float] = field(default_factory=dict)
    why: dict[tuple[int, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, theory: Theory, graph: Graph, selection: Selection, fixed: Mapping[str, Fixed]) -> Solver:
        """Reads off the graph what each weight is for."""
        places = {(id(place.layer), slot.weight): (place, slot) for place in graph.places for slot in place.slots}
        uses = {key: slot_calls(graph, place.layer, slot) for key, (place, slot) in places.items()}
        mixing = {id(call) for calls in uses.values() for call in calls}
        return cls(
            theory,
            graph,
            structure_of(graph, [call for call in graph.calls if id(call) in mixing]),
            places,
            uses,
            {key for key, (place, slot) in places.items() if reason_to_keep(place, slot, selection)},
            {key: fixed[path] for key, (p, s) in places.items() if (path := f"{p.path}/{s.weight}") in fixed},
            {id(slot.variable(place.layer)): key for key, (place, slot) in places.items()},
        )

    def power(self, owner: Any, slot: Slot, base: float) -> float:
        """Returns fan-in times the second moment of a layer's weight, decided when it is first met."""
        key = (id(owner), slot.weight)
        if key not in self.powers:
            self.powers[key] = self._decided(key, owner, slot, base)
        return self.powers[key]

    def variable(self, variable: Any, base: float) -> float | None:
        """Returns the second moment of a weight that an operation takes; `None` for what is no weight of ours."""
        key = self.of_variables.get(id(variable))
        if key is None or key in self.kept:
            return None
        place, slot = self.places[key]
        fan_in = slot.axes.fans(tuple(variable.shape))[0] if slot.axes else 1.0
        return self.power(place.layer, slot, base) / max(fan_in, 1.0)

    def _decided(self, key: tuple[int, str], owner: Any, slot: Slot, base: float) -> float:
        if key in self.fixed:
            fixed = self.fixed[key]
            return fixed.power if fixed.second_moment is None else fixed.second_moment / max(base, 1e-12)
        if key in self.kept or key not in self.places:
            return _power_now(owner, slot)
        target, why = self._target(key)
        self.why[key] = why
        if base <= 1e-30 or not math.isfinite(base):
            return 1.0
        return target / base

    def _target(self, key: tuple[int, str]) -> tuple[float, str]:
        """Returns the second moment that a weight should make, and why."""
        slot = self.places[key][1]
        if slot.role in ("recurrent", "depthwise") and not slot.activated:
            return 1.0, "Keeps the second moment of what it reads."
        fates = [self.structure.fates[id(call)] for call in self.uses[key] if id(call) in self.structure.fates]
        made = self.graph.expanded.get(key[0], ())
        fates = fates or [fate_of(self.graph, tensor) for tensor in made if self.graph.maker(tensor) is None]
        if not fates:
            return 1.0, "Gives what follows a unit second moment."
        fate = fates[0]
        if fate.kind == "activation":
            stretch = self.structure.stretches.get(id(self.uses[key][0])) if self.uses[key] else None
            return self._before_activation(fate, stretch)
        if fate.kind == "merge" and fate.call is not None:
            return self._into_merge(fate)
        if fate.kind == "normalization":
            return 1.0, "Unit second moment before a normalization, which fixes the scale itself."
        return 1.0, "Gives what follows a unit second moment."

    def _before_activation(self, fate: Fate, stretch: Any) -> tuple[float, str]:
        assert fate.activation is not None
        branch = self._branch_of(fate)
        if branch is not None:
            return branch
        if stretch is None or stretch.target == 1.0:
            return 1.0, f"Unit second moment before {fate.activation}."
        return stretch.target, (
            f"Second moment {stretch.target:.3g} before {fate.activation}: over a stretch of "
            f"{len(stretch.activations)} the worst of forward and backward distortion is smallest."
        )

    def _branch_of(self, fate: Fate) -> tuple[float, str] | None:
        """Returns the target of a weight whose activation goes straight into a merge."""
        readers = [] if fate.made is None else self.graph.readers(fate.made)
        merge = next((one for call in readers if (one := self.structure.merges.get(id(call)))), None)
        if merge is None or merge.trunk is None or merge.trunk == fate.made:
            return None
        wanted, why = self._into_merge(Fate("merge", fate.made or 0, merge.call))
        assert fate.activation is not None
        return _input_for(fate.activation, wanted), why

    def _into_merge(self, fate: Fate) -> tuple[float, str]:
        merge = self.structure.merges[id(fate.call)]
        if merge.trunk is None or self.theory.residual == "none":
            parts = 1 if self.theory.residual == "none" and merge.trunk is not None else merge.parts
            return 1 / parts, f"Shares a unit second moment among the {merge.parts} signals that are added."
        if merge.trunk == fate.tensor:
            return 1.0, "The trunk of a residual merge: unit second moment."
        if self.theory.residual == "zero":
            return 0.0, "The residual branch starts at zero."
        trunk = self.signals.get(merge.trunk)
        size = 1.0 if trunk is None else trunk.second_moment
        share = (2 ** (1 / merge.length) - 1) / max(merge.parts - 1, 1)
        return size * share, (
            f"Residual branch, one of {merge.length} on its trunk: together they at most double the second moment."
        )


def _input_for(function: Activation, wanted: float) -> float:
    """Returns the variance at which an activation puts out a second moment, by bisection."""
    low, high = math.log(1e-6), math.log(1e4)
    for _ in range(24):
        middle = (low + high) / 2
        made = respond(function, 0.0, float(f"{math.exp(middle):.6g}")).second_moment
        low, high = (middle, high) if made < wanted else (low, middle)
    return math.exp((low + high) / 2)


def _power_now(owner: Any, slot: Slot) -> float:
    variable = slot.variable(owner)
    if variable is None or slot.axes is None:
        return 1.0
    return second_moment(variable) * slot.axes.fans(tuple(variable.shape))[0]


def _decision(solver: Solver, prediction: Prediction, place: Place, slot: Slot, selection: Selection) -> Decision:
    key = (id(place.layer), slot.weight)
    variable = slot.variable(place.layer)
    shape = None if variable is None else tuple(variable.shape)
    fan_in, fan_out = (None, None) if shape is None or slot.axes is None else slot.axes.fans(shape)
    old, keep = Recipe.of(slot.initializer(place.layer)), reason_to_keep(place, slot, selection)
    power = solver.powers.get(key)
    if keep is not None:
        new, reason = old, keep
    elif key in solver.fixed:
        new, reason = solver.fixed[key].recipe, solver.fixed[key].reason
    elif power is None:
        new, reason = _recipe(solver.theory, slot, shape, 1.0), "No signal is seen to meet it: keeps a unit signal."
    else:
        new, reason = _recipe(solver.theory, slot, shape, power), solver.why.get(key, "Keeps the signal.")
    spread, factor = _predicted(solver, prediction, place, key)
    return Decision(
        f"{place.path}/{slot.weight}",
        role_of(place, slot),
        shape,
        fan_in,
        fan_out,
        str(feeds_of(solver.graph, place, slot)),
        old,
        new,
        reason,
        output_std=spread,
        gradient_factor=factor,
    )


def _predicted(
    solver: Solver, prediction: Prediction, place: Place, key: tuple[int, str]
) -> tuple[float | None, float | None]:
    """Returns the spread of what a weight's call makes, and the squared gradient there."""
    tensors = [tensor for call in solver.uses[key] for tensor in call.outputs[:1]]
    tensors = tensors or solver.graph.made_by(place.layer)[:1]
    signal = next((prediction.signals[tensor] for tensor in tensors if tensor in prediction.signals), None)
    gradient = next((prediction.gradients[tensor] for tensor in tensors if tensor in prediction.gradients), None)
    spread = None if signal is None else float(f"{math.sqrt(signal.variance):.6g}")
    return spread, None if gradient is None else float(f"{gradient.second_moment:.6g}")


def _recipe(theory: Theory, slot: Slot, shape: tuple[int, ...] | None, power: float) -> Recipe:
    """Returns the scheme and the gain that give a weight its power."""
    if power == 0:
        return Recipe("autoinit>zeros")
    if slot.role == "recurrent":
        return with_axes(Recipe("autoinit>orthogonal", _gain(math.sqrt(power))), slot.axes)
    if theory.distribution in ("orthogonal", "delta_orthogonal") and slot.role not in ("embeddings", "depthwise"):
        widening = _widening(slot, shape)
        return with_axes(Recipe("autoinit>orthogonal", _gain(math.sqrt(power * widening))), slot.axes)
    distribution = theory.distribution if theory.distribution in ("normal", "uniform") else None
    config = {**_gain(math.sqrt(power)), **({} if distribution is None else {"distribution": distribution})}
    return with_axes(Recipe("autoinit>variance_scaling", config), slot.axes)


def _gain(gain: float) -> dict[str, float]:
    """Returns the argument: six digits, so that a plan is the same on every backend."""
    rounded = float(f"{gain:.6g}")
    return {} if rounded == 1.0 else {"gain": rounded}


def _widening(slot: Slot, shape: tuple[int, ...] | None) -> float:
    """Returns columns over rows where an orthogonal matrix has more columns: each row's length is then one."""
    if shape is None or slot.axes is None:
        return 1.0
    rows = math.prod(shape[axis] for axis in slot.axes.inputs)
    columns = math.prod(shape[axis] for axis in slot.axes.outputs if axis not in slot.axes.inputs)
    return max(1.0, columns / slot.axes.blocks / max(rows, 1))


def _stretch_notes(solver: Solver) -> list[str]:
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


__all__ = ["Fixed", "Solver", "Theory"]
