"""Attention that starts well: which layers can, and what their weights and tables of positions are drawn from.

Trained transformers look at what is alike, and take from the stream more than they add (Trockman and
Kolter 2023, arXiv 2305.09828). A self-attention that starts so, with positions that are alike where they
are near, need not learn it first. An attention between two signals has no features in common to start from.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import numpy as np

from keras_autoinit.attention_layers import Attention, attentions_of
from keras_autoinit.graphs import Graph
from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes import Mimetic, with_axes
from keras_autoinit.schemes.mimetic import SCORES, VALUES
from keras_autoinit.solving import Fixed

PAPER = "Trockman and Kolter 2023, arXiv 2305.09828"
# Powers of the factors follow a law of large widths: what they are is measured at this one.
MEASURED_WIDTH = 96

_PARTNERS = {"query": "key", "key": "query", "value": "output", "output": "value"}


Start = tuple[dict[str, Fixed], dict[str, str]]


def mimetic_start(graph: Graph, kept: Collection[str]) -> Start:
    """Returns what attention layers are to be drawn from, and why others have no such start, by path.

    Args:
        graph: the model.
        kept: paths of weights that stay as they are.
    """
    start: Start = ({}, {})
    for attention in attentions_of(graph):
        _decide(attention, kept, start)
    return start


def _decide(attention: Attention, kept: Collection[str], start: Start) -> None:
    found, (fixed, remarks) = attention.projections, start
    for one, other in (("query", "key"), ("value", "output")):
        remark = _obstacle(attention, one, other, kept)
        for role in (one, other):
            if remark is None:
                fixed[found[role].path] = _fixed(attention, role)
            elif found[role].path not in kept:
                remarks[found[role].path] = f"No mimetic start: {remark}."


def _obstacle(attention: Attention, one: str, other: str, kept: Collection[str]) -> str | None:
    """Returns why two partners cannot start together, or `None`."""
    found = attention.projections
    left = [found[role].path for role in (one, other) if found[role].path in kept]
    if left:
        return f"{left[0]} is left alone"
    if any(projection.shape is None for projection in found.values()):
        return "the layer is not built"
    if any(projection.slot.axes is None or projection.heads is None for projection in found.values()):
        return "its heads cannot be told apart"
    if not all(projection.reads for role, projection in found.items() if role != "output"):
        return "what the layer reads cannot be seen"
    if found["query"].reads != found["key"].reads:
        return "queries and keys read different signals"
    if one == "value" and found["value"].reads != found["query"].reads:
        return "values are read from another signal than queries"
    widths = found[one].read, found[other].made if other == "output" else found[other].read
    if widths[0] != widths[1]:
        return f"a product of {widths[0]} by {widths[1]} is near no identity"
    return None if _fits(attention) else "its heads do not divide into groups"


def _fits(attention: Attention) -> bool:
    """Whether heads share keys and values in groups of one size, and values as keys."""
    heads = {role: projection.heads or 1 for role, projection in attention.projections.items()}
    equal = heads["query"] == heads["output"] and heads["key"] == heads["value"]
    return equal and heads["query"] % heads["key"] == 0


def _fixed(attention: Attention, role: str) -> Fixed:
    found = attention.projections
    heads = {name: projection.heads or 1 for name, projection in found.items()}
    group = heads["query"] // heads["key"]
    config: dict[str, Any] = {"role": role, "pair": attention.key}
    if len(found[role].shape or ()) == 2 and heads[role] > 1:
        config["heads"] = heads[role]
    if group > 1:
        config["group"] = group
    recipe = with_axes(Recipe("autoinit>mimetic", config), found[role].slot.axes)
    size = found[role].read // group if role == "output" else found[role].made
    size = size // heads[role] if role in ("query", "key") else size
    power = factor_powers(found["query"].read, size, group)[role]
    return Fixed(recipe, _reason(attention, role), power=power)


def _reason(attention: Attention, role: str) -> str:
    partner = attention.projections[_PARTNERS[role]].path
    if role in ("query", "key"):
        return f"With {partner}: each head looks at what is alike, their product near {SCORES[1]} I ({PAPER})."
    return f"With {partner}: takes off what it reads, their product near -{VALUES[1]} I ({PAPER})."


@functools.lru_cache(maxsize=64)
def factor_powers(width: int, size: int, group: int = 1) -> dict[str, float]:
    """Returns fan-in times the second moment of each factor; of an output, what makes the product's right.

    Args:
        width: of the stream.
        size: of one head for query and key; of all value heads for value and output.
        group: how many query heads share a key and value head.
    """
    small = min(width, MEASURED_WIDTH)
    units = max(1, round(size * small / width))
    query, key = (_drawn(role, (small, 1, units), group) for role in ("query", "key"))
    value, output = (_drawn(role, (small, units), group) for role in ("value", "output"))
    power = small * float(np.mean(value**2))
    whole = float(np.sum((value @ output) ** 2)) / small
    scores = {role: small * float(np.mean(each**2)) for role, each in (("query", query), ("key", key))}
    return {
        name: float(f"{number:.6g}") for name, number in {**scores, "value": power, "output": whole / power}.items()
    }


def _drawn(role: str, shape: tuple[int, ...], group: int) -> np.ndarray:
    """Returns a factor with one key and value head; outputs already summed over the heads that share one."""
    shape = (shape[0], group, shape[2]) if role == "query" else shape
    axes: dict[str, Any] = {"input_axes": [0], "output_axes": list(range(1, len(shape)))}
    if role == "output":
        axes, shape = {"input_axes": [0], "output_axes": [1]}, shape[::-1]
    scheme = Mimetic(role, group=group if role in ("query", "key") else 1, seed=0, **axes)
    return scheme.array(shape, "float64")
