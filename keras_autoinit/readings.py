"""What was measured, one row for each weighted layer and each activation: plain frozen data, JSON both ways."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keras_autoinit.errors import ReportError


@dataclass(frozen=True)
class WeightReading:
    """What a weight holds, and the gradient there.

    Attributes:
        path: names of the containers, the layer and the weight, joined by `/`.
        role: `kernel`, `recurrent`, `depthwise`, `query`, ...
        shape: the weight's shape.
        initializer: what it is drawn from, as text.
        finite: whether it holds no NaN and no infinity.
        std: standard deviation of its numbers.
        expected_std: the one that its initializer means, counted with the fans of its role; `None`
            where that is not known or the model has been trained.
        counted_std: the one that it draws with the fans that Keras counts, likewise.
        suggested_std: the one that the recommendation table asks for, likewise.
        suggestion: the scheme that the table recommends.
        constant: the one number that all its entries are, if they are.
        distinct: share of its units whose incoming weights no other unit has, from `1 / units` to 1;
            `None` where units are not compared.
        equal_to: path of another weight that is equal to the bit.
        gradient: second moment of the loss's gradient there, if one reaches it.
        update_ratio: root mean square of the optimizer's first step over that of the weight, if the
            model is compiled with an optimizer of a kind that is known.
    """

    path: str
    role: str
    shape: tuple[int, ...]
    initializer: str = ""
    finite: bool = True
    std: float | None = None
    expected_std: float | None = None
    counted_std: float | None = None
    suggested_std: float | None = None
    suggestion: str = ""
    constant: float | None = None
    distinct: float | None = None
    equal_to: str | None = None
    gradient: float | None = None
    update_ratio: float | None = None

    @property
    def is_zero(self) -> bool:
        """Whether all its entries are zero."""
        return self.constant == 0


@dataclass(frozen=True)
class Histogram:
    """How a tensor's numbers are spread: counts of a sample of them, in bins of one width.

    Attributes:
        low: where the first bin begins.
        high: where the last bin ends.
        counts: how many numbers each bin holds.
    """

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """One weighted layer or activation: what it puts out, and the gradient there.

    Attributes:
        path: where it stands.
        kind: the class of the layer or operation, in snake case.
        activation: what it applies, a name; empty for nothing.
        feeds: what its output meets first: `activation`, `normalization`, `merge`, `output` or `other`.
        shape: of its output, batch first.
        finite: whether its output holds no NaN and no infinity.
        mean: of its output.
        std: standard deviation of its output.
        second_moment: mean square of its output.
        dead: share of its units that put out zero for every sample (ReLU family).
        saturated: share of its outputs within a hundredth of the bounds (bounded family).
        effective_rank: how many directions the samples take up, from 1 to their number.
        cosine: mean cosine between two samples, -1 to 1.
        gradient: second moment of the loss's gradient at its output.
        sensitivity: length of the gradient times root mean square of the signal, relative to those at the
            model's output: how much a small random change here, in proportion to the signal, matters to the loss.
        aside: whether no gradient arrives at all, and the signal reaches the model's output by another way.
        predicted_second_moment: what theory says of a model with these weights on unit normal input.
        predicted_gradient: likewise, for unit gradients at the model's output.
        histogram: of its output.
        weights: those that it computes with.
    """

    path: str
    kind: str
    activation: str = ""
    feeds: str = "other"
    shape: tuple[int, ...] = ()
    finite: bool = True
    mean: float | None = None
    std: float | None = None
    second_moment: float | None = None
    dead: float | None = None
    saturated: float | None = None
    effective_rank: float | None = None
    cosine: float | None = None
    gradient: float | None = None
    sensitivity: float | None = None
    aside: bool = False
    predicted_second_moment: float | None = None
    predicted_gradient: float | None = None
    histogram: Histogram | None = None
    weights: tuple[WeightReading, ...] = ()

    @property
    def weight_gradient(self) -> float | None:
        """Second moment of the gradient over all its weights."""
        known = [(one.gradient, math.prod(one.shape)) for one in self.weights if one.gradient is not None]
        return sum(value * size for value, size in known) / sum(size for _, size in known) if known else None

    @property
    def update_ratio(self) -> float | None:
        """The largest of its weights' ratios of update to weight."""
        return max((one.update_ratio for one in self.weights if one.update_ratio is not None), default=None)


@dataclass(frozen=True)
class Signals:
    """Every row, in the order of computation, and what they are measured on.

    Iterates over its rows; `signals["block/dense"]` finds one by path.

    Attributes:
        rows: one for each weighted layer and each activation.
        model: the model's name.
        samples: how many samples were used.
        data: `given`, or `drawn` from the model's input specification.
        labels: `given`, or `random`: a random gradient was sent back from the output.
        input_second_moment: mean square of the inputs that are no tokens; 1 where there are none.
        input_cosine: mean cosine between two samples of them, if there are any.
        trained: whether the model looks trained, so that its weights are no longer its initializers'.
        notes: full sentences on what the rows cannot say.
    """

    rows: tuple[Reading, ...]
    model: str = ""
    samples: int = 0
    data: str = "given"
    labels: str = "given"
    input_second_moment: float = 1.0
    input_cosine: float | None = None
    trained: bool = False
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Reading]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, path: str) -> Reading:
        for row in self.rows:
            if row.path == path:
                return row
        near = [row.path for row in self.rows if str(path) in row.path][:5]
        hint = f" Paths that contain it: {', '.join(near)}." if near else ""
        raise ReportError(f"There is no layer with the path {path!r} among the {len(self)} measured.{hint}")


def to_plain(record: Any) -> dict[str, Any]:
    """Returns a record as JSON has it: what is not known is left out, no NaN, no infinity."""
    return {key: _plain(value) for key, value in _fields(record).items() if value is not None}


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    # JSON knows neither.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def from_plain(kind: type, plain: Mapping[str, Any]) -> Any:
    """Returns the record that `to_plain` wrote."""
    known = {field.name for field in dataclasses.fields(kind)}
    # Of a younger version: what it says besides is not needed.
    return kind(**{key: _thick(key, value) for key, value in plain.items() if key in known})


# Which a person may have called "nan".
_TEXTS = frozenset({"activation", "initializer", "kind", "layer", "model", "path", "role"})
_RECORDS: dict[str, type] = {"rows": Reading, "weights": WeightReading}


def _thick(key: str, value: Any) -> Any:
    if key in _RECORDS:
        return tuple(from_plain(_RECORDS[key], entry) for entry in value)
    if key == "histogram":
        return from_plain(Histogram, value)
    if isinstance(value, list):
        return tuple(value)
    return float(value) if value in ("nan", "inf", "-inf") and key not in _TEXTS else value
