"""Plans and tables for a reader: rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_autoinit.plans import COLUMNS, Plan, plain_table
from keras_autoinit.recommendations import ACTIVATIONS, KEPT, ROLES, Recommendation
from keras_autoinit.reports import Report
from keras_autoinit.schemes import REGISTRY
from keras_autoinit.words import FINDING_COLUMNS, SIGNAL_COLUMNS, finding_cells, signal_cells

_GAINS = {"none": "", "own": "own gain", "slope": "slope in the gain"}


def show_plan(plan: Plan) -> None:
    """Prints a plan."""
    show(COLUMNS, [row.cells() for row in plan], [plan.summary(), *plan.notes])


def show_report(report: Report) -> None:
    """Prints a report: what was measured, then what is wrong with it."""
    show(SIGNAL_COLUMNS, [signal_cells(row) for row in report.signals])
    if report.findings:
        show(FINDING_COLUMNS, [finding_cells(finding) for finding in report])
    for line in (report.summary(), *report.signals.notes):
        print(line)


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = ()) -> None:
    """Prints a table: with rich on a terminal, as plain columns elsewhere."""
    if sys.stdout.isatty():
        _show_rich(columns, rows, footer)
    else:
        print("\n".join([*plain_table(columns, rows), *footer]))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


RECOMMENDATION_COLUMNS = ("activation or role", "scheme", "gain", "reason", "source")


def recommendation_rows() -> list[tuple[str, ...]]:
    """Returns the recommendation table, activations first, then roles, as the README shows it."""
    decided = [_recommendation(name, row) for table in (ACTIVATIONS, ROLES) for name, row in table.items()]
    return [*decided, *((role, "kept", "", reason, "") for role, reason in KEPT.items())]


def _recommendation(name: str, row: Recommendation) -> tuple[str, ...]:
    return (name, row.scheme, _GAINS[row.gain], row.reason, row.source)


SCHEME_COLUMNS = ("scheme", "aliases", "what it is")


def scheme_rows() -> list[tuple[str, ...]]:
    """Returns every scheme with its aliases and the first line of its documentation."""
    schemes = sorted(set(REGISTRY.values()), key=lambda scheme: scheme.names[0])
    return [
        (scheme.names[0], ", ".join(scheme.names[1:]), (scheme.__doc__ or "").splitlines()[0]) for scheme in schemes
    ]


def _show_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str]) -> None:
    # Keras brings rich, and imports it lazily too.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    console.print(table)
    for line in footer:
        console.print(Text(line))
