"""A report as a figure: spread of signal and gradient along depth, beside what theory predicts."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_autoinit.errors import MissingExtraError
from keras_autoinit.findings import Finding
from keras_autoinit.readings import Reading, Signals
from keras_autoinit.thresholds import EXPLODED, GRADIENT_EXPLODED, GRADIENT_VANISHED, VANISHED

# Blue for what is measured (or comes after), orange for what was before; told apart by colour-blind readers too.
MEASURED, BEFORE, THEORY, BAND, ERROR, WARNING = "#1f6cc7", "#d9622b", "#52514e", "#0c8c3c", "#b3261e", "#8a5a00"
# Below this nothing is drawn: a logarithm has no zero.
LEAST = 1e-30

Line = tuple[str, str, str]


def plotted(signals: Signals, findings: Sequence[Finding], layer: Reading | None, path: str | Path | None) -> Any:
    """Returns the figure of a report, or the histogram of one of its layers."""
    return _saved(_depth(signals, findings) if layer is None else _histogram(layer), path)


def compared(before: Signals, after: Signals, names: tuple[str, str], path: str | Path | None) -> Any:
    """Returns one figure of two reports."""
    figure, axes = _panels(f"{after.model}: {names[0]} and {names[1]}")
    for signals, name, colour in ((before, names[0], BEFORE), (after, names[1], MEASURED)):
        for axis, (key, _, _) in zip(axes, _PANELS):
            _line(axis, [_value(row, key) for row in signals], colour, name)
    _dress(axes, after)
    axes[0].legend(loc="best", frameon=False)
    return _saved(figure, path)


# Field of a reading, title, whether it is a second moment.
_PANELS: tuple[Line, ...] = (
    ("second_moment", "signal (rms)", "predicted_second_moment"),
    ("gradient", "gradient (rms)", "predicted_gradient"),
    ("sensitivity", "gradient x signal", ""),
)


def _depth(signals: Signals, findings: Sequence[Finding]) -> Any:
    figure, axes = _panels(f"{signals.model}: signal and gradient along depth")
    for axis, (key, _, predicted) in zip(axes, _PANELS):
        if predicted and not (key == "gradient" and signals.labels == "given"):
            _line(axis, [_value(row, predicted) for row in signals], THEORY, "predicted", style="--")
        _line(axis, [_value(row, key) for row in signals], MEASURED, "measured")
        _mark(axis, signals, findings)
    _dress(axes, signals)
    axes[0].legend(loc="best", frameon=False)
    return figure


def _panels(title: str) -> tuple[Any, Any]:
    figure = _figure(figsize=(8, 7))
    axes = figure.subplots(len(_PANELS), 1, sharex=True)
    figure.suptitle(title)
    return figure, axes


def _line(axis: Any, values: list[float | None], colour: str, name: str, style: str = "-") -> None:
    known = [(index, value) for index, value in enumerate(values) if value is not None and value > LEAST]
    marker = "o" if len(values) <= 60 and style == "-" else None
    axis.plot(
        *zip(*known) if known else ([], []), style, color=colour, label=name, marker=marker, markersize=4, linewidth=1.8
    )


def _value(row: Reading, key: str) -> float | None:
    value = getattr(row, key)
    if value is None or not math.isfinite(value) or value < 0:
        return None
    return float(value) if key == "sensitivity" else math.sqrt(value)


def _mark(axis: Any, signals: Signals, findings: Sequence[Finding]) -> None:
    """Draws a line at each layer that has an error or a warning."""
    for finding in findings:
        colour = {"error": ERROR, "warning": WARNING}.get(finding.severity)
        for index, row in enumerate(signals):
            if colour and finding.layer in (row.path, *(weight.path for weight in row.weights)):
                axis.axvline(index, color=colour, linestyle=":", linewidth=1.2)


def _dress(axes: Any, signals: Signals) -> None:
    base = signals.input_second_moment
    bands = {
        0: (math.sqrt(VANISHED.value * min(base, 1)), math.sqrt(EXPLODED.value * max(base, 1))),
        2: _sensitivity_band(signals),
    }
    for index, (axis, (_, title, _)) in enumerate(zip(axes, _PANELS)):
        axis.set_yscale("log")
        axis.set_ylabel(title)
        axis.grid(visible=True, axis="y", color="#e3e2dd", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        limits = _limits(axis)
        band = bands.get(index)
        if band is not None:
            axis.axhspan(*band, color=BAND, alpha=0.08, linewidth=0)
        axis.set_ylim(limits)
    axes[-1].set_xlabel(f"layers and activations, in the order of computation ({len(signals)})")


def _limits(axis: Any) -> tuple[float, float]:
    """Returns what an axis shows: all lines, and four powers of ten at least, so that chance looks small."""
    values = [value for line in axis.get_lines() for value in line.get_ydata() if value > LEAST and value != 1]
    if not values:
        return 1e-2, 1e2
    low, high = math.log10(min(values)) - 0.2, math.log10(max(values)) + 0.2
    room = max(0.0, 4 - (high - low)) / 2
    return 10 ** (low - room), 10 ** (high + room)


def _sensitivity_band(signals: Signals) -> tuple[float, float] | None:
    sizes = [row.sensitivity for row in signals if row.sensitivity and math.isfinite(row.sensitivity)]
    if not sizes:
        return None
    late = max(sizes[-max(1, len(sizes) // 4) :])
    return GRADIENT_VANISHED.value * max(sizes), GRADIENT_EXPLODED.value * late


def _histogram(row: Reading) -> Any:
    figure = _figure(figsize=(6, 3.5))
    axis = figure.subplots()
    counted = row.histogram
    if counted is not None:
        width = (counted.high - counted.low) / len(counted.counts) or 1.0
        lefts = [counted.low + index * width for index in range(len(counted.counts))]
        axis.bar(lefts, counted.counts, width=width * 0.94, align="edge", color=MEASURED)
    axis.set(title=f"Output of {row.path}", xlabel="value", ylabel="count of a sample")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(figsize: tuple[float, float]) -> Any:
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingExtraError(
            'Drawing needs matplotlib, which is not installed. Install it with: pip install "keras-autoinit[plot]"'
        ) from error
    return figures.Figure(figsize=figsize, layout="constrained")


def _saved(figure: Any, path: str | Path | None) -> Any:
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
