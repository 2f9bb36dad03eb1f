"""What the zoo's table says of each model, and how it is written and read: docs/zoo.md."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from specimens import Specimen

from keras_autoinit import AutoInit
from keras_autoinit.graphs import read
from keras_autoinit.plans import Decision, Plan
from keras_autoinit.rendering import markdown_table

PATH = Path(__file__).parent.parent / "docs" / "zoo.md"
COLUMNS = ("model", "family", "weights", "decided", "opaque parts", "seconds")
LEFT_COLUMNS = ("model", "weight", "why it is left")

# Roles that start as their layer says, which is a decision too; listed here, and not taken from the package, so that
# the package cannot call anything decided.
KEPT_ON_PURPOSE = frozenset({"adapter", "bias", "constant", "fourier", "scale", "slope"})
NO_ROW = "It has no row."


@dataclass(frozen=True)
class Line:
    """One model of the table.

    Attributes:
        model: its name in the zoo.
        family: image, text, ...
        weights: how many trainable weights of two or more dimensions it has.
        opaque: how many of its parts could not be read.
        left: the weights that are not decided, with the reason that their rows give.
        seconds: that the plan took.
    """

    model: str
    family: str
    weights: int
    opaque: int
    left: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def decided(self) -> int:
        return self.weights - len(self.left)

    @property
    def facts(self) -> tuple[Any, ...]:
        """All but the seconds."""
        return (self.model, self.family, self.weights, self.opaque, self.left)

    def cells(self) -> tuple[str, ...]:
        counts = map(str, (self.weights, self.decided, self.opaque))
        return (self.model, self.family, *counts, f"{self.seconds:.2f}")


def measure(specimen: Specimen, model: keras.Model) -> tuple[Line, Plan]:
    """Plans a model, and says what its line in the table is."""
    start = time.perf_counter()
    plan = AutoInit(seed=0).plan(model)
    seconds = time.perf_counter() - start
    wanted, rows = matrices(model), rows_of(model, plan)
    left = [left_over(variable, rows.get(id(variable), [])) for variable in wanted]
    found = tuple(pair for pair in left if pair is not None)
    return Line(specimen.name, specimen.family, len(wanted), len(read(model).opaque), found, seconds), plan


def matrices(model: keras.Model) -> list[keras.Variable]:
    """Returns the weights that must have a row: trainable, of two or more dimensions."""
    return [variable for variable in model.trainable_weights if len(variable.shape) >= 2]


def rows_of(model: keras.Model, plan: Plan) -> dict[int, list[Decision]]:
    """Returns the plan's rows by the identity of the variables that they are about: several where one is shared."""
    rows: dict[int, list[Decision]] = defaultdict(list)
    for place in read(model).places:
        for slot in place.slots:
            rows[id(slot.variable(place.layer))].append(plan[f"{place.path}/{slot.weight}"])
    return rows


def left_over(variable: keras.Variable, rows: list[Decision]) -> tuple[str, str] | None:
    """Returns a weight's place and why nothing was decided on it; `None` if something was."""
    if not rows:
        return variable.path, NO_ROW
    return None if any(row.changed or row.role in KEPT_ON_PURPOSE for row in rows) else (rows[0].path, rows[0].reason)


# --- The file ---


def versions() -> str:
    """Returns what the table was made with: other versions have other layers inside."""
    hub = importlib.metadata.version("keras-hub") if importlib.util.find_spec("keras_hub") else "none"
    return f"Keras {keras.__version__}, Keras Hub {hub}"


def write(lines: Iterable[Line]) -> None:
    """Writes the table, sorted by family and name."""
    rows = sorted(lines, key=lambda line: (line.family, line.model))
    total, decided = sum(line.weights for line in rows), sum(line.decided for line in rows)
    left = [(line.model, f"`{path}`", reason) for line in rows for path, reason in line.left]
    text = TEXT.format(
        versions=versions(),
        models=len(rows),
        total=total,
        decided=decided,
        share=100 * decided / max(total, 1),
        table=markdown_table(COLUMNS, [line.cells() for line in rows]),
        left=markdown_table(LEFT_COLUMNS, left) if left else "None.",
    )
    PATH.parent.mkdir(exist_ok=True)
    # Whole or not at all: the next line is added to what is there.
    draft = PATH.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(PATH)


TEXT = """# The zoo

Models that people use, and what `AutoInit().plan` makes of them: all of `keras.applications`, and the backbones of
Keras Hub that can be built from configuration, small and with random weights.

*Weights* counts the trainable weights of two or more dimensions. A weight is *decided* when the plan draws it anew,
with a reason, or keeps the start that its layer gives it on purpose, as biases and scales do; the others are listed
below the table. *Opaque parts* are layers whose computation cannot be read, so that their weights are judged by their
roles. *Seconds* is what the plan took on one ordinary machine.

Written by `pytest -m slow tests/test_zoo.py --regenerate` with {versions}.

{models} models, {total} weights, {decided} decided: {share:.1f} %.

{table}

## Not decided

{left}
"""


def load() -> dict[str, Line]:
    """Returns the lines that the file has, by model; none while there is no file."""
    if not PATH.exists():
        return {}
    upper, _, lower = PATH.read_text().partition("## Not decided")
    left = [(model, (path.strip("`"), reason)) for model, path, reason in _cells(lower)]
    return {cells[0]: _line(cells, [pair for model, pair in left if model == cells[0]]) for cells in _cells(upper)}


def _line(cells: list[str], left: list[tuple[str, str]]) -> Line:
    model, family, total, _, opaque, seconds = cells
    return Line(model, family, int(total), int(opaque), tuple(left), float(seconds))


def _cells(text: str) -> Iterator[list[str]]:
    """Yields the rows of a table in Markdown, without its head."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    yield from rows[2:]


def made_with() -> str:
    """Returns the versions that the file names."""
    found = re.search(r"with (Keras .*)\.$", PATH.read_text(), re.MULTILINE) if PATH.exists() else None
    return found[1] if found else ""
