"""Tables of positions without chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.schemes.base import Scheme, positive, register


@register("sinusoids")
class Sinusoids(Scheme):
    """Sines and cosines of the position: near positions have like rows.

    When to use: learned tables of positions, above all before attention that starts as `mimetic`.

    Formula: `table[p, 2 i] = scale sin(p / period^(2 i / d))`, and the cosine in column `2 i + 1`
    (Vaswani et al. 2017, arXiv 1706.03762, section 3.5), with the last axis for `d` and the one
    before it for `p`; so the second moment is `scale^2 / 2`.

    Args:
        scale: the size of the waves: `sqrt(2)` times the spread of the tokens they are added to.
        period: the longest wave is `2 pi` times so many positions.

    Raises:
        SchemeError: an argument is not positive, or the weight is a vector.

    Example:
        >>> np.asarray(Sinusoids()((3, 2))).round(2).tolist()
        [[0.0, 1.0], [0.8399999737739563, 0.5400000214576721], [0.9100000262260437, -0.41999998688697815]]
    """

    def __init__(self, scale: float = 1.0, period: float = 10000.0) -> None:
        self.scale = positive("scale", scale)
        self.period = positive("period", period)

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns the table; axes before the positions repeat it."""
        if len(shape) < 2:
            raise SchemeError(
                f"Expected a table of positions and features, of two dimensions or more, for Sinusoids. Received the "
                f"shape {shape}: use 'autoinit>zeros' or 'autoinit>random_normal'."
            )
        positions, width = shape[-2:]
        speeds = self.period ** (-2 * (np.arange(width) // 2) / width)
        angles = np.arange(positions)[:, None] * speeds
        table = self.scale * np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles))
        whole = np.broadcast_to(table.astype(options.get("dtype", np.float32)), shape)
        return np.array(whole[options.get("part") or ...])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {"scale": self.scale, "period": self.period}


def scale_beside(second_moment: float) -> float:
    """Returns the scale at which the table is as large as the tokens it is added to, to six digits."""
    return float(f"{math.sqrt(2 * second_moment):.6g}")
