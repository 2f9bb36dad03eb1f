"""Faults of one layer: of its weights, and of what its units put out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from keras_autoinit.findings import Finding
from keras_autoinit.readings import Reading, WeightReading
from keras_autoinit.thresholds import (
    DEAD,
    EQUAL_UNITS,
    MISMATCHED,
    NONE_AT_ALL,
    SATURATED,
    UNFIT,
    Rows,
    each_weight,
    finding,
)

# Of fewer units three quarters may be off by chance, when samples are alike: 4 % of layers of 8 units, 0.4 % of 32.
FEW_UNITS = 32
# By what factor a small weight's spread may differ from what it is drawn with, by chance.
AS_DRAWN = 1.25
# Weights of a recurrent cell.
_GATED = frozenset({"input", "recurrent"})
_PROJECTIONS = frozenset({"query", "key", "value"})


def non_finite(rows: Rows) -> Iterator[Finding]:
    """Yields weights that are not finite; without any, the first output that is not."""
    spoilt = [weight for _, weight in each_weight(rows) if not weight.finite]
    for weight in spoilt:
        advice = "Draw it again with `keras_autoinit.reinitialize(model)`, or load other weights."
        yield finding("non_finite", "error", weight.path, 1.0, NONE_AT_ALL, "weights with NaN or infinity", advice)
    first = next((row for row in rows if not row.finite), None)
    if first is not None and not spoilt:
        advice = "Here they first arise: look at what this layer is given, and at its scale."
        yield finding("non_finite", "error", first.path, 1.0, NONE_AT_ALL, "outputs with NaN or infinity", advice)


def zero_weights(rows: Rows) -> Iterator[Finding]:
    """Yields weights that are zero: an error, unless a branch or an output may start so."""
    for row, weight in each_weight(rows):
        if not weight.is_zero:
            continue
        meant = row.feeds in ("merge", "output")
        advice = (
            "Nothing, if this branch or output is meant to start at zero: it learns from the second step on."
            if meant
            else f"Draw it at random: {_recommended(weight)}; zeros let neither signal nor gradient through."
        )
        severity = "info" if meant else "error"
        yield finding("zero_weights", severity, weight.path, 0.0, NONE_AT_ALL, "largest weight", advice)


def symmetric(rows: Rows) -> Iterator[Finding]:
    """Yields weights with equal units, and projections of one attention layer that are equal."""
    for _, weight in each_weight(rows):
        equal = weight.distinct is not None and weight.distinct < EQUAL_UNITS.value
        if equal and not weight.is_zero:
            share = weight.distinct or 0.0
            severity = "error" if share <= 0.5 else "warning"
            advice = f"Draw each unit at random: {_recommended(weight)}."
            yield finding(
                "symmetric_units", severity, weight.path, share, EQUAL_UNITS, "share of distinct units", advice
            )
    for layer, weights in _attention(rows).items():
        advice = "Give query, key and value seeds of their own: one seeded initializer draws all three alike."
        value = 1 / len(weights)
        yield finding("symmetric_units", "error", layer, value, EQUAL_UNITS, "share of distinct projections", advice)


def _attention(rows: Rows) -> dict[str, list[WeightReading]]:
    """Returns the projections of one attention layer that are equal, by its path."""
    found: dict[str, list[WeightReading]] = defaultdict(list)
    by_path = {weight.path: weight for _, weight in each_weight(rows)}
    for weight in by_path.values():
        twin = by_path.get(weight.equal_to or "")
        if twin is not None and _projects_with(weight, twin):
            found[_layer_around(weight.path)] += [
                weight,
                *([] if twin in found[_layer_around(weight.path)] else [twin]),
            ]
    return found


def _projects_with(weight: WeightReading, twin: WeightReading) -> bool:
    return {weight.role, twin.role} <= _PROJECTIONS and _layer_around(weight.path) == _layer_around(twin.path)


def _layer_around(path: str) -> str:
    return path.rsplit("/", 2)[0]


def shared(rows: Rows) -> Iterator[Finding]:
    """Yields weights that equal those of another layer."""
    by_path = {weight.path: weight for _, weight in each_weight(rows)}
    for weight in by_path.values():
        twin = by_path.get(weight.equal_to or "")
        if twin is None or _projects_with(weight, twin):
            continue
        advice = f"It equals {twin.path!r}: give each layer an initializer of its own, or other seeds."
        yield finding("shared_weights", "warning", weight.path, 0.0, NONE_AT_ALL, "largest difference", advice)


def dead(rows: Rows) -> Iterator[Finding]:
    """Yields layers of which most units are off for every sample, up to the first that lets nothing through."""
    for row in rows:
        if row.dead is None or row.dead < DEAD.value or row.second_moment is None:
            continue
        if row.dead < 1 and row.shape[-1] < FEW_UNITS:
            continue
        advice = (
            "Lower what keeps its units below zero: the bias, or weights with a mean; He's initializer has neither."
        )
        yield finding(
            "dead_units", "error", row.path, row.dead, DEAD, "share of units that are off for every sample", advice
        )
        if row.dead == 1:
            # The rest has nothing to work with.
            return


def saturated(rows: Rows) -> Iterator[Finding]:
    """Yields layers of which too many outputs lie at the bounds of their activation."""
    for row in rows:
        if row.saturated is not None and row.saturated >= SATURATED.value:
            size = max((weight.std or 0.0 for weight in row.weights), default=0.0)
            hint = f" (the weights' spread is {size:.3g})" if size else ""
            advice = f"Make the weights before {row.activation} smaller{hint}: {_recommended_by(row)}."
            measure = "share of outputs at the bounds"
            yield finding("saturated_units", "error", row.path, row.saturated, SATURATED, measure, advice)


def mismatched(rows: Rows) -> Iterator[Finding]:
    """Yields weights whose initializer has counted the inputs of another role."""
    for row, weight in each_weight(rows):
        ratio = _miscount(weight)
        if _off(ratio) < MISMATCHED.value:
            continue
        # What follows divides by the spread, or gates keep what they hand on within bounds.
        made_up = row.feeds == "normalization" or weight.role in _GATED
        severity = "info" if made_up else "warning"
        advice = (
            f"Its spread is {ratio:.2g} of what {weight.initializer} means: use {weight.suggestion}, which counts the "
            f"inputs of a {weight.role} weight as they are."
        )
        yield finding("fan_mismatch", severity, weight.path, ratio, MISMATCHED, "spread over the one meant", advice)


def _miscount(weight: WeightReading) -> float:
    """Returns the spread that an initializer draws over the one it means; 1 where that is not known."""
    if not weight.expected_std or not weight.counted_std or not weight.std:
        return 1.0
    # A spread that is neither was set by something else than the initializer.
    as_drawn = _off(weight.std / weight.counted_std) <= AS_DRAWN
    return weight.counted_std / weight.expected_std if as_drawn else 1.0


def _off(ratio: float) -> float:
    """Returns by what factor something is off, either way."""
    return max(ratio, 1 / ratio)


def _recommended(weight: WeightReading) -> str:
    return (
        f"the table recommends {weight.suggestion}" if weight.suggestion else "AutoInit().apply(model) chooses for you"
    )


def _recommended_by(row: Reading) -> str:
    return _recommended(row.weights[0]) if row.weights else "AutoInit().apply(model) chooses for you"


def unfit(rows: Rows) -> Iterator[Finding]:
    """Yields the first layer of each initializer that is not of the table's size, where no fault shows it yet.

    Who names a scheme of this package, as `AutoInit` does, has chosen it.
    """
    met: set[tuple[str, str]] = set()
    for row, weight in each_weight(rows):
        key = (weight.initializer.partition("(")[0], row.activation)
        chosen = row.feeds == "normalization" or weight.initializer.startswith("autoinit>")
        if not weight.std or not weight.suggested_std or chosen or key in met:
            continue
        # What is drawn, without the chance of the draw.
        as_drawn = weight.counted_std and _off(weight.std / weight.counted_std) <= AS_DRAWN
        ratio = ((as_drawn and weight.counted_std) or weight.std) / weight.suggested_std
        if _off(ratio) < UNFIT.value or _off(_miscount(weight)) >= MISMATCHED.value:
            continue
        met.add(key)
        meets = row.activation or weight.role
        advice = f"For {meets} the table recommends {weight.suggestion}: AutoInit().apply(model) draws from it."
        yield finding("unfit_scheme", "info", weight.path, ratio, UNFIT, "spread over the one recommended", advice)
