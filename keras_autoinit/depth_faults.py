"""Faults of depth: what signals and gradients do on their way through all layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from keras_autoinit.findings import Finding
from keras_autoinit.readings import Reading, Signals
from keras_autoinit.thresholds import (
    COLLAPSED,
    EXPLODED,
    GRADIENT_EXPLODED,
    GRADIENT_VANISHED,
    NONE_AT_ALL,
    VANISHED,
    Rows,
    each_weight,
    finding,
)

# What a falling series still counts as its start: between one halving and two.
NEAR = 3.0
# Below this share of what a fall starts from, nothing is told apart.
LEAST = 1e-12
# One minus the cosine of equal samples is no larger than this in single precision.
ALIKE = 1e-6

# What spreads its input over a simplex: its size says nothing about the signal's.
_SIMPLEX = frozenset({"softmax", "log_softmax", "sparsemax"})
# What puts out something for nothing: at the output, where no layer reads it, its size says nothing either.
_OFFSET = frozenset({"exponential", "hard_sigmoid", "sigmoid", "softplus", "sparse_sigmoid", "squareplus"})


def _plain(rows: Rows) -> list[Reading]:
    """Returns the rows whose size says something about the signal's: not those that are zero on purpose."""
    known = [row for row in rows if row.activation not in _SIMPLEX and row.second_moment is not None and row.finite]
    return [row for row in known if not any(weight.is_zero for weight in row.weights)]


def vanishing(rows: Rows, signals: Signals) -> Iterator[Finding]:
    """Yields where a signal begins to die out that no later layer restores."""
    kept = [row for row in _plain(rows) if row.feeds != "output" or row.activation not in _OFFSET]
    start = min(signals.input_second_moment, 1.0)
    # What is nothing, or not a number, when it comes in does not die out here.
    if not kept or not start > 0 or (kept[-1].second_moment or 0.0) > VANISHED.value * start:
        return
    sizes = [start, *(row.second_moment or 0.0 for row in kept)]
    row = kept[_turn(sizes)]
    advice = f"From here on the signal dies out: scale the weights up, as {_scaled_by(row)} does."
    yield finding("vanishing_signal", "error", row.path, sizes[-1], VANISHED, "second moment at the end", advice)


def exploding(rows: Rows, signals: Signals) -> Iterator[Finding]:
    """Yields where a signal begins to grow beyond all bounds."""
    kept = _plain(rows)
    limit = EXPLODED.value * max(signals.input_second_moment, 1.0)
    largest = max((row.second_moment or 0.0 for row in kept), default=0.0)
    if not largest > limit:
        return
    end = next(index for index, row in enumerate(kept) if row.second_moment == largest)
    sizes = [max(signals.input_second_moment, 1.0), *(row.second_moment or 0.0 for row in kept[: end + 1])]
    row = kept[_turn([1 / max(size, 1e-300) for size in sizes])]
    advice = f"From here on the signal grows: scale the weights down, as {_scaled_by(row)} does."
    yield finding("exploding_signal", "error", row.path, largest, EXPLODED, "largest second moment", advice)


def collapsed(rows: Rows, signals: Signals) -> Iterator[Finding]:
    """Yields where samples begin to become alike."""
    # A head need not tell samples apart by their direction, as a sigmoid's around one half, or scores, do not.
    kept = [row for row in _plain(rows) if row.cosine is not None and row.feeds != "output"]
    start = 1.0 if signals.input_cosine is None else 1 - signals.input_cosine
    apart = [start, *(1 - (row.cosine or 0.0) for row in kept)]
    # Samples that come in alike have nothing to lose.
    if not kept or start <= ALIKE or apart[-1] > COLLAPSED.value * min(start, 1.0):
        return
    # Below the noise of single precision.
    row = kept[_turn([max(each, 1e-7) for each in apart])]
    advice = (
        "From here on samples become alike: take orthogonal weights near the edge of chaos, the linear start "
        "(`AutoInit('theory')`), normalization or skips."
    )
    yield finding(
        "collapsed_directions",
        "warning",
        row.path,
        apart[-1],
        COLLAPSED,
        "one minus the cosine before the output",
        advice,
    )


def _turn(sizes: Sequence[float]) -> int:
    """Returns after which step a falling series does most of its fall, or begins it where no step does.

    Args:
        sizes: positive numbers, of which the first is what the fall starts from.

    Returns:
        The number of the step, 0 from the first number to the second.
    """
    # What has died is dead: how far below single precision it gets is no matter.
    logs = [math.log(max(size, LEAST * sizes[0])) for size in sizes]
    falls = [before - after for before, after in itertools.pairwise(logs)]
    steepest = max(range(len(falls)), key=falls.__getitem__)
    if falls[steepest] > (logs[0] - logs[-1]) / 2:
        return steepest
    # After the last number that is near the first.
    last = max(index for index, log in enumerate(logs) if log >= logs[0] - math.log(NEAR))
    return min(last, len(falls) - 1)


def _scaled_by(row: Reading) -> str:
    known = [weight.suggestion for weight in row.weights if weight.suggestion]
    return f"{known[0]} (AutoInit)" if known else "AutoInit().apply(model)"


def gradients(rows: Rows) -> Iterator[Finding]:
    """Yields gradients that die out or grow by more than the signal explains.

    A gradient that is small because the signal grows on its way, or the other way round, is a fault
    of the signal: so the product of both is followed, which a plain chain of weights leaves as it is.
    """
    known = [row for row in _plain(rows) if row.sensitivity is not None and math.isfinite(row.sensitivity)]
    kept = [row for row in known if not row.aside]
    if len(kept) < 2:
        return
    sizes = [row.sensitivity or 0.0 for row in kept]
    largest = max(sizes)
    starved = sizes[0] / largest if largest > 0 else 1.0
    reached = next((index for index, size in enumerate(sizes) if size >= GRADIENT_VANISHED.value * largest), 0)
    if reached > 0 and starved < GRADIENT_VANISHED.value:
        row = kept[reached - 1 - _turn(sizes[reached::-1])]
        advice = f"At this layer and those before it next to nothing arrives: {_steeper(row)}, or add skips."
        measure = "gradient times signal, over the largest"
        yield finding("vanishing_gradient", "error", row.path, starved, GRADIENT_VANISHED, measure, advice)
    for run in _unnormalized(kept):
        yield from _exploding_gradient(run, _late(sizes))


def untaught(rows: Rows) -> Iterator[Finding]:
    """Yields layers with weights that no gradient reaches, while the rest of the model learns without them.

    Not the rest of a branch that starts at zero: it learns from the second step on.
    """
    closed = any(weight.is_zero for _, weight in each_weight(rows))
    for row in rows:
        if row.aside and row.weights and not closed:
            advice = "It will not learn; take it out, or connect it, if it is meant to."
            yield finding("no_gradient", "info", row.path, 0.0, NONE_AT_ALL, "gradient times signal", advice)


def _late(sizes: Sequence[float]) -> float:
    """Returns the largest of the last quarter."""
    return max(sizes[-max(1, len(sizes) // 4) :])


def _exploding_gradient(rows: Rows, end: float) -> Iterator[Finding]:
    """Yields growth within a run, unless its own end is a branch that is closed on purpose."""
    sizes = [row.sensitivity or 0.0 for row in rows]
    largest, late = max(sizes), max(_late(sizes), end)
    if late <= 0 or largest / late <= GRADIENT_EXPLODED.value:
        return
    row = rows[sizes.index(largest)]
    advice = (
        "The gradient grows on its way back to this layer: take weights nearer the edge of chaos "
        "(`activation(name).edge_of_chaos()`), `AutoInit('theory')`, or normalization."
    )
    measure = "gradient times signal, over that of the last layers"
    yield finding("exploding_gradient", "error", row.path, largest / late, GRADIENT_EXPLODED, measure, advice)


def _unnormalized(rows: Rows) -> Iterator[Rows]:
    """Yields runs of rows with no normalization between them.

    Behind one, the size of a weight is no matter: a larger gradient there makes for a larger weight,
    and so for smaller steps. Batch normalization after ReLU makes gradients grow by pi / (pi - 1) a
    layer, squared (Yang et al. 2019, arXiv 1902.08129), and such networks train.
    """
    run: list[Reading] = []
    for row in rows:
        run.append(row)
        if row.feeds == "normalization":
            yield run
            run = []
    if run:
        yield run


def _steeper(row: Reading) -> str:
    squashing = row.activation in ("sigmoid", "hard_sigmoid", "sparse_sigmoid")
    return (
        "take an activation that is steeper around zero than the sigmoid" if squashing else "scale the weights after it"
    )
