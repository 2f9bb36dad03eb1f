"""Channels of a depthwise kernel against drawn ones: the law is what a normalization behind the kernel divides by."""

import numpy as np
import pytest

from keras_autoinit.channels import channel_shares

DRAWS = 20_000


@pytest.mark.parametrize("agreement", [0.0, 0.2])
def test_shares_are_those_of_drawn_kernels(agreement):
    source = np.random.default_rng(1)
    weights = source.standard_normal((DRAWS * 12, 1)).ravel()
    weights = weights[np.abs(weights) < 2][: DRAWS * 9].reshape(DRAWS, 9)
    back = (weights**2).sum(1)
    through = (1 - agreement) * back + agreement * weights.sum(1) ** 2
    through, back = through / through.mean(), back / back.mean()
    shares, returned = channel_shares((1.0,) * 9, agreement, 384)
    for predicted, drawn in ((1 / shares, 1 / through), (returned / shares, back / through)):
        # The 4,096 kernels behind the shares are draws, too.
        assert abs(predicted.mean() - drawn.mean()) <= 1e-12 + 5 * drawn.std() / np.sqrt(4096)


def test_with_many_taps_channels_are_alike():
    shares, returned = channel_shares((1.0,) * 49, 0.0, 64)
    assert np.ptp(shares) < 1.5
    assert returned == pytest.approx(shares)
