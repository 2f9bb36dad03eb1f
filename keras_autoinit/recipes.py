"""An initializer as plain data, so that decisions can be compared, printed, stored and carried out later."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_autoinit.errors import PlanError


@dataclass(frozen=True)
class Recipe:
    """An initializer as plain data: comparable, hashable, printable, JSON-ready.

    Attributes:
        name: the name under which Keras finds it, such as `"autoinit>he_normal"` or `"Zeros"`.
        items: its configuration, frozen; `config` is the same as a dictionary.

    Example:
        >>> Recipe("autoinit>he_normal", {"gain": 0.5})
        autoinit>he_normal(gain=0.5)
    """

    name: str
    items: tuple[tuple[str, Any], ...] = ()

    def __init__(self, name: str, config: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "items", _frozen(dict(config)))

    @classmethod
    def of(cls, initializer: Any) -> Recipe:
        """Returns the recipe of an initializer: a name, a configuration, an instance or a class.

        A bare function has a name and no configuration, which is all that can be told of it.
        """
        if isinstance(initializer, Recipe):
            return initializer
        if initializer is None or isinstance(initializer, str):
            return cls(initializer or "None")
        if isinstance(initializer, Mapping) and "class_name" in initializer:
            return cls(initializer.get("registered_name") or initializer["class_name"], initializer.get("config") or {})
        if isinstance(initializer, type):
            return cls(keras.saving.get_registered_name(initializer))
        if hasattr(initializer, "get_config"):
            return cls(keras.saving.get_registered_name(type(initializer)), _told(initializer))
        if callable(initializer):
            return cls(getattr(initializer, "__name__", type(initializer).__name__))
        raise PlanError(
            "Expected an initializer: a name such as 'autoinit>he', an instance, a configuration or a Recipe. "
            f"Received: {initializer!r}."
        )

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, as a new dictionary."""
        return {key: _thawed(value) for key, value in self.items}

    def replace(self, **config: Any) -> Recipe:
        """Returns the recipe with these entries of its configuration set."""
        return Recipe(self.name, {**self.config, **config})

    def __str__(self) -> str:
        """The name and what differs from an argument left out; axes and seed are not shown."""
        shown = [f"{key}={_brief(value)}" for key, value in self.items if key not in _UNSHOWN and value is not None]
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    __repr__ = __str__


def measured(values: np.ndarray) -> Recipe:
    """Returns what can be told of values whose initializer nobody kept.

    A constant, or `unknown` with their spread to three digits, and their mean where it is no chance:
    beyond five standard errors.

    Example:
        >>> measured(np.zeros((2, 2))), measured(np.array([0.5, -0.5, 0.5, -0.5]))
        (Zeros, unknown(std=0.5))
    """
    values = np.asarray(values, np.float64)
    if values.size == 0:
        return Recipe("unknown")
    first = float(values.flat[0])
    if (values == first).all():
        return Recipe({0.0: "Zeros", 1.0: "Ones"}.get(first, "Constant"), {} if first in (0, 1) else {"value": first})
    mean, std = float(values.mean()), float(values.std())
    shifted = abs(mean) > 5 * std / math.sqrt(values.size)
    config = {"mean": mean, "std": std} if shifted else {"std": std}
    return Recipe("unknown", {key: float(f"{value:.3g}") for key, value in config.items()})


# What every weight has of its own; the columns of fans say it better.
_SHOWN = 3
_UNSHOWN = frozenset({"input_axes", "output_axes", "fan_divisor", "blocks", "seed"})


def _told(initializer: Any) -> dict[str, Any]:
    """Returns the configuration of an instance without what its class assumes anyway."""
    kind: Any = type(initializer)
    defaults = _defaults(kind)
    return {
        key: value for key, value in initializer.get_config().items() if key not in defaults or value != defaults[key]
    }


@functools.cache
def _defaults(kind: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}


class _Items(tuple[tuple[str, Any], ...]):
    """A frozen dictionary, told apart from a frozen list."""

    __slots__ = ()


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _Items(sorted((str(key), _frozen(entry)) for key, entry in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(entry) for entry in value)
    if hasattr(value, "get_config"):
        return _frozen(keras.saving.serialize_keras_object(value))
    if hasattr(value, "tolist"):
        return _frozen(value.tolist())
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, _Items):
        return {key: _thawed(entry) for key, entry in value}
    if isinstance(value, tuple):
        return [_thawed(entry) for entry in value]
    return value


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, _Items):
        entries = dict(value)
        name, inner = entries.get("class_name"), entries.get("config", _Items())
        return str(Recipe(name, _thawed(inner))) if name else str(_thawed(value))
    if isinstance(value, tuple) and len(value) > _SHOWN:
        return f"({', '.join(map(_brief, value[:_SHOWN]))}, ... {len(value)} in all)"
    return repr(value)
