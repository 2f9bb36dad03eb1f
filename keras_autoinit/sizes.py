"""How large single samples are beside the others: logarithms, as sums of independent chances.

A sample whose signal is large stays so: an activation that grows faster than a line makes it larger
still, and a normalization by the batch leaves it as large beside the others as it was. The square of
a sample's signal over that of all samples is about log-normal, since every layer multiplies it. Its
logarithm is kept as a sum of unit Gaussians, each by a key of its own: two tensors, or a signal and a
gradient, are large in the same samples as far as they have keys in common.

A batch is few samples. The mean of log-normal numbers lies with the largest, which a batch does not hold: what is
counted is a batch as it typically is, whose samples stand at the quantiles of a law that leans a little to the right.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import NormalDist

import numpy as np

Sizes = Mapping[Hashable, float]
# Samples in a batch, where it matters: what a normalization by the batch takes off the gradient.
BATCH = 32
# Of a batch in rising order, so many are taken together: single ones at the ends.
GROUPS = (1, 3, 7, 10, 7, 3, 1)
# Of logarithms that vary by more, one sample of a batch is all there is: more makes no difference, and no number.
ALONE = 16.0
# Logarithms lean to the right, the more the further they vary: each sample has a floor, and none a ceiling. The
# skewness of most, and the variance at which it is half of that.
LEANING = (1.0, 0.4)
# How much of it is left in products of sizes, and in where they are large.
IN_PRODUCTS = 0.25
# Of more chances than the second, so many are kept: what a layer costs does not grow with all the layers before it.
CHANCES = (128, 256)


def covariance(first: Sizes, second: Sizes) -> float:
    """Returns the covariance of two logarithms.

    Example:
        >>> covariance({"input": 0.5}, {"input": 0.2, "mixed": 1.0})
        0.1
    """
    if first is second:
        return sum([value * value for value in first.values()])
    return sum([value * second.get(key, 0.0) for key, value in first.items()])


def typical_batch(variance: float, leaning: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logarithms of a batch's samples, in spreads, and their shares: extreme ones alone, others grouped.

    Args:
        variance: of the logarithms.
        leaning: how much they lean to the right, over what sizes of this variance do.
    """
    most, half = LEANING
    return _batch(round(leaning * most * variance / (variance + half), 1))


def gaussian_places(count: int) -> np.ndarray:
    """Returns so many numbers at the quantiles of a unit Gaussian, in rising order."""
    return np.array([NormalDist().inv_cdf((place + 0.5) / count) for place in range(count)])


@functools.cache
def _batch(skewness: float) -> tuple[np.ndarray, np.ndarray]:
    places = gaussian_places(BATCH)
    # Cornish and Fisher's expansion, to the first order.
    places += skewness / 6 * (places**2 - 1)
    ends = np.cumsum(GROUPS)
    groups = np.array([part.mean() for part in np.split(places - places.mean(), ends[:-1])])
    return groups / math.sqrt(np.array(GROUPS) @ groups**2 / BATCH), np.array(GROUPS) / BATCH


def log_mean(variance: float, leaning: float = 1.0) -> float:
    """Returns the logarithm of a batch's mean, of numbers whose logarithms have mean zero and this variance.

    Example:
        >>> round(log_mean(0.1), 3), round(log_mean(9.0), 1)
        (0.051, 5.1)
    """
    places, shares = typical_batch(variance, leaning)
    return float(np.log(shares @ np.exp(math.sqrt(variance) * places)))


def dominance(variance: float) -> float:
    """Returns how much few samples outweigh all others: the mean square of sizes over their mean, squared."""
    places, shares = typical_batch(variance)
    sizes = np.exp(math.sqrt(variance) * places)
    return float(shares @ sizes**2 / (shares @ sizes) ** 2)


def shift_where(sizes: Sizes, weights: Sizes) -> float:
    """Returns the mean logarithm where others are large, each sample counted by these."""
    variance = covariance(weights, weights)
    if variance < 1e-9:
        return 0.0
    places, shares = typical_batch(variance, IN_PRODUCTS)
    counts = shares * np.exp(math.sqrt(variance) * places)
    return covariance(sizes, weights) / math.sqrt(variance) * float(counts @ places / counts.sum())


def to_power(sizes: Sizes, power: float) -> Sizes:
    """Returns a power of sizes."""
    return sizes if power == 1 else {key: power * value for key, value in sizes.items()}


def product(several: Iterable[Sizes]) -> Sizes:
    """Returns the product of sizes."""
    found: dict[Hashable, float] = {}
    for sizes in several:
        if not found:
            found.update(sizes)
            continue
        for key, value in sizes.items():
            found[key] = found.get(key, 0.0) + value
    return found


def bounded(sizes: Sizes) -> Sizes:
    """Returns sizes that vary no more than matters, by no more chances than matter.

    The largest chances take over what the others vary by, which is little.
    """
    variance = covariance(sizes, sizes)
    if not math.isfinite(variance):
        return {}
    fewest, most = CHANCES
    if len(sizes) > most:
        keys, values = list(sizes), list(sizes.values())
        largest = np.argsort(-np.abs(values), kind="stable")[:fewest].tolist()
        kept = {keys[place]: values[place] for place in largest}
        return to_power(kept, math.sqrt(min(variance, ALONE) / covariance(kept, kept)))
    return to_power(sizes, math.sqrt(ALONE / variance)) if variance > ALONE else sizes


def with_chance(sizes: Sizes, key: Hashable, variance: float) -> Sizes:
    """Returns sizes that a new chance has gone into."""
    return {**sizes, key: sizes.get(key, 0.0) + math.sqrt(variance)} if variance > 0 else sizes


@functools.lru_cache(maxsize=1024)
def centred_power(variance: float, common: float, power: float) -> float:
    """Returns the power of samples' sizes that is left when what they have in common goes off.

    A large sample has more of it than goes off, and a small one less: `u - 2 c u^k / E u^k + c` is left of `u`.

    Args:
        variance: of the sizes' logarithms.
        common: the share `c` of the squares that goes off.
        power: with which what is common goes, `k`: half that of the squares for what is only larger as a whole.
    """
    if variance < 1e-9 or common <= 0:
        return 1.0
    places, shares = typical_batch(variance)
    logs = math.sqrt(variance) * places - log_mean(variance)
    means = np.exp(power * logs)
    left = np.exp(logs) - 2 * common * means / (shares @ means) + common
    return float((shares * places) @ np.log(np.maximum(left, 1e-6))) / math.sqrt(variance)


@functools.lru_cache(maxsize=1024)
def floored_power(variance: float, floor: float) -> float:
    """Returns the power of samples' sizes that is left when the same is added to each: small ones are so no more.

    Args:
        variance: of the sizes' logarithms.
        floor: what is added, over the mean of all.
    """
    if variance < 1e-9 or floor <= 0:
        return 1.0
    places, shares = typical_batch(variance)
    made = np.log(np.exp(math.sqrt(variance) * places - log_mean(variance)) + floor)
    return float((shares * places) @ made) / math.sqrt(variance)


def of_sum(several: Sequence[Sizes], shares: Sequence[float]) -> Sizes:
    """Returns the sizes of a sum, by the parts' shares of the square.

    The logarithm is straight in those of the parts about the mean; how far it goes is what the square's mean square
    over its mean, squared, says (Fenton 1960), in a batch.
    """
    mean = product(to_power(sizes, share) for sizes, share in zip(several, shares))
    straight = covariance(mean, mean) if len(several) > 1 else 0.0
    if straight < 1e-6:
        return mean
    alone = [covariance(one, one) for one in several]
    means = functools.partial(log_mean, leaning=IN_PRODUCTS)
    parts = list(zip(several, shares, alone, map(means, alone)))
    # What is large in the same samples is larger together.
    pairs = [
        a * b * math.exp(means(max(v + w + 2 * covariance(one, other), 0.0)) - (m + n))
        for one, a, v, m in parts
        for other, b, w, n in parts
    ]
    wanted = math.log(max(sum(pairs), 1.0))
    low, high = 0.0, 2 * max(straight, *alone)
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if means(4 * middle) - 2 * means(middle) < wanted else (low, middle)
    return to_power(mean, math.sqrt((low + high) / 2 / straight))
