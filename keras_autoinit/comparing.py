"""Two reports in one figure: what a change did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_autoinit.errors import ReportError
from keras_autoinit.plotting import compared
from keras_autoinit.reports import Report


def compare_reports(
    before: Report, after: Report, names: tuple[str, str] = ("before", "after"), path: str | Path | None = None
) -> Any:
    """Draws two reports in one figure: signal and gradient along depth, before and after a change.

    When to use: to see, and to show, what another initialization did to a network.

    Args:
        before: the report of the network as it was.
        after: that of the network as it is.
        names: what to call them.
        path: where to save the figure; the ending says the format.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ReportError: one of them is no report.
    """
    for given in (before, after):
        if not isinstance(given, Report):
            raise ReportError(f"Expected two reports, as `diagnose` returns them. Received: {given!r}.")
    return compared(before.signals, after.signals, names, path)
