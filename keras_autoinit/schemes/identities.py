"""Matrices that pass a signal on as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.schemes.base import count, register
from keras_autoinit.schemes.matrices import MatrixScheme, convolution_taps, without


@register("identity")
class Identity(MatrixScheme):
    """The identity: what goes in comes out.

    When to use: recurrent kernels of ReLU networks (Le et al. 2015, arXiv 1504.00941), and
    layers that should start by passing their input on.

    Formula: `W = gain I`; where the sides differ, the surplus rows or columns are zero. Each
    block is an identity by itself.

    Args:
        gain: the number on the diagonal, or the name of an activation.
        input_axes: axes that are inputs; those of a dense kernel when not given.
        output_axes: axes that are outputs, likewise.
        blocks: matrices packed along the last axis (gates), a count.

    Raises:
        SchemeError: the weight is no matrix (for convolutions there is `dirac`).

    Example:
        >>> bool((np.asarray(Identity()((3, 3))) == np.eye(3)).all())
        True
    """

    def __init__(
        self,
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        blocks: int = 1,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, 1.0, blocks, seed=0)

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the identity."""
        lie = self.matrices(shape)
        if lie.taps:
            raise SchemeError(
                f"Expected a matrix. Received the shape {shape} of a convolution kernel: use 'autoinit>dirac'."
            )
        stack = np.broadcast_to(np.eye(lie.rows, lie.columns, dtype=dtype), (lie.number, lie.rows, lie.columns))
        return self._scaled(lie.weight(stack))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return without(super().get_config(), "fan_divisor", "seed")


@register("dirac")
class Dirac(MatrixScheme):
    """The identity of a convolution: one at the centre tap, channel by channel.

    When to use: convolutions that should start by passing their input on.

    Formula: `K[centre, i, i] = gain`, zero elsewhere (Zagoruyko and Komodakis 2017, arXiv
    1706.00388); within each group, if there are several. With an even side the tap that Keras's
    `padding="same"` lays over the pixel itself counts as the centre.

    Args:
        gain: the number at the centre, or the name of an activation.
        groups: groups of the convolution, a count.
        input_axes: axes that are inputs, taps among them; a convolution's when not given.
        output_axes: axes that are outputs, taps among them, likewise.

    Raises:
        SchemeError: the weight is no convolution kernel (for matrices there is `identity`).

    Example:
        >>> kernel = np.asarray(Dirac()((3, 3, 2, 2)))
        >>> bool((kernel[1, 1] == np.eye(2)).all()), float(kernel.sum())
        (True, 2.0)
    """

    def __init__(
        self,
        gain: float | str = 1.0,
        groups: int = 1,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, 1.0, count("groups", groups), seed=0)

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the kernel."""
        lie = self.matrices(shape)
        taps = convolution_taps(self, lie)
        stack = np.zeros((lie.number, *taps, lie.rows, lie.columns), dtype)
        centre: Any = (slice(None), *((length - 1) // 2 for length in taps))
        stack[centre] = np.eye(lie.rows, lie.columns, dtype=dtype)
        return self._scaled(lie.weight(stack))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {"groups": self.blocks, **without(super().get_config(), "fan_divisor", "blocks", "seed")}
