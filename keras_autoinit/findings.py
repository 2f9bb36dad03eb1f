"""A finding: one fault, the layer that has it, the number that shows it, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from keras_autoinit.errors import ReportError

KINDS = {
    "vanishing_signal": "The signal dies out on its way forward.",
    "exploding_signal": "The signal grows beyond bounds on its way forward.",
    "vanishing_gradient": "The gradient dies out on its way back.",
    "exploding_gradient": "The gradient grows beyond bounds on its way back.",
    "no_gradient": "Nothing that the loss sees depends on it.",
    "dead_units": "Units put out zero for every sample.",
    "saturated_units": "Outputs are stuck at the bounds of their activation.",
    "symmetric_units": "Units, or projections, hold the same weights and will always learn the same.",
    "zero_weights": "All weights are zero.",
    "shared_weights": "Two layers were drawn from one seed and hold the same weights.",
    "fan_mismatch": "The weights are not of the size that their initializer means: it counts the inputs wrongly.",
    "collapsed_directions": "All samples look the same.",
    "unfit_scheme": "The initializer is not of a kind that suits the activation.",
    "non_finite": "There are NaN or infinite values.",
}
# The worst first.
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: one of `KINDS`.
        severity: `error` (it will not train as it is), `warning` (it may not), or `info`.
        layer: path of the layer or weight that has it.
        value: the number that shows it.
        threshold: what that number was held against.
        advice: one sentence on what to do.
        measure: what the number is, in words.
        reason: why the threshold has its value.

    Example:
        >>> Finding("dead_units", "error", "dense", 1.0, 0.75, "Lower the bias.", "share of dead units").measure
        'share of dead units'
    """

    kind: str
    severity: str
    layer: str
    value: float
    threshold: float
    advice: str
    measure: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ReportError(f"Expected a kind of finding ({', '.join(sorted(KINDS))}). Received: {self.kind!r}.")
        if self.severity not in SEVERITIES:
            raise ReportError(f"Expected a severity ({', '.join(sorted(SEVERITIES))}). Received: {self.severity!r}.")

    def __str__(self) -> str:
        return f"{self.severity}: {self.kind} at {self.layer}: {self.measure} {self.value:.3g}. {self.advice}"
