"""The ways from a model to decisions: what they share, and where each is found by its name."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, runtime_checkable

from keras_autoinit.errors import SelectionError
from keras_autoinit.graphs import Graph, read
from keras_autoinit.plans import Decision
from keras_autoinit.selection import Selection

# By module, so that what a program does not ask for is not loaded either.
METHODS = {
    "data": ("by_data", "Data"),
    "table": ("by_table", "Table"),
    "theory": ("by_theory", "Theory"),
}


@runtime_checkable
class Method(Protocol):
    """A way from a model to decisions. It owns its options; a new way is a new class."""

    def read(self, model: Any, inputs: Any) -> Graph:
        """Returns the model as it is read when a plan is at hand already."""

    def decided(
        self, model: Any, inputs: Any, selection: Selection, seed: int
    ) -> tuple[Graph, tuple[Decision, ...], tuple[str, ...]]:
        """Returns the model as it was read, one decision for each weight, and what there is to say on the whole."""


class FromGraph:
    """A method that needs nothing but the model: it says in `solve` what it decides."""

    def read(self, model: Any, inputs: Any) -> Graph:
        """Returns the model as this method reads it."""
        return read(model, inputs)

    def decided(
        self, model: Any, inputs: Any, selection: Selection, seed: int
    ) -> tuple[Graph, tuple[Decision, ...], tuple[str, ...]]:
        """Returns the model as it was read, one decision per weight, and notes on the whole."""
        graph = read(model, inputs)
        selection.check(graph.places)
        return graph, *self.solve(graph, selection)

    def solve(self, graph: Graph, selection: Selection) -> tuple[tuple[Decision, ...], tuple[str, ...]]:
        """Returns one decision per weight, and notes on the whole; looks, runs and changes nothing."""
        raise NotImplementedError


def method_of(method: Any) -> Method:
    """Returns a method by its name, or the object that is one already.

    Raises:
        SelectionError: it is neither.
    """
    if isinstance(method, str) and method in METHODS:
        module, name = METHODS[method]
        made: Method = getattr(importlib.import_module(f"keras_autoinit.{module}"), name)()
        return made
    if isinstance(method, Method) and not isinstance(method, type):
        return method
    names = ", ".join(repr(name) for name in sorted(METHODS))
    raise SelectionError(
        f"Expected `method` to be one of {names}, or an instance of Data, Table or Theory. Received: {method!r}."
    )
