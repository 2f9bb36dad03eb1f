"""How single units are distributed where they are no Gaussians, all of them alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, kw_only=True)
class Form:
    """A distribution with mean zero and unit variance, and what goes with it.

    Attributes:
        law: a rising function of a Gaussian, by its values on `hermite_grid`.
        axis: that of the units.
        unlike: the mean squared correlation of what one unit makes at two positions of one sample.
        share: of one weight in the variance of what it makes, where it meets an entry.
        shared: of maxima, the share of the entries that two windows have in common, by their distance.
    """

    law: np.ndarray
    axis: int = -1
    unlike: float = 0.0
    share: float = 0.0
    shared: np.ndarray | None = None
