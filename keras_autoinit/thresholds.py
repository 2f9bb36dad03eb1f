"""Every number that a measured one is held against, with its reason, and the finding that says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keras_autoinit.findings import Finding
from keras_autoinit.readings import Reading, WeightReading

Rows = Sequence[Reading]


@dataclass(frozen=True)
class Threshold:
    """A number that a measured one is held against, and why it is that number."""

    value: float
    reason: str


DEAD = Threshold(
    0.75,
    "Without a bias half of the units are off for one sample, and for all of them once the samples look alike; "
    "three quarters is no chance.",
)
SATURATED = Threshold(
    0.2,
    "A unit normal puts under 1 % of tanh that near its bounds; a fifth takes pre-activations twice as large.",
)
VANISHED = Threshold(
    1e-6, "A thousandth in size: beside it, biases and rounding errors of single precision are no longer small."
)
EXPLODED = Threshold(
    1e6, "A thousandfold in size: losses and their gradients leave the range that optimizers are made for."
)
GRADIENT_VANISHED = Threshold(
    1e-3, "A thousandth of what later layers get: by the time that those have learned, this one has hardly moved."
)
GRADIENT_EXPLODED = Threshold(1e2, "A hundredfold of what the last layers get: no learning rate suits both ends.")
COLLAPSED = Threshold(
    1e-4,
    "One minus the cosine between samples: they differ by a hundredth of their size, and no layer after restores it.",
)
MISMATCHED = Threshold(1.5, "A factor in size; five layers of it change a signal's power by more than fifty.")
UNFIT = Threshold(
    1.3,
    "A factor in size: Glorot's initializer before a ReLU is off by 1.41, and shrinks the signal by that each layer.",
)
EQUAL_UNITS = Threshold(1.0, "Share of units with weights of their own: equal units get equal gradients for ever.")
NONE_AT_ALL = Threshold(0.0, "One is enough to spoil every sum that it enters.")


def finding(
    kind: str, severity: str, layer: str, value: float, threshold: Threshold, measure: str, advice: str
) -> Finding:
    """Returns a finding, with the reason of its threshold."""
    return Finding(kind, severity, layer, float(value), threshold.value, advice, measure, threshold.reason)


def each_weight(rows: Rows) -> Iterator[tuple[Reading, WeightReading]]:
    """Yields each weight once, with the first row that computes with it."""
    seen: set[str] = set()
    for row in rows:
        for weight in row.weights:
            if weight.path not in seen:
                seen.add(weight.path)
                yield row, weight
