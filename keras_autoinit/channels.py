"""What each channel of a depthwise kernel lets through: few taps, so that channels differ.

A sum of nine squared weights is often half or twice its mean. A normalization behind it evens the
channels out, and so passes back more than one over the mean: `E 1/v > 1/(E v)`. The kernel itself
takes that off again, since it passes back `b = sum w^2` where it has let through `v = w' C w`, which
is the same if neighbours do not correlate.
"""

from __future__ import annotations

import functools

import numpy as np

# Kernels over which the law of a channel is taken; fixed, so that every plan is the same.
DRAWS = 4096
# Schemes cut Gaussians off at two spreads.
CUT = 2.0
# With more terms, channels differ by a few per cent.
FEW = 64


@functools.lru_cache(maxsize=256)
def channel_shares(inside: tuple[float, ...], agreement: float, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what each of so many channels lets through, and what it passes back, with mean one.

    Channels stand in rising order. Each stands for a part of all kernels: its two shares have the
    means of `1 / v` and of `b / v` over that part.

    Args:
        inside: for each tap, how often it meets an entry: beyond the border it meets none.
        agreement: the correlation of the entries that two taps of one window meet.
        channels: how many there are.

    Example:
        >>> through, back = channel_shares((1.0,) * 9, 0.0, 512)
        >>> [round(float(np.mean(one)), 2) for one in (through, 1 / through, back / through)]
        [1.0, 1.2, 1.0]
    """
    weights, often = _kernels(len(inside)), np.sqrt(np.array(inside))
    back = (weights * often) ** 2 @ np.ones(len(inside))
    through = (1 - agreement) * back + agreement * (weights @ often) ** 2
    through, back = through / through.mean(), back / back.mean()
    order = np.array_split(np.argsort(through), channels)
    inverse = np.array([np.mean(1 / through[part]) for part in order if len(part)])
    returned = np.array([np.mean(back[part] / through[part]) for part in order if len(part)])
    # More channels than draws: neighbours are alike.
    places = np.linspace(0, len(inverse) - 1, channels).round().astype(int)
    return 1 / inverse[places], (returned / inverse)[places]


@functools.lru_cache(maxsize=16)
def _kernels(taps: int) -> np.ndarray:
    """Returns kernels of truncated Gaussians."""
    source = np.random.default_rng(0)
    weights = source.standard_normal((DRAWS, taps))
    while (beyond := np.abs(weights) > CUT).any():
        weights[beyond] = source.standard_normal(int(beyond.sum()))
    return weights
