"""Channels of a depthwise convolution against drawn ones: what a normalization divides by, and what it makes."""

import numpy as np
import pytest

from keras_autoinit.activations import activation
from keras_autoinit.channels import Source, channels_of
from keras_autoinit.responses import hermite_grid
from keras_autoinit.taps import overlap_of, windows

DRAWS = 20_000
# A rectified unit Gaussian: two of them agree by `1 / pi` of their second moment.
RECTIFIED = Source(activation("relu").function, 0.0, 1.0, 0.0, 1 / np.pi, 1 / np.pi, 1 / np.pi)
INSIDE = tuple(map(tuple, np.ones((7, 3)).tolist()))


def kernels(number, taps, source):
    weights = source.standard_normal(number * taps * 2)
    weights = weights[np.abs(weights) < 2][: number * taps].reshape(number, taps)
    return weights / np.sqrt((weights**2).mean())


@pytest.mark.parametrize("agreement", [0.0, 0.2])
def test_shares_are_those_of_drawn_kernels(agreement):
    weights = kernels(DRAWS, 9, np.random.default_rng(1))
    back = (weights**2).sum(1)
    through = (1 - agreement) * back + agreement * weights.sum(1) ** 2
    through, back = through / through.mean(), back / back.mean()
    source = Source(activation("linear").function, 0.0, 1.0, agreement, agreement, 0.0, 0.0)
    found = channels_of((INSIDE, INSIDE), 0.0, 1, 0.0, source, 384, 3)
    for predicted, drawn in ((1 / found.through, 1 / through), (found.returned / found.through, back / through)):
        # The 16,384 kernels behind the shares are draws, too.
        assert abs(predicted.mean() - drawn.mean()) <= 1e-12 + 5 * drawn.std() / np.sqrt(16384)


def test_with_many_taps_channels_are_alike():
    source = Source(activation("linear").function, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    found = channels_of((tuple(map(tuple, np.ones((3, 7)).tolist())),) * 2, 0.0, 1, 0.0, source, 64, 3)
    assert np.ptp(found.through) < 1.5
    assert found.returned == pytest.approx(found.through)


@pytest.fixture(scope="module", params=[2, 4, 8])
def drawn(request):
    """Depthwise convolutions of rectified Gaussians with padding, each channel normalized over 64 samples."""
    size, source = request.param, np.random.default_rng(2)
    number = 400 * 64 // size**2
    padded = np.pad(np.maximum(source.standard_normal((number, 64, size, size)), 0), ((0, 0), (0, 0), (1, 1), (1, 1)))
    weights = kernels(number, 9, source).reshape(number, 3, 3)
    made = sum(
        weights[:, None, i, j, None, None] * padded[:, :, i : i + size, j : j + size]
        for i in range(3)
        for j in range(3)
    )
    made -= made.mean((1, 2, 3), keepdims=True)
    variances = made.var((1, 2, 3), keepdims=True)
    places, inside = windows(size, size, 3, 1, 1, "same")
    met = (tuple(map(tuple, inside.astype(float).tolist())),) * 2
    overlap = overlap_of([(inside.astype(float), places, size)] * 2)
    return made / np.sqrt(variances), variances.ravel(), channels_of(met, overlap, size**2, 0.0, RECTIFIED, number, 3)


def test_a_channel_makes_what_its_law_says(drawn):
    made, _, found = drawn
    _, weights, _ = hermite_grid()
    for function in (lambda y: np.maximum(y, 0), lambda y: y / (1 + np.exp(-y)), lambda y: np.minimum(y**4, 99.0)):
        of_channels = function(made).mean((1, 2, 3))
        expected = weights @ function(found.law)
        # Five standard errors of a mean over channels, twice: the law's 256 kernels are fewer than these.
        assert expected == pytest.approx(of_channels.mean(), abs=10 * of_channels.std() / np.sqrt(min(len(made), 256)))


def test_variances_differ_as_borders_make_them(drawn):
    _, variances, found = drawn
    inverse = variances.mean() / variances
    # 64 samples are few: the mean of `1 / v` is larger by how uneven their mean is.
    expected = np.mean(1 / found.through) * (1 + found.uneven / 64)
    assert expected == pytest.approx(inverse.mean(), abs=5 * inverse.std() / np.sqrt(len(variances)))


def test_samples_are_as_uneven_as_said(drawn):
    made, _, found = drawn
    uneven = (made**2).mean((2, 3)).var(1)
    # What the law of all kernels says of one channel's is right to a few per cent, where few windows overlap.
    assert found.uneven == pytest.approx(uneven.mean(), rel=0.2)


def test_windows_that_overlap_agree_in_some_channels_and_are_opposed_in_others(drawn):
    """Two positions of one sample correlate by chance, and as borders make them, each channel in its own way."""
    made, _, found = drawn
    own = made.reshape(*made.shape[:2], -1)
    agreed = np.einsum("csp,csq->cpq", own, own) / own.shape[1]
    apart = ~np.eye(agreed.shape[1], dtype=bool)
    # Of 64 samples, two that do not correlate seem to, by one over 64 squared on average.
    chance = np.mean(np.einsum("cpp,cqq->cpq", agreed, agreed)[:, apart]) / own.shape[1]
    squares = (agreed[:, apart] ** 2).mean(1)
    expected = squares.mean() - chance - agreed[:, apart].mean() ** 2
    assert found.unlike == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("side", [2, 4])
def test_windows_that_hand_back_more_are_larger(side):
    """Of drawn kernels, the size of a window beside its channel's others, which is how much its taps hand back, too."""
    weights = kernels(DRAWS, 9, np.random.default_rng(1))
    axis = np.array([[0 <= window + tap - 1 < side for tap in range(3)] for window in range(side)])
    inside = (axis[:, None, :, None] & axis[None, :, None, :]).reshape(side * side, 9)
    squares = weights[:, None] ** 2 * inside
    sizes = squares.sum(2) / squares.sum((1, 2))[:, None] * side * side
    expected = (sizes**2).sum() / (sizes * sizes.mean(0)).sum()
    met = tuple(map(tuple, axis.astype(float).tolist()))
    source = Source(activation("linear").function, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    found = channels_of((met, met), 0.0, side * side, 0.0, source, 64, 3)
    # Of 256 kernels at most.
    assert found.larger - 1 == pytest.approx(expected - 1, rel=0.3)
    assert found.larger > 1.02
