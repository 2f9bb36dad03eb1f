"""Where every layer of a model stands."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_autoinit.activations import is_activation_layer
from keras_autoinit.graphs.operations import ATTENTION, PASSING_LAYERS
from keras_autoinit.graphs.records import Place, snake_case
from keras_autoinit.slots import slots_of


def is_unseen(place: Place) -> bool:
    """Whether a layer will make weights when it is built that cannot be known before."""
    layer = place.layer
    makes_weights = type(layer).build is not keras.Layer.build
    plain = isinstance(layer, (keras.Model, *PASSING_LAYERS)) or is_activation_layer(layer)
    # What Keras prepares data with learns nothing by training.
    plain = plain or ".preprocessing." in type(layer).__module__
    return makes_weights and not (layer.built or plain or place.slots or layers_inside(layer))


def shared_argument(place: Place) -> str | None:
    """Returns the argument in which an attention layer keeps one initializer for its projections.

    From it the layer's configuration is written, and a copy of the layer is built.
    """
    if isinstance(place.parent, keras.layers.MultiHeadAttention):
        return "_kernel_initializer"
    if isinstance(place.parent, ATTENTION):
        return "kernel_initializer"
    return None


def layers_inside(container: Any) -> list[keras.Layer]:
    """Returns the layers that a container holds itself, each once."""
    held = list(container._flatten_layers(recursive=False, include_self=False))
    if not isinstance(container, keras.Model):
        return held
    # A Functional model may hold layers off its nodes, as attributes, and lists those on them in their order.
    listed, held = list(container.layers), [one for one in held if not isinstance(one, keras.layers.InputLayer)]
    return list({id(layer): layer for layer in (*listed, *held)}.values())


def walk(model: keras.Model) -> Iterator[Place]:
    """Walks every layer of the model, depth first, each where it is met first."""
    seen: set[int] = set()
    own = slots_of(model)
    if own:
        yield Place(model, model.name, type(model).__name__, model, own, not model.trainable)
    stack = _children(model, "", "", not model.trainable, seen)
    while stack:
        place = stack.pop()
        yield place
        stack.extend(_children(place.layer, f"{place.path}/", f"{place.key}/", place.frozen, seen))


def _children(container: Any, path: str, key: str, frozen: bool, seen: set[int]) -> list[Place]:
    """Returns the places that a container holds itself, the last one first."""
    inner = [layer for layer in layers_inside(container) if id(layer) not in seen]
    seen.update(map(id, inner))
    names = zip(inner, _unique(layer.name for layer in inner), _stable_names(inner))
    return [
        Place(layer, path + name, key + stable, container, slots_of(layer), frozen or not layer.trainable)
        for layer, name, stable in names
    ][::-1]


def _unique(names: Iterable[str]) -> list[str]:
    """Returns the names, with a number behind each that came before."""
    counts: dict[str, int] = defaultdict(int)
    result = []
    for name in names:
        counts[name] += 1
        result.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return result


def _stable_names(layers: list[keras.Layer]) -> list[str]:
    """Returns the layers' names, automatic ones replaced by class and ordinal among siblings."""
    ordinals: dict[str, int] = defaultdict(int)
    result = []
    for layer in layers:
        kind = type(layer).__name__
        # Bidirectional puts a word before its layers' names.
        automatic = re.fullmatch(rf"(forward_|backward_)?{re.escape(snake_case(kind))}(_\d+)?", layer.name)
        if automatic:
            result.append(f"{automatic[1] or ''}{kind}:{ordinals[kind]}")
            ordinals[kind] += 1
        else:
            result.append(layer.name)
    return _unique(result)
