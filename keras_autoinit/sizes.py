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
# Logarithms lean to the right, the more the further they vary: each sample has a floor, and none a ceiling. How far
# at most, and the variance at which it is half of that: of signals, and of what gradients are in.
Leaning = tuple[float, float]
SIGNALS: Leaning = (1.0, 0.65)
GRADIENTS: Leaning = (0.5, 0.8)
# Batches that lean by as much are one.
FINE = 0.02
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


def typical_batch(variance: float, leaning: Leaning = SIGNALS) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logarithms of a batch's samples, in spreads, and their shares: extreme ones alone, others grouped.

    Args:
        variance: of the logarithms.
        leaning: how much they lean to the right.
    """
    most, half = leaning
    return _batch(round(most * variance / (variance + half) / FINE) * FINE)


def gaussian_places(count: int) -> np.ndarray:
    """Returns so many numbers at the quantiles of a unit Gaussian, in rising order."""
    return np.array([NormalDist().inv_cdf((place + 0.5) / count) for place in range(count)])


@functools.cache
def _batch(leaning: float) -> tuple[np.ndarray, np.ndarray]:
    places = gaussian_places(BATCH)
    if leaning > 0:
        # Tukey's g-and-h distributions: skewed by `g`, and of shorter tails by `h = -g^2 / 2`.
        raised = leaning * places
        places = np.expm1(raised) / leaning * np.exp(-(raised**2) / 4)
    ends = np.cumsum(GROUPS)
    groups = np.array([part.mean() for part in np.split(places - places.mean(), ends[:-1])])
    return groups / math.sqrt(np.array(GROUPS) @ groups**2 / BATCH), np.array(GROUPS) / BATCH


def log_mean(variance: float, leaning: Leaning = SIGNALS) -> float:
    """Returns the logarithm of a batch's mean, of numbers whose logarithms have mean zero and this variance.

    Example:
        >>> round(log_mean(0.1), 3), round(log_mean(9.0), 1)
        (0.052, 4.7)
    """
    places, shares = typical_batch(variance, leaning)
    return float(np.log(shares @ np.exp(math.sqrt(variance) * places)))


def dominance(variance: float) -> float:
    """Returns how much few samples outweigh all others: the mean square of sizes over their mean, squared."""
    places, shares = typical_batch(variance)
    sizes = np.exp(math.sqrt(variance) * places)
    return float(shares @ sizes**2 / (shares @ sizes) ** 2)


def power_with(sizes: Sizes, others: Sizes) -> float:
    """Returns the power of sizes with which others go."""
    variance = covariance(sizes, sizes)
    return covariance(sizes, others) / variance if variance > 1e-9 else 0.0


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


def power_lost(gradient: Sizes, signal: Sizes, share: float) -> float:
    """Returns the power of a signal's sizes that a gradient loses with what goes as the signal does.

    Most of it is in samples where both are large: `u - c (2 u v / E u v - v)` is left of `u`.

    Args:
        gradient: the sizes `u`.
        signal: the sizes `v`.
        share: `c`, of the gradient's squares.
    """
    variance = float(f"{covariance(signal, signal):.2g}")
    if variance < 1e-6 or share <= 0:
        return 0.0
    return _power_lost(variance, float(f"{covariance(gradient, signal):.2g}"), float(f"{share:.2g}"))


@functools.lru_cache(maxsize=1024)
def _power_lost(variance: float, together: float, share: float) -> float:
    places, shares = typical_batch(variance)
    logs = math.sqrt(variance) * places
    large, given = np.exp(logs), np.exp(together / variance * logs)
    large, given = large / (shares @ large), given / (shares @ given)
    left = 1 - share * (2 * large / (shares @ (large * given)) - large / given)
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
    places, shares = typical_batch(variance, GRADIENTS)
    made = np.log(np.exp(math.sqrt(variance) * places - log_mean(variance, GRADIENTS)) + floor)
    return float((shares * places) @ made) / math.sqrt(variance)


def of_sum(several: Sequence[Sizes], shares: Sequence[float], leaning: Leaning = SIGNALS) -> Sizes:
    """Returns the sizes of a sum, by the parts' shares of the square.

    The logarithm of a sum is no sum of logarithms: a part of which few samples have most counts for little in all
    others. What is kept is the straight line through what a batch's samples make of it.
    """
    made, share = several[0], shares[0]
    for other, more in zip(several[1:], shares[1:]):
        made, share = _of_two(made, other, more / max(share + more, 1e-300), leaning), share + more
    return made


def _of_two(first: Sizes, second: Sizes, share: float, leaning: Leaning) -> Sizes:
    """Returns the sizes of a sum of two, by the share of the second."""
    alone = covariance(first, first), covariance(second, second)
    if max(alone) < 1e-3:
        powers = 1 - share, share
    else:
        numbers = (float(f"{one:.2g}") for one in (*alone, covariance(first, second)))
        powers = _powers_of_sum(*numbers, round(share, 2), leaning)
    return product([to_power(first, powers[0]), to_power(second, powers[1])])


@functools.lru_cache(maxsize=4096)
def _powers_of_sum(first: float, second: float, both: float, share: float, leaning: Leaning) -> tuple[float, float]:
    """Returns the powers of two parts' sizes with which those of their sum go.

    Args:
        first: the variance of the first part's logarithms.
        second: that of the second's.
        both: their covariance.
        share: of the second part in the sum's square.
        leaning: how much they lean to the right.
    """
    if second > first:
        other, one = _powers_of_sum(second, first, both, 1 - share, leaning)
        return one, other
    places, counts = typical_batch(first, leaning)
    rest = max(second - both**2 / first, 0.0)
    own, own_counts = typical_batch(rest, leaning)
    logs = math.sqrt(first) * np.repeat(places, len(own))
    others = both / first * logs + math.sqrt(rest) * np.tile(own, len(places))
    weights = np.outer(counts, own_counts).ravel()
    parts = [np.exp(one) / (weights @ np.exp(one)) for one in (logs, others)]
    whole = np.log((1 - share) * parts[0] + share * parts[1])
    whole -= weights @ whole
    roots = np.sqrt(weights)
    lines = np.stack([logs, others], 1) * roots[:, None]
    found = np.linalg.lstsq(lines, whole * roots, rcond=1e-6)[0]
    return float(found[0]), float(found[1])
