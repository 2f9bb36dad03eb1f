"""Rectified signals with something added: the trunk of a residual network, which is no Gaussian any more.

A Gaussian of the same mean and variance would be cut off below zero again at every ReLU; in truth
what has been rectified once is left nearly as it is by the next ones, with the little that each
branch adds. So the law of the trunk is kept as it is: a rising function of one Gaussian, by its
values on a grid.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_autoinit.activations import activation
from keras_autoinit.forms import Form
from keras_autoinit.functions import error_function
from keras_autoinit.responses import hermite_grid, series, series_at
from keras_autoinit.signals import Near, Signal, evened
from keras_autoinit.sums import laid_out

RELU = activation("relu")

# Points at which the distribution of a sum is computed; between them it is taken for straight.
POINTS = 401
# In spreads of what is added: beyond, nothing is.
REACH = 5.0
# How a gradient goes with the signal is smooth: every so many nodes are enough.
COARSE = 8
# Beyond so many spreads of the trunk's Gaussian a billionth is left, which rounding would soon place.
FURTHEST = 6.0
# So many places to one spread of what is added tell two values apart.
FINE = 6.0
# Where samples have no more of their Gaussians in common, each unit sees nearly all of a law.
ALONE = 0.2
# A slope at which nothing changes but that a law rises everywhere.
LEAST = 1e-6
SQRT2 = math.sqrt(2)


@dataclass(frozen=True)
class Law:
    """A rising function of one Gaussian.

    Attributes:
        values: the function on the nodes of `hermite_grid`.
        correlations: for each of the signal's `pairs`, that of the Gaussians of two such entries.
        near: the same of neighbours, by their distance.
        shared: of maxima, the share of the entries that two windows have in common, by their distance.
    """

    values: np.ndarray
    correlations: tuple[float, ...]
    near: Near | None = None
    shared: np.ndarray | None = None


@dataclass(frozen=True)
class RectifiedSum:
    """What `relu` makes of a rectified signal and another that is added to it.

    Attributes:
        whole: its mean, its second moment, and how it agrees with itself.
        slopes: for each of the signal's `pairs`, `E f' f'` of two such entries.
        slope: `E f'^2`.
        law: of the rectified signal.
        level: the rectified signal on the nodes of `hermite_grid`, with the mean of what is added.
        spread: the standard deviation of what is added.
    """

    whole: Signal
    slopes: tuple[float, ...]
    slope: float
    law: Law
    level: np.ndarray
    spread: float

    def back(self, tilt: np.ndarray | None) -> tuple[float, tuple[float, ...], np.ndarray]:
        """Returns the factor on a squared gradient, on what agrees along each axis, and how the squares go then.

        A unit that is far above zero stays open, block after block, and takes more of the gradient.

        Args:
            tilt: how the squares go with what is made.
        """
        _, weights, _ = hermite_grid()
        often = _open(self.level, self.spread)
        passed = often if tilt is None else self._through(tilt)
        factor = float(weights @ passed)
        if tilt is None or factor <= 0:
            return factor, self.slopes, passed / max(factor, 1e-300)
        # Of what two entries agree in, each goes with the signal as the squares do.
        along = tuple(
            slope * _together(passed, before) / _together(often, before) / max(_together(tilt, after), 1e-12)
            for slope, before, after in zip(self.slopes, self.law.correlations, self.whole.law.correlations)
        )
        return factor, along, passed / factor

    def _through(self, tilt: np.ndarray) -> np.ndarray:
        """Averages a tilt of what is made over what is added, where that leaves the sum above zero."""
        z, _, _ = hermite_grid()
        noise, shares = _noise()
        sums = self.level[::COARSE, None] + self.spread * noise
        # The step at zero, between two nodes, by its share of the interval.
        step = self.spread * (noise[1] - noise[0])
        open_share = np.clip(sums / step + 0.5, 0.0, 1.0)
        values = np.interp(sums.ravel(), self.whole.law.values, tilt).reshape(sums.shape)
        return np.asarray(np.interp(z, z[::COARSE], (open_share * values) @ shares))


def rectified(source: Signal) -> Law:
    """Returns the law of a rectified Gaussian."""
    z, _, _ = hermite_grid()
    values = np.maximum(source.mean + math.sqrt(source.variance) * z, 0.0)
    near = evened(source)
    near = near and near.changed(lambda agreement: _correlation(source, agreement))
    return Law(values, tuple(_correlation(source, value) for value in source.pairs), near)


def rectified_sum(law: Law, other: Signal) -> RectifiedSum:
    """Integrates over both: `other`, a Gaussian, by formula, the rectified signal on the grid."""
    _, weights, polynomials = hermite_grid()
    x = law.values + other.mean
    spread = math.sqrt(max(other.variance, 1e-24))
    above = _open(x, spread)
    density = np.exp(-((x / spread) ** 2) / 2) / math.sqrt(2 * math.pi)
    means = x * above + spread * density
    squares = (x**2 + spread**2) * above + x * spread * density
    by_mean = _partial(polynomials @ (weights * means), float(weights @ means**2), float(weights @ squares))
    by_slope = _partial(polynomials @ (weights * above), float(weights @ above**2), float(weights @ above))
    pairs = [(one, _correlation(other, two)) for one, two in zip(law.correlations, other.pairs)]
    along = tuple(by_mean.covariance(*pair) for pair in pairs)
    rank = len(along) // 2
    near = by_mean.near(law, other)
    made = _law(x, spread, along, near)
    whole = Signal(by_mean.total, float(weights @ means), along[:rank], law=made, apart=along[rank:], near=near)
    return RectifiedSum(whole, tuple(by_slope.covariance(*pair) for pair in pairs), by_slope.total, law, x, spread)


def _together(values: np.ndarray, correlation: float) -> float:
    """Returns `E t t'` of a function of two Gaussians, by its values on the nodes."""
    _, weights, polynomials = hermite_grid()
    coefficients = polynomials @ (weights * values)
    return series(tuple((coefficients**2).tolist()), float(weights @ values**2), correlation)


def _open(level: np.ndarray, spread: float) -> np.ndarray:
    """Returns how often a level with Gaussian noise is above zero."""
    return np.asarray(0.5 * (1 + error_function(level / spread / SQRT2)))


@functools.cache
def _noise() -> tuple[np.ndarray, np.ndarray]:
    """Returns values of a unit Gaussian at even distances, and their shares."""
    noise = np.linspace(-REACH, REACH, 81)
    shares = np.exp(-(noise**2) / 2)
    return noise, shares / shares.sum()


@dataclass(frozen=True)
class _Partial:
    """A function of two Gaussians of which one has been averaged over.

    Attributes:
        powers: its squared Hermite coefficients in the other one.
        known: the sum of all of them.
        total: its second moment over both.
    """

    powers: tuple[float, ...]
    known: float
    total: float

    def covariance(self, first: float, second: float) -> float:
        """Returns `E f f'`; what the averaged Gaussian adds is taken for linear in its correlation."""
        return series(self.powers, self.known, first) + (self.total - self.known) * second

    def near(self, law: Law, other: Signal) -> Near | None:
        """Returns the same for neighbours, by their distance."""
        if law.near is None and other.near is None:
            return None
        rank = len(other.along)
        first = Signal(1.0, 0.0, law.correlations[:rank], apart=law.correlations[rank:], near=law.near)
        one, two = laid_out([first, dataclasses.replace(other, near=evened(other))])
        return Near(
            one.axes,
            *(
                series_at(self.powers, self.known, a) + (self.total - self.known) * _correlation(other, b)
                for a, b in ((one.same, two.same), (one.other, two.other))
            ),
        )


def _partial(coefficients: np.ndarray, known: float, total: float) -> _Partial:
    return _Partial(tuple((coefficients**2).tolist()), known, total)


def _correlation(signal: Signal, agreement: Any) -> Any:
    return (agreement - signal.mean**2) / signal.variance if signal.variance > 1e-24 else 0.0


def _law(x: np.ndarray, spread: float, along: tuple[float, ...], near: Near | None) -> Law:
    """Returns the law of `max(x + b, 0)`: the quantile function of what it makes, with what is below zero at zero."""
    _, weights, _ = hermite_grid()
    y = np.linspace(0.0, max(float(x.max()) + REACH * spread, 1e-12), POINTS)
    # Nodes that stand together, at zero above all, are one: nothing that the spread does not blur.
    _, index = np.unique(np.round(x * FINE / spread), return_inverse=True)
    masses = np.bincount(index, weights)
    places = np.bincount(index, weights * x) / np.maximum(masses, 1e-300)
    return law_of(np.interp(_cumulated(), _below(y, places, masses, spread), y), along, near)


def _below(levels: np.ndarray, places: np.ndarray, masses: np.ndarray, spread: float) -> np.ndarray:
    """Returns the share below each level of masses in rising places, blurred: those beyond reach are so as a whole."""
    # Places stand at least a spread over `FINE` apart, one by one as they were rounded: no more are within reach.
    count = min(math.ceil(2 * REACH * FINE) + 2, len(places))
    first = np.minimum(np.searchsorted(places, levels - REACH * spread), len(places) - count)
    within = first[:, None] + np.arange(count)
    shares = 0.5 * (1 + error_function((levels[:, None] - places[within]) / spread / SQRT2))
    return np.asarray(np.append(0.0, np.cumsum(masses))[first] + (shares * masses[within]).sum(axis=1))


def form_of(law: Law | None) -> Form | None:
    """Returns how each unit is distributed of a signal with this law, once its mean is off and its variance one.

    `None` where samples have so much in common that each unit sees a part of the law only.
    """
    if law is None or not law.correlations or abs(law.correlations[0]) > ALONE:
        return None
    z, weights, _ = hermite_grid()
    values = law.values - weights @ law.values
    spread = math.sqrt(float(weights @ values**2))
    # So that it can be told how steep a function is everywhere.
    return Form(law=values / spread + LEAST * z, shared=law.shared) if spread > 1e-12 else None


def law_of(values: np.ndarray, pairs: tuple[float, ...], near: Near | None) -> Law:
    """Returns the law of a signal by its quantiles on the nodes, and by how far it agrees with itself."""
    _, weights, polynomials = hermite_grid()
    powers, total = tuple(((polynomials @ (weights * values)) ** 2).tolist()), float(weights @ values**2)
    near = near and near.changed(_correlations_for(powers, total))
    # Most axes agree alike.
    found = {value: _correlation_for(powers, total, value) for value in set(pairs)}
    return Law(values, tuple(found[value] for value in pairs), near)


def quantiles(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Returns the quantiles on the nodes of numbers of which some count more than others."""
    order = np.argsort(values, axis=None)
    below = np.cumsum(shares.ravel()[order])
    return np.asarray(np.interp(_cumulated() * below[-1], below, values.ravel()[order]))


def law_of_all(laws: Sequence[Law], counts: Sequence[int], whole: Signal) -> Law:
    """Returns the law of several signals side by side."""
    _, weights, _ = hermite_grid()
    values = np.stack([law.values for law in laws])
    return law_of(quantiles(values, np.outer(counts, weights)), whole.pairs, whole.near)


@functools.cache
def _cumulated() -> np.ndarray:
    """Returns the share of a Gaussian below each node; those further out stand with the last that counts."""
    z, _, _ = hermite_grid()
    return 0.5 * (1 + error_function(np.clip(z, -FURTHEST, FURTHEST) / SQRT2))


def _correlation_for(powers: tuple[float, ...], total: float, covariance: float) -> float:
    """Returns the correlation at which a function of two Gaussians has a covariance, by bisection."""
    low, high = -1.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if series(powers, total, middle) < covariance else (low, middle)
    return (low + high) / 2


def _correlations_for(powers: tuple[float, ...], total: float) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the same for many covariances, between the points of a grid."""
    correlations = np.linspace(-1.0, 1.0, 801)
    made = np.maximum.accumulate(series_at(powers, total, correlations))
    return lambda covariances: np.interp(covariances, made, correlations)
