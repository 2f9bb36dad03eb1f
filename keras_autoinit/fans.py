"""How many terms each weight sums over, counted along the axes of its role.

A kernel's **fan-in** is the number of products that are summed into one output value; its
**fan-out** is the number of output values into which one input value goes. Which axes make up
which is a matter of the weight's role, not of its shape, so the axes are stated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_autoinit.errors import SchemeError


@dataclass(frozen=True)
class Axes:
    """The axes of a weight that are summed over, and those that are made.

    Attributes:
        inputs: axes whose lengths multiply to the fan-in.
        outputs: axes whose lengths multiply to the fan-out; taps of a convolution count in both.
        blocks: independent matrices packed along the last axis (the gates of a recurrent kernel,
            the groups of a grouped convolution).
        divisor: what the fan-in is divided by (the stride of a transposed convolution, whose
            taps are shared out among that many output positions).
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    blocks: int = 1
    divisor: float = 1.0

    def fans(self, shape: Sequence[int]) -> tuple[float, float]:
        """Returns fan-in and fan-out of a weight of this shape."""
        fan_in = math.prod(shape[axis] for axis in self.inputs) / self.divisor
        fan_out = math.prod(shape[axis] for axis in self.outputs)
        return fan_in, fan_out / self.blocks

    def config(self) -> dict[str, Any]:
        """Returns the scheme arguments that say the same."""
        config: dict[str, Any] = {"input_axes": list(self.inputs), "output_axes": list(self.outputs)}
        if self.blocks != 1:
            config["blocks"] = self.blocks
        if self.divisor != 1.0:
            config["fan_divisor"] = self.divisor
        return config


def default_axes(rank: int) -> Axes:
    """Returns the axes that Keras assumes: of a dense kernel, or of a convolution's."""
    if rank < 2:
        every = tuple(range(rank))
        return Axes(every, every)
    taps = tuple(range(rank - 2))
    return Axes((*taps, rank - 2), (*taps, rank - 1))


def checked_axes(axes: Sequence[int] | None, name: str) -> tuple[int, ...] | None:
    """Returns the axes as a tuple, or raises `SchemeError`."""
    if axes is None:
        return None
    if (
        not isinstance(axes, Sequence)
        or isinstance(axes, (str, bytes))
        or not all(isinstance(axis, int) for axis in axes)
    ):
        raise SchemeError(f"`{name}` should be a list of integers, the axes of the weight. Received: {axes!r}.")
    return tuple(axes)
