"""What becomes of one weight, from its solved power and the signal that is predicted behind it."""

from __future__ import annotations

import math

from keras_autoinit.by_table import feeds_of, role_of, told
from keras_autoinit.gains import Distribution, recipe_of_power
from keras_autoinit.graphs import Place
from keras_autoinit.plans import Decision
from keras_autoinit.prediction import Prediction
from keras_autoinit.slots import Slot
from keras_autoinit.solving import Solver


def decision(distribution: Distribution, solver: Solver, prediction: Prediction, place: Place, slot: Slot) -> Decision:
    """Returns the row of one weight.

    Args:
        distribution: what weights are drawn from that nobody has chosen a scheme for.
        solver: after it has met the signal.
        prediction: of the signals behind the weights as solved.
        place: where the layer stands.
        slot: the weight.
    """
    key = (id(place.layer), slot.weight)
    variable = slot.variable(place.layer)
    shape = None if variable is None else tuple(variable.shape)
    fan_in, fan_out = (None, None) if shape is None or slot.axes is None else slot.axes.fans(shape)
    old, keep = slot.recipe(place.layer), solver.kept.get(key)
    power = solver.powers.get(key)
    if keep is not None:
        new, reason = old, keep
    elif key in solver.fixed:
        fixed = solver.fixed[key]
        new, reason = fixed.recipe if power is None else fixed.solved(power), fixed.reason
    elif power is None:
        new = recipe_of_power(distribution, slot, shape, 1.0)
        reason = "No signal is seen to meet it: keeps a unit signal."
    else:
        new = recipe_of_power(distribution, slot, shape, power, solver.centred(place.layer, slot))
        reason = solver.why.get(key, "Keeps the signal.")
    if new != old:
        reason = told(slot, reason)
    spread, factor = _predicted(solver, prediction, place, key)
    return Decision(
        f"{place.path}/{slot.weight}",
        role_of(place, slot),
        shape,
        fan_in,
        fan_out,
        str(feeds_of(solver.graph, place, slot)),
        old,
        new,
        reason,
        output_std=spread,
        gradient_factor=factor,
    )


def _predicted(
    solver: Solver, prediction: Prediction, place: Place, key: tuple[int, str]
) -> tuple[float | None, float | None]:
    """Returns the spread of what a weight's call makes, and the squared gradient there."""
    tensors = [tensor for call in solver.uses[key] for tensor in call.outputs[:1]]
    tensors = tensors or solver.graph.made_by(place.layer)[:1]
    signal = next((prediction.signals[tensor] for tensor in tensors if tensor in prediction.signals), None)
    gradient = next((prediction.gradients[tensor] for tensor in tensors if tensor in prediction.gradients), None)
    spread = None if signal is None else float(f"{math.sqrt(signal.variance):.6g}")
    return spread, None if gradient is None else float(f"{gradient.second_moment:.6g}")
