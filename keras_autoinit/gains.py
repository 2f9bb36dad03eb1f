"""The scheme and the gain that give a weight its power: fan-in times its second moment."""

from __future__ import annotations

import math
from typing import Literal

from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes import with_axes
from keras_autoinit.slots import Slot

Distribution = Literal["truncated_normal", "normal", "uniform", "orthogonal"]
DISTRIBUTIONS = ("normal", "orthogonal", "truncated_normal", "uniform")


def recipe_of_power(
    distribution: Distribution, slot: Slot, shape: tuple[int, ...] | None, power: float, centred: bool = False
) -> Recipe:
    """Returns what gives a weight its power.

    Args:
        distribution: what weights are drawn from, where their role does not say otherwise.
        slot: the weight.
        shape: of the weight, where it is known.
        power: fan-in times the second moment.
        centred: whether only the centre tap of a convolution is to be not zero.
    """
    if power == 0:
        return Recipe("autoinit>zeros")
    if slot.role == "recurrent":
        return with_axes(Recipe("autoinit>orthogonal", _gain(math.sqrt(power))), slot.axes)
    # The rows of a matrix that widens are longer: its gain depends on a shape that must be known.
    if distribution == "orthogonal" and shape is not None and slot.role not in ("embeddings", "depthwise"):
        taps = math.prod(shape[:-2]) if centred else 1
        gain = _gain(math.sqrt(power * _widening(slot, shape, taps)))
        return with_axes(Recipe(f"autoinit>{'delta_' * centred}orthogonal", gain), slot.axes)
    named = distribution if distribution in ("normal", "uniform") else None
    config = {**_gain(math.sqrt(power)), **({} if named is None else {"distribution": named})}
    return with_axes(Recipe("autoinit>variance_scaling", config), slot.axes)


def multiplied(recipe: Recipe, factor: float) -> Recipe:
    """Returns a recipe with its gain times a factor."""
    config = {name: value for name, value in recipe.config.items() if name != "gain"}
    return Recipe(recipe.name, {**config, **_gain(recipe.config.get("gain", 1.0) * factor)})


def _gain(gain: float) -> dict[str, float]:
    """Returns the argument: six digits, so that a plan is the same on every backend."""
    rounded = float(f"{gain:.6g}")
    return {} if rounded == 1.0 else {"gain": rounded}


def _widening(slot: Slot, shape: tuple[int, ...], taps: int) -> float:
    """Returns columns over rows where an orthogonal matrix has more columns: each row's length is then one."""
    if slot.axes is None:
        return 1.0
    rows = math.prod(shape[axis] for axis in slot.axes.inputs) / taps
    columns = math.prod(shape[axis] for axis in slot.axes.outputs if axis not in slot.axes.inputs)
    return max(1.0, columns / slot.axes.blocks / max(rows, 1))
