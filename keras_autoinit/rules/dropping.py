"""Entries and samples that training drops, and the noise that it adds."""

from __future__ import annotations

import dataclasses
import math

from keras_autoinit.rules.base import Context, Effect, Gradients, for_layers
from keras_autoinit.signals import Near, Signal
from keras_autoinit.sizes import NOTHING, Dropped, product


@for_layers("Dropout", "GaussianDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
def dropout(context: Context) -> Effect:
    """Drops entries in training and enlarges the others: the second moment grows, the agreement stays.

    Where whole samples are dropped, what they are added to is all there is of them, and no gradient comes back.
    """
    rate = float(context.layer.rate)
    growth = 1 / (1 - rate)
    rank = len(context.signal.along)
    shape = tuple(getattr(context.layer, "noise_shape", None) or ())
    # One draw for all entries of an axis: of positions, or of whole samples, as in stochastic depth.
    spatial = type(context.layer).__name__.startswith("Spatial")
    together = [axis for axis in range(1, rank) if (spatial and axis < rank - 1) or shape[axis : axis + 1] == (1,)]
    whole = rate > 0 and together == list(range(1, rank))
    key = Dropped(id(context.call), rate)

    def dropped(signal: Signal) -> Signal:
        along = tuple(growth * value if axis in together else value for axis, value in enumerate(signal.along))
        made = Signal(signal.second_moment * growth, signal.mean, along, profile=signal.profile, apart=signal.apart)
        near = signal.near and _dropped_near(signal.near, growth, set(signal.near.axes) <= set(together))
        sizes = product([signal.sizes or {}, {key: NOTHING}]) if whole else signal.sizes or {}
        return dataclasses.replace(made, patterns=signal.patterns, near=near, sizes=sizes)

    def backward(gradients: Gradients) -> Gradients:
        gradient = gradients[0]
        if gradient is None:
            return (None,)
        if whole:
            # Samples that are dropped are small from there on, and so is their gradient: more comes back to others.
            larger = math.exp((gradient.sizes or {}).get(key, 0.0))
            kept = larger / ((1 - rate) * larger + rate)
            gradient = dataclasses.replace(gradient.times(math.sqrt(kept)), sizes=gradient.sizes)
        return (dropped(gradient),)

    return Effect((dropped(context.signal),), backward)


def _dropped_near(near: Near, growth: float, together: bool) -> Near:
    """Returns how far neighbours agree where entries, or all positions of a sample together, are dropped."""
    same = growth * near.same if together else near.same.copy()
    same.ravel()[0] = growth * near.same.ravel()[0]
    return dataclasses.replace(near, same=same)


@for_layers("GaussianNoise")
def noise(context: Context) -> Effect:
    """Adds noise in training."""
    signal = context.signal
    made = Signal(signal.second_moment + float(context.layer.stddev) ** 2, signal.mean, signal.along)
    return Effect((made,), lambda gradients: gradients)
