"""The linear start: stretches of a network that begin as one linear map, found on the graph.

For any activation write `f = even + odd`. Two units that see `z` and `-z`, read by weights of
opposite sign, pass on `f(z) - f(-z)`: exactly a line for ReLU, Leaky ReLU, GELU and SiLU. A stretch
begins with a weight that makes such pairs and ends with those that read them and make none; with
orthogonal matrices it keeps every length and angle, forward and backward, at any depth. Balduzzi et
al. 2017 (arXiv 1702.08591) did this for concatenated ReLU.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras

from keras_autoinit.by_table import reason_to_keep
from keras_autoinit.errors import SchemeError
from keras_autoinit.graphs import Graph, read
from keras_autoinit.mirroring import SHOWN, Layout, Reading, Search, merges
from keras_autoinit.pairs import Key
from keras_autoinit.plans import Decision, Plan
from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes import can_be_base, with_axes
from keras_autoinit.selection import Selection
from keras_autoinit.slots import Slot

BASES = ("auto", "delta_orthogonal", "orthogonal")
STRETCHES = ("all", "long")

# From this many weights on, convolutions of a stretch are delta-orthogonal with `base="auto"`: such kernels
# leave every position to itself. Where the stretch ends in a flattening, whose reader sees all positions,
# they learn faster from 10 weights on; before a global pooling, which sees none, orthogonal ones do up to 20
# (`benchmarks/trainability.py --bases`; docs/linear_start.md has the numbers).
DEEP = 30
DEEP_FLATTENED = 10

# Stretches of fewer weights learn as fast or faster from plain orthogonal matrices (docs/linear_start.md has the
# numbers): dense ones, convolutions without normalization and with it, and those of which an activation is only nearly
# a line (elu, selu, sigmoid).
LONG = 6
LONG_CONVOLVED = 2
LONG_NORMALIZED = 15
LONG_NEARLY = 60
# Mish, with 0.001, behaves as the exact ones do.
EXACTLY = 0.002
SOURCE = "after Balduzzi et al. 2017, arXiv 1702.08591"


@dataclass(frozen=True)
class Part:
    """What the linear start says of one weight.

    Attributes:
        pairs_in: the block in which pairs lie in what it reads; `None`: it reads none.
        pairs_out: the block in which it makes pairs; `None`: it makes none.
        gain: multiplies the matrix: one over the slope of `f(z) - f(-z)`, at the variance that
            comes in, where it reads pairs; elsewhere what brings the second moment that the table
            assumes of its input to one.
        base: the scheme of its matrix; empty for a depthwise kernel, which keeps its own and is
            made equal within each pair of `pairs_in`.
        stretch: number of the stretch that it belongs to, in the order of the model; `None` where
            it belongs to none.
        length: how many weights follow each other in that stretch.
        variance: that of a unit it makes, before any activation.
        narrowing: what it makes of a unit variance at a gain of one: less than one where a
            semi-orthogonal matrix makes more units than it reads.
        merges: whether a stretch ends here and what it makes is added to another signal.
        reason: why it begins, goes on, ends, or takes no part; one sentence.
    """

    pairs_in: int | None = None
    pairs_out: int | None = None
    gain: float = 1.0
    base: str = "orthogonal"
    stretch: int | None = None
    length: int = 0
    variance: float = 1.0
    narrowing: float = 1.0
    merges: bool = False
    reason: str = ""


@dataclass(frozen=True)
class LinearStart:
    """How the linear start is laid out.

    When to use: with `with_linear_start`, or as a part of a method.

    Args:
        base: the matrices of convolutions: `"orthogonal"` over the patch, `"delta_orthogonal"`
            (orthogonal at the centre tap, zero elsewhere, where a kernel has odd sides and strides
            of one and reads pairs), or `"auto"`: the latter in stretches of 30
            weights or more, of 10 or more if they end in a flattening.
        feed_forward: mirror the feed-forward blocks of transformers too, where it did not help.
        stretches: `"all"`, or `"long"`: only those of 6 weights and more, of 60 where an activation is
            only nearly a line, of 2 (with normalization, 15) where there are convolutions, and residual
            branches of these, but none that branches itself: others learn as fast without.

    Raises:
        SchemeError: `base` or `stretches` is none of these.

    Example:
        >>> LinearStart(base="delta_orthogonal").feed_forward
        False
    """

    base: Literal["auto", "orthogonal", "delta_orthogonal"] = "auto"
    feed_forward: bool = False
    stretches: Literal["all", "long"] = "all"

    def __post_init__(self) -> None:
        for name, allowed in (("base", BASES), ("stretches", STRETCHES)):
            if getattr(self, name) not in allowed:
                names = ", ".join(map(repr, allowed))
                raise SchemeError(f"Expected `{name}` to be one of {names}. Received: {getattr(self, name)!r}.")

    def parts(self, graph: Graph, selection: Selection | None = None, alone: Collection[str] = ()) -> dict[str, Part]:
        """Returns what the linear start says of each weight that it has something to say of, by path.

        Args:
            graph: the model.
            selection: what may be touched.
            alone: paths of further weights that are left alone.
        """
        selection = selection or Selection()
        kept = {
            (id(place.layer), slot.weight)
            for place in graph.places
            for slot in place.slots
            if reason_to_keep(place, slot, selection) or f"{place.path}/{slot.weight}" in alone
        }
        search = Search(graph, kept, self.feed_forward)
        layout = Layout(search)
        parts = {path: self._part(search, layout, key) for key, path in search.paths.items() if key not in kept}
        return {path: part for path, part in parts.items() if part is not None}

    def _part(self, search: Search, layout: Layout, key: Key) -> Part | None:
        why = search.ends.get(key)
        if key not in layout.stretches:
            # Of an output layer nobody expects one.
            return None if why in (None, SHOWN) else Part(reason=f"No linear start: {why}.")
        stretch, length = layout.stretches[key], layout.length(key)
        if self.stretches == "long" and not _is_worth_it(layout, key):
            return None
        if key in search.depthwise:
            return _equal_part(search, key, stretch, length)
        readings = search.readings[key]
        pairs_in = None if readings[0].pairs is None else readings[0].pairs.block
        pairs_out = search.blocks.get(key)
        return Part(
            pairs_in,
            pairs_out,
            _rounded(sum(map(_gain, readings)) / len(readings)),
            self._base(readings[0], length, layout.flattens(key)),
            stretch,
            length,
            _rounded(sum(one.variance for one in readings) / len(readings)),
            _rounded(readings[0].narrowing),
            pairs_out is None and any(merges(search.graph, one.call) for one in readings),
            _reason(pairs_in, pairs_out, length, why),
        )

    def _base(self, reading: Reading, length: int, flattened: bool) -> str:
        # A kernel that reads plain channels, of which there may be three, looks at the whole patch.
        usable = reading.port.centred and reading.pairs is not None
        deep = self.base == "auto" and length >= (DEEP_FLATTENED if flattened else DEEP)
        return "delta_orthogonal" if usable and (deep or self.base == "delta_orthogonal") else "orthogonal"


def _is_worth_it(layout: Layout, key: Key) -> bool:
    """Whether a weight's stretch is long, or a residual branch, and does not branch: inceptions learn without."""
    if layout.branches(key):
        return False
    if layout.residual(key) > EXACTLY:
        return layout.length(key) >= LONG_NEARLY
    if not layout.convolves(key):
        return layout.length(key) >= LONG
    plain = layout.normalizes(key) and not layout.merges(key)
    return layout.length(key) >= (LONG_NORMALIZED if plain else LONG_CONVOLVED)


def _equal_part(search: Search, key: Key, stretch: int, length: int) -> Part:
    pairs = search.depthwise[key][0]
    assert pairs is not None
    reason = f"Inside a linear stretch of {length} weights: equal within each mirrored pair ({SOURCE})."
    return Part(pairs.block, None, base="", stretch=stretch, length=length, variance=pairs.variance, reason=reason)


def _gain(reading: Reading) -> float:
    if reading.pairs is not None and reading.pairs.slope is not None:
        return 1 / reading.pairs.slope
    return 1 / math.sqrt(reading.second_moment)


def _reason(pairs_in: int | None, pairs_out: int | None, length: int, why: str | None) -> str:
    stretch = f"a linear stretch of {length} weights"
    if pairs_in is None:
        return f"Begins {stretch}: makes pairs of units that see z and -z ({SOURCE})."
    if pairs_out is not None:
        return f"Inside {stretch}: reads and makes mirrored pairs ({SOURCE})."
    return f"Ends {stretch}: reads mirrored pairs ({SOURCE})" + (f", and makes none: {why}." if why else ".")


def mirrored_decisions(
    rows: Iterable[Decision], graph: Graph, parts: Mapping[str, Part] | None = None
) -> tuple[Decision, ...]:
    """Returns decisions in which every weight of a linear stretch is mirrored; the others stand.

    Args:
        rows: decisions on the same model, by any method.
        graph: the model.
        parts: what the linear start says of each weight; all that it has to say, but for weights that
            the rows leave alone, if not given.
    """
    rows = tuple(rows)
    parts = parts_beside(rows, graph) if parts is None else parts
    slots = {f"{place.path}/{slot.weight}": slot for place in graph.places for slot in place.slots}
    return tuple(_mirrored(row, parts[row.path], slots[row.path]) if row.path in parts else row for row in rows)


def parts_beside(
    rows: Iterable[Decision], graph: Graph, selection: Selection | None = None, start: LinearStart | None = None
) -> dict[str, Part]:
    """Returns what the linear start says of each weight; one that the rows leave alone takes no part."""
    return (start or LinearStart()).parts(graph, selection, {row.path for row in rows if not row.changed})


def with_linear_start(plan: Plan, model: keras.Model, inputs: Any = None, start: LinearStart | None = None) -> Plan:
    """Returns a plan in which every weight of a linear stretch is mirrored; the model stays as it is.

    When to use: to give any plan a linear start before it is carried out.

    Args:
        plan: a plan for this model; a weight that it leaves alone takes no part.
        model: the model.
        inputs: what the model is called on, as for `AutoInit.plan`.
        start: how the linear start is laid out.

    Example:
        >>> from keras_autoinit.by_table import Table
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, "gelu", name="hidden"),
        ...                           keras.layers.Dense(3, name="head")])
        >>> plan = with_linear_start(Plan(Table().decide(read(model), Selection())), model)
        >>> plan["hidden/kernel"].new, plan["head/kernel"].new
        (autoinit>mirrored(base='orthogonal', pairs_out=8), autoinit>mirrored(base='orthogonal', pairs_in=8))
    """
    graph = read(model, inputs)
    rows = mirrored_decisions(plan.decisions, graph, parts_beside(plan.decisions, graph, start=start))
    return dataclasses.replace(plan, decisions=rows)


def recipe_of(part: Part, slot: Slot, own: Recipe | None = None, spread: float | None = None) -> Recipe:
    """Returns what a weight that takes part is to be drawn from.

    Args:
        part: what the linear start says of it.
        slot: the weight.
        own: what another method would draw it from: the base of a depthwise kernel.
        spread: the standard deviation that is wanted of what it makes; its own if not given.
    """
    if not part.base:
        config: dict[str, Any] = {"base": _own_base(own), "pairs_in": part.pairs_in}
        return with_axes(Recipe("autoinit>mirrored", config), slot.axes)
    gain = part.gain if spread is None else _rounded(part.gain * spread / math.sqrt(part.variance))
    said = {"pairs_in": part.pairs_in, "pairs_out": part.pairs_out, "gain": None if gain == 1 else gain}
    config = {"base": part.base, **{key: value for key, value in said.items() if value is not None}}
    return with_axes(Recipe("autoinit>mirrored", config), slot.axes)


def _mirrored(row: Decision, part: Part, slot: Slot) -> Decision:
    if part.stretch is None:
        return dataclasses.replace(row, reason=f"{row.reason} {part.reason}")
    if row.new.name in ("Zeros", "autoinit>zeros"):
        # A branch that starts at zero by another method's choice.
        return row
    # What is added to another signal is as large as the method that wrote the row wants it.
    new = recipe_of(part, slot, row.new, row.output_std if part.merges else None)
    return dataclasses.replace(row, new=new, reason=part.reason, stored=None)


def _own_base(recipe: Recipe | None) -> Any:
    """Returns a row's scheme as the base of another, without what belongs to one weight."""
    if recipe is None or not can_be_base(recipe.name):
        return "lecun_normal"
    own = {"input_axes", "output_axes", "fan_divisor", "blocks", "seed"}
    config = {key: value for key, value in recipe.config.items() if key not in own}
    return {"class_name": recipe.name, "config": {**config, "seed": 0}}


def _rounded(number: float) -> float:
    """Nine digits: over a hundred layers the rest does not show in float32."""
    return float(f"{number:.9g}")
