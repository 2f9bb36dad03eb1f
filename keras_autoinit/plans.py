"""A plan is a list of decisions, one per weight.

What it is drawn from now, what it should be drawn from, and why. Analysis writes plans, rewriting
carries them out, reports show them. Everything here is plain frozen data.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import html
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_autoinit.errors import PlanError, SelectionError
from keras_autoinit.recipes import Recipe

# Raised when the meaning of a stored field changes.
FORMAT = 1


@dataclass(frozen=True)
class Decision:
    """One weight: what it is drawn from now, what it should be drawn from, and why.

    Attributes:
        path: names of the containers, the layer and the weight, joined by `/`.
        role: `kernel`, `recurrent`, `depthwise`, `pointwise`, `embeddings`, `query`, ...
        shape: the weight's shape, or `None` while the layer is not built.
        fan_in: how many terms one output sums over (a count, fractional for strided transposed
            convolutions), or `None` while the layer is not built.
        fan_out: how many outputs one input reaches, likewise.
        feeds: what the signal meets next: `relu`, `batch_normalization -> relu`, `output`, ...
        old: what the weight is drawn from now.
        new: what it should be drawn from; equal to `old` where nothing is to change.
        reason: one sentence.
        stored: what the layer's argument is to say afterwards, where that is not `new`
            (`portable=True`).
        output_std: predicted or measured standard deviation of the layer's output.
        gradient_factor: predicted or measured factor on the squared gradient.
    """

    path: str
    role: str
    shape: tuple[int, ...] | None
    fan_in: float | None
    fan_out: float | None
    feeds: str
    old: Recipe
    new: Recipe
    reason: str
    stored: Recipe | None = None
    output_std: float | None = None
    gradient_factor: float | None = None

    @property
    def changed(self) -> bool:
        """Whether the weight is to be drawn anew."""
        return self.new != self.old

    def cells(self) -> tuple[str, ...]:
        """Returns the row of a table under `COLUMNS`."""
        shape = "not built" if self.shape is None else "x".join(map(str, self.shape))
        new = str(self.new) if self.changed else "kept"
        return (self.path, shape, _count(self.fan_in), self.feeds, str(self.old), new, self.reason)


COLUMNS = ("weight", "shape", "fan in", "feeds", "old", "new", "reason")


@dataclass(frozen=True)
class Plan:
    """Decisions, in the order in which the signal meets the weights, and notes on the whole.

    Iterates over its decisions; `plan["conv1/kernel"]` finds one by path.

    Attributes:
        decisions: one per weight.
        notes: full sentences on what the rows cannot say.
        seed: names the whole model's draw: each weight's own seed is derived from it.
    """

    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        twice = [path for path, times in Counter(row.path for row in self.decisions).items() if times > 1]
        if twice:
            raise PlanError(f"A plan holds one decision per weight. Received several for: {', '.join(sorted(twice))}.")

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions)

    def __len__(self) -> int:
        return len(self.decisions)

    def __contains__(self, path: object) -> bool:
        return any(row.path == path for row in self.decisions)

    def __getitem__(self, path: str) -> Decision:
        for row in self.decisions:
            if row.path == path:
                return row
        near = [row.path for row in self.decisions if str(path) in row.path][:5]
        hint = f" Paths that contain it: {', '.join(near)}." if near else ""
        raise PlanError(f"The plan has no weight with the path {path!r}.{hint}")

    @property
    def changes(self) -> tuple[Decision, ...]:
        """The decisions under which a weight is drawn anew."""
        return tuple(row for row in self.decisions if row.changed)

    def replace(self, where: str | Callable[[Decision], bool], recipe: Any) -> Plan:
        """Returns a plan in which some weights are drawn from something else.

        When to use: to overrule a decision before it is carried out.

        Args:
            where: a path, a glob pattern (`"*/recurrent_kernel"`), or a predicate on a decision.
            recipe: an initializer: a name, an instance, or a `Recipe`.

        Raises:
            SelectionError: `where` matches no decision.

        Example:
            >>> row = Decision("head/kernel", "kernel", (8, 2), 8, 2, "output", Recipe("GlorotUniform"),
            ...                Recipe("autoinit>xavier_normal"), "Signals and gradients keep their size.")
            >>> Plan((row,)).replace("head/*", "autoinit>zeros")["head/kernel"].new
            autoinit>zeros
        """
        chosen = where if callable(where) else lambda row: row.path == where or fnmatch.fnmatchcase(row.path, where)
        if not any(chosen(row) for row in self.decisions):
            raise SelectionError(
                f"Expected a path, a pattern or a predicate that some weight of the plan matches. Received: {where!r}."
            )
        new = Recipe.of(recipe)
        return dataclasses.replace(
            self, decisions=tuple(_overruled(row, new) if chosen(row) else row for row in self.decisions)
        )

    def to_json(self, indent: int | None = 2) -> str:
        """Returns the plan as JSON text, from which `from_json` makes an equal plan."""
        rows = [_to_plain(row) for row in self.decisions]
        return json.dumps({"format": FORMAT, "seed": self.seed, "notes": self.notes, "decisions": rows}, indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Returns the plan that `to_json` wrote.

        Raises:
            PlanError: the text is not JSON, or not a plan.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise PlanError(f"Expected a plan of format {FORMAT}. Received format {data['format']!r}.")
            rows = tuple(_from_plain(row) for row in data["decisions"])
            return cls(rows, tuple(data["notes"]), int(data["seed"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"Expected the JSON text of a plan. Reading it failed: {error!r}.") from error

    def summary(self) -> str:
        """Returns the plan in one line."""
        return (
            f"{len(self)} weights: {len(self.changes)} changed, {len(self) - len(self.changes)} kept. Seed {self.seed}."
        )

    def __str__(self) -> str:
        return "\n".join([*plain_table(COLUMNS, [row.cells() for row in self]), self.summary(), *self.notes])

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(line(row.cells(), "td") for row in self.decisions)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return (
            f"<table><caption>{html.escape(self.summary())}</caption><thead>{line(COLUMNS, 'th')}</thead>"
            f"<tbody>{body}</tbody></table>" + (f"<ul>{notes}</ul>" if notes else "")
        )


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in plain text."""
    table = [columns, *rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]


def _overruled(row: Decision, new: Recipe) -> Decision:
    return dataclasses.replace(row, new=new, stored=None, reason="Chosen by hand.")


def _to_plain(row: Decision) -> dict[str, Any]:
    plain = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return {
        key: {"name": value.name, "config": value.config} if isinstance(value, Recipe) else value
        for key, value in plain.items()
        if value is not None
    }


def _from_plain(plain: Mapping[str, Any]) -> Decision:
    fields: dict[str, Any] = {"shape": None, "fan_in": None, "fan_out": None, **plain}
    for name in {"old", "new", "stored"} & fields.keys():
        fields[name] = Recipe(fields[name]["name"], fields[name]["config"])
    if fields["shape"] is not None:
        fields["shape"] = tuple(fields["shape"])
    return Decision(**fields)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
