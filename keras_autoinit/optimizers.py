"""An optimizer's first state: what its variables hold before it has taken a step.

Reads two names that Keras keeps private, because nothing public tells for which weights an
optimizer was built, and a schedule without a configuration bars the way to all other settings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


def optimized_variables(optimizer: Any) -> list[Any]:
    """Returns the weights that an optimizer was built for, which may not be those trainable now."""
    return list(_inner(optimizer)._trainable_variables)


def first_state(optimizer: Any) -> list[tuple[Any, Any]]:
    """Returns an optimizer's variables, but for its learning rate, each with what it held at first."""
    with _plain_learning_rate(optimizer):
        fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(optimized_variables(optimizer))
    return list(zip(_averages(optimizer), map(keras.ops.copy, _averages(fresh)), strict=True))


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)


def _averages(optimizer: Any) -> list[Any]:
    return [variable for variable in optimizer.variables if variable.name != "learning_rate"]


@contextlib.contextmanager
def _plain_learning_rate(optimizer: Any) -> Iterator[None]:
    """Hides the learning rate while the configuration is read: a user's own function has none."""
    attributes = vars(_inner(optimizer))
    held, attributes["_learning_rate"] = attributes["_learning_rate"], 0.5
    try:
        yield
    finally:
        attributes["_learning_rate"] = held
