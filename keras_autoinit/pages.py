"""A report as one web page that needs no network, and as a table for a notebook."""

from __future__ import annotations

import functools
import html
import json
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

from keras_autoinit.findings import KINDS, SEVERITIES, Finding
from keras_autoinit.readings import Reading, Signals, WeightReading
from keras_autoinit.thresholds import EXPLODED, GRADIENT_EXPLODED, GRADIENT_VANISHED, VANISHED
from keras_autoinit.words import FINDING_COLUMNS, SIGNAL_COLUMNS, finding_cells, number, percent, signal_cells

Findings = Sequence[Finding]

_TITLES = {
    "signal": "Signal: root mean square of what each layer puts out",
    "gradient": "Gradient: root mean square of what comes back to it",
    "sensitivity": "Sensitivity: gradient times signal, relative to the model's output",
}


def page_of(signals: Signals, findings: Findings, summary: str) -> str:
    """Returns the page."""
    title = html.escape(f"Diagnosis of {signals.model}")
    data = json.dumps(_data(signals, findings), allow_nan=False).replace("<", "\\u003c")
    return _PAGE.format(
        title=title,
        css=_asset("page.css"),
        js=_asset("page.js"),
        state=_state(findings),
        summary=html.escape(summary),
        findings=_cards(signals, findings),
        panels="".join(
            f'<div class="panel" data-panel="{name}"><h3>{text}</h3></div>' for name, text in _TITLES.items()
        ),
        table=_table(signals, findings),
        notes="".join(f"<p>{html.escape(note)}</p>" for note in signals.notes),
        data=data,
    )


def table_of(signals: Signals, findings: Findings, summary: str) -> str:
    """Returns the tables alone, for a notebook."""
    parts = [f"<p><b>{html.escape(summary)}</b></p>"]
    if findings:
        parts.append(_plain_table(FINDING_COLUMNS, [finding_cells(finding) for finding in findings]))
    parts.append(_plain_table(SIGNAL_COLUMNS, [signal_cells(row) for row in signals]))
    return "".join(parts)


@functools.cache
def _asset(name: str) -> str:
    return resources.files("keras_autoinit").joinpath(name).read_text(encoding="utf-8")


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(columns, 'th')}</thead><tbody>{body}</tbody></table>"


# --- Findings ---


def _state(findings: Findings) -> str:
    if all(finding.severity == "info" for finding in findings):
        return '<div class="state good"><span aria-hidden="true">✓</span> Healthy</div>'
    return '<div class="state bad"><span aria-hidden="true">✕</span> Not healthy</div>'


def _cards(signals: Signals, findings: Findings) -> str:
    if not findings:
        return '<p class="empty">Nothing found: signal and gradient keep their size, and units differ.</p>'
    places = {path: index for index, row in enumerate(signals) for path in _paths(row)}
    return '<ul class="findings">' + "".join(_card(finding, places) for finding in findings) + "</ul>"


def _paths(row: Reading) -> list[str]:
    return [row.path, *(weight.path for weight in row.weights)]


def _card(finding: Finding, places: dict[str, int]) -> str:
    layer = html.escape(finding.layer)
    where = f'<a href="#row{places[finding.layer]}">{layer}</a>' if finding.layer in places else layer
    kind = finding.kind.replace("_", " ")
    measured = f"{finding.measure or 'measured'}: {number(finding.value)} (threshold {number(finding.threshold)})"
    return (
        f'<li class="finding {finding.severity}"><h3><span class="tag {finding.severity}">{finding.severity}</span>'
        f"{kind} at {where}</h3><p>{html.escape(finding.advice)}</p>"
        f"<details><summary>{html.escape(measured)}</summary><p>{html.escape(KINDS[finding.kind])} "
        f"{html.escape(finding.reason)}</p></details></li>"
    )


# --- The table ---

_HEADS: tuple[tuple[str, str], ...] = (
    ("layer", "text"), ("kind", "text"), ("activation", "text"), ("mean", ""), ("std", ""), ("dead", ""),
    ("saturated", ""), ("rank", ""), ("cosine", ""), ("gradient", ""), ("sensitivity", ""), ("update", ""),
)  # fmt: skip


def _table(signals: Signals, findings: Findings) -> str:
    faults = _faults(signals, findings)
    heads = "".join(
        f'<th scope="col" class="{kind}"><button type="button">{name}</button></th>' for name, kind in _HEADS
    )
    body = "".join(_row(index, row, faults.get(index)) for index, row in enumerate(signals))
    return f'<table id="layers"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def _row(index: int, row: Reading, fault: str | None) -> str:
    path = html.escape(row.path)
    texts = "".join(f'<td class="text">{html.escape(text)}</td>' for text in (row.kind, row.activation))
    gradient = _root(row.gradient)
    numbers = "".join(
        f'<td data-value="{_sortable(value)}">{shown}</td>'
        for value, shown in [
            (row.mean, number(row.mean)),
            (row.std, number(row.std)),
            (row.dead, percent(row.dead)),
            (row.saturated, percent(row.saturated)),
            (row.effective_rank, number(row.effective_rank)),
            (row.cosine, number(row.cosine)),
            (gradient, number(gradient)),
            (row.sensitivity, number(row.sensitivity)),
            (row.update_ratio, number(row.update_ratio)),
        ]
    )
    faulty = " faulty" if fault else ""
    return (
        f'<tr class="row{faulty}" id="row{index}" data-index="{index}"><th scope="row">'
        f'<button type="button" aria-expanded="false" title="{path}">{path}</button></th>{texts}{numbers}</tr>'
    )


def _sortable(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value)).replace("inf", "Infinity")


def _faults(signals: Signals, findings: Findings) -> dict[int, str]:
    """Returns the worst severity at each row that has an error or a warning."""
    found: dict[int, str] = {}
    for index, row in enumerate(signals):
        paths = {*_paths(row), *(path.rsplit("/", 2)[0] for path in _paths(row)[1:])}
        worst = min((f.severity for f in findings if f.layer in paths), key=SEVERITIES.index, default="info")
        if worst != "info":
            found[index] = worst
    return found


# --- What the script draws from ---


def _data(signals: Signals, findings: Findings) -> dict[str, Any]:
    faults = _faults(signals, findings)
    rows = [_plain_row(row, faults.get(index)) for index, row in enumerate(signals)]
    base = signals.input_second_moment
    sizes = [row.sensitivity for row in signals if row.sensitivity and math.isfinite(row.sensitivity)]
    late = sizes[-max(1, len(sizes) // 4) :]
    return {
        "rows": rows,
        "panels": {
            "signal": {
                "label": "Root mean square of the signal along depth, on a logarithmic scale.",
                "measured": "signal",
                "predicted": "predicted_signal",
                "band": [math.sqrt(VANISHED.value * min(base, 1)), math.sqrt(EXPLODED.value * max(base, 1))],
            },
            "gradient": {
                "label": "Root mean square of the gradient along depth, on a logarithmic scale.",
                "measured": "gradient",
                "predicted": "predicted_gradient" if signals.labels == "random" else "",
            },
            "sensitivity": {
                "label": "Gradient times signal along depth, on a logarithmic scale.",
                "measured": "sensitivity",
                "predicted": "",
                "band": [GRADIENT_VANISHED.value * max(sizes), GRADIENT_EXPLODED.value * max(late)] if sizes else None,
            },
        },
    }


def _plain_row(row: Reading, fault: str | None) -> dict[str, Any]:
    histogram = row.histogram
    values = {
        "signal": _root(row.second_moment),
        "std": row.std,
        "predicted_signal": _root(row.predicted_second_moment),
        "gradient": _root(row.gradient),
        "predicted_gradient": _root(row.predicted_gradient),
        "sensitivity": row.sensitivity,
        "dead": row.dead,
        "saturated": row.saturated,
        "cosine": row.cosine,
    }
    return {
        "path": row.path,
        "fault": fault,
        "lines": [_shape_line(row), *(_weight_line(weight) for weight in row.weights)],
        "histogram": histogram and {"low": histogram.low, "high": histogram.high, "counts": histogram.counts},
        **{key: _told(value) for key, value in values.items()},
    }


def _root(value: float | None) -> float | None:
    return None if value is None or value < 0 else math.sqrt(value)


def _told(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _shape_line(row: Reading) -> str:
    effective = "" if row.effective_rank is None else f", effective rank {number(row.effective_rank)}"
    return (
        f"Output of shape {'x'.join(map(str, row.shape))}: mean {number(row.mean)}, std {number(row.std)}{effective}."
    )


def _weight_line(weight: WeightReading) -> str:
    said = [f"{weight.path}: {'x'.join(map(str, weight.shape))} from {weight.initializer or 'unknown'}"]
    said.append(f"std {number(weight.std)}")
    if weight.expected_std is not None:
        said.append(f"meant {number(weight.expected_std)}")
    if weight.suggested_std is not None:
        said.append(f"recommended {number(weight.suggested_std)} ({weight.suggestion})")
    if weight.gradient is not None:
        said.append(f"gradient (rms) {number(_root(weight.gradient))}")
    return ", ".join(said) + "."


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<a class="skip" href="#layers">Skip to the table</a>
<main>
<h1>{title}</h1>
{state}
<p class="soft">{summary}</p>
<h2>Findings</h2>
{findings}
<h2>Along depth</h2>
<div class="card figure" id="figure" tabindex="0" role="group"
aria-label="Three charts along depth. Arrow keys move from layer to layer.">
<div class="legend">
<span><svg width="26" height="10" aria-hidden="true"><path class="measured" d="M0,5h26"/></svg>measured</span>
<span><svg width="26" height="10" aria-hidden="true"><path class="predicted" d="M0,5h26"/></svg>predicted</span>
<span><svg width="18" height="10" aria-hidden="true"><rect class="band" width="18" height="10"/></svg>healthy</span>
<span><svg width="12" height="10" aria-hidden="true"><path class="mark error" d="M1,1h10l-5,8z"/></svg>finding</span>
</div>
{panels}
<div id="readout" hidden></div>
<div class="skip" id="spoken" aria-live="polite"></div>
</div>
<noscript><p class="soft">The charts need JavaScript; the table below holds all their numbers.</p></noscript>
<h2>Layer by layer</h2>
<p class="soft">Every weighted layer and activation, in the order of computation. Press a heading to sort, a layer for
its histogram and weights. <i>gradient</i> is a root mean square, <i>update</i> the
optimizer's first step over the weight.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Table of layers">{table}</div>
<footer>{notes}<p>Written by keras_autoinit.</p></footer>
</main>
<script type="application/json" id="data">{data}</script>
<script>
{js}</script>
</body>
</html>
"""
