"""The largest of several entries: a rising function of Gaussians that have a part in common."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_autoinit.activations import Activation
from keras_autoinit.functions import error_function
from keras_autoinit.rectified import quantiles
from keras_autoinit.responses import hermite_grid

# Entries of a window up to which what overlapping ones share is counted.
MOST_SHARED = 16


@dataclass(frozen=True)
class Maximum:
    """The largest of several entries: a rising function of Gaussians that have a part in common.

    Attributes:
        mean: its mean.
        second_moment: its second moment.
        within: agreement with that of another window, for each number of entries that both have, if
            the windows have their common part in common, too.
        common: the variance of that part.
        quantiles: on the nodes of `hermite_grid`.
    """

    mean: float
    second_moment: float
    within: np.ndarray
    common: float
    quantiles: np.ndarray

    def between(self, common: Any, shared: Any = 0) -> Any:
        """Returns the agreement of two windows that have less in common; it is taken for linear in that."""
        missing = 1 - np.minimum(common / max(self.common, 1e-30), 1.0)
        return self.within[shared] - missing * (self.within[0] - self.mean**2)


@functools.lru_cache(maxsize=1024)
def maximum(function: Activation, mean: float, variance: float, common: float, count: int) -> Maximum:
    """Integrates over the common part, and over the largest of the rest.

    Two windows of `n` entries that share `m`: given the largest `o` of these, both are independent,
    and each is the larger one of `o` and of the largest of its other `n - m`.
    """
    assert function.function is not None
    z, _ = _nodes()
    own = math.sqrt(variance - common)
    shared, shares = np.polynomial.hermite_e.hermegauss(31)
    shares = shares / shares.sum()
    level = mean + math.sqrt(common) * shared[:, None] + own * z[None]
    values = function.function(level.ravel()).reshape(level.shape)
    whole = _density(count)
    expected = values @ whole
    within = [float(shares @ expected**2)]
    for both in range(1, count if count <= MOST_SHARED else 1):
        rest = _density(count - both)
        larger = np.cumsum((values * rest)[:, ::-1], 1)[:, ::-1] + values * (np.cumsum(rest) - rest)
        within.append(float(shares @ (larger**2 @ _density(both))))
    second_moment, spread = float(shares @ (values**2 @ whole)), np.outer(shares, whole)
    return Maximum(float(shares @ expected), second_moment, np.array(within), common, quantiles(values, spread))


@functools.lru_cache(maxsize=1024)
def _density(count: int) -> np.ndarray:
    """Returns the distribution of the largest of so many unit Gaussians, on the nodes."""
    z, weights = _nodes()
    below = 0.5 * (1 + error_function(z / math.sqrt(2)))
    density = count * below ** (count - 1) * weights
    return np.asarray(density / density.sum())


@functools.lru_cache(maxsize=64)
def being_largest(agreement: float, count: int) -> np.ndarray:
    """Returns how often an entry is the largest of so many, over how often any is, by its place on `hermite_grid`."""
    z, weights, _ = hermite_grid()
    shared, shares = np.polynomial.hermite_e.hermegauss(15)
    # What the entries have in common, given one of them, and what is left of that one.
    common = math.sqrt(agreement) * z[:, None] + math.sqrt(1 - agreement) * shared
    own = (z[:, None] - math.sqrt(agreement) * common) / math.sqrt(max(1 - agreement, 1e-6))
    often = (0.5 * (1 + error_function(own / math.sqrt(2)))) ** (count - 1) @ shares
    return np.asarray(often / (weights @ often))


@functools.cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    z = np.linspace(-8, 8, 801)
    weights = np.exp(-(z**2) / 2)
    return z, weights / weights.sum()


@functools.lru_cache(maxsize=1024)
def uneven(
    function: Activation, mean: float, variance: float, agreement: float, sizes: tuple[float, ...], others: int
) -> tuple[float, float, np.ndarray]:
    """Returns mean and second moment of the largest of entries of different size, and how a gradient is shared out.

    Given what they have in common, the largest is below `y` where all are, each of a size of its own.

    Args:
        function: of a Gaussian.
        mean: of that, where its size is one.
        variance: of that, likewise.
        agreement: the share of the variance that the entries have in common.
        sizes: how large the square of each entry is.
        others: how many entries there are of each size.
    """
    assert function.function is not None
    shared, shares = np.polynomial.hermite_e.hermegauss(15)
    common, own = math.sqrt(agreement), math.sqrt(max(1 - agreement, 1e-3))
    spreads = np.sqrt(np.maximum(sizes, 1e-6))[:, None, None]
    level, spread = np.linspace(-8, 8, 401), math.sqrt(variance)
    # A size of one has the mean and the variance as they are.
    places = (level / spreads - mean / spread * (1 - 1 / spreads) - common * shared[:, None]) / own
    below = (0.5 * (1 + error_function(places / math.sqrt(2)))) ** others
    whole = below.prod(0)
    middle = mean + spread * (level[1:] + level[:-1]) / 2
    values, often = np.asarray(function.function(middle)), np.diff(whole, axis=1)
    # A gradient comes back to those that win where the function is not flat.
    steep = np.diff(function.function(mean + spread * level)) ** 2
    wins = [shares @ (np.diff(one) * _between(whole / np.maximum(one, 1e-300)) @ steep) for one in below]
    shares = shares / shares.sum()
    return float(shares @ (often @ values)), float(shares @ (often @ values**2)), np.array(wins) / np.sum(wins)


def _between(values: np.ndarray) -> np.ndarray:
    return np.asarray((values[:, 1:] + values[:, :-1]) / 2)
