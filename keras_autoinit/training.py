"""Whether a model has been trained, as far as its state shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_autoinit.graphs import Place
from keras_autoinit.schemes import Constant, Ones, Zeros
from keras_autoinit.selection import Selection
from keras_autoinit.variables import Variable

_ZEROS = (keras.initializers.Zeros, Zeros)
_ONES = (keras.initializers.Ones, Ones)
_CONSTANTS = (keras.initializers.Constant, Constant)


def judged_places(places: Iterable[Place], selection: Selection) -> tuple[Place, ...]:
    """Returns the places that a rewriting may touch: a pretrained part that is frozen is no obstacle."""
    return tuple(place for place in places if not place.frozen and selection.reason_to_keep(place) is None)


def signs_of_training(optimizer: Any, places: Iterable[Place]) -> tuple[str, ...]:
    """Returns what shows that a model has been trained: layers' paths, or `"optimizer"`.

    An optimizer that has stepped, and any weight that starts from a constant (a bias, a moving
    average, the scale of a normalization) and holds something else now.
    """
    stepped = optimizer is not None and int(keras.ops.convert_to_numpy(optimizer.iterations)) > 0
    moved = (place.path for place in places if any(_has_moved(*weight) for weight in constant_weights(place.layer)))
    return (*(("optimizer",) if stepped else ()), *moved)


def moved_weights(places: Iterable[Place]) -> Iterator[tuple[Any, Any]]:
    """Yields the weights that start from a constant and hold something else, and their start as a tensor."""
    for place in places:
        for variable, start in constant_weights(place.layer):
            if _has_moved(variable, start):
                yield variable, keras.ops.broadcast_to(keras.ops.cast(start, variable.dtype), variable.shape)


def constant_weights(layer: Any) -> Iterator[tuple[keras.Variable, Any]]:
    """Yields the weights of a layer that start from a constant, and that constant."""
    for argument in [name for name in vars(layer) if name.endswith("_initializer")] if layer.built else ():
        name = argument.removesuffix("_initializer")
        variable, start = getattr(layer, name, None), _constant(getattr(layer, argument))
        if isinstance(variable, Variable) and start is not None:
            forgets = name == "bias" and getattr(layer, "unit_forget_bias", False)
            yield variable, _forget_bias(start, variable.shape[-1]) if forgets else start


def _constant(initializer: Any) -> Any:
    """Returns the constant that an initializer fills a weight with, or `None`."""
    if isinstance(initializer, _ZEROS):
        return 0
    if isinstance(initializer, _ONES):
        return 1
    return initializer.value if isinstance(initializer, _CONSTANTS) else None


def _forget_bias(start: Any, length: int) -> np.ndarray:
    """Returns an LSTM's bias, which starts at one in the second of its four gates."""
    bias = np.full(length, start, np.float32)
    bias[length // 4 : length // 2] = 1
    return bias


def _has_moved(variable: keras.Variable, start: Any) -> bool:
    values = variable.numpy()
    # In the precision of both: Keras draws the constants of a float64 weight in float32.
    return bool((values.astype(np.float32) != np.asarray(start, values.dtype).astype(np.float32)).any())
