"""Layers without the activation of their own, and the activation applied apart."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
from keras import ops

from keras_autoinit.execution import computed


def without_activation(layer: Any) -> Any:
    """Returns a twin of a layer that shares its weights and applies no activation of its own.

    The layer itself is not touched.
    """
    if isinstance(layer, keras.layers.TimeDistributed) and getattr(layer.layer, "activation", None) is not None:
        return twin(layer, layer=without_activation(layer.layer))
    if not isinstance(layer, keras.Layer) or getattr(layer, "activation", None) is None or not is_own(layer):
        return layer
    return twin(layer, activation=keras.activations.linear)


def twin(layer: Any, /, **attributes: Any) -> Any:
    """Returns an object that shares all of a layer but these attributes.

    `copy.copy` would write a layer out and build it again.
    """
    other = object.__new__(type(layer))
    vars(other).update(vars(layer))
    vars(other).update(attributes)
    return other


@contextlib.contextmanager
def rerouted(routes: Iterable[tuple[Any, Callable[..., Any]]]) -> Iterator[None]:
    """Has layers computed by functions for a while: each is given the layer as it was, and its arguments."""
    changed = []
    try:
        for layer, function in routes:
            # Somebody's own function in this place is left alone.
            if "call" not in vars(layer):
                whole = twin(layer)
                # Past `Layer.__setattr__`, which would track it.
                vars(layer)["call"] = functools.partial(function, whole)
                changed.append(layer)
        yield
    finally:
        for layer in changed:
            del vars(layer)["call"]


def is_own(layer: Any) -> bool:
    """Whether a layer computes what Keras's own layer of its kind does."""
    return type(layer).call.__module__.startswith("keras.")


def activated(layer: Any, output: Any, factor: float = 1.0) -> Any:
    """Returns a layer's output, scaled, after the activation that was left out."""
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    left_out = without_activation(layer) is not layer
    activation = inner.activation if left_out else keras.activations.linear
    if factor == 1.0 and not left_out:
        return output
    if getattr(output, "_keras_mask", None) is None and not isinstance(activation, keras.Layer):
        return _scaled_into(activation, factor, output)
    # Through a layer of Keras's, which hands on the mask of a tensor.
    template = _template(keras.backend.standardize_dtype(output.dtype))
    apply = twin(template, activation=functools.partial(_scaled_into, activation, factor))
    return computed(apply, ((output,), {}))


@functools.cache
def _template(dtype: str) -> Any:
    return keras.layers.Activation("linear", name="scaled", dtype=dtype)


def _scaled_into(activation: Any, factor: float, x: Any) -> Any:
    return activation(x if factor == 1.0 else ops.multiply(x, ops.cast(factor, x.dtype)))
