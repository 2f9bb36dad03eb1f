"""Carries out a plan on a model: all of it, or nothing."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.draws import BLOCK, available_threads, derived_seed
from keras_autoinit.errors import PlanError, TrainedModelError
from keras_autoinit.graphs import Place, shared_argument
from keras_autoinit.optimizers import first_state, optimized_variables
from keras_autoinit.plans import Decision, Plan
from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes import Scheme, make, seed_key, unseeded
from keras_autoinit.selection import Selection
from keras_autoinit.slots import Slot
from keras_autoinit.training import constant_weights, judged_places, signs_of_training


@dataclass(frozen=True)
class Target:
    """A decision and the weight that it is about."""

    row: Decision
    place: Place
    slot: Slot

    @property
    def variable(self) -> Any:
        """The weight itself, or `None` while there is none."""
        return self.slot.variable(self.place.layer)


class Undo:
    """Remembers how to take back what has been done, last first."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], Any]] = []

    def argument(self, layer: Any, name: str, value: Any) -> None:
        """Sets an attribute."""
        old = getattr(layer, name)
        self._steps.append(lambda: setattr(layer, name, old))
        setattr(layer, name, value)

    def variable(self, variable: keras.Variable, value: Any) -> None:
        """Assigns to a variable."""
        # JAX's arrays never change, and copying one would compile once per shape; the others assign in place.
        read = keras.ops.convert_to_tensor if keras.config.backend() == "jax" else keras.ops.copy
        old = read(variable)
        self._steps.append(lambda: variable.assign(old))
        variable.assign(value)

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            with contextlib.ExitStack() as steps:
                # Runs every step, last first, even where one fails.
                for step in self._steps:
                    steps.callback(step)


def rewrite(
    plan: Plan, model: keras.Model, places: Iterable[Place], overwrite: bool = False, selection: Selection | None = None
) -> None:
    """Gives every weight that the plan changes its initializer, and a fresh draw where it is built.

    Args:
        plan: what to do.
        model: the model, changed in place.
        places: its layers.
        overwrite: go ahead on a model that looks trained; its optimizer, and the weights that start
            from a constant, then start afresh too.
        selection: layers outside it are not judged, nor are frozen ones.

    Raises:
        PlanError: a row does not fit the model.
        TrainedModelError: the model looks trained.
        SchemeError: a recipe cannot be made, or does not fit its weight.
    """
    places = tuple(places)
    targets = match(plan, places)
    judged = judged_places(places, selection or Selection())
    signs = signs_of_training(_stepped(model, targets), judged)
    if signs and not overwrite:
        refuse(model, signs)
    with Undo() as undo:
        for target, initializer, values in drawn_ahead(targets, plan.seed):
            _rewrite_one(target, initializer, values, plan.seed, undo)
        _keep_in_step(targets, places, undo)
        if signs:
            _start_afresh(model, judged, undo)


def refuse(model: keras.Model, signs: tuple[str, ...]) -> None:
    """Raises `TrainedModelError`."""
    shown = ", ".join(signs[:10]) + (f" and {len(signs) - 10} more" if len(signs) > 10 else "")
    raise TrainedModelError(
        f"Expected a model that has not been trained. Received {model.name!r}, whose state says that it has: {shown}. "
        "Pass overwrite=True to lose what it has learned.",
        signs,
    )


def match(plan: Plan, places: Iterable[Place]) -> list[Target]:
    """Finds the weight of every row that changes one, or raises `PlanError` on the first misfit."""
    places = tuple(places)
    slots = {f"{place.path}/{slot.weight}": (place, slot) for place in places for slot in place.slots}
    by_path = {place.path: place for place in places}
    slots.update((row.path, found) for row in plan if row.path not in slots and (found := _constant(row, by_path)))
    unbuilt = {place.path for place in places if not place.layer.built}
    for row in plan:
        # What a layer holds beside the weights of its class is known when it is built.
        if row.changed or row.path in slots or row.path.rpartition("/")[0] not in unbuilt:
            _check(row, slots)
    return [Target(row, *slots[row.path]) for row in plan.changes]


def _constant(row: Decision, places: dict[str, Place]) -> tuple[Place, Slot] | None:
    """Returns a weight that methods need not decide on, such as a bias or a moving average, if a row is about it."""
    path, _, weight = row.path.rpartition("/")
    place, argument = places.get(path), f"{weight}_initializer"
    if place is None or not hasattr(place.layer, argument):
        return None
    return place, Slot(row.role, weight, argument, None)


def _check(row: Decision, slots: dict[str, tuple[Place, Slot]]) -> None:
    if row.path not in slots:
        raise PlanError(
            f"Expected the plan to fit the model. Received a plan with the weight {row.path!r}, which the model lacks; "
            f"it has {', '.join(list(slots)[:5])}{', ...' if len(slots) > 5 else ''}. Make a new plan from this model."
        )
    place, slot = slots[row.path]
    variable = slot.variable(place.layer)
    if variable is None and row.changed and not slot.stores:
        raise PlanError(
            f"Expected {row.path!r} to be built, because its layer keeps no initializer for it alone. Received a plan "
            "that draws it anew. Build the model first."
        )
    if variable is not None and row.shape is not None and tuple(variable.shape) != row.shape:
        raise PlanError(
            f"Expected the plan to fit the model. Received a plan in which {row.path!r} has the shape {row.shape}, but "
            f"the model's has {tuple(variable.shape)}. Make a new plan from this model."
        )


def drawn_ahead(targets: list[Target], plan_seed: int) -> Iterator[tuple[Target, keras.Initializer, Any]]:
    """Yields each weight's initializer and values, the next ones drawn while this one is assigned.

    A few at a time, so that the values waiting are never more than a few weights' worth.
    """
    jobs = ((target, make(target.row.new, _seed(target, plan_seed))) for target in targets)
    waiting: deque[tuple[Target, keras.Initializer, Future[Any]]] = deque()
    with ThreadPoolExecutor(available_threads()) as pool:
        for target, initializer in jobs:
            waiting.append((target, initializer, _begun(pool, target, initializer)))
            if len(waiting) > 2 * available_threads():
                target, initializer, values = waiting.popleft()
                yield target, initializer, values.result()
        for target, initializer, values in waiting:
            yield target, initializer, values.result()


def _begun(pool: ThreadPoolExecutor, target: Target, initializer: keras.Initializer) -> Future[Any]:
    """Returns the values to come; handing a small draw to a thread would take longer than drawing."""
    variable = target.variable
    if variable is not None and math.prod(variable.shape) > BLOCK:
        return pool.submit(_values, target, initializer)
    done: Future[Any] = Future()
    done.set_result(_values(target, initializer))
    return done


def _seed(target: Target, plan_seed: int) -> int:
    return derived_seed(plan_seed, seed_key(target.row.new, f"{target.place.key}/{target.slot.weight}"))


def values_of(target: Target, plan_seed: int) -> Any:
    """Returns, as an array, what a weight that is built is given under a plan with this seed."""
    initializer = make(target.row.new, _seed(target, plan_seed))
    values = _values(target, initializer, threads=None)
    if values is None:
        values = keras.ops.convert_to_numpy(initializer(tuple(target.variable.shape), dtype=target.variable.dtype))
    return values


def _values(target: Target, initializer: keras.Initializer, threads: int | None = 1) -> Any:
    """Returns a scheme's values as a NumPy array; others draw when they are assigned."""
    variable = target.variable
    if variable is None or not isinstance(initializer, Scheme):
        return None
    return initializer.array(tuple(variable.shape), variable.dtype, threads=threads)


def _rewrite_one(target: Target, initializer: keras.Initializer, values: Any, plan_seed: int, undo: Undo) -> None:
    row, layer, slot = target.row, target.place.layer, target.slot
    variable = slot.variable(layer)
    if variable is not None:
        if values is None:
            values = initializer(tuple(variable.shape), dtype=variable.dtype)
        undo.variable(variable, keras.ops.convert_to_tensor(values, dtype=variable.dtype))
    if slot.argument is not None and slot.stores:
        stored = initializer if row.stored is None else make(row.stored, _seed(target, plan_seed))
        undo.argument(layer, slot.argument, stored)


def _keep_in_step(targets: list[Target], places: Iterable[Place], undo: Undo) -> None:
    """Lets an attention layer's configuration tell what its projections have, where all have one."""
    by_layer: dict[int, list[Target]] = defaultdict(list)
    for target in targets:
        if shared_argument(target.place) is not None and target.slot.weight == "kernel":
            by_layer[id(target.place.parent)].append(target)
    projections = Counter(id(place.parent) for place in places if any(slot.weight == "kernel" for slot in place.slots))
    for parent, group in by_layer.items():
        recipes = {_without_axes(target.row.stored or target.row.new) for target in group}
        name = shared_argument(group[0].place)
        if name is not None and len(recipes) == 1 and len(group) == projections[parent]:
            undo.argument(group[0].place.parent, name, unseeded(make(recipes.pop(), seed=0)))


def _without_axes(recipe: Recipe) -> Recipe:
    """Returns a recipe without what belongs to one weight: `EinsumDense` fills the axes in."""
    own = {"input_axes", "output_axes", "seed"}
    return Recipe(recipe.name, {key: value for key, value in recipe.config.items() if key not in own})


def _stepped(model: keras.Model, targets: list[Target]) -> Any:
    """Returns the model's optimizer, if it has stepped on a weight that is to be drawn anew."""
    optimizer = getattr(model, "optimizer", None)
    changed = {id(target.slot.variable(target.place.layer)) for target in targets}
    if optimizer is None or not any(id(variable) in changed for variable in optimized_variables(optimizer)):
        return None
    return optimizer


def _start_afresh(model: keras.Model, judged: Iterable[Place], undo: Undo) -> None:
    """Puts back what training has moved: the optimizer, and the weights that start from a constant."""
    for place in judged:
        for variable, start in constant_weights(place.layer):
            undo.variable(variable, keras.ops.broadcast_to(keras.ops.cast(start, variable.dtype), variable.shape))
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        for variable, start in first_state(optimizer):
            undo.variable(variable, start)
