"""Decides the power of each weight when the signal first meets it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_autoinit.by_table import beside_tied, kept_weights
from keras_autoinit.graphs import Call, Graph, Place
from keras_autoinit.linear_start import DEEP
from keras_autoinit.ports import can_be_centred, has_centre_only
from keras_autoinit.prediction import second_moment
from keras_autoinit.recipes import Recipe
from keras_autoinit.recommendations import ROLES
from keras_autoinit.responses import input_variance
from keras_autoinit.rules.base import Mirrored, mirrored_by
from keras_autoinit.selection import Selection
from keras_autoinit.signals import Signal
from keras_autoinit.slots import Slot
from keras_autoinit.stretches import (
    Fate,
    Structure,
    fate_of,
    is_undone,
    opens_gates,
    puts_out_map,
    slot_calls,
    structure_of,
)
from keras_autoinit.ways import SHALLOW, logits_of_few

Residual = Literal["balanced", "zero", "none", "depth_scaled"]

# The spread of a map that a model puts out, as the last convolution of a U-Net does. It is the error of a network that
# has learned nothing, and sums of few units are slow to shrink: from 0.5 and 0.2 a U-Net learned alike, from 1 slower
# (docs/linear_start.md).
MAP = 0.2
# The spread in front of gates that are one for a whole channel of a sample. With a unit signal there samples get gates
# of their own by chance, and become of different size, block by block, and their gradients more so; from even gates
# networks learn faster at first (docs/rules.md).
GATE = 0.1
# The standard deviation of a weight in front of a batch normalization, if a unit signal asks for more. What follows is
# the same whatever it is, but a step of Adam turns a weight by the learning rate over this: at the usual 0.001 by two
# per cent. Depthwise kernels and narrow convolutions, at 0.3 for a unit signal, hardly learn (docs/linear_start.md).
NIMBLE = 0.05

# The spread of what a plain network of few dense layers says of its classes. By it the layers below learn faster, whose
# loss after ten epochs it lowers with three and four of them; with more they do so by themselves, and behind
# convolutions it does not help (docs/linear_start.md).
LOGITS = 2.0

# Tables of which the output, that reads one of them back, decides the size.
_BY_OUTPUT = ("tied", "beside_tied")


@dataclass(frozen=True)
class Fixed:
    """A weight whose recipe another part of the package has chosen.

    Attributes:
        recipe: what it is to be drawn from.
        reason: one sentence.
        second_moment: that of what the weight makes, where it is known; predicted from the
            recipe's power otherwise.
        power: fan-in times the second moment of the weight.
        centred: whether only the centre tap of a convolution is not zero.
        unit_power: the power at a gain of one, where the gain is to be solved for `second_moment`.
    """

    recipe: Recipe
    reason: str
    second_moment: float | None = None
    power: float = 1.0
    centred: bool = False
    unit_power: float | None = None

    def solved(self, power: float) -> Recipe:
        """Returns the recipe, with the gain that gives it this power if that is to be solved."""
        if self.unit_power is None:
            return self.recipe
        gain = float(f"{math.sqrt(power / self.unit_power):.9g}")
        config = {key: value for key, value in self.recipe.config.items() if key != "gain"}
        return Recipe(self.recipe.name, config if gain == 1 else {**config, "gain": gain})


@dataclass
class Solver:
    """Decides the power of each weight when the signal first meets it.

    Args:
        residual: how large branches are.
        orthogonal: whether matrices are to be orthogonal: the convolutions of deep stretches then
            are so at their centre tap only.
    """

    residual: Residual
    orthogonal: bool
    graph: Graph
    structure: Structure
    places: dict[tuple[int, str], tuple[Place, Slot]]
    uses: dict[tuple[int, str], list[Call]]
    kept: dict[tuple[int, str], str]
    fixed: dict[tuple[int, str], Fixed]
    of_variables: dict[int, tuple[int, str]]
    logits: frozenset[int] = frozenset()
    signals: dict[int, Signal] = field(default_factory=dict)
    powers: dict[tuple[int, str], float] = field(default_factory=dict)
    why: dict[tuple[int, str], str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        graph: Graph,
        selection: Selection,
        fixed: Mapping[str, Fixed],
        residual: Residual = "balanced",
        orthogonal: bool = False,
    ) -> Solver:
        """Reads off the graph what each weight is for."""
        places = {
            (id(place.layer), slot.weight): (place, beside_tied(graph, place, slot))
            for place in graph.places
            for slot in place.slots
        }
        paths = {key: f"{place.path}/{slot.weight}" for key, (place, slot) in places.items()}
        reasons = kept_weights(graph, selection)
        uses = {key: slot_calls(graph, place.layer, slot) for key, (place, slot) in places.items()}
        own = {id(call) for calls in uses.values() for call in calls}
        mixing = [call for call in graph.calls if id(call) in own]
        kept = {key: reasons[path] for key, path in paths.items() if path in reasons}
        return cls(
            residual,
            orthogonal,
            graph,
            structure_of(graph, mixing),
            places,
            uses,
            kept,
            {key: fixed[path] for key, path in paths.items() if path in fixed},
            # A weight that two layers share is the first one's.
            {id(slot.variable(place.layer)): key for key, (place, slot) in reversed(places.items())},
            frozenset() if kept else logits_of_few(graph, mixing),
        )

    def power(self, owner: Any, slot: Slot, base: float) -> float:
        """Returns fan-in times the second moment of a layer's weight, decided when it is first met."""
        key = (id(owner), slot.weight)
        key = self.of_variables.get(id(slot.variable(owner)), key)
        if key not in self.powers:
            self.powers[key] = self._decided(key, owner, slot, base)
        return self.powers[key] * self._fans_apart(key, owner, slot)

    def centred(self, owner: Any, slot: Slot) -> bool:
        """Whether only the centre tap of a convolution is not zero."""
        key = self.of_variables.get(id(slot.variable(owner)), (id(owner), slot.weight))
        if key in self.fixed:
            return self.fixed[key].centred
        if key in self.kept or key not in self.places:
            return has_centre_only(owner, slot)
        return self.orthogonal and self._is_deep(key) and can_be_centred(owner, slot)

    def mirrored(self, owner: Any, slot: Slot) -> Mirrored:
        """Returns whether a weight reads mirrored pairs of units, and whether it makes them."""
        key = self.of_variables.get(id(slot.variable(owner)), (id(owner), slot.weight))
        if key in self.fixed:
            return mirrored_by(self.fixed[key].recipe, slot)
        return mirrored_by(slot.recipe(owner), slot) if key in self.kept else Mirrored()

    def _is_deep(self, key: tuple[int, str]) -> bool:
        """Whether every call of a weight stands in a stretch of so many that positions had better not mix."""
        stretches = [self.structure.stretches.get(id(call)) for call in self.uses[key]]
        return bool(stretches) and all(one is not None and len(one.activations) >= DEEP for one in stretches)

    def _fans_apart(self, key: tuple[int, str], owner: Any, slot: Slot) -> float:
        """Returns the fan-in that the caller counts, over that by which the power was decided."""
        decided = self.places[key][1].axes if key in self.places else slot.axes
        variable = slot.variable(owner)
        if decided == slot.axes or decided is None or slot.axes is None or variable is None:
            return 1.0
        shape = tuple(variable.shape)
        return slot.axes.fans(shape)[0] / decided.fans(shape)[0]

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
            return _power_now(owner, self.places[key][1] if key in self.places else slot)
        if self.places[key][1].role in _BY_OUTPUT:
            self.why[key] = ROLES[self.places[key][1].role].reason
            return 1.0
        target, self.why[key] = self._target(key)
        usual = 1.0 if base <= 1e-30 or not math.isfinite(base) else target / base
        nimble = self._nimble_power(key)
        if nimble is None or nimble >= usual:
            return usual
        self.why[key] = (
            "A batch normalization fixes the size of the signal, so that of the weight only says how fast it learns: "
            f"a standard deviation of {NIMBLE:g}."
        )
        return nimble

    def _nimble_power(self, key: tuple[int, str]) -> float | None:
        """Returns the power of a weight whose scale a batch normalization undoes; `None` for any other."""
        place, slot = self.places[key]
        variable = slot.variable(place.layer)
        undone = is_undone(self.structure.fates.get(id(call)) for call in self.uses[key])
        if variable is None or slot.axes is None or not undone:
            return None
        return NIMBLE**2 * slot.axes.fans(tuple(variable.shape))[0]

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
        says = self.uses[key] and all(id(call) in self.logits for call in self.uses[key])
        if says and (fate.kind == "end" or str(fate.activation) == "softmax"):
            return LOGITS**2, (
                f"The end of a plain network of fewer than {SHALLOW} dense layers: a standard deviation of "
                f"{LOGITS:g}, by which the layers below learn faster."
            )
        if any(opens_gates(self.graph, call) for call in self.uses[key]):
            return GATE**2, f"Opens gates: a spread of {GATE:g}, so that all samples are let through alike at first."
        if fate.kind == "activation":
            stretch = self.structure.stretches.get(id(self.uses[key][0])) if self.uses[key] else None
            return self._before_activation(fate, stretch)
        if fate.kind == "merge" and fate.call is not None:
            return self._into_merge(fate)
        if any(puts_out_map(self.graph, call) for call in self.uses[key]):
            return (
                MAP**2,
                "A map that the model puts out: small at first, when it has nothing to do with what is wanted.",
            )
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
        return input_variance(fate.activation, wanted), why

    def _into_merge(self, fate: Fate) -> tuple[float, str]:
        merge = self.structure.merges[id(fate.call)]
        if merge.trunk is None or self.residual == "none":
            parts = 1 if self.residual == "none" and merge.trunk is not None else merge.parts
            return 1 / parts, f"Shares a unit second moment among the {merge.parts} signals that are added."
        if merge.trunk == fate.tensor:
            return 1.0, "The trunk of a residual merge: unit second moment."
        if self.residual == "zero":
            return 0.0, "The residual branch starts at zero."
        if self.residual == "depth_scaled":
            return 1 / merge.length / max(merge.parts - 1, 1), (
                f"Residual branch, one of {merge.length} on its trunk: 1 / sqrt({merge.length}) of a unit signal "
                "(GPT-2, Radford et al. 2019)."
            )
        trunk = self.signals.get(merge.trunk)
        size = 1.0 if trunk is None else trunk.second_moment
        share = (2 ** (1 / merge.length) - 1) / max(merge.parts - 1, 1)
        return size * share, (
            f"Residual branch, one of {merge.length} on its trunk: together they at most double the second moment."
        )


def _power_now(owner: Any, slot: Slot) -> float:
    variable = slot.variable(owner)
    if variable is None or slot.axes is None:
        return 1.0
    return second_moment(variable) * slot.axes.fans(tuple(variable.shape))[0]
