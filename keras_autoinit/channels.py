"""What the channels of a depthwise convolution do: few taps, so that they differ, and are no Gaussians.

A sum of nine squared weights is often half or twice its mean. A normalization behind it evens the
channels out, and so passes back more than one over the mean: `E 1/v > 1/(E v)`. The kernel itself
takes that off again, since it passes back `b = sum w^2` where it has let through `v = w' C w`, with
`C` the covariance of what the taps meet: the signal's own variance, and where a tap is beyond the
border of some windows, the mean that it misses there.

What such a channel makes is a sum of a few rectified numbers, fewer at the border: its tails are
heavier than a Gaussian's, and the next activation makes less of a mean of it. And two windows that
overlap see the same numbers through other weights: what they make agrees in some channels and is
opposed in others, which leaves nothing of a mean but is no less there behind the next activation.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_autoinit.forms import Form
from keras_autoinit.functions import error_function
from keras_autoinit.responses import hermite_grid

# Kernels over which the law of a channel is taken; fixed, so that every plan is the same.
DRAWS = 16384
# Kernels, and windows that each of them meets, for the law of what they make.
KERNELS, WINDOWS = 256, 1024
# Taps are taken together in so many groups, by their shares in what is made.
READERS = 8
# Entries of windows of kernels, over which they are taken, and kernels at least.
MOST_PARTS, FEWEST = 400_000, 32
# Schemes cut Gaussians off at two spreads.
CUT = 2.0
# With more terms, channels differ by a few per cent.
FEW = 64

# Of one axis, for each window, how large what each tap meets is: nothing beyond the border.
Met = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Source:
    """What the taps meet, relative to its second moment.

    Attributes:
        function: has made it from Gaussians.
        mean: of the Gaussians.
        spread: theirs.
        alike: the correlation of the Gaussians of two positions of one sample.
        within: how far two positions of one sample agree.
        over: how far two samples agree, at the same position.
        common: how far all samples and positions agree.
    """

    function: Any
    mean: float
    spread: float
    alike: float
    within: float
    over: float
    common: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Channels(Form):
    """What channels do, beside how what they make is distributed.

    Attributes:
        through: what each of them lets through, with mean one, in rising order. Each stands for a part of all
            kernels, whose mean of `1 / v` it has.
        returned: what each passes back over what it lets through, likewise.
        patterned: the share that all samples have in common of what a normalized channel makes, over that
            of all channels' mean.
        chance: how uneven it is of what does not go with the squares that the channel reads.
        uneven: how uneven a sample's variance is, `E v^2 / (E v)^2 - 1`.
        together: of two taps that read one entry, the product of their correlations with what they make, summed
            over all other readers of an entry that one tap reads.
        parts: the share that one entry has in the variance of what its readers make, and that variance over the
            mean of all: of groups that get equally much back.
        larger: how much larger what a window makes is beside its channel's others, by how much it hands back.
        lasting: the share of the variance that samples have in common because the signal has, not by borders.
    """

    through: np.ndarray
    returned: np.ndarray
    patterned: float
    chance: float
    uneven: float
    together: float
    parts: tuple[tuple[float, float], ...]
    larger: float
    lasting: float


@functools.lru_cache(maxsize=256)
def channels_of(
    met: tuple[Met, ...], overlap: float, entries: int, readers: float, source: Source, count: int, axis: int
) -> Channels:
    """Returns what so many channels of a depthwise convolution do.

    Args:
        met: for each axis of positions, how its windows meet the signal.
        overlap: of two windows in different places, how many entries both meet, on average.
        entries: how many entries a sample has.
        readers: how many other windows read an entry that one reads, on average.
        source: the signal.
        count: how many channels there are.
        axis: theirs.
    """
    axes = [np.array(one) for one in met]
    both = functools.reduce(np.kron, [one.T @ one / len(one) for one in axes])
    often = functools.reduce(np.kron, [one.mean(0) for one in axes])
    kernels = _kernels(len(often))
    own, crossed, whole = kernels**2 @ np.diag(both), _form(kernels, both), (kernels @ often) ** 2
    through = (1 - source.within) * own + source.within * crossed - source.common * whole
    through = np.maximum(through, 1e-12 * own)
    lasting = (source.over - source.common) * own
    shared = lasting + source.common * (crossed - whole)
    patterned = np.mean(shared / through) * through.mean() / shared.mean() if shared.mean() > 1e-9 else 1.0
    unlike = _unlike(axes, overlap, source, own, through)
    law = _law(axes, source)
    uneven, read = _unevenness(math.prod(map(len, axes)), entries, law, unlike, source)
    in_parts, handed_back = _in_parts(through / through.mean(), own / own.mean(), count)
    parts, larger = _parts_of_entries(axes)
    return Channels(
        through=in_parts,
        returned=handed_back,
        law=law,
        patterned=float(patterned),
        unlike=float(unlike),
        axis=axis,
        chance=max(uneven - read, 0.0),
        uneven=uneven,
        share=(1 - source.within) / float(through.mean()) * float(np.mean(np.diag(both))),
        together=(1 - source.within) * readers * _pairs_of_taps(kernels**2 * np.diag(both), through, np.diag(both)),
        parts=parts,
        larger=larger,
        lasting=float(lasting.mean() / through.mean()),
    )


def _pairs_of_taps(squares: np.ndarray, through: np.ndarray, often: np.ndarray) -> float:
    """Returns the mean product of two taps' squares over what their kernel lets through, over that of one tap's.

    Of few taps a normalization leaves the others less where one is large.
    """
    own, whole = squares.sum(1), often.sum()
    pairs = (own**2 - (squares**2).sum(1)) / max(1 - (often**2).sum() / whole**2, 1e-12)
    return float(np.mean(pairs / through**2) / np.mean(own / through) / whole)


def _unlike(axes: list[np.ndarray], overlap: float, source: Source, own: np.ndarray, through: np.ndarray) -> float:
    """Returns the variance, over kernels and pairs of positions, of how far what they make agrees.

    Two windows meet the same entries with other taps; and what all entries of a sample have in common they meet
    with all their taps; what all samples have in common, too, as far as borders make windows differ.
    """
    same = (1 - source.within) ** 2 * overlap * np.mean((own / through) ** 2) / np.mean(own**2)
    met, often = _distinct(axes)
    sums = _kernels(met.shape[1])[:KERNELS] @ met.T
    pairs = often.sum() * (often.sum() - 1)
    if not pairs:
        return float(same)
    apart = sums - sums @ often[:, None] / often.sum()
    parts = (source.within - source.common, sums), (source.common, apart)
    # Over all pairs of two windows, the sum of what they agree in, and of its square.
    first = sum(share * ((one @ often) ** 2 - one**2 @ often) for share, one in parts)
    second = sum(
        share * more * (((one * other) @ often) ** 2 - (one * other) ** 2 @ often)
        for share, one in parts
        for more, other in parts
    )
    means, squares = (np.mean(one / pairs / through[:KERNELS] ** power) for one, power in ((first, 1), (second, 2)))
    return float(same + max(squares - means**2, 0.0))


def _distinct(axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns what windows meet that differ, and how many are alike: most lie inside."""
    found = [np.unique(one, axis=0, return_counts=True) for one in axes]
    return functools.reduce(np.kron, [met for met, _ in found]), functools.reduce(np.kron, [n for _, n in found])


def _unevenness(positions: int, entries: int, law: np.ndarray, unlike: float, source: Source) -> tuple[float, float]:
    """Returns how uneven a sample's variance is, and that of the entries that it is made from.

    It is a mean over positions of squares that are uneven, and agree in part.

    Squares of two sums that have entries in common agree by `2 r^2` where they are Gaussians of
    correlation `r`, and more where the squares of the entries themselves are uneven: `(k - 1) r^2`
    with `k` the entries' kurtosis.
    """
    z, weights, _ = hermite_grid()
    given = source.function(source.mean + source.spread * z)
    given = given - weights @ given
    kurtosis = [float(weights @ one**4 / max(weights @ one**2, 1e-24) ** 2) for one in (law, given)]
    made = (kurtosis[0] - 1) / positions + (1 - 1 / positions) * (kurtosis[1] - 1) * unlike
    return float(made), float((kurtosis[1] - 1) / entries)


def _parts_of_entries(axes: list[np.ndarray]) -> tuple[tuple[tuple[float, float], ...], float]:
    """Returns the shares that taps have in what their window makes, and how large that is, over the mean of all.

    Of groups of them, by their shares, to each of which as much comes back. At a border fewer taps share less.
    And how much larger windows are that hand back more, beside what all kernels make there.
    """
    met, often = _distinct(axes)
    kernels = _kernels(met.shape[1])[: min(max(MOST_PARTS // met.size, FEWEST), KERNELS)]
    squares = kernels[:, None] ** 2 * met**2
    own = np.maximum(squares.sum(2), 1e-12)
    sizes = np.broadcast_to((own / (own @ often[:, None]) * often.sum())[..., None], squares.shape)
    shares, back = squares / own[..., None], squares * often[:, None]
    order = np.argsort(shares, axis=None)
    mass = np.cumsum(back.ravel()[order])
    groups = np.minimum((mass / mass[-1] * READERS).astype(int), READERS - 1)
    counts = np.bincount(groups, back.ravel()[order], READERS)
    found = [np.bincount(groups, (back * one).ravel()[order], READERS) / counts for one in (shares, sizes)]
    # A normalization has made all channels pass back as much.
    evened = sizes * often[:, None]
    larger = (evened * sizes).sum() / (evened * sizes.mean(0)).sum()
    return tuple(zip(*(one.round(3).tolist() for one in found))), float(larger)


def _form(kernels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.einsum("kt,kt->k", kernels @ matrix, kernels)


def _law(axes: list[np.ndarray], source: Source) -> np.ndarray:
    """Returns the law of what a channel makes, over its windows, and over all kernels, which have it both ways up."""
    chance = np.random.default_rng(1)
    places = [chance.permutation(np.arange(WINDOWS) % len(one)) for one in axes]
    met = functools.reduce(
        lambda a, b: (a[:, :, None] * b[:, None]).reshape(WINDOWS, -1), [one[at] for one, at in zip(axes, places)]
    )
    same, own = chance.standard_normal((WINDOWS, 1)), chance.standard_normal(met.shape)
    gaussians = source.mean + source.spread * (np.sqrt(source.alike) * same + np.sqrt(1 - source.alike) * own)
    made = (met * source.function(gaussians)) @ _kernels(met.shape[1])[:KERNELS].T
    made -= made.mean(0)
    sizes = np.sort(np.abs(made / np.maximum(np.sqrt((made**2).mean(0)), 1e-12)).ravel())
    z, weights, _ = hermite_grid()
    shares = error_function(np.abs(z) / np.sqrt(2))
    values = np.sign(z) * np.interp(shares * len(sizes) - 0.5, np.arange(len(sizes)), sizes, left=0.0)
    return values / np.sqrt(weights @ values**2)


def _in_parts(through: np.ndarray, back: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what so many equal parts of all kernels let through and pass back, by their means of `1 / v`, `b / v`."""
    order = np.argsort(through)
    edges = np.linspace(0, len(order), count + 1)
    inverse, returned = (
        np.diff(np.interp(edges, np.arange(len(order) + 1), np.concatenate([[0.0], np.cumsum(one[order])])))
        for one in (1 / through, back / through)
    )
    return len(order) / count / inverse, returned / inverse


@functools.lru_cache(maxsize=16)
def _kernels(taps: int) -> np.ndarray:
    """Returns kernels of truncated Gaussians, with unit second moment."""
    source = np.random.default_rng(0)
    weights = source.standard_normal((DRAWS, taps))
    while (beyond := np.abs(weights) > CUT).any():
        weights[beyond] = source.standard_normal(int(beyond.sum()))
    return weights / np.sqrt((weights**2).mean())
