"""Signals side by side on an axis, as a concatenation leaves them, and parts of such a whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_autoinit.signals import Signal, evened
from keras_autoinit.sums import blended


def side_by_side(whole: Signal, axis: int, parts: Sequence[tuple[int, Signal]]) -> Signal:
    """Returns a blend of signals that stand side by side, each in its place on an axis.

    Args:
        whole: the blend.
        axis: where they stand side by side.
        parts: how long each one is there, and the signal.
    """
    sizes = [
        one.second_moment * (np.ones(count) if not one.profile or one.profile[axis] is None else one.profile[axis])
        for count, one in parts
    ]
    found = np.concatenate(sizes)
    cross = [[one.mean * other.mean for _, other in parts] for _, one in parts]
    return in_places(whole.with_profile(axis, found / found.mean() if found.mean() > 0 else None), axis, parts, cross)


def in_places(
    whole: Signal, axis: int, parts: Sequence[tuple[int, Signal]], cross: Any, apart: Any | None = None
) -> Signal:
    """Returns a blend of signals side by side with how far entries agree that differ in their place on that axis.

    Args:
        whole: the blend.
        axis: where they stand side by side.
        parts: how long each one is there, and the signal.
        cross: how far entries of each two agree.
        apart: the same of different samples, where that is something else.
    """
    lengths = np.array([length for length, _ in parts], float)
    pairs = np.outer(lengths, lengths) - np.diag(lengths)
    if pairs.sum() <= 0:
        return whole

    def mean(within: list[float], between: Any) -> float:
        table = np.array(between, float)
        np.fill_diagonal(table, within)
        return float((table * pairs).sum() / pairs.sum())

    along, others = list(whole.along), list(whole.apart)
    along[axis] = mean([one.along[axis] for _, one in parts], cross)
    if others:
        others[axis] = mean([one.agreement({0, axis}) for _, one in parts], cross if apart is None else apart)
    return dataclasses.replace(whole, along=tuple(along), apart=tuple(others))


def between_parts(whole: Signal, axis: int, parts: Sequence[tuple[int, Signal]], samples: bool = False) -> float:
    """Returns how far entries of two parts agree, side by side on an axis: what is left of all pairs but their own."""
    lengths = np.array([length for length, _ in parts], float)
    count, inside = lengths.sum(), (lengths * (lengths - 1)).sum()
    others = count * (count - 1) - inside
    agreed = [one.agreement({0, axis} if samples else {axis}) for _, one in parts]
    own = sum(length * (length - 1) * value for (length, _), value in zip(parts, agreed))
    total = whole.agreement({0, axis} if samples else {axis}) * count * (count - 1)
    return float((total - own) / others) if others > 0 else 0.0


def beside(axis: int, parts: Sequence[tuple[int, Signal]]) -> Signal:
    """Returns signals side by side, each of its length on an axis, and remembers them."""
    total = sum(count for count, _ in parts)
    whole = blended([one for _, one in parts], [count / total for count, _ in parts])
    return dataclasses.replace(side_by_side(whole, axis, parts), joined=(axis, tuple(parts)))


def _parts_between(parts: Sequence[tuple[int, Signal]], start: int, end: int) -> tuple[tuple[int, Signal], ...] | None:
    """Returns those of signals side by side that fill a stretch; `None` where it ends within one."""
    ends = np.cumsum([0, *(count for count, _ in parts)]).tolist()
    if start not in ends or end not in ends:
        return None
    return tuple(parts[ends.index(start) : ends.index(end)]) or None


def part_of(signal: Signal | None, axis: int, start: int, end: int) -> Signal | None:
    """Returns the signal, or the gradient, at a part of an axis."""
    if signal is not None and signal.joined is not None and signal.joined[0] == axis:
        known = _parts_between(signal.joined[1], start, end)
        if known is not None:
            return known[0][1] if len(known) == 1 else beside(axis, known)
    if signal is None or not signal.profile or signal.profile[axis] is None:
        return signal
    own = signal.profile[axis][start:end]
    part = signal.times(math.sqrt(max(float(own.mean()), 1e-30)))
    profile = list(part.profile)
    profile[axis] = own / own.mean() if own.mean() > 0 else None
    # A mean is spread as the roots of squares are.
    mean = signal.mean * float(np.sqrt(own).mean() / max(np.sqrt(signal.profile[axis]).mean(), 1e-30))
    part = dataclasses.replace(part, mean=mean, profile=tuple(profile), tilt=signal.tilt)
    even, alike = evened(dataclasses.replace(part, profile=signal.profile)), part.alike()
    return dataclasses.replace(part, near=even and even.changed(lambda values: values * alike))
