"""Gaussian integrals of a function whose kinks are known: few numbers, no searching.

The line is cut where the function bends or jumps, and its smooth parts are cut more finely the closer
they lie to the origin, where the bend of every activation is. Gauss-Legendre nodes read each panel:
none lies on a cut, so a step is never read on the wrong side, and a kink costs no accuracy.

For two inputs the plane is turned by 45 degrees, which makes the density a product of a wide and a
narrow Gaussian at any correlation, 1 and -1 included. The cuts of the function become slanted lines,
which the panels follow exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]

# No panel is wider than this, in standard deviations: 14 nodes then integrate the density to 1e-13.
WIDEST = 2.0
# Panels narrower than this are left out: they hold less than 1e-12 of the whole.
NARROWEST = 1e-12
# Panels grow by this factor away from the origin: as fast as the distance to an activation's poles.
GROWTH = 1.5
# Differences over less than this, relative to the mean, would be rounding: slopes are carried on from there.
SMALLEST_SPREAD = 1e-4

# How far to go, in standard deviations, and how many nodes a panel has. In two dimensions a little
# less, for speed. Slopes differentiate, and ask for more nodes than integrals, which are all that
# the narrow direction needs.
REACH, NODES = 9.0, 16
CROSS_REACH, CROSS_NODES, NARROW_NODES = 8.0, 14, 8

# A search that leaves more open panels than this follows rounding: it ends.
PIECE_LIMIT = 64
# Panels that are differentiated at a time.
BLOCK = 512

_STEPS = (GROWTH ** np.arange(60) - 1) / (GROWTH - 1)
_GRADES = np.concatenate([-_STEPS[:0:-1], _STEPS])


@dataclass(frozen=True)
class Pieces:
    """Where a function bends or jumps, and how finely what lies between must be cut.

    Attributes:
        breaks: the places of kinks and steps.
        width: of the panels at the origin; infinite for a function made of polynomials.
        edges: further cuts, where they were searched for: they stand for those that `width` implies.
    """

    breaks: tuple[float, ...] = ()
    width: float = math.inf
    edges: tuple[float, ...] = ()

    @property
    def smooth(self) -> bool:
        """Whether there is more than polynomials between the breaks."""
        return self.width < math.inf

    def cuts(self, mean: float, spread: float, reach: float) -> np.ndarray:
        """Returns all cuts within reach of the mean, sorted, in standard deviations from it."""
        found = np.array(self.breaks + self.edges)
        if self.smooth and not self.edges:
            ends = np.searchsorted(
                _GRADES, [(mean - reach * spread) / self.width, (mean + reach * spread) / self.width]
            )
            found = np.concatenate([found, _GRADES[slice(*ends)] * self.width])
        return _inside((found - mean) / _positive(spread), reach)

    def crossings(self, mean: float, spread: float, sign: float, reach: float) -> np.ndarray:
        """Returns where, across the diagonal, cuts of the one factor meet those of the other."""
        centers = (np.array([*self.breaks, 0.0] if self.smooth else self.breaks) - mean) / _positive(spread)
        met = ((centers[:, None] - sign * centers) / 2).ravel()
        if self.smooth:
            origin = 0.0 if sign > 0 else centers[-1]
            met = np.concatenate([met, origin + _GRADES * (self.width / _positive(spread))])
        return _inside(met, reach)


def gaussian_moments(
    function: Function, pieces: Pieces, variance: float, mean: float = 0.0
) -> tuple[float, float, float]:
    """Returns `E f(z)`, `E f(z)^2` and `E f'(z)^2` for a Gaussian `z`.

    Exact to about 1e-12 for functions that grow no faster than a power; the last to 1e-9 where the
    variance is below 1e-8.

    Example:
        >>> relu = lambda z: np.maximum(z, 0)
        >>> [round(moment, 6) for moment in gaussian_moments(relu, Pieces((0.0,)), variance=1.0)]
        [0.398942, 0.5, 0.5]
    """
    spread = math.sqrt(variance)
    t, mass, half = _line(pieces, mean, spread)
    values = _read(function, mean + spread * t)
    mean_, second_moment = float((mass * values).sum()), float((mass * values**2).sum())
    smallest = _smallest_spread(mean)
    if spread < 0.99 * smallest:
        slopes_at = [gaussian_moments(function, pieces, (k * smallest) ** 2, mean)[2] for k in (1, 2, 3)]
        return mean_, second_moment, _carried_on(slopes_at, spread / smallest)
    slopes = _differences(values) / (spread * half)
    return mean_, second_moment, float((mass * slopes**2).sum())


def gaussian_cross_moments(
    function: Function,
    pieces: Pieces,
    variance: float,
    covariance: float,
    mean: float = 0.0,
    resolution: float = NARROWEST,
) -> tuple[float, float]:
    """Returns `E f(z) f(z')` and `E f'(z) f'(z')` for two jointly Gaussian inputs of equal law.

    Exact to about 1e-9 of `E f(z)^2` and of `E f'(z)^2` at any correlation, across kinks and steps.
    In panels narrower than `resolution`, in standard deviations, slopes are not counted.

    Example:
        >>> relu = lambda z: np.maximum(z, 0)
        >>> round(gaussian_cross_moments(relu, Pieces((0.0,)), 1.0, 0.0)[0] * 2 * math.pi, 9)
        1.0
    """
    sign = math.copysign(1.0, covariance)
    correlation = min(abs(covariance) / _positive(variance), 1.0)
    spread, smallest = math.sqrt(variance), _smallest_spread(mean)
    along, across, mass, half = _plane(pieces, mean, spread, sign, correlation)
    one = _read(function, mean + spread * (along + across))
    other = _read(function, mean + spread * sign * (along - across))
    cross_moment = float((mass * one * other).sum())
    if spread < 0.99 * smallest:
        variances = [(k * smallest) ** 2 for k in (1, 2, 3)]
        slopes_at = [
            gaussian_cross_moments(function, pieces, one, sign * correlation * one, mean, resolution)[1]
            for one in variances
        ]
        return cross_moment, _carried_on(slopes_at, spread / smallest)
    rates = np.where(half > resolution / 2, sign / (spread * half) ** 2, 0.0)
    return cross_moment, float((mass * rates * _differences(one) * _differences(other)).sum())


def search_pieces(
    function: Function, breaks: tuple[float, ...], variance: float, mean: float, tolerance: float, depth: int
) -> Pieces:
    """Returns where a function with these breaks must be cut so that no panel's integrals change when halved."""
    spread = math.sqrt(variance)
    left, half = _panels(Pieces(breaks).cuts(mean, spread, REACH), -REACH, REACH)
    found, coarse = [], _integrals(function, left, half, mean, spread)
    allowed = tolerance * (1 + np.abs(coarse.sum(0)))
    for _ in range(depth):
        halves = np.stack([left, left + half], 1).ravel()
        fine = _integrals(function, halves, np.repeat(half / 2, 2), mean, spread)
        settled = (np.abs(fine.reshape(-1, 2, 3).sum(1) - coarse) <= allowed).all(1)
        found.append((left[settled], half[settled]))
        left, half = halves.reshape(-1, 2)[~settled].ravel(), np.repeat(half[~settled] / 2, 2)
        coarse = fine.reshape(-1, 2, 3)[~settled].reshape(-1, 3)
        if not 0 < len(left) <= PIECE_LIMIT:
            break
    found.append((left, half))
    edges = np.unique(np.concatenate([edge for edge, _ in found]))
    width = 2 * spread * float(min(half.min() for _, half in found if len(half)))
    return Pieces(breaks, width, tuple((mean + spread * edges).tolist()))


def _integrals(function: Function, left: np.ndarray, half: np.ndarray, mean: float, spread: float) -> np.ndarray:
    """Returns, panel by panel, the integrals of f, f^2 and f'^2."""
    nodes, weights, _ = _rule(NODES)
    t = left[:, None] + half[:, None] * (nodes + 1)
    values = _read(function, mean + spread * t)
    slopes = _differences(values) / (spread * half[:, None])
    mass = weights * half[:, None] * _density(t)
    return np.stack([(mass * term).sum(1) for term in (values, values**2, slopes**2)], 1)


def _line(pieces: Pieces, mean: float, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns standardized nodes, their masses, and the half width of each panel."""
    left, half = _panels(pieces.cuts(mean, spread, REACH), -REACH, REACH)
    nodes, weights, _ = _rule(NODES)
    t = left[:, None] + half[:, None] * (nodes + 1)
    return t, weights * half[:, None] * _density(t), half[:, None]


def _plane(
    pieces: Pieces, mean: float, spread: float, sign: float, correlation: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns nodes along and across the diagonal, their masses, and the half width of each panel."""
    wide, narrow = math.sqrt((1 + correlation) / 2), math.sqrt((1 - correlation) / 2)
    across, across_mass = _across(pieces, mean, spread, sign, narrow)
    row, left, half = _along(pieces.cuts(mean, spread, CROSS_REACH), across, sign, wide, narrow)
    nodes, weights, _ = _rule(CROSS_NODES)
    along = left[:, None] + half[:, None] * (nodes + 1)
    mass = weights * (2 * half * across_mass[row] / wide)[:, None] * _density(along / wide)
    return along, across[row, None], mass, half[:, None]


def _across(pieces: Pieces, mean: float, spread: float, sign: float, narrow: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nodes of the narrow direction; half of it where the correlation is positive, by symmetry."""
    if not narrow:
        return np.zeros(1), np.full(1, 0.5 if sign > 0 else 1.0)
    start = 0.0 if sign > 0 else -CROSS_REACH
    cuts = pieces.crossings(mean, spread, sign, CROSS_REACH * narrow) / narrow
    left, half = _panels(cuts[cuts > start], start, CROSS_REACH)
    nodes, weights, _ = _rule(NARROW_NODES)
    t = left[:, None] + half[:, None] * (nodes + 1)
    return t.ravel() * narrow, (weights * half[:, None] * _density(t)).ravel()


def _along(
    cuts: np.ndarray, across: np.ndarray, sign: float, wide: float, narrow: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the panels of the wide direction: the number of the node across, the left end, the half width.

    Half of the direction where the correlation is negative, by symmetry.
    """
    high = CROSS_REACH * wide
    low = -high if sign > 0 else 0.0
    even = np.linspace(low, high, math.ceil((high - low) / (WIDEST * wide)) + 1)
    slanted = np.concatenate([cuts - across[:, None], sign * cuts + across[:, None]], 1).clip(low, high)
    edges = np.concatenate([np.broadcast_to(even, (len(across), len(even))), slanted], 1)
    edges.sort(1)
    left, half = edges[:, :-1], (edges[:, 1:] - edges[:, :-1]) / 2
    nearest = np.maximum(np.abs(left + half) - half, 0) / wide
    distance = nearest**2 + (across[:, None] / _positive(narrow)) ** 2
    row, panel = np.nonzero((half > NARROWEST) & (distance < CROSS_REACH**2))
    return row, left[row, panel], half[row, panel]


def _panels(cuts: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns left ends and half widths of panels between the cuts, none wider than `WIDEST`."""
    edges = np.concatenate([[low], cuts, [high]])
    widths = edges[1:] - edges[:-1]
    kept = widths > NARROWEST
    starts, widths = edges[:-1][kept], widths[kept]
    parts = np.ceil(widths / WIDEST).astype(int)
    number = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    width = np.repeat(widths / parts, parts)
    return np.repeat(starts, parts) + width * number, width / 2


def _inside(cuts: np.ndarray, reach: float) -> np.ndarray:
    return np.unique(cuts[np.abs(cuts) < reach])


def _positive(number: float) -> float:
    """Returns what can be divided by: a spread of zero sends every cut but one out of reach."""
    return max(number, 1e-200)


def _carried_on(values: list[float], at: float) -> float:
    """Returns what a parabola through values at 1, 2 and 3 is at a smaller number."""
    one, two, three = values
    return one * (2 - at) * (3 - at) / 2 - two * (1 - at) * (3 - at) + three * (1 - at) * (2 - at) / 2


def _smallest_spread(mean: float) -> float:
    return SMALLEST_SPREAD * max(1.0, abs(mean))


def _read(function: Function, z: np.ndarray) -> np.ndarray:
    return np.asarray(function(z.ravel()), np.float64).reshape(z.shape)


def _differences(values: np.ndarray) -> np.ndarray:
    """Returns, panel by panel, the derivative of the polynomial through the values, times the half width."""
    differentiate = _rule(values.shape[1])[2].T
    # In blocks: a larger product wakes the threads of the linear algebra library, which costs more than it.
    return np.concatenate([values[start : start + BLOCK] @ differentiate for start in range(0, len(values), BLOCK)])


def _density(t: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * t * t) * (1 / math.sqrt(2 * math.pi))


@functools.cache
def _rule(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns Gauss-Legendre nodes and weights, and the differentiation matrix on the nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    gap = nodes[:, None] - nodes[None, :] + np.eye(count)
    scale = gap.prod(1)
    matrix = scale[:, None] / (scale[None, :] * gap)
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(1))
    return nodes, weights, matrix
