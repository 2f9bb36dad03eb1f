"""How the logarithms of a batch's samples are distributed, when some are larger than others.

A batch is few samples. The mean of log-normal numbers lies with the largest, which a batch does not hold: what is
counted is a batch as it typically is, whose samples stand at the quantiles of a law that leans a little to the right.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

# Samples in a batch, where it matters: what a normalization by the batch takes off the gradient.
BATCH = 32
# Of a batch in rising order, so many are taken together: single ones at the ends.
GROUPS = (1, 3, 7, 10, 7, 3, 1)
# Logarithms lean to the right, the more the further they vary: each sample has a floor, and none a ceiling. How far
# at most, and the variance at which it is half of that: of signals, and of what gradients are in.
Leaning = tuple[float, float]
SIGNALS: Leaning = (1.0, 0.65)
GRADIENTS: Leaning = (0.5, 0.8)
# Batches that lean by as much are one.
FINE = 0.02


class Law(NamedTuple):
    """How the logarithms of a batch's samples are distributed.

    Attributes:
        variance: theirs.
        lean: to the right: a third of their skewness, nearly.
    """

    variance: float
    lean: float

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns a batch's logarithms, and their shares: extreme samples alone, others grouped."""
        places, shares = _batch(self.lean)
        return math.sqrt(self.variance) * places, shares


def law_with(variance: float, leaning: Leaning = SIGNALS) -> Law:
    """Returns the law of logarithms with this variance, if no samples are dropped."""
    most, half = leaning
    return Law(variance, round(most * variance / (variance + half) / FINE) * FINE)


def gaussian_places(count: int) -> np.ndarray:
    """Returns so many numbers at the quantiles of a unit Gaussian, in rising order."""
    return np.array([NormalDist().inv_cdf((place + 0.5) / count) for place in range(count)])


@functools.cache
def _batch(leaning: float) -> tuple[np.ndarray, np.ndarray]:
    places = gaussian_places(BATCH)
    if leaning:
        # Tukey's g-and-h distributions: skewed by `g`, and of shorter tails by `h = -g^2 / 2`.
        raised = leaning * places
        places = np.expm1(raised) / leaning * np.exp(-(raised**2) / 4)
    ends = np.cumsum(GROUPS)
    groups = np.array([part.mean() for part in np.split(places - places.mean(), ends[:-1])])
    return groups / math.sqrt(np.array(GROUPS) @ groups**2 / BATCH), np.array(GROUPS) / BATCH


def log_mean(law: Law) -> float:
    """Returns the logarithm of a batch's mean, of numbers whose logarithms have mean zero.

    Example:
        >>> round(log_mean(law_with(0.1)), 3), round(log_mean(law_with(9.0)), 1)
        (0.052, 4.7)
    """
    logs, shares = law.batch()
    return float(np.log(shares @ np.exp(logs)))


def dominance(law: Law) -> float:
    """Returns how much few samples outweigh all others: the mean square of sizes over their mean, squared."""
    logs, shares = law.batch()
    sizes = np.exp(logs)
    return float(shares @ sizes**2 / (shares @ sizes) ** 2)


def straight(law: Law, made: np.ndarray) -> float:
    """Returns the power of a batch's sizes with which others go, by the straight line through their logarithms.

    Args:
        law: of the sizes.
        made: the others, for each part of the batch.
    """
    logs, shares = law.batch()
    return float((shares * logs) @ np.log(made)) / law.variance
