"""Weights that nobody knows how to draw, but that hold the numbers of another: they must not stay so."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from keras_autoinit.graphs import Place
from keras_autoinit.plans import Decision
from keras_autoinit.recipes import Recipe
from keras_autoinit.recommendations import KEPT
from keras_autoinit.variables import values_of


def drawn_apart(rows: Sequence[Decision], places: Iterable[Place]) -> tuple[Decision, ...]:
    """Returns decisions in which no two weights of unknown use keep equal numbers.

    A layer that hands one seeded initializer to `add_weight` again and again makes them equal. What
    they are for is not known, so the later ones are drawn anew with the spread that they have.

    Args:
        rows: decisions, in the order of the places' weights.
        places: the layers.

    Returns:
        The decisions; those of the later ones say whom they were equal to.
    """
    slots = {f"{place.path}/{slot.weight}": (place, slot) for place in places for slot in place.slots}
    first: dict[bytes, str] = {}
    apart = []
    for row in rows:
        # Not where it was left alone for another reason: frozen, or excluded.
        if row.reason == KEPT["unknown"]:
            place, slot = slots[row.path]
            values = values_of(slot.variable(place.layer))
            twin = first.setdefault(_digest(values), row.path)
            row = row if twin == row.path else _anew(row, values, twin)
        apart.append(row)
    return tuple(apart)


def _digest(values: np.ndarray) -> bytes:
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16)
    digest.update(str(values.shape).encode())
    return digest.digest()


def _anew(row: Decision, values: np.ndarray, twin: str) -> Decision:
    mean, stddev = (float(f"{number:.6g}") for number in (values.mean(), values.std()))
    if not stddev > 0:
        # Equal because constant: that is how it is meant to start.
        return row
    reason = f"Held the very numbers of {twin!r}, drawn by one seeded initializer: drawn anew with its own spread."
    return dataclasses.replace(
        row, new=Recipe("autoinit>random_normal", {"mean": mean, "stddev": stddev}), reason=reason
    )
