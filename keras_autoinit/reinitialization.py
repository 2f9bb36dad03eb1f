"""Starts a model again: everything is drawn anew, as if it had just been built."""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.draws import derived_seed
from keras_autoinit.errors import RebuildError
from keras_autoinit.graphs import layers_inside, read
from keras_autoinit.optimizers import first_state
from keras_autoinit.rebuilding import own_seed_generators, own_weights, starting_values

# Layers whose configuration carries their weights, or a file that does.
_CARRIERS = (keras.layers.TorchModuleWrapper, keras.layers.TFSMLayer)

# Keras builds other quantized layers with zeros, to be filled from a kernel that they no longer have.
_DRAWN_QUANTIZED = (None, "float8")


@dataclass(frozen=True)
class Owner:
    """The model or a layer of it, what errors and seeds call it, and what holds it."""

    layer: Any
    path: str
    key: str
    holder: Owner | None = None


def reinitialize(model: keras.Model, seed: int | None = None) -> int:
    """Draws every weight of a model anew, from the initializers that its layers have now.

    When to use: to train the same model again from another start (cross-validation, ensembles, a
    search over hyperparameters) without building and compiling it again.

    Afterwards the model is as if it had just been built and compiled: weights of every kind and
    of frozen layers too, moving statistics, states of recurrent layers, metrics, and the
    optimizer's averages and step count. What stays: the layers and their settings, `trainable`,
    the loss, the compiled functions and the learning rate. So does what a layer has learned by
    `adapt` (means, vocabularies), which is data and no draw.

    Each layer is built once more from `get_config` and `get_build_config`, one after the other,
    so custom layers need nothing but what saving asks of them, and not even that where the layer
    or model that holds them can make them. A weight that two layers share is
    drawn once. A seed that an initializer carries, such as those that `AutoInit` leaves, is not
    used: the draw would be no fresh one. A `SeedGenerator` (of a dropout layer, say) returns to
    its seed if it was given one, and gets a new one otherwise.

    All or nothing: everything is drawn twice, and an error in the first pass leaves the model as
    it was; only an interruption of the second does not. The memory used beyond the model's is a
    few times that of the largest layer's own weights, but for the few optimizers and custom layers
    whose variables are not made from initializers. The time is one to two times that of building it.

    Args:
        model: any Keras model; layers that are not built yet draw when they are.
        seed: an integer that names the whole draw; `None` draws a fresh one. No global random
            state decides anything, and Python's, NumPy's and Keras's are as before afterwards;
            only an initializer of your own that asks another generator is not decided by it.

    Returns:
        The seed: `reinitialize(model, seed)` with it gives the same weights again.

    Raises:
        ModelTypeError: `model` is no Keras model.
        RebuildError: a layer cannot be built once more: its configuration does not suffice, or
            it has been quantized.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> reinitialize(model, seed=1)
        1

    Source: https://github.com/keras-team/keras/issues/341
    """
    owners = _owners(model)
    seed = secrets.randbits(31) if seed is None else int(seed)
    for _ in _first_values(owners, seed):
        pass
    for variable, value in _first_values(owners, seed):
        variable.assign(value)
    for owner in owners:
        if getattr(owner.layer, "stateful", False) and isinstance(owner.layer, keras.layers.RNN):
            owner.layer.reset_state()
    model.reset_metrics()
    return seed


def _owners(model: keras.Model) -> tuple[Owner, ...]:
    """Returns the model and its layers, each holder before what it holds."""
    owners = {id(model): Owner(model, model.name, "")}
    for place in (place for place in read(model).places if place.layer is not model):
        owners[id(place.layer)] = Owner(place.layer, place.path, place.key, owners.get(id(place.parent)))
    return tuple(owners.values())


def _first_values(owners: Sequence[Owner], seed: int) -> Iterator[tuple[Any, Any]]:
    """Yields every variable with what it starts from, a layer's at a time; changes nothing itself."""
    yield from _weights(owners, seed)
    yield from _seed_states(owners, seed)
    # Last: what some optimizers keep starts from the weights.
    for optimizer in _optimizers(owners):
        yield from first_state(optimizer)


def _weights(owners: Sequence[Owner], seed: int) -> Iterator[tuple[Any, Any]]:
    held = [(owner, own_weights(owner.layer)) for owner in owners]
    holders = Counter(id(weight) for _, weights in held for weight in weights)
    seen: set[int] = set()
    for owner, weights in held:
        if hasattr(owner.layer, "adapt"):
            seen.update(map(id, weights))
        fresh = [weight for weight in weights if id(weight) not in seen]
        if fresh:
            made = _starting_values(owner, derived_seed(seed, owner.key), seed)
            # A layer may be handed a weight of another, which a copy of it may have or lack.
            alone = [weight for weight in weights if holders[id(weight)] == 1]
            pairs = _pairs(weights, made) or _pairs(fresh, made) or _pairs(alone, made)
            if pairs is None:
                raise _misfit(owner, weights, made)
            yield from ((weight, value) for weight, value in pairs if id(weight) not in seen)
            seen.update(id(weight) for weight, _ in pairs)
    for owner, weights in held:
        if any(id(weight) not in seen for weight in weights):
            raise _misfit(owner, weights, [])


def _starting_values(owner: Owner, seed: int, partners: int) -> list[tuple[str, Any]]:
    mode = getattr(owner.layer, "quantization_mode", None)
    if mode not in _DRAWN_QUANTIZED:
        raise _error(owner, f"It has been quantized ({mode}), which leaves nothing to draw from: reinitialize before.")
    if isinstance(owner.layer, _CARRIERS):
        raise _error(owner, "Its configuration carries its weights: put a new layer in its place.")
    try:
        return starting_values(owner.layer, seed, (), partners)
    except Exception as error:
        # Whatever a user's own class raises. What holds the layer may know better how to make it.
        made = _made_by_holder(owner, seed, partners)
        if made is not None:
            return made
        reason = str(error).strip().rpartition("\n")[2]
        raise _error(owner, f"Doing so raised {type(error).__name__}: {reason} {_ADVICE}") from error


def _made_by_holder(owner: Owner, seed: int, partners: int) -> list[tuple[str, Any]] | None:
    """Returns what the layer starts from in a copy of the nearest container that can be built once more."""
    within: list[int] = []
    while owner.holder is not None:
        within.insert(0, [id(layer) for layer in layers_inside(owner.holder.layer)].index(id(owner.layer)))
        owner = owner.holder
        with contextlib.suppress(Exception):
            return starting_values(owner.layer, seed, within, partners)
    return None


def _pairs(weights: Sequence[Any], made: Sequence[tuple[str, Any]]) -> list[tuple[Any, Any]] | None:
    """Pairs weights with values, by name where names tell, or else in order; `None` if they do not fit."""
    values = dict(made)
    names = [weight.name for weight in weights]
    by_name = len(values) == len(made) and len(set(names)) == len(names) and set(names) == set(values)
    ordered = [values[name] for name in names] if by_name else [value for _, value in made]
    fit = [tuple(weight.shape) for weight in weights] == [tuple(value.shape) for value in ordered]
    return list(zip(weights, ordered)) if fit else None


def _misfit(owner: Owner, weights: Sequence[Any], made: Sequence[tuple[str, Any]]) -> RebuildError:
    had = ", ".join(f"{weight.name} {tuple(weight.shape)}" for weight in weights)
    has = ", ".join(f"{name} {tuple(value.shape)}" for name, value in made) or "none"
    return _error(owner, f"It has the weights {had}; the copy has {has}. {_ADVICE}")


_ADVICE = (
    "A custom layer needs `get_config` with all arguments of its `__init__`, and weights that are made in `__init__` "
    "or `build`."
)


def _error(owner: Owner, received: str) -> RebuildError:
    return RebuildError(
        f"Expected {owner.path!r} ({type(owner.layer).__name__}) to be a layer that can be built once more from its "
        f"configuration. {received} Nothing has been changed."
    )


def _seed_states(owners: Sequence[Owner], seed: int) -> Iterator[tuple[Any, Any]]:
    seen: set[int] = set()
    for owner in owners:
        for index, generator in enumerate(own_seed_generators(owner.layer)):
            if id(generator) not in seen:
                seen.add(id(generator))
                yield generator.state, _first_state_of(generator, derived_seed(seed, f"{owner.key}/seed {index}"))


def _first_state_of(generator: Any, seed: int) -> Any:
    """Returns what a seed generator holds at first; Keras makes up seeds from one to a thousand million."""
    given = generator.get_config()["seed"]
    first = 1 + seed % 1_000_000_000 if given is None else given
    return generator.backend.convert_to_tensor([first, 0], dtype=generator.state.dtype)


def _optimizers(owners: Sequence[Owner]) -> list[Any]:
    """Returns the optimizers of the model and of the models in it, by whatever names they hold them."""
    models = [owner.layer for owner in owners if isinstance(owner.layer, keras.Model)]
    held = {id(value): value for model in models for value in vars(model).values()}
    return [value for value in held.values() if isinstance(value, keras.optimizers.Optimizer) and value.built]
