"""`Report`: what was measured and what is wrong with it, for people, tests and other programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_autoinit.errors import ReportError, UnhealthyModelError
from keras_autoinit.findings import SEVERITIES, Finding
from keras_autoinit.pages import page_of, table_of
from keras_autoinit.plans import plain_table
from keras_autoinit.plotting import plotted
from keras_autoinit.readings import Reading, Signals, from_plain, to_plain
from keras_autoinit.words import FINDING_COLUMNS, SIGNAL_COLUMNS, finding_cells, signal_cells

# Raised when the meaning of a stored field changes.
FORMAT = 1
# Rows of signals that the text shows of a model without faults, and around each fault.
SHOWN = 12


@dataclass(frozen=True)
class Report:
    """What was measured, and what is wrong with it.

    When to use: `diagnose` returns one. `print(report)` for the findings and numbers, `report.plot()`
    for a figure, `report.save_html(path)` for a page, `report.raise_if_unhealthy()` in a test.

    Attributes:
        signals: a row for each weighted layer and activation.
        findings: the faults, the worst first.

    Example:
        >>> report = Report(Signals(()), ())
        >>> report.healthy
        True
    """

    signals: Signals
    findings: tuple[Finding, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, path: str) -> Reading:
        return self.signals[path]

    @property
    def healthy(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(finding.severity == "info" for finding in self.findings)

    @property
    def worst(self) -> str | None:
        """The severity of the worst finding, `None` where there is none."""
        return min((finding.severity for finding in self.findings), key=SEVERITIES.index, default=None)

    def raise_if_unhealthy(self) -> None:
        """Raises where there is an error or a warning.

        When to use: in tests and in continuous integration.

        Raises:
            UnhealthyModelError: with the findings in its message, and the report itself.
        """
        if not self.healthy:
            faults = "\n".join(f"- {finding}" for finding in self.findings if finding.severity != "info")
            raise UnhealthyModelError(f"Expected a healthy start of {self.signals.model!r}. Found:\n{faults}", self)

    def summary(self) -> str:
        """Returns the report in one line."""
        counts = Counter(finding.severity for finding in self.findings)
        told = ", ".join(f"{counts[each]} {_many(each, counts[each])}" for each in SEVERITIES if counts[each])
        state = "healthy" if self.healthy else "not healthy"
        return f"{self.signals.model}: {state} ({told or 'nothing found'}). {self._measured()}"

    def _measured(self) -> str:
        data = "given" if self.signals.data == "given" else "drawn"
        back = "the loss's gradient" if self.signals.labels == "given" else "a random gradient"
        return f"{len(self.signals)} layers, on {self.signals.samples} {data} samples and {back}."

    def to_json(self, indent: int | None = 2) -> str:
        """Returns the report as JSON text, from which `from_json` makes an equal report."""
        findings = [to_plain(finding) for finding in self.findings]
        data = {"format": FORMAT, "healthy": self.healthy, "findings": findings, "signals": to_plain(self.signals)}
        return json.dumps(data, indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Returns the report that `to_json` wrote.

        Raises:
            ReportError: the text is not JSON, or not a report.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ReportError(f"Expected a report of format {FORMAT}. Received format {data['format']!r}.")
            findings = tuple(from_plain(Finding, finding) for finding in data["findings"])
            return cls(from_plain(Signals, data["signals"]), findings)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, ReportError):
                raise
            raise ReportError(f"Expected the JSON text of a report. Reading it failed: {error!r}.") from error

    def plot(self, layer: str | None = None, path: str | Path | None = None) -> Any:
        """Draws the spread of signal and gradient along depth, or what one layer puts out.

        Args:
            layer: path of a layer, for the histogram of its output.
            path: where to save the figure; the ending says the format.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            MissingExtraError: matplotlib is not installed.
            ReportError: there is no such layer.
        """
        return plotted(self.signals, self.findings, None if layer is None else self.signals[layer], path)

    def save_html(self, path: str | Path, overwrite: bool = False) -> Path:
        """Writes the report as one page that needs no network: figure, findings, sortable table.

        Args:
            path: where to.
            overwrite: replace a file that exists.

        Raises:
            FileExistsError: it exists, and `overwrite` is not set.
        """
        target = Path(path)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists. Pass overwrite=True to replace it.")
        beside = target.with_name(f".{target.name}.part")
        beside.write_text(self.to_html(), encoding="utf-8")
        beside.replace(target)
        return target

    def to_html(self) -> str:
        """Returns the page as text."""
        return page_of(self.signals, self.findings, self.summary())

    def _repr_html_(self) -> str:
        return table_of(self.signals, self.findings, self.summary())

    def __str__(self) -> str:
        found = [finding_cells(finding) for finding in self.findings]
        rows = [signal_cells(row) for row in self.signals]
        lines = [*plain_table(FINDING_COLUMNS, found), ""] if found else []
        return "\n".join([*lines, *plain_table(SIGNAL_COLUMNS, rows), self.summary(), *self.signals.notes])


def _many(severity: str, number: int) -> str:
    return severity if number == 1 or severity == "info" else f"{severity}s"
