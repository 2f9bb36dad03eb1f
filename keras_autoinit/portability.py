"""The nearest stock Keras initializer to a scheme, for files that load without this package."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import keras
import numpy as np

from keras_autoinit.draws import TRUNCATED_STD
from keras_autoinit.plans import Decision
from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes import Orthogonal, make

_SAME = {"zeros", "ones", "constant", "random_normal", "truncated_normal", "random_uniform"}
_INEXACT = "The file's weights are exact, but a fresh draw from the stored {} would only be of their size."


def portable(row: Decision) -> Decision:
    """Returns the decision with what the layer's argument is to say, if that must be stock Keras.

    The weights are drawn from `new` all the same.
    """
    if not row.changed or row.stored is not None or not row.new.name.startswith("autoinit>"):
        return row
    stored, exact = _stock(make(row.new, seed=0), row.shape)
    reason = row.reason if exact else f"{row.reason} {_INEXACT.format(stored.name)}"
    return dataclasses.replace(row, stored=stored, reason=reason)


def _stock(scheme: Any, shape: tuple[int, ...] | None) -> tuple[Recipe, bool]:
    """Returns the nearest stock recipe, and whether it draws from the same distribution."""
    name = scheme.names[0]
    if name in _SAME:
        config = {key: value for key, value in scheme.get_config().items() if key != "seed"}
        return Recipe(type(scheme).__name__, config), True
    if hasattr(scheme, "variance"):
        return (_explicit(scheme, shape), True) if shape else _scaling(scheme)
    plain = isinstance(scheme, Orthogonal) and _is_plain(scheme, shape)
    if isinstance(scheme, Orthogonal) or shape is None:
        return Recipe("Orthogonal", {"gain": _orthogonal_gain(scheme, None if plain else shape)}), plain
    return Recipe("TruncatedNormal", {"mean": 0.0, "stddev": _size(scheme, shape) / TRUNCATED_STD}), False


def _size(scheme: Any, shape: tuple[int, ...]) -> float:
    """Returns the root mean square of a draw."""
    return float(np.sqrt(np.mean(np.square(scheme.array(shape, "float64")))))


def _orthogonal_gain(scheme: Any, shape: tuple[int, ...] | None) -> float:
    """Returns the gain with which Keras's `Orthogonal` draws weights of the scheme's size."""
    if shape is None:
        # Right for blocks that are square, as those of recurrent kernels are.
        return scheme.gain_value * math.sqrt(scheme.blocks * scheme.fan_divisor)
    columns, rows = shape[-1], math.prod(shape[:-1])
    return _size(scheme, shape) * math.sqrt(max(rows, columns))


def _explicit(scheme: Any, shape: tuple[int, ...]) -> Recipe:
    """Returns a recipe with the numbers that this shape makes."""
    std = math.sqrt(scheme.variance(shape))
    if scheme.distribution == "uniform":
        return Recipe("RandomUniform", {"minval": -math.sqrt(3) * std, "maxval": math.sqrt(3) * std})
    if scheme.distribution == "normal":
        return Recipe("RandomNormal", {"mean": 0.0, "stddev": std})
    return Recipe("TruncatedNormal", {"mean": 0.0, "stddev": std / TRUNCATED_STD})


def _scaling(scheme: Any) -> tuple[Recipe, bool]:
    """Returns a recipe for a weight whose shape is not known yet."""
    distribution = {"normal": "untruncated_normal"}.get(scheme.distribution, scheme.distribution)
    config = {"scale": max(scheme.scale * scheme.fan_divisor, 1e-12), "mode": scheme.mode, "distribution": distribution}
    foldable = scheme.mode == "fan_in" or (scheme.fan_divisor == 1 and scheme.blocks == 1)
    if "input_axes" in inspect.signature(keras.initializers.VarianceScaling).parameters:
        axes = {"input_axes": scheme.input_axes, "output_axes": scheme.output_axes}
        return Recipe("VarianceScaling", {**config, **axes}), foldable
    return Recipe("VarianceScaling", config), False


def _is_plain(scheme: Any, shape: tuple[int, ...] | None) -> bool:
    """Whether Keras's `Orthogonal`, which flattens all axes but the last, sees the same matrix."""
    if scheme.blocks != 1 or scheme.fan_divisor != 1:
        return False
    if scheme.input_axes is None or scheme.output_axes is None:
        return True
    last = max(scheme.output_axes)
    return sorted({*scheme.input_axes}) == [*range(last)] and {*scheme.output_axes} - {*scheme.input_axes} == {last}
