"""From a graph to decisions by theory: every scale solved from predicted signals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from keras_autoinit.attention import mimetic_start
from keras_autoinit.beforehand import calls_that_fade, faded, mirrored
from keras_autoinit.by_table import kept_weights
from keras_autoinit.decisions import decision
from keras_autoinit.doubts import as_far_as_known, chance_notes, stretch_notes
from keras_autoinit.errors import SchemeError
from keras_autoinit.gains import DISTRIBUTIONS, Distribution
from keras_autoinit.graphs import Graph
from keras_autoinit.linear_start import LinearStart, Part
from keras_autoinit.methods import FromGraph
from keras_autoinit.plans import Decision
from keras_autoinit.positions import tables_start
from keras_autoinit.prediction import Prediction, follow
from keras_autoinit.selection import Selection
from keras_autoinit.solving import Fixed, Residual, Solver
from keras_autoinit.stacks import NAMED

RESIDUALS = ("balanced", "deepnorm", "depth_scaled", "none", "t_fixup", "zero")
ResidualStart = Residual | Literal["deepnorm", "t_fixup"]
AttentionStart = Literal["mimetic", "plain"]
ATTENTIONS = ("mimetic", "plain")
# How attention starts unless asked for, by the evidence in docs/attention.md.
ATTENTION_DEFAULT: AttentionStart = "mimetic"

_OPTIONS = (
    ("attention", ATTENTIONS),
    ("distribution", DISTRIBUTIONS),
    ("linear_start", (True, False, "auto")),
    ("residual", RESIDUALS),
)


@dataclass(frozen=True)
class Theory(FromGraph):
    """Solves each scale from predicted signals: forward, backward, and between two inputs.

    When to use: for networks that no table row describes: unusual activations, deep stacks,
    residual branches without normalization, convolutions with batch normalization. It needs no data;
    shapes make it exact at borders.

    Formula: what meets an activation has a unit second moment, or, in deep stretches, the one at which
    the worst of forward and backward distortion is smallest. A weight in front of a batch
    normalization, which undoes its scale, has a standard deviation of 0.05 at most; a map that a
    convolution puts out has one of 0.2, and signals fade by sqrt(0.5) at each weight on the way to
    it, where that joins a way with a longer one (U-Nets). What a plain network of fewer than 6 dense
    layers says of classes has a spread of 2, unless the model was compiled with another loss than a
    cross-entropy.

    Assumption: weights are independent and layers are wide, so that sums are Gaussian (Poole et
    al. 2016, arXiv 1606.05340; Schoenholz et al. 2017, arXiv 1611.01232).

    Args:
        distribution: `"orthogonal"`, `"truncated_normal"`, `"normal"` or `"uniform"`. Orthogonal
            convolutions are delta-orthogonal in stretches of 30 weights and more. Depthwise kernels
            and embeddings, and weights whose shape is not known yet, are truncated normal where
            others are orthogonal; recurrent kernels are orthogonal in any case.
        residual: `"balanced"`: the branches of a chain of merges together as large as its
            trunk, so that the second moment at most doubles; `"zero"`: branches start at zero
            (Zhang et al. 2019, arXiv 1901.09321; De and Smith 2020, arXiv 2002.10444);
            `"none"`: each branch as large as a unit signal; `"depth_scaled"`: that over the square
            root of how many stand on one trunk (GPT-2, Radford et al. 2019). For transformers only,
            others being balanced: `"t_fixup"` (Huang et al. 2020, for blocks without normalization)
            and `"deepnorm"` (Wang et al. 2022, arXiv 2203.00555, for blocks that end in one, whose
            trunk the model itself multiplies by alpha), which draw the weights of the branches by
            the paper's formula (see `docs/attention.md`).
        linear_start: `"auto"`: mirror the weights of long stretches that can begin as one linear map: of 6
            weights and more, of 60 where the activation is only nearly a line, of 2 (with normalization, 15)
            where there are convolutions, and residual branches of these, but none that branches itself;
            `True`: of every such stretch; `False`: of none. The scales of all others are solved around them. In
            plain deep networks it makes the difference between training and not (see `docs/linear_start.md`).
        attention: `"mimetic"`: the query-key product of each self-attention starts near a positive
            identity, the value-output product near a negative one, and learned positions beside
            words as sinusoids; `"plain"`: as any other weight (see `docs/attention.md`). A paper
            that `residual` names decides on attention itself.

    Raises:
        SchemeError: an option is none of these.

    Example:
        >>> Theory(residual="zero").residual
        'zero'
    """

    distribution: Distribution = "orthogonal"
    residual: ResidualStart = "balanced"
    linear_start: bool | Literal["auto"] = "auto"
    attention: AttentionStart = ATTENTION_DEFAULT

    def __post_init__(self) -> None:
        for name, allowed in _OPTIONS:
            value = getattr(self, name)
            if value not in allowed:
                listed = ", ".join(repr(word) for word in allowed)
                raise SchemeError(f"Expected `{name}` to be one of {listed}. Received: {value!r}.")

    def decide(
        self, graph: Graph, selection: Selection, fixed: Mapping[str, Fixed] | None = None
    ) -> tuple[Decision, ...]:
        """Returns one decision per weight; looks, runs and changes nothing."""
        return self.solve(graph, selection, fixed)[0]

    def solve(
        self, graph: Graph, selection: Selection, fixed: Mapping[str, Fixed] | None = None
    ) -> tuple[tuple[Decision, ...], tuple[str, ...]]:
        """Returns one decision per weight, and notes on the whole.

        Args:
            graph: the model.
            selection: what may be touched.
            fixed: recipes that others have chosen, by the path of the weight.
        """
        remarks: dict[str, str] = {}
        notes: tuple[str, ...] = ()
        if fixed is None:
            fixed, remarks, notes = self._fixed(graph, selection)
        solver, prediction = self._followed(graph, selection, fixed)
        rows = tuple(
            decision(self.distribution, solver, prediction, *solver.places[id(place.layer), slot.weight])
            for place in graph.places
            for slot in place.slots
        )
        rows, unknown = as_far_as_known(_remarked(rows, remarks))
        chance = chance_notes(solver, prediction)
        return rows, (*prediction.notes, *stretch_notes(solver), *chance, *notes, *unknown)

    def _followed(self, graph: Graph, selection: Selection, fixed: Mapping[str, Fixed]) -> tuple[Solver, Prediction]:
        # What those two say nothing of is balanced.
        residual: Residual = "balanced" if self.residual == "deepnorm" or self.residual == "t_fixup" else self.residual
        solver = Solver.of(graph, selection, fixed, residual, self.distribution == "orthogonal")
        return solver, follow(graph, solver, solver.signals)

    def _fixed(self, graph: Graph, selection: Selection) -> tuple[dict[str, Fixed], dict[str, str], tuple[str, ...]]:
        """Returns what the starts that are asked for choose themselves, why they choose no more, and notes."""
        plain = dataclasses.replace(self, linear_start=False, attention="plain")
        kept = kept_weights(graph, selection)
        fixed: dict[str, Fixed] = {}
        remarks: dict[str, str] = {}
        notes: tuple[str, ...] = ()
        parts = self._parts(graph, selection, kept)
        if any(part.stretch is not None for part in parts.values()):
            fixed = mirrored(lambda: plain.decide(graph, selection), graph, parts)
        fading = frozenset() if kept else calls_that_fade(graph)
        if fading:
            fixed = {**fixed, **faded(fading, self.distribution, *plain._followed(graph, selection, fixed))}
        if self.linear_start is True:
            remarks = {path: part.reason for path, part in parts.items() if part.stretch is None}
        taken = set(kept)
        if self.residual in NAMED:
            chosen, notes = NAMED[self.residual](graph, kept)
            fixed, taken = {**fixed, **chosen}, taken | set(chosen)
        if self.attention == "mimetic":
            chosen, why = mimetic_start(graph, taken)
            tables: dict[str, Fixed] = {}
            others: dict[str, str] = {}
            if chosen:
                tables, others = tables_start(graph, plain._followed(graph, selection, fixed)[1].signals, taken)
            fixed, remarks = {**fixed, **chosen, **tables}, {**remarks, **why, **others}
        return fixed, remarks, notes

    def _parts(self, graph: Graph, selection: Selection, kept: Mapping[str, str]) -> dict[str, Part]:
        """Returns what the linear start says of each weight."""
        if not self.linear_start:
            return {}
        start = LinearStart(stretches="long" if self.linear_start == "auto" else "all")
        return start.parts(graph, selection, kept)


def _remarked(rows: tuple[Decision, ...], remarks: Mapping[str, str]) -> tuple[Decision, ...]:
    return tuple(
        dataclasses.replace(row, reason=f"{row.reason} {remarks[row.path]}") if row.path in remarks else row
        for row in rows
    )
