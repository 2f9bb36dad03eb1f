"""A report's numbers and findings as the cells of a table."""

from __future__ import annotations

from keras_autoinit.findings import Finding
from keras_autoinit.readings import Reading

FINDING_COLUMNS = ("severity", "kind", "layer", "measured", "threshold", "advice")
SIGNAL_COLUMNS = (
    "layer", "kind", "activation", "mean", "std", "dead", "saturated", "rank", "cosine",
    "gradient", "sensitivity", "weight std", "update / weight",
)  # fmt: skip


def finding_cells(finding: Finding) -> tuple[str, ...]:
    """Returns the row of a table under `FINDING_COLUMNS`."""
    measured = f"{finding.measure} {number(finding.value)}".strip()
    return (finding.severity, finding.kind, finding.layer, measured, number(finding.threshold), finding.advice)


def signal_cells(row: Reading) -> tuple[str, ...]:
    """Returns the row of a table under `SIGNAL_COLUMNS`."""
    spreads = " ".join(number(weight.std) for weight in row.weights)
    return (
        row.path,
        row.kind,
        row.activation,
        number(row.mean),
        number(row.std),
        percent(row.dead),
        percent(row.saturated),
        number(row.effective_rank),
        number(row.cosine),
        number(None if row.gradient is None else row.gradient**0.5),
        number(row.sensitivity),
        spreads,
        number(row.update_ratio),
    )


def number(value: float | None) -> str:
    """Returns a number to three digits, nothing for none."""
    return "" if value is None else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Returns a share in percent, nothing for none."""
    return "" if value is None else f"{100 * value:.0f} %"
