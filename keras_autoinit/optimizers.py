"""An optimizer's first state: what its variables hold before it has taken a step.

Reads two names that Keras keeps private, because nothing public tells for which weights an
optimizer was built, and a schedule without a configuration bars the way to all other settings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from keras_autoinit.isolation import apart, without_values


def optimized_variables(optimizer: Any) -> list[Any]:
    """Returns the weights that an optimizer was built for, which may not be those trainable now."""
    return list(_inner(optimizer)._trainable_variables)


def first_state(optimizer: Any) -> Iterator[tuple[Any, Any]]:
    """Yields an optimizer's variables, but for its learning rate, each with what it held at first.

    One at a time, so that the values take no more memory than the largest, where the optimizer
    makes its variables from initializers.
    """
    fresh = _fresh(optimizer)
    weights = optimized_variables(optimizer)
    try:
        apart(lambda: _build_without_values(fresh, weights))
    except ValueError:
        # Some optimizers make a variable from a number, which cannot wait.
        fresh = _fresh(optimizer)
        fresh.build(weights)
    for variable, twin in zip(_averages(optimizer), _averages(fresh), strict=True):
        yield variable, twin.value


def _fresh(optimizer: Any) -> Any:
    with _plain_learning_rate(optimizer):
        return type(optimizer).from_config(optimizer.get_config())


def _build_without_values(optimizer: Any, weights: list[Any]) -> None:
    with without_values():
        optimizer.build(weights)


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
