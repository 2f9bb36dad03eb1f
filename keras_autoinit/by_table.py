"""From a graph to decisions by the table: what each weight feeds decides its scheme."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.activations import Activation, activation
from keras_autoinit.compositions import composed_activation, composition_at
from keras_autoinit.draws import derived_seed
from keras_autoinit.errors import ActivationError
from keras_autoinit.fans import Axes
from keras_autoinit.graphs import ATTENTION, Graph, Place, activation_of, passes
from keras_autoinit.methods import FromGraph
from keras_autoinit.plans import Decision
from keras_autoinit.recipes import Recipe
from keras_autoinit.recommendations import ACTIVATIONS, KEPT, ROLES, UNKNOWN, Recommendation
from keras_autoinit.schemes import with_axes
from keras_autoinit.selection import Selection
from keras_autoinit.slots import Slot

# An activation this many calls beyond the nearest weighted layer still counts as what a weight
# feeds: room for a normalization and the activation itself on a branch beside a projection.
LOOK_AHEAD = 2

_ATTENTION_ROLES = {"query": "query", "key": "key", "value": "value", "gate": "gate", "attention_output": "output"}
_TABLES = ("embeddings", "positions", "token")
_NOT_STORED = "The layer keeps no initializer for it alone: a copy of the layer draws it as the layer does."
_LINEAR = activation(None)


@dataclass(frozen=True)
class Feeds:
    """What a weight's output meets.

    Attributes:
        activation: the first activation on the way; linear if there is none.
        source: the layer, function or operation that is that activation; `None` if there is none.
        way: the calls on the way and what stands at its end.
    """

    activation: Activation
    source: Any
    way: tuple[str, ...]

    def __str__(self) -> str:
        return " -> ".join(self.way)


@dataclass(frozen=True, init=False)
class Table(FromGraph):
    """Chooses each scheme from a table: by the activation that a weight feeds, and its role.

    When to use: to begin with; it needs neither data nor shapes.

    Args:
        overrides: rows of your own: an activation's name, a callable, the class of an activation
            layer or of a weighted layer, or a role -> an initializer (a name, an instance or a
            `Recipe`).

    Raises:
        ActivationError: a key is none of these.

    Example:
        >>> Table({"relu": "autoinit>he_uniform"}).overrides
        (('relu', autoinit>he_uniform),)
    """

    overrides: tuple[tuple[Any, Recipe], ...] = ()

    def __init__(self, overrides: Mapping[Any, Any] | None = None) -> None:
        rows = tuple((_checked_key(key), Recipe.of(value)) for key, value in (overrides or {}).items())
        object.__setattr__(self, "overrides", rows)

    def solve(self, graph: Graph, selection: Selection) -> tuple[tuple[Decision, ...], tuple[str, ...]]:
        """Returns one decision per weight, and no notes."""
        return self.decide(graph, selection), ()

    def decide(self, graph: Graph, selection: Selection) -> tuple[Decision, ...]:
        """Returns one decision per weight; looks, runs and changes nothing."""
        shared = _shared(graph)
        return tuple(
            self._decision(graph, place, slot, shared.get(f"{place.path}/{slot.weight}"), selection)
            for place in graph.places
            for slot in place.slots
        )

    def _decision(self, graph: Graph, place: Place, slot: Slot, main: str | None, selection: Selection) -> Decision:
        role, feeds, slot = role_of(place, slot), feeds_of(graph, place, slot), beside_tied(graph, place, slot)
        old, keep = slot.recipe(place.layer), reason_to_keep(place, slot, selection)
        if main is not None and keep is None:
            keep = f"Shared: the row of {main!r} decides."
        new, reason = (old, keep) if keep else self._recommend(place, slot, role, feeds, old)
        if new != old:
            reason = told(slot, reason)
        variable = slot.variable(place.layer)
        shape = None if variable is None else tuple(variable.shape)
        fan_in, fan_out = (None, None) if shape is None or slot.axes is None else slot.axes.fans(shape)
        return Decision(f"{place.path}/{slot.weight}", role, shape, fan_in, fan_out, str(feeds), old, new, reason)

    def _recommend(self, place: Place, slot: Slot, role: str, feeds: Feeds, old: Recipe) -> tuple[Recipe, str]:
        """Returns what the weight should be drawn from, and why."""
        for key, recipe in self.overrides:
            if _selects(key, place, role, feeds):
                own = _with_own_seed(recipe, f"{place.key}/{slot.weight}")
                return with_axes(own, slot.axes), "Chosen by the user's table."
        if role in KEPT:
            return old, KEPT[role]
        row = _row(slot, role, feeds)
        try:
            gain = _gain(row, feeds.activation)
            reason = f"{row.reason} ({row.source})"
        except ActivationError as error:
            row, gain = ACTIVATIONS["linear"], {}
            reason = f"Treated as linear, because its gain cannot be measured: {error}"
        return with_axes(Recipe(f"autoinit>{row.scheme}", gain), slot.axes), reason


def kept_weights(graph: Graph, selection: Selection) -> dict[str, str]:
    """Returns the weights that no method draws anew, by path, each with the reason."""
    shared = _shared(graph)
    reasons: dict[str, str] = {}
    for place in graph.places:
        for slot in place.slots:
            path = f"{place.path}/{slot.weight}"
            keep = reason_to_keep(place, slot, selection)
            if keep is None and path in shared:
                keep = f"Shared: the row of {shared[path]!r} decides."
            if keep is None:
                keep = KEPT.get(role_of(place, slot))
            if keep is not None:
                reasons[path] = keep
    return reasons


def told(slot: Slot, reason: str) -> str:
    """Returns a reason to draw a weight anew, and what a copy of its layer will do."""
    return reason if slot.stores else f"{reason} {_NOT_STORED}"


def _shared(graph: Graph) -> dict[str, str]:
    """Returns the weights whose variable is another weight's too, each with the path of that one.

    The first decides; one whose layer keeps an initializer for it comes before those without.
    """
    paths: dict[int, list[tuple[bool, str]]] = defaultdict(list)
    for place in graph.places:
        for slot in place.slots:
            variable = slot.variable(place.layer)
            if variable is not None:
                paths[id(variable)].append((not slot.stores, f"{place.path}/{slot.weight}"))
    groups = [sorted(group, key=lambda entry: entry[0]) for group in paths.values() if len(group) > 1]
    return {path: group[0][1] for group in groups for _, path in group[1:]}


def beside_tied(graph: Graph, place: Place, slot: Slot) -> Slot:
    """Returns the slot of a table as it is where it is added to one that is tied to the output.

    They stand side by side and have one width. Then this one is of the size of the other.
    """
    if slot.role not in _TABLES or slot.axes is None:
        return slot
    beside = [other for other in graph.places if other.parent is place.parent]
    tied = [each.variable(other.layer) for other in beside for each in other.slots if each.role == "tied"]
    if not any(_of_one_width(slot.variable(place.layer), table) for table in tied):
        return slot
    return dataclasses.replace(slot, role="beside_tied", axes=Axes(slot.axes.outputs, (0,)))


def _of_one_width(one: Any, other: Any) -> bool:
    """Whether two tables have rows of one length, as far as they are built."""
    return one is None or other is None or one.shape[-1] == other.shape[-1]


def role_of(place: Place, slot: Slot) -> str:
    """Returns the weight's role; the layers inside an attention layer have theirs by their names."""
    if isinstance(place.parent, ATTENTION) and slot.role == "kernel":
        return _ATTENTION_ROLES.get(place.layer.name, slot.role)
    return slot.role


def reason_to_keep(place: Place, slot: Slot, selection: Selection) -> str | None:
    """Returns why a weight is to stay as it is, or `None` if it may be drawn anew."""
    if place.frozen:
        return "Frozen: the layer, or a model around it, has trainable=False."
    variable = slot.variable(place.layer)
    if place.layer.built and variable is None:
        return "Holds no plain variable: it is quantized, or adapted by LoRA."
    if variable is not None and not variable.trainable:
        return "Frozen: the weight has trainable=False."
    if variable is None and not slot.stores:
        return "Not built, and its layer keeps no initializer for it alone: build the model first."
    return selection.reason_to_keep(place)


def feeds_of(graph: Graph, place: Place, slot: Slot) -> Feeds:
    """Returns what a weight's output meets: the layer's own activation, or the next downstream."""
    own = activation(slot.activation)
    if not own.linear:
        return Feeds(own, slot.activation, (str(own),))
    if slot.role == "depthwise" and not slot.activated:
        return Feeds(_LINEAR, None, ("pointwise",))
    found = [_downstream(graph, tensor) for tensor in _made_with(graph, place, slot)]
    if not found:
        inside = "attention" if isinstance(place.parent, ATTENTION) else f"inside {place.parent.name}"
        return Feeds(_LINEAR, None, (inside,))
    return next((feeds for feeds in found if feeds.source is not None), found[0])


def _made_with(graph: Graph, place: Place, slot: Slot) -> list[int]:
    """Returns the tensors that a weight makes: those of the operations it is handed to, or of its layer."""
    used = [tensor for call in graph.uses(slot.variable(place.layer)) for tensor in call.outputs]
    # What a wrapper puts out, such as TimeDistributed, is what the layer in it makes.
    outer = place.parent if isinstance(place.parent, keras.layers.Wrapper) else place.layer
    return used or graph.made_by(place.layer) or graph.made_by(outer)


def _downstream(graph: Graph, tensor: int) -> Feeds:
    """Searches breadth first for the first activation; what else ends a way stands in for none."""
    queue: deque[tuple[int, tuple[str, ...]]] = deque([(tensor, ())])
    end: Feeds | None = None
    seen = {tensor}
    while queue:
        tensor, way = queue.popleft()
        if end is not None and len(way) >= len(end.way) + LOOK_AHEAD:
            break
        if end is None and tensor in graph.outputs:
            end = Feeds(_LINEAR, None, (*way, "output"))
        whole = composition_at(graph, tensor)
        composed = None if whole is None else composed_activation(whole)
        if whole is not None and composed is not None:
            return Feeds(composed, whole, (*way, str(composed)))
        for call in graph.readers(tensor):
            met = activation_of(call)
            if met is not None and not met.linear:
                return Feeds(met, call.operation, (*way, str(met)))
            if met is not None or passes(call):
                queue.extend((output, (*way, call.name)) for output in call.outputs if output not in seen)
                seen.update(call.outputs)
            elif end is None:
                end = Feeds(_LINEAR, None, (*way, call.name))
    return end or Feeds(_LINEAR, None, ("nothing",))


def _row(slot: Slot, role: str, feeds: Feeds) -> Recommendation:
    """Returns the table's row: by role where the layer says no more, else by activation."""
    if slot.role == "beside_tied":
        return ROLES[slot.role]
    if role in ROLES and (not slot.activated or role != slot.role):
        return ROLES[role]
    return ACTIVATIONS.get(feeds.activation.name, UNKNOWN) if feeds.activation.known else UNKNOWN


def _gain(row: Recommendation, met: Activation) -> dict[str, Any]:
    """Returns the argument `gain`: a name where the activation is plain, else a number.

    Six digits, so that a gain measured in float32 is the same on every backend.
    """
    if row.gain == "none":
        return {}
    if row.gain == "own":
        return {"gain": met.name if met.known and not met.parameters else float(f"{met.gain:.6g}")}
    relative = float(f"{met.gain / math.sqrt(2):.12g}")
    return {} if relative == 1 else {"gain": relative}


def _selects(key: Any, place: Place, role: str, feeds: Feeds) -> bool:
    """Whether a user's row is meant for this weight."""
    if isinstance(key, type):
        return isinstance(place.layer, key) or isinstance(feeds.source, key)
    if isinstance(key, str):
        return key in (feeds.activation.name, role)
    return key is feeds.source or key is getattr(feeds.source, "activation", None)


def _with_own_seed(recipe: Recipe, key: str) -> Recipe:
    """Returns a recipe whose seed, if it has one, is this weight's own: one row serves many weights."""
    seed = recipe.config.get("seed")
    if isinstance(seed, Mapping):
        seed = seed.get("config", {}).get("seed")
    return recipe if seed is None else recipe.replace(seed=derived_seed(seed, key) & 0x7FFF_FFFF)


def _checked_key(key: Any) -> Any:
    if isinstance(key, str):
        if key in ROLES or key in KEPT or key in ("kernel", "pointwise"):
            return key
        return activation(key).name
    if callable(key):
        return key
    raise ActivationError(
        "Expected the keys of a table to be names of activations, callables, layer classes or roles "
        f"({', '.join(sorted({**ROLES, **KEPT}))}). Received: {key!r}."
    )
