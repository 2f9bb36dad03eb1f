"""What the models of the zoo have in common: a name, a family, a way to build them, and a batch that they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True)
class Specimen:
    """One model of the zoo.

    Attributes:
        name: of its class or function.
        family: image, text, audio, ...
        build: makes it.
        length: stands for sizes that the model leaves open, other than the batch.
        shapes: whole shapes of the inputs, by name, for which one length does not do.
    """

    name: str
    family: str
    build: Callable[[], keras.Model]
    length: int = 6
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def inputs(self, model: keras.Model, number: int = 2) -> Any:
        """Returns a batch of so many: structure, types and sizes as the model asks for."""
        source = np.random.default_rng(0)
        return keras.tree.map_structure(lambda tensor: self._sample(tensor, source, number), model.input)

    def _sample(self, tensor: keras.KerasTensor, source: np.random.Generator, number: int) -> np.ndarray:
        open_ = (size or self.length for size in tensor.shape[1:])
        shape = (number, *self.shapes.get(tensor.name, (number, *open_))[1:])
        if "mask" in tensor.name:
            return np.ones(shape, tensor.dtype)
        if "int" in tensor.dtype:
            # There are two segments, or more words than eight.
            return source.integers(*((0, 2) if "segment" in tensor.name else (1, 8)), shape).astype(tensor.dtype)
        return source.normal(size=shape).astype(tensor.dtype)
