"""Which variables a layer owns itself, under which names they are found again, and what a name says."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

# Before Keras 3.8 the exported class is a subclass of the one that layers make.
Variable: Any = keras.Variable.__mro__[1] if keras.Variable.__module__.endswith("exports") else keras.Variable


def own_variables(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Returns the floating-point variables of a layer, but not those of the layers inside it, by name.

    A name is the way to the variable: an attribute (`kernel`), or an entry of a list or dictionary
    that is one (`experts.0`, `tables.left`), so that it is the same in a copy of the layer and in
    every session. A variable to which no attribute leads has the name that it was made with.
    """
    inner = {id(variable) for each in layers_held(layer) for variable in each.weights}
    own = {id(each): each for each in layer.weights if id(each) not in inner and "float" in str(each.dtype)}
    names = {id(variable): name for name, variable in reversed(list(_ways(layer))) if id(variable) in own}
    found = [(names.get(key) or _given_name(variable), variable) for key, variable in own.items()]
    return dict(zip(_unique([name for name, _ in found]), [variable for _, variable in found]))


def is_learned(layer: keras.Layer, variable: keras.Variable) -> bool:
    """Whether a variable is trainable, or was before its layer was frozen."""
    return bool(variable.trainable) or not layer.trainable


def role_by_name(name: str) -> str | None:
    """Returns the role that a weight's name says: the words by which layers call such weights."""
    words = re.findall(r"[a-z]+", name.lower())
    last = words[-1] if words else ""
    if words[:1] == ["lora"]:
        return "adapter"
    if {"bias", "beta"} & {*words}:
        return "bias"
    if last in ("gamma", "scale"):
        return "scale"
    if last in _TABLE_NAMES and _POSITION_NAMES & {*words} and not {"rel", "relative"} & {*words}:
        return "positions"
    if last in ("embedding", "embeddings"):
        return "embeddings"
    return "token" if last in ("token", "tokens", "cls") else None


_POSITION_NAMES = frozenset({"pos", "position", "positions", "positional"})
# Not `pos_proj`, which is a kernel.
_TABLE_NAMES = _POSITION_NAMES | {"embed", "embedding", "embeddings", "encoding", "encodings", "table"}


def values_of(variable: keras.Variable) -> np.ndarray:
    """Returns a variable's values in double precision."""
    return np.asarray(keras.ops.convert_to_numpy(variable)).astype(np.float64)


# Most of what a layer's attributes are: passed over at once.
_HOLD_NOTHING = frozenset({bool, float, int, str, type(None)})


def layers_held(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers that a layer holds in its attributes, at any depth of lists and dictionaries."""
    found: dict[int, keras.Layer] = {}
    seen, stack = {id(layer)}, list(vars(layer).values())
    while stack:
        value = stack.pop()
        if type(value) in _HOLD_NOTHING or id(value) in seen:
            continue
        if isinstance(value, keras.Layer):
            found[id(value)] = value
        elif isinstance(value, (Mapping, list, tuple, set, frozenset)):
            stack.extend(value.values() if isinstance(value, Mapping) else value)
        else:
            continue
        seen.add(id(value))
    return list(found.values())


def _ways(layer: keras.Layer) -> Iterator[tuple[str, keras.Variable]]:
    """Yields every way to a variable, the plainest first: attributes before entries, public names before others."""
    names = [name for name in vars(layer) if name not in _every_layers_attributes() and not name.startswith("_self_")]
    for name in sorted(names, key=lambda name: (not isinstance(vars(layer)[name], Variable), name[0] == "_")):
        for way, variable in _entries(name, vars(layer)[name]):
            public = way.lstrip("_")
            yield (public if getattr(layer, public, None) is variable else way), variable


def _entries(way: str, value: Any) -> Iterator[tuple[str, keras.Variable]]:
    if isinstance(value, Variable):
        yield way, value
    elif isinstance(value, (Mapping, list, tuple)):
        for key, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _entries(f"{way}.{key}", entry)


@functools.cache
def _every_layers_attributes() -> frozenset[str]:
    """Returns the attributes in which Keras and its backend keep books, as any layer has them.

    A name of its own keeps the layer made for this out of the count behind automatic names.
    """
    return frozenset(vars(keras.layers.Layer(name="plain")))


def _given_name(variable: keras.Variable) -> str:
    """Returns a variable's name; automatic ones count through the session, so without the number."""
    return re.sub(r"^variable_\d+$", "variable", variable.name)


def _unique(names: list[str]) -> list[str]:
    """Returns the names, with a number behind each that came before."""
    counts: Counter[str] = Counter()
    result = []
    for name in names:
        counts[name] += 1
        result.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return result
