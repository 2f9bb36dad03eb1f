"""How large single samples are beside the others: logarithms, as sums of independent chances.

A sample whose signal is large stays so: an activation that grows faster than a line makes it larger
still, and a normalization by the batch leaves it as large beside the others as it was. The square of
a sample's signal over that of all samples is about log-normal, since every layer multiplies it. Its
logarithm is kept as a sum of unit Gaussians, each by a key of its own: two tensors, or a signal and a
gradient, are large in the same samples as far as they have keys in common.

Where samples are dropped, as in stochastic depth, that is no Gaussian: no sample is larger than those that are not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_autoinit.laws import FINE, GRADIENTS, SIGNALS, Law, Leaning, law_with, log_mean, straight

Sizes = Mapping[Hashable, float]
# Of logarithms that vary by more, one sample of a batch is all there is: more makes no difference, and no number.
ALONE = 16.0
# Of more chances than the second, so many are kept: what a layer costs does not grow with all the layers before it.
CHANCES = (128, 256)
# By how much a logarithm is larger than that of nothing, as good as; and what counts of it where logarithms do.
NOTHING = 30.0
SMALL = 3.0


@dataclass(frozen=True)
class Dropped:
    """A chance that is no Gaussian: some samples are dropped, and none is larger than those that are not.

    Its values are by how much the logarithm of a sample that is kept is larger.

    Attributes:
        call: by which samples are dropped.
        rate: the share of samples that are.
    """

    call: int
    rate: float

    def covariance(self, first: float, second: float) -> float:
        """Returns that of two logarithms; of nothing as of what is small."""
        return self.rate * (1 - self.rate) * min(first, SMALL) * min(second, SMALL)

    def together(self, first: float, second: float) -> float:
        """Returns the logarithm of how much larger a product is for both factors being small in the same samples."""
        return self._log_mean(first + second) - self._log_mean(first) - self._log_mean(second)

    def shift(self, larger: float, counted: float) -> float:
        """Returns how much larger a mean logarithm is once those count less that are dropped."""
        left = self.rate * math.exp(-counted)
        return larger * (self.rate - left / (left + 1 - self.rate))

    def _log_mean(self, larger: float) -> float:
        """Returns the logarithm of the mean over samples, relative to those that are kept."""
        return math.log1p(self.rate * math.expm1(-larger))


def covariance(first: Sizes, second: Sizes) -> float:
    """Returns the covariance of two logarithms.

    Example:
        >>> covariance({"input": 0.5}, {"input": 0.2, "mixed": 1.0})
        0.1
    """
    return _over_chances(first, second, Dropped.covariance)


def together(first: Sizes, second: Sizes) -> float:
    """Returns the logarithm of how much larger a product's mean is for both factors going together.

    Of Gaussians that is their covariance. Where samples are dropped it has a bound.
    """
    return _over_chances(first, second, Dropped.together)


def shift(sizes: Sizes, others: Sizes) -> float:
    """Returns how much larger the mean logarithm of sizes is in samples where others are large, by how large these are.

    Of Gaussians that is their covariance, too.
    """
    return _over_chances(sizes, others, Dropped.shift)


def _over_chances(first: Sizes, second: Sizes, of_dropped: Callable[[Dropped, float, float], float]) -> float:
    """Returns the sum over all chances, of Gaussian ones the product of both values."""
    return sum(
        [
            of_dropped(key, value, second.get(key, 0.0)) if type(key) is Dropped else value * second.get(key, 0.0)
            for key, value in first.items()
        ]
    )


def variance_of(sizes: Sizes) -> float:
    """Returns the variance of a logarithm."""
    return sum([key.covariance(one, one) if type(key) is Dropped else one * one for key, one in sizes.items()])


def split(sizes: Sizes) -> tuple[Sizes, Mapping[Any, float]]:
    """Returns the chances that are Gaussian, and those by which some samples are dropped."""
    dropped = {key: value for key, value in sizes.items() if type(key) is Dropped}
    return ({key: value for key, value in sizes.items() if type(key) is not Dropped} if dropped else sizes), dropped


def law_of(sizes: Sizes, leaning: Leaning = SIGNALS) -> Law:
    """Returns the law of sizes, rounded so that many have the same."""
    gaussian, dropped = split(sizes)
    alone = float(f"{variance_of(gaussian):.2g}")
    law = law_with(alone, leaning)
    if not dropped:
        return law
    # Samples that are dropped would lean to the left; what is made of them does less and less, and counts as even.
    variance = float(f"{alone + variance_of(dropped):.2g}")
    return Law(variance, round(law.lean * (alone / variance) ** 1.5 / FINE) * FINE) if variance > 0 else law


def power_with(sizes: Sizes, others: Sizes) -> float:
    """Returns the power of sizes with which others go."""
    variance = variance_of(sizes)
    return shift(sizes, others) / variance if variance > 1e-9 else 0.0


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
    variance = variance_of(sizes)
    if not math.isfinite(variance):
        return {}
    fewest, most = CHANCES
    if len(sizes) > most:
        keys, values = list(sizes), list(sizes.values())
        largest = np.argsort(-np.abs(values), kind="stable")[:fewest].tolist()
        kept = {keys[place]: values[place] for place in largest}
        return to_power(kept, math.sqrt(min(variance, ALONE) / variance_of(kept)))
    return to_power(sizes, math.sqrt(ALONE / variance)) if variance > ALONE else sizes


def with_chance(sizes: Sizes, key: Hashable, variance: float) -> Sizes:
    """Returns sizes that a new chance has gone into."""
    return {**sizes, key: sizes.get(key, 0.0) + math.sqrt(variance)} if variance > 0 else sizes


def centred(sizes: Sizes, common: float, power: float) -> Sizes:
    """Returns what is left of samples' sizes when what they have in common goes off.

    A large sample has more of it than goes off, and a small one less: `u - 2 c u^k / E u^k + c` is left of `u`.

    Args:
        sizes: the samples'.
        common: the share `c` of the squares that goes off.
        power: with which what is common goes, `k`: half that of the squares for what is only larger as a whole.
    """
    gaussian, dropped = split(sizes)
    left = to_power(gaussian, _centred_power(law_of(gaussian), common, power))
    if not dropped or common <= 0:
        return {**left, **dropped}
    small = {key: math.exp(-value) - 2 * common * math.exp(-power * value) + common for key, value in dropped.items()}
    return {**left, **{key: math.log((1 - common) / max(one, 1e-6)) for key, one in small.items()}}


@functools.lru_cache(maxsize=1024)
def _centred_power(law: Law, common: float, power: float) -> float:
    if law.variance < 1e-9 or common <= 0:
        return 1.0
    logs, shares = law.batch()
    logs = logs - log_mean(law)
    means = np.exp(power * logs)
    left = np.exp(logs) - 2 * common * means / (shares @ means) + common
    return straight(law, np.maximum(left, 1e-6))


def power_lost(gradient: Sizes, signal: Sizes, share: float) -> float:
    """Returns the power of a signal's sizes that a gradient loses with what goes as the signal does.

    Most of it is in samples where both are large: `u - c (2 u v / E u v - v)` is left of `u`.

    Args:
        gradient: the sizes `u`.
        signal: the sizes `v`.
        share: `c`, of the gradient's squares.
    """
    law = law_of(signal)
    if law.variance < 1e-6 or share <= 0:
        return 0.0
    return _power_lost(law, float(f"{shift(signal, gradient):.2g}"), float(f"{share:.2g}"))


@functools.lru_cache(maxsize=1024)
def _power_lost(law: Law, both: float, share: float) -> float:
    logs, shares = law.batch()
    large, given = np.exp(logs), np.exp(both / law.variance * logs)
    large, given = large / (shares @ large), given / (shares @ given)
    left = 1 - share * (2 * large / (shares @ (large * given)) - large / given)
    return straight(law, np.maximum(left, 1e-6))


def floored(sizes: Sizes, floor: float, leaning: Leaning = GRADIENTS) -> Sizes:
    """Returns samples' sizes once the same is added to each: small ones are so no more.

    Args:
        sizes: the samples'.
        floor: what is added, over the mean of all.
        leaning: how much logarithms lean to the right.
    """
    if floor <= 0:
        return sizes
    gaussian, dropped = split(sizes)
    left = to_power(gaussian, _floored_power(law_of(gaussian, leaning), floor))
    return {**left, **{key: math.log((1 + floor) / (math.exp(-value) + floor)) for key, value in dropped.items()}}


@functools.lru_cache(maxsize=1024)
def _floored_power(law: Law, floor: float) -> float:
    if law.variance < 1e-9:
        return 1.0
    logs, _ = law.batch()
    return straight(law, np.exp(logs - log_mean(law)) + floor)


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
    (one, few), (other, fewer) = split(first), split(second)
    laws = law_of(one, leaning), law_of(other, leaning)
    if max(laws).variance < 1e-3:
        powers = 1 - share, share
    else:
        powers = _powers_of_sum(*laws, float(f"{covariance(one, other):.2g}"), round(share, 2))
    made = product([to_power(one, powers[0]), to_power(other, powers[1])])
    return {**made, **{key: _kept(key, few.get(key, 0.0), fewer.get(key, 0.0), share) for key in {**few, **fewer}}}


def _kept(key: Dropped, first: float, second: float, share: float) -> float:
    """Returns by how much the logarithm of a sum is larger where samples are kept, by that of its parts."""
    parts = [(1 - share, first), (share, second)]
    # A part's share is that of all samples' mean.
    kept = [part / (1 - key.rate + key.rate * math.exp(-value)) for part, value in parts]
    small = sum(one * math.exp(-value) for one, (_, value) in zip(kept, parts))
    return min(math.log(sum(kept) / max(small, 1e-30)), NOTHING)


@functools.lru_cache(maxsize=4096)
def _powers_of_sum(first: Law, second: Law, both: float, share: float) -> tuple[float, float]:
    """Returns the powers of two parts' sizes with which those of their sum go.

    Args:
        first: the law of the first part's.
        second: that of the second's.
        both: the covariance of their logarithms.
        share: of the second part in the sum's square.
    """
    if second > first:
        other, one = _powers_of_sum(second, first, both, 1 - share)
        return one, other
    given, counts = first.batch()
    rest = Law(max(second.variance - both**2 / first.variance, 0.0), second.lean)
    own, own_counts = rest.batch()
    logs = np.repeat(given, len(own))
    others = both / first.variance * logs + np.tile(own, len(given))
    weights = np.outer(counts, own_counts).ravel()
    parts = [np.exp(one) / (weights @ np.exp(one)) for one in (logs, others)]
    whole = np.log((1 - share) * parts[0] + share * parts[1])
    whole -= weights @ whole
    roots = np.sqrt(weights)
    lines = np.stack([logs, others], 1) * roots[:, None]
    found = np.linalg.lstsq(lines, whole * roots, rcond=1e-6)[0]
    return float(found[0]), float(found[1])
