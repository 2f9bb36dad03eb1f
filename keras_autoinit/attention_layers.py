"""Where attention stands in a model: the four weights of each, in layers by name and in operations by their pattern."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import keras

from keras_autoinit.activations import activation
from keras_autoinit.by_table import role_of
from keras_autoinit.graphs import ATTENTION, Call, Graph, Place, passes
from keras_autoinit.merges import NORMALIZATIONS
from keras_autoinit.slots import Slot

ROLES = ("query", "key", "value", "output")
# What layers call the projections of an attention of their own.
_NAMES = {
    **dict.fromkeys(("query", "q_proj", "query_proj", "query_dense"), "query"),
    **dict.fromkeys(("key", "k_proj", "key_proj", "key_dense"), "key"),
    **dict.fromkeys(("value", "v_proj", "value_proj", "value_dense"), "value"),
    **dict.fromkeys(("attention_output", "o_proj", "out_proj", "output_proj", "output_dense"), "output"),
}
_PRODUCTS = ("Dot", "Einsum", "Matmul")
# Operations between a projection and a product: enough for a rotation of positions written out.
NEAR = 24


@dataclass(frozen=True)
class Projection:
    """One of the four weights of an attention.

    Attributes:
        path: the weight's path.
        slot: the weight.
        shape: its shape; `None` while it is not built.
        reads: the tensors that it reads, call by call; empty where no call of it is seen.
        heads: how many heads it holds; `None` where that cannot be told.
    """

    path: str
    slot: Slot
    shape: tuple[int, ...] | None
    reads: tuple[int, ...]
    heads: int | None

    @property
    def read(self) -> int:
        """How many features it reads: a count."""
        return self._length(made=False)

    @property
    def made(self) -> int:
        """How many features it makes: a count."""
        return self._length(made=True)

    def _length(self, made: bool) -> int:
        if self.shape is None or self.slot.axes is None:
            return 0
        return math.prod(self.shape[axis] for axis in (self.slot.axes.outputs if made else self.slot.axes.inputs))


@dataclass(frozen=True)
class Attention:
    """The four weights of an attention.

    Attributes:
        key: names it, the same in every session.
        projections: its weights, by role.
    """

    key: str
    projections: Mapping[str, Projection]


def attentions_of(graph: Graph) -> list[Attention]:
    """Finds attention: what a pattern tells of heads counts before what names tell without."""
    named = _named(graph)
    whole = [one for one in named if all(each.heads for each in one.projections.values())]
    found = {each.path for one in whole for each in one.projections.values()}
    for written in _written(graph):
        paths = {each.path for each in written.projections.values()}
        if not paths & found:
            whole.append(written)
            found |= paths
    return [*whole, *(one for one in named if not {each.path for each in one.projections.values()} & found)]


# --- By name ---


def _named(graph: Graph) -> list[Attention]:
    """Returns the layers that hold four projections, by what they call them."""
    held: dict[int, dict[str, Projection]] = defaultdict(dict)
    keys: dict[int, str] = {}
    for place in graph.places:
        for slot in place.slots:
            role = _role(place, slot)
            if role is not None:
                held[id(place.parent)][role] = _projection(graph, place, slot, role)
                keys[id(place.parent)] = place.key.rpartition("/")[0]
    return [Attention(keys[parent], found) for parent, found in held.items() if set(found) == set(ROLES)]


def _role(place: Place, slot: Slot) -> str | None:
    if slot.weight != "kernel" or not _is_projection(place.layer):
        return None
    if isinstance(place.parent, ATTENTION):
        role = role_of(place, slot)
        return role if role in ROLES else None
    return _NAMES.get(place.layer.name)


def _is_projection(layer: object) -> bool:
    dense = isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))
    return dense and activation(getattr(layer, "activation", None)).linear


def _projection(graph: Graph, place: Place, slot: Slot, role: str, heads: int | None = None) -> Projection:
    variable = slot.variable(place.layer)
    shape = None if variable is None else tuple(variable.shape)
    if shape is not None and slot.axes is not None and len(shape) > 2:
        heads = shape[(slot.axes.inputs if role == "output" else slot.axes.outputs)[0]]
    reads = tuple(call.inputs[0] for call in graph.calls_of(place.layer) if call.inputs)
    return Projection(f"{place.path}/{slot.weight}", slot, shape, reads, heads)


# --- By pattern ---


def _written(graph: Graph) -> Iterator[Attention]:
    """Yields attention that is written out: a product, a soft-max, a second product, a projection."""
    places = {id(place.layer): place for place in graph.places}
    for call in graph.calls:
        calls = _pattern(graph, call) if type(call.operation).__name__ == "Softmax" and call.inputs else None
        if calls is None or not all(id(one.operation) in places for one in calls.values()):
            continue
        found = {}
        for role, one in calls.items():
            place = places[id(one.operation)]
            slot = next((slot for slot in place.slots if slot.weight == "kernel"), None)
            if slot is not None:
                found[role] = _projection(graph, place, slot, role, _packed_heads(graph, calls[role], role, call))
        if len({one.path for one in found.values()}) == len(ROLES):
            yield Attention(places[id(calls["query"].operation)].key, found)


def _pattern(graph: Graph, soft: Call) -> dict[str, Call] | None:
    """Returns the calls of the four projections around a soft-max, or `None`."""
    first = next(_back(graph, soft.inputs[0], _is_product), None)
    second = _forward(graph, soft.outputs[0], _is_product)
    if first is None or second is None:
        return None
    weights = set(_made_from(graph, soft.outputs[0]))
    others = [tensor for tensor in second.inputs if tensor not in weights]
    last = _forward(graph, second.outputs[0], lambda call: _is_projection(call.operation))
    ways = [*first.inputs[:2], *others[:1]]
    found = [_only(_back(graph, tensor, lambda call: _is_projection(call.operation))) for tensor in ways]
    calls = [one for one in (*found, last) if one is not None]
    return dict(zip(ROLES, calls)) if len(calls) == len(ROLES) else None


def _is_product(call: Call) -> bool:
    return type(call.operation).__name__ in _PRODUCTS and len(set(call.inputs)) == 2


def _only(calls: Iterator[Call]) -> Call | None:
    found = {id(call): call for call in calls}
    return next(iter(found.values())) if len(found) == 1 else None


def _back(graph: Graph, tensor: int, wanted: Callable[[Call], bool]) -> Iterator[Call]:
    """Yields the nearest wanted calls that a tensor comes from, through operations but through no other weights."""
    stack, seen = [tensor], {tensor}
    while stack and len(seen) < NEAR:
        call = graph.maker(stack.pop(0))
        if call is None:
            continue
        if wanted(call):
            yield call
        elif _hands_on(call):
            stack.extend(number for number in dict.fromkeys(call.inputs) if number not in seen)
            seen.update(call.inputs)


def _forward(graph: Graph, tensor: int, wanted: Callable[[Call], bool]) -> Call | None:
    """Returns the wanted call that a tensor goes into, through operations that read nothing else."""
    for made in _made_from(graph, tensor):
        for call in graph.readers(made):
            if wanted(call):
                return call
    return None


def _made_from(graph: Graph, tensor: int) -> Iterator[int]:
    """Yields a tensor and what operations that read nothing else make of it, one after another."""
    for _ in range(NEAR):
        yield tensor
        readers = graph.readers(tensor)
        if len(readers) != 1 or len(set(readers[0].inputs)) != 1 or not _hands_on(readers[0]):
            return
        tensor = readers[0].outputs[0]


def _hands_on(call: Call) -> bool:
    """Whether a call is an operation, or a layer, that keeps features where they are or only scales them."""
    layer = isinstance(call.operation, keras.Layer)
    return bool(call.outputs) and (passes(call) or not layer or isinstance(call.operation, NORMALIZATIONS))


def _packed_heads(graph: Graph, call: Call, role: str, soft: Call) -> int | None:
    """Returns how many heads a reshape parts a projection into, or joins for it; one where there is none."""
    kernel = getattr(call.operation, "kernel", None)
    if kernel is None or len(kernel.shape) != 2:
        return None
    units = int(kernel.shape[0 if role == "output" else 1])
    weights = graph.specs.get(soft.outputs[0])
    if weights is None:
        return None
    if len(weights.shape) == 3:
        return 1
    ways = list(_chain_back(graph, call.inputs[0])) if role == "output" else list(_made_from(graph, call.outputs[0]))
    for tensor in ways:
        spec = graph.specs.get(tensor)
        if spec is not None and len(spec.shape) == 4 and spec.shape[-2] * spec.shape[-1] == units:
            return spec.shape[-2]
    return None


def _chain_back(graph: Graph, tensor: int) -> Iterator[int]:
    """Yields a tensor and those that it comes from one by one."""
    for _ in range(NEAR):
        yield tensor
        call = graph.maker(tensor)
        if call is None or len(set(call.inputs)) != 1 or not _hands_on(call):
            return
        tensor = call.inputs[0]
