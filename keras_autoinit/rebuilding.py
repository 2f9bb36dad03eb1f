"""A layer built once more from its configuration, to see what its weights start from."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_autoinit.graphs import layers_inside
from keras_autoinit.isolation import apart, lent_chance, without_values


def own_weights(layer: Any) -> list[Any]:
    """Returns the weights that a layer holds itself, not through the layers inside it."""
    inner = {id(weight) for each in layers_inside(layer) for weight in each.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def own_seed_generators(layer: Any) -> list[keras.random.SeedGenerator]:
    """Returns the seed generators that a layer holds itself, each once."""
    found = {id(each): each for each in _held(layer) if isinstance(each, keras.random.SeedGenerator)}
    return list(found.values())


def starting_values(layer: Any, seed: int) -> list[tuple[str, Any]]:
    """Returns names and new values of a layer's own weights, as if it had just been built.

    The layer's sublayers are made again too, but take no memory.

    Args:
        layer: any layer that is built; it is not changed.
        seed: what is drawn depends on this seed only, not on the seeds that initializers carry.
    """
    try:
        return apart(functools.partial(_values, layer, seed, without_values))
    except ValueError:
        # A variable that is made from an array, not from an initializer, cannot do without its value.
        return apart(functools.partial(_values, layer, seed, contextlib.nullcontext))


def _values(layer: Any, seed: int, scope: Any) -> list[tuple[str, Any]]:
    with lent_chance(seed), scope():
        return [(weight.name, weight.value) for weight in own_weights(_rebuilt(layer))]


def _rebuilt(layer: Any) -> Any:
    kind: Any = type(layer)
    with keras.saving.custom_object_scope(_custom_objects(layer)):
        fresh = kind.from_config(_accepted(layer, _config(layer)))
        if not fresh.built and not _is_complete(fresh, layer):
            fresh.build_from_config(layer.get_build_config())
    return fresh


def _is_complete(fresh: Any, layer: Any) -> bool:
    """Whether a model has its weights already: building a model of the user's own class runs it."""
    return isinstance(fresh, keras.Model) and len(own_weights(fresh)) == len(own_weights(layer))


def _config(layer: Any) -> dict[str, Any]:
    """Returns a layer's configuration, without the seeds of its initializers."""
    with warnings.catch_warnings():
        # Keras warns that a lambda is not safe to load elsewhere; this one stays here.
        warnings.simplefilter("ignore")
        try:
            config = layer.get_config()
        except NotImplementedError:
            config = {}
    return {name: _own_function(layer, name, _without_seeds(entry)) for name, entry in config.items()}


def _accepted(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Makes a configuration fit the constructor, where a class has neglected to.

    What every layer is said to take is left out where the constructor takes no such thing. An
    argument that must be given, or is not told at all, is read from the attribute of its name if
    that is a plain value: Keras's own `ConvLSTMCell` leaves its rank out, and a `keras.Model` whose
    constructor must be given something has no configuration of its own accord.
    """
    if not type(layer).from_config.__module__.startswith("keras."):
        return config
    parameters = inspect.signature(type(layer).__init__).parameters
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    kept = {name: entry for name, entry in config.items() if takes_all or name in parameters or name not in _COMMON}
    for name, each in parameters.items():
        missing = name not in kept and (each.default is each.empty or not config)
        if missing and isinstance(getattr(layer, name, None), _PLAIN):
            kept[name] = getattr(layer, name)
    return kept


_COMMON = ("name", "trainable", "dtype")
_PLAIN = (str, int, float, tuple, list)


def _without_seeds(entry: Any) -> Any:
    """Takes the seeds out of every object in a part of a configuration."""
    if isinstance(entry, keras.initializers.Initializer):
        config = entry.get_config()
        return type(entry).from_config({**config, "seed": None}) if "seed" in config else entry
    if isinstance(entry, dict):
        seeded = "class_name" in entry and isinstance(entry.get("config"), dict) and "seed" in entry["config"]
        inner = {name: _without_seeds(each) for name, each in entry.items()}
        return {**inner, "config": {**inner["config"], "seed": None}} if seeded else inner
    return type(entry)(map(_without_seeds, entry)) if type(entry) in (list, tuple) else entry


def _own_function(layer: Any, name: str, entry: Any) -> Any:
    """Returns the function itself where a configuration can only tell its name."""
    value: Any = getattr(layer, name, None)
    told = isinstance(entry, dict) and isinstance(value, types.FunctionType)
    return value if told and keras.saving.get_registered_name(value) == value.__name__ else entry


def _custom_objects(layer: Any) -> dict[str, Any]:
    """Returns the functions and classes that a layer's configuration may name, registered or not."""
    found: dict[str, Any] = {}
    for value in (value for each in (layer, *_layers_within(layer)) for value in (each, *_held(each))):
        named = value if isinstance(value, (type, types.FunctionType)) else type(value)
        if not (getattr(named, "__module__", None) or "").startswith(("builtins", "keras.")):
            found[named.__name__] = named
    return found


def _layers_within(layer: Any) -> Iterator[Any]:
    for inner in layers_inside(layer):
        yield inner
        yield from _layers_within(inner)


def _held(layer: Any) -> Iterator[Any]:
    """Yields what a layer's attributes hold, alone or in lists and dictionaries."""
    waiting: list[Any] = [vars(layer)]
    seen: set[int] = set()
    while waiting:
        container = waiting.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        for value in container.values() if isinstance(container, dict) else container:
            if isinstance(value, (dict, list, tuple)):
                waiting.append(value)
            else:
                yield value
