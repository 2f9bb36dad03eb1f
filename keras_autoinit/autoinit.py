"""`AutoInit`: choose a method, call it, carry out the plan."""

from __future__ import annotations

import dataclasses
import secrets
import warnings
from typing import Any

import keras

from keras_autoinit.duplicates import drawn_apart
from keras_autoinit.errors import PlanError, TrainedModelError, TrainedModelWarning
from keras_autoinit.graphs import Graph, is_unseen
from keras_autoinit.methods import Method, method_of
from keras_autoinit.plans import Plan
from keras_autoinit.portability import portable
from keras_autoinit.rewriting import rewrite
from keras_autoinit.selection import Selection


class AutoInit(keras.callbacks.Callback):
    """Gives every weight of a model the right start.

    When to use: before the first training of a model, on the model itself (`apply`) or as a
    callback of `fit`, which applies once at the start of the first training.

    Args:
        method: `"table"`, or `Table(...)` with rows of your own; `"theory"`, or `Theory(...)` with
            options: each scale is then solved from predicted signals; `"data"`, or `Data(...)`: scales
            are set by what the layers do to real samples, which `apply` is then given.
        seed: an integer that names the whole model's draw; each weight's own seed is derived from
            it and the weight's place. `None` draws a fresh one, which the plan records.
        include: which layers to touch: names, glob patterns (`"encoder/*"`), layer classes,
            predicates on a layer, or a list of these; all when not given. A container's name
            stands for all that it holds.
        exclude: which layers to leave alone, likewise.
        overwrite: go ahead on a model that looks trained. The optimizer, and weights that start
            from a constant (biases, normalizations, moving averages), then start afresh too, but
            for what is frozen or left out.
        portable: leave stock Keras initializers with explicit numbers on the layers, so that the
            saved model loads where this package is not installed. The weights of layers that are
            built are the same; others are drawn by Keras when they are built.

    Raises:
        SelectionError: `method`, `include` or `exclude` is none of these.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "relu", name="hidden")])
        >>> plan = AutoInit(seed=1).apply(model)
        >>> plan["hidden/kernel"].new
        autoinit>he_normal
    """

    def __init__(
        self,
        method: str | Method = "table",
        *,
        seed: int | None = None,
        include: Any = None,
        exclude: Any = None,
        overwrite: bool = False,
        portable: bool = False,
    ) -> None:
        super().__init__()
        self.method = method_of(method)
        self.seed = seed
        self.selection = Selection.of(include, exclude)
        self.overwrite = overwrite
        self.portable = portable
        self.last_plan: Plan | None = None

    def plan(self, model: keras.Model, inputs: Any = None) -> Plan:
        """Decides what each weight of a model should be drawn from; changes nothing.

        Args:
            model: any Keras model, built or not.
            inputs: what the model is called on: an array, a tensor or a `keras.Input`, or a structure
                of these. Needed only for a subclassed model that has never been called, which is then
                built for it; without it the plan has no rows for weights that do not exist yet. For
                the method `"data"`, the samples: see `Data`.

        Raises:
            ModelTypeError: `model` is no Keras model.
            SelectionError: a selector selects none of its layers.
            DataError: the method needs samples, and there are none.
        """
        return self._planned(model, inputs)[1]

    def apply(self, model: keras.Model, inputs: Any = None, *, plan: Plan | None = None) -> Plan:
        """Decides, rewrites the model in place, and returns the plan.

        All or nothing: after an error the model is as it was. Layers that are built get fresh
        weights, others draw when they are built. A compiled model stays compiled.

        Args:
            model: any Keras model, built or not.
            inputs: what the model is called on, as for `plan`.
            plan: carry out this plan, with the seed that it names, instead of a new one.

        Raises:
            ModelTypeError: `model` is no Keras model.
            TrainedModelError: the model looks trained, and `overwrite` is not set.
            PlanError: `plan` does not fit the model.
            SelectionError: a selector selects none of its layers.
        """
        if plan is None:
            graph, plan = self._planned(model, inputs)
        elif not isinstance(plan, Plan):
            raise PlanError(f"Expected `plan` to be a Plan. Received: {plan!r}.")
        else:
            graph, plan = self.method.read(model, inputs), self._stored(plan)
        rewrite(plan, model, graph.places, self.overwrite, self.selection)
        self.last_plan = plan
        return plan

    def on_train_begin(self, logs: Any = None) -> None:
        """Applies at the start of the first `fit`; leaves a trained model alone, with a warning."""
        if self.last_plan is not None:
            return
        try:
            self.apply(self.model)
        except TrainedModelError as error:
            warnings.warn(f"AutoInit left the model alone. {error}", TrainedModelWarning, stacklevel=2)

    def _planned(self, model: keras.Model, inputs: Any) -> tuple[Graph, Plan]:
        seed = secrets.randbits(31) if self.seed is None else int(self.seed)
        graph, rows, told = self.method.decided(model, inputs, self.selection, seed)
        rows = drawn_apart(rows, graph.places)
        return graph, self._stored(Plan(rows, (*_notes(graph, rows, self.portable), *told), seed))

    def _stored(self, plan: Plan) -> Plan:
        """Returns the plan with what the layers are to say afterwards."""
        return dataclasses.replace(plan, decisions=tuple(map(portable, plan))) if self.portable else plan


def _notes(graph: Graph, rows: Any, portable_: bool) -> list[str]:
    notes = []
    unbuilt = sum(row.shape is None and row.changed for row in rows)
    if unbuilt:
        notes.append(f"{unbuilt} weights are not built yet: they are drawn when their layers are.")
    named = sum(not row.changed and row.old.name.startswith("autoinit>") for row in rows)
    if portable_ and named:
        notes.append(f"{named} weights that are kept name schemes of this package: the saved file will need it.")
    for place in filter(is_unseen, graph.places):
        notes.append(
            f"{place.path!r} is not built, and what weights it will make is not known: give `inputs`, what the model "
            "is called on, or pass AutoInit() to `fit` as a callback."
        )
    for part in graph.opaque:
        notes.append(
            f"What happens inside {part.path!r} was not seen ({part.reason}): its layers were judged one by one."
        )
    return notes
