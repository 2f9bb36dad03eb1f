"""Random orthogonal matrices: rotations, and as many reflections."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_autoinit import draws
from keras_autoinit.draws import Seed

ROUNDING = 2.0**28


def orthogonal_matrices(number: int, rows: int, columns: int, seed: Seed, dtype: Any) -> np.ndarray:
    """Returns independent matrices with orthonormal columns, or rows where those are fewer.

    Uniform over all such matrices: the QR factors of Gaussian ones, with positive diagonal of R.
    """
    tall, thin = max(rows, columns), min(rows, columns)
    # NumPy decomposes in double precision anyway.
    q, r = np.linalg.qr(draws.normal((number, tall, thin), seed, dtype=dtype).astype(np.float64))
    q *= np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)[:, None, :]
    if dtype == np.float32:
        # The last bits of a double depend on how many threads LAPACK used and on the processor:
        # rounded to what float32 can tell of a typical entry, they do not show.
        q = (np.round(q * ROUNDING) / ROUNDING).astype(np.float32)
    return q if rows >= columns else q.transpose(0, 2, 1)
