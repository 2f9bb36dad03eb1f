"""Readings made by hand, for tests of what judges them: a sound layer, but for what a test says."""

from __future__ import annotations

from typing import Any

from keras_autoinit.readings import Reading, Signals, WeightReading

SOUND_WEIGHT = {"role": "kernel", "shape": (64, 64), "initializer": "he_normal()"} | dict.fromkeys(
    ("std", "expected_std", "counted_std"), 0.2
)
SOUND = {"kind": "dense", "activation": "relu", "shape": (16, 64), "cosine": 0.5} | dict.fromkeys(
    ("second_moment", "gradient", "sensitivity"), 1.0
)


def weight(path: str = "dense/kernel", **fields: Any) -> WeightReading:
    """A kernel from He's initializer, as that draws it."""
    return WeightReading(path, **{**SOUND_WEIGHT, **fields})


def row(path: str = "dense", *weights: WeightReading, **fields: Any) -> Reading:
    """A dense layer with a ReLU that keeps its signal, its gradient and its samples apart."""
    return Reading(path, weights=weights or (weight(f"{path}/kernel"),), **{**SOUND, **fields})


def chain(field: str, *values: float, **fields: Any) -> tuple[Reading, ...]:
    """Layers `d0`, `d1`, ... of which one number is given."""
    return tuple(row(f"d{i}", **{field: value}, **fields) for i, value in enumerate(values))


def signals(*rows: Reading, **fields: Any) -> Signals:
    """What was measured: these rows."""
    return Signals(rows, model="by hand", samples=16, **fields)


def above(value: float) -> float:
    """A number next above another."""
    return value * (1 + 1e-9)


def below(value: float) -> float:
    """A number next below another."""
    return value * (1 - 1e-9)
