"""A layer built once more from its configuration, to see what its weights start from."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_autoinit.draws import derived_seed
from keras_autoinit.graphs import layers_inside
from keras_autoinit.isolation import apart, lent_chance, without_values
from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes import seed_key


def own_weights(layer: Any) -> list[Any]:
    """Returns the weights that a layer holds itself, not through the layers inside it."""
    inner = {id(weight) for each in layers_inside(layer) for weight in each.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def own_seed_generators(layer: Any) -> list[keras.random.SeedGenerator]:
    """Returns the seed generators that a layer holds itself, each once."""
    found = {id(each): each for each in _held(layer) if isinstance(each, keras.random.SeedGenerator)}
    return list(found.values())


def starting_values(
    layer: Any, seed: int, within: Sequence[int] = (), partners: int | None = None
) -> list[tuple[str, Any]]:
    """Returns names and new values of a layer's own weights, as if it had just been built.

    The layer's sublayers are made again too, but take no memory.

    Args:
        layer: any layer that is built; it is not changed.
        seed: what is drawn depends on this seed only, not on the seeds that initializers carry.
        within: look at a layer inside this one instead: at which of its layers, at which of that
            one's, and so on.
        partners: what is drawn by schemes whose weights belong together depends on this seed, and on the
            name of their pair; it is `seed` where it is not given.
    """
    work = functools.partial(_values, layer, seed, tuple(within), seed if partners is None else partners)
    try:
        return apart(lambda: work(without_values()))
    except ValueError:
        # A variable that is made from an array, not from an initializer, cannot do without its value.
        return apart(lambda: work(contextlib.nullcontext()))


def _values(layer: Any, seed: int, within: tuple[int, ...], partners: int, scope: Any) -> list[tuple[str, Any]]:
    with lent_chance(seed), scope, keras.saving.custom_object_scope(_custom_objects(layer)):
        weights = own_weights(_rebuilt(layer, within, partners))
        if set(map(id, weights)) & set(map(id, layer.weights)):
            raise ValueError(f"A copy of {layer.name!r} is not one: it holds the same weights.")
        return [(weight.name, weight.value) for weight in weights]


def _rebuilt(layer: Any, within: tuple[int, ...], partners: int) -> Any:
    """Returns a copy of the layer inside another, both built as far as it takes."""
    whole = _constructed(layer, partners)
    if _inside(whole, within) is None:
        whole.build_from_config(layer.get_build_config())
    fresh, old = _inside(whole, within), _inside(layer, within)
    if type(fresh) is not type(old):
        raise ValueError(f"A copy of {layer.name!r} holds no {type(old).__name__} in the place of {old.name!r}.")
    if not fresh.built and not _is_complete(fresh, old):
        fresh.build_from_config(old.get_build_config())
    return fresh


def _inside(layer: Any, within: tuple[int, ...]) -> Any:
    for index in within:
        inner = layers_inside(layer)
        if index >= len(inner):
            return None
        layer = inner[index]
    return layer


def _is_complete(fresh: Any, layer: Any) -> bool:
    """Whether a model has its weights already: building a model of the user's own class runs it."""
    return isinstance(fresh, keras.Model) and len(own_weights(fresh)) == len(own_weights(layer))


def _constructed(layer: Any, partners: int) -> Any:
    kind: Any = type(layer)
    config = _config(layer, partners)
    if config is None:
        return kind(**_told_by_attributes(layer))
    try:
        return kind.from_config(config)
    except (TypeError, ValueError):
        if not kind.from_config.__module__.startswith("keras."):
            raise
        return kind.from_config(_repaired(layer, config))


def _config(layer: Any, partners: int) -> dict[str, Any] | None:
    """Returns a layer's configuration, without seeds but those that pairs share; `None` if it has none."""
    with warnings.catch_warnings():
        # Keras warns that a lambda is not safe to load elsewhere; this one stays here.
        warnings.simplefilter("ignore")
        try:
            config = layer.get_config()
        except NotImplementedError:
            return None
    return {name: _own_function(layer, name, _without_seeds(entry, partners)) for name, entry in config.items()}


def _repaired(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what no constructor takes, and adds what must be given: Keras's `ConvLSTMCell` forgets its rank."""
    accepted = _accepted(type(layer))
    required = {name for name, each in _arguments(type(layer)).items() if each.default is each.empty}
    told = _plain_attributes(layer, required - set(config))
    return {**{name: entry for name, entry in config.items() if name in accepted}, **told}


def _told_by_attributes(layer: Any) -> dict[str, Any]:
    """Returns the arguments of a class that has no configuration, if its attributes tell all of them.

    A `keras.Model` whose constructor must be given something is such a class of its own accord.
    """
    names = set(_arguments(type(layer))) - {"trainable", "dtype", "activity_regularizer"}
    told = _plain_attributes(layer, names)
    if len(told) < len(names):
        raise ValueError(f"It has no get_config, and no attributes that tell {', '.join(sorted(names - set(told)))}.")
    return told


def _plain_attributes(layer: Any, names: set[str]) -> dict[str, Any]:
    """Returns copies of those attributes that are numbers, words and lists of them: others might be shared."""
    found = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    return {
        name: list(value) if isinstance(value, list) else value for name, value in found.items() if _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def _arguments(kind: Any) -> dict[str, inspect.Parameter]:
    """Returns the named arguments of a class's own constructor, without `self`."""
    parameters = list(inspect.signature(kind.__init__).parameters.items())[1:]
    return {name: each for name, each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}


def _accepted(kind: Any) -> set[str]:
    """Returns the arguments that a class's constructor takes, or hands on to those of its bases."""
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" in vars(base):
            names.update(_arguments(base))
            every = inspect.signature(base.__init__).parameters.values()
            if base is keras.Layer or not any(each.kind is each.VAR_KEYWORD for each in every):
                break
    return names


def _without_seeds(entry: Any, partners: int) -> Any:
    """Takes the seeds out of every object in a part of a configuration; those of a pair's weights stay equal."""
    if isinstance(entry, keras.initializers.Initializer):
        config = entry.get_config()
        return type(entry).from_config({**config, "seed": _seed(entry, partners)}) if "seed" in config else entry
    if isinstance(entry, dict):
        seeded = "class_name" in entry and isinstance(entry.get("config"), dict) and "seed" in entry["config"]
        inner = {name: _without_seeds(each, partners) for name, each in entry.items()}
        return {**inner, "config": {**inner["config"], "seed": _seed(entry, partners)}} if seeded else inner
    return type(entry)(_without_seeds(each, partners) for each in entry) if type(entry) in (list, tuple) else entry


def _seed(initializer: Any, partners: int) -> int | None:
    pair = seed_key(Recipe.of(initializer), "")
    return derived_seed(partners, pair) if pair else None


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
