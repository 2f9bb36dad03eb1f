"""What several tests of schemes share: a drawn weight, and what a real layer makes of it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

DEPTHWISE = {"input_axes": [0, 1], "output_axes": [0, 1, 3]}
TRANSPOSED = {"input_axes": [0, 1, 3], "output_axes": [0, 1, 2]}


def drawn(scheme: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A weight in double precision, drawn in single."""
    return scheme.array(shape, "float32").astype(np.float64)


def output(layer: Any, images: Any) -> np.ndarray:
    """What a layer puts out, in double precision."""
    return keras.ops.convert_to_numpy(layer(images)).astype(np.float64)


def normal_images(*shape: int) -> np.ndarray:
    """Images, channels last, of standard normal numbers."""
    return np.random.default_rng(0).standard_normal(shape).astype("float32")
