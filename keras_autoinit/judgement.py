"""From what was measured to what is wrong: each fault by a threshold with its reason.

A fault has consequences: after dead units there is no signal, before them no gradient. Such
consequences are not listed: what is listed is what to change. So the rules come in an order, and
those that look at the whole are asked only of what no earlier fault explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from keras_autoinit.depth_faults import collapsed, exploding, gradients, untaught, vanishing
from keras_autoinit.findings import SEVERITIES, Finding
from keras_autoinit.layer_faults import dead, mismatched, non_finite, saturated, shared, symmetric, unfit, zero_weights
from keras_autoinit.readings import Signals
from keras_autoinit.thresholds import Rows

Rule = Callable[[Rows], Iterator[Finding]]
# What lets nothing through; what outputs show, before the first of those; what weights show by themselves.
_BLOCKS: tuple[Rule, ...] = (non_finite, zero_weights, symmetric)
_OUTPUTS: tuple[Rule, ...] = (dead, saturated)
_WEIGHTS: tuple[Rule, ...] = (shared, mismatched)
_SIZES: tuple[Callable[[Rows, Signals], Iterator[Finding]], ...] = (vanishing, exploding)


def judged(signals: Signals) -> tuple[Finding, ...]:
    """Returns what is wrong, the worst first, then in the order of the layers.

    Args:
        signals: what was measured.
    """
    rows = signals.rows
    blocks = [finding for rule in _BLOCKS for finding in rule(rows)]
    clear = rows[: _first(rows, blocks)]
    causes = [*blocks, *(finding for rule in _OUTPUTS for finding in rule(clear))]
    causes += [finding for rule in _WEIGHTS for finding in rule(rows)]
    clear = rows[: _first(rows, causes)]
    found = [*causes, *(finding for rule in _SIZES for finding in rule(clear, signals))]
    if not _serious(found):
        found += [*gradients(rows), *untaught(rows)]
    found += collapsed(clear, signals)
    if not _serious(found):
        found += [*unfit(rows)]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _serious(findings: Sequence[Finding]) -> bool:
    return any(finding.severity != "info" for finding in findings)


def _first(rows: Rows, causes: Sequence[Finding]) -> int:
    """Returns the place of the first row that a cause spoils: what comes after it is a consequence."""
    spoilt = {finding.layer for finding in causes if finding.severity != "info"}
    for index, row in enumerate(rows):
        if row.path in spoilt or any(weight.path in spoilt for weight in row.weights):
            return index
    return len(rows)
