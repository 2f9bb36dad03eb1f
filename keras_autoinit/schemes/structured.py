"""Schemes that repeat another scheme's matrix in a pattern: ICNR and the linear start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.schemes.base import PACKAGE, REGISTRY, AxesScheme, count, register
from keras_autoinit.schemes.matrices import Matrices


class _Structured(AxesScheme):
    """A scheme that takes another, its `base`."""

    base: AxesScheme

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the whole weight."""
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns the weight; a slice of it costs as much as the whole."""
        weight = self.whole(shape, seed, options.get("dtype", np.float32))
        weight *= weight.dtype.type(self.gain_value)
        return weight[options.get("part") or ...]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {"base": keras.initializers.serialize(self.base), **super().get_config()}


@register("icnr")
class ICNR(_Structured):
    """One small kernel repeated over every sub-pixel: an up-sampling without checkerboards.

    When to use: the convolution before a pixel shuffle (`keras.ops.depth_to_space`), and
    transposed convolutions whose kernel side is a multiple of their stride.

    Formula: `base` draws the kernel of the small convolution, and each of its weights is repeated
    over the `factor x factor` outputs of one sub-pixel block (Aitken et al. 2017, arXiv
    1707.02937), so the layer starts as that convolution followed by nearest-neighbour up-sampling.

    Args:
        base: the scheme of the small kernel: a name (`"he_normal"`), an instance or a
            configuration. Its seed is not used.
        factor: how many times the image grows along each side, a count: the block size of the
            shuffle, or the stride of the transposed convolution.
        transposed: whether the kernel is that of a transposed convolution, whose last axes are
            (outputs, inputs); the repetition is then over taps instead of channels.
        gain: multiplies the kernel; a number, or the name of an activation.
        input_axes: axes that are inputs; set by the layer where it must be.
        output_axes: axes that are outputs, likewise.
        fan_divisor: accepted from the layer and not needed: the small kernel's fans are right.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: the weight is no convolution kernel, or `factor` does not divide what is
            repeated.

    Example:
        >>> kernel = np.asarray(ICNR("he_normal", factor=2, seed=1)((3, 3, 5, 8)))
        >>> bool((kernel[..., 0:2] == kernel[..., 2:4]).all())
        True
    """

    def __init__(
        self,
        base: Any = "he_normal",
        factor: int = 2,
        transposed: bool = False,
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        fan_divisor: float = 1.0,
        seed: Any = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, fan_divisor, 1, seed)
        self.base = _base(base)
        self.factor = count("factor", factor)
        self.transposed = bool(transposed)

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the kernel."""
        if len(shape) < 3:
            raise SchemeError(
                f"Expected the kernel of a convolution, of three or more dimensions, for ICNR. Received the shape "
                f"{shape}: use the base scheme itself."
            )
        taps = tuple(range(len(shape) - 2))
        small, repeats = list(shape), self.factor ** len(taps)
        for axis, times in [(axis, self.factor) for axis in taps] if self.transposed else [(-1, repeats)]:
            if shape[axis] % times:
                what = "kernel sides" if self.transposed else "a number of outputs"
                raise SchemeError(
                    f"Expected {what} divisible by {times}, for factor {self.factor}. Received the shape {shape}."
                )
            small[axis] //= times
        kernel = self._small_base(taps).draw(tuple(small), seed, dtype=dtype)
        if not self.transposed:
            # depth_to_space reads channel (dy, dx, c): the block's positions outermost.
            return np.tile(kernel, (1,) * (len(shape) - 1) + (repeats,))
        for axis in taps:
            kernel = np.repeat(kernel, self.factor, axis)
        return kernel

    def _small_base(self, taps: tuple[int, ...]) -> AxesScheme:
        """Returns the base with the axes of the small kernel: a transposed one has inputs last."""
        if not self.transposed or self.base.input_axes is not None:
            return self.base
        return rebuilt(self.base, input_axes=[*taps, -1], output_axes=[*taps, -2], seed=0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        config = super().get_config()
        config.pop("blocks")
        return {**config, "factor": self.factor, "transposed": self.transposed}


@register("mirrored")
class Mirrored(_Structured):
    """The linear start: units in pairs that see `z` and `-z`, read with opposite signs.

    When to use: plain stacks (no normalization, no skips) of many layers with ReLU, Leaky ReLU,
    GELU, SiLU or a similar activation; `keras_autoinit.linear_start` finds where.

    Formula: for an activation with `f(z) - f(-z) = c z` (ReLU `c = 1`, Leaky ReLU `1 + slope`,
    GELU and SiLU 1) the kernel `[[A, -A], [-A, A]] / c` makes the layer the linear map `A` on the
    pairs' differences. The first layer of a stack makes pairs, `[A, -A]`; the last one reads them,
    `[A; -A]`. With an orthogonal `A` the stack keeps every length and angle, forward and backward,
    at any depth. After Balduzzi et al. 2017 (arXiv 1702.08591), who mirror a concatenated ReLU. A
    depthwise kernel mixes no units: equal within each pair of `pairs_in`, it keeps the pairs.

    Args:
        base: the scheme of `A`: a name (`"orthogonal"`), an instance or a configuration. Its seed
            is not used.
        pairs_in: the block, a count of inputs, within which the input's second half mirrors its
            first; blocks repeat along the axis, so pairs made before a flattening are found after
            it. In a block of odd length the last unit has no partner and is not read. `None`: inputs
            are no pairs.
        pairs_out: the same for the outputs.
        gain: multiplies the kernel: `1 / c`, or the name of an activation.
        input_axes: axes that are inputs; those of a dense or convolution kernel when not given.
        output_axes: axes that are outputs, likewise.
        fan_divisor: the product of the strides of a transposed convolution, handed to `base`.
        blocks: groups of a grouped convolution, a count; pairs lie within a group.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: the weight is a vector, or an axis holds no whole number of blocks.

    Example:
        >>> kernel = np.asarray(Mirrored(pairs_out=4, seed=1)((2, 4)))
        >>> bool((kernel[:, :2] == -kernel[:, 2:]).all())
        True
    """

    def __init__(
        self,
        base: Any = "orthogonal",
        pairs_in: int | None = None,
        pairs_out: int | None = None,
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        fan_divisor: float = 1.0,
        blocks: int = 1,
        seed: Any = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, fan_divisor, blocks, seed)
        self.base = _base(base)
        self.pairs_in = None if pairs_in is None else _block("pairs_in", pairs_in)
        self.pairs_out = None if pairs_out is None else _block("pairs_out", pairs_out)

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns the kernel."""
        lie = self._lie(shape)
        if lie.batch:
            return self._equal(lie.batch[0], shape, seed, dtype)
        taps = lie.lengths(lie.taps)
        rows, columns = _pairs(lie.rows, self.pairs_in, shape), _pairs(lie.columns, self.pairs_out, shape)
        # Units without a partner see a draw of their own, and are not read: the stack stays linear.
        single_rows, single_columns = _singles(lie.rows, self.pairs_in), _singles(lie.columns, self.pairs_out)
        base = rebuilt(self.base, input_axes=None, output_axes=None, fan_divisor=self.fan_divisor, seed=0)
        words = (seed,) if isinstance(seed, int) else tuple(seed)
        parts = [
            base.draw((*taps, rows, columns + single_columns), (*words, block), dtype=dtype)
            for block in range(lie.blocks)
        ]
        stack = np.stack([part.reshape(-1, rows, columns + single_columns) for part in parts])
        unread = np.zeros((*stack.shape[:2], single_rows, stack.shape[3]), dtype)
        stack = _mirrored(stack, 2, self.pairs_in, lie.rows, unread)
        paired, alone = np.split(stack, [columns], 3)
        return lie.weight(_mirrored(paired, 3, self.pairs_out, lie.columns, alone))

    def _lie(self, shape: tuple[int, ...]) -> Matrices:
        if len(shape) < 2:
            raise SchemeError(f"Expected a weight of two or more dimensions for Mirrored. Received the shape {shape}.")
        lie = Matrices.of(shape, self.axes(shape))
        depthwise = len(lie.batch) == 1 and not lie.inputs and lie.blocks == 1
        if lie.batch and not (depthwise and self.pairs_in is not None and self.pairs_out is None):
            raise SchemeError(
                f"Expected a weight whose axes are all inputs or outputs for Mirrored. Received the shape {shape} with "
                f"the axes {lie.batch} left over, as in a depthwise kernel: use `pairs_in` alone for one, and "
                "'autoinit>variance_scaling' elsewhere."
            )
        return lie

    def _equal(self, axis: int, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns a depthwise kernel with the same taps for both units of a pair."""
        length, block = shape[axis], self.pairs_in
        pairs, single = _pairs(length, block, shape), _singles(length, block)
        axes = {"input_axes": self.input_axes, "output_axes": self.output_axes}
        base = rebuilt(self.base, **axes, fan_divisor=self.fan_divisor, seed=0)
        drawn = base.draw((*shape[:axis], pairs + single, *shape[axis + 1 :]), seed, dtype=dtype)
        paired, alone = np.split(drawn, [pairs], axis)
        return _mirrored(paired, axis, block, length, alone, sign=1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {**super().get_config(), "pairs_in": self.pairs_in, "pairs_out": self.pairs_out}


def _block(name: str, value: Any) -> int:
    if count(name, value) < 2:
        raise SchemeError(f"Expected `{name}` to be the length of a block, of 2 or more. Received: {value!r}.")
    return int(value)


def _singles(length: int, block: int | None) -> int:
    """Returns how many units of an axis have no partner: the last of each odd block."""
    return 0 if block is None else length // block * (block % 2)


def _pairs(length: int, block: int | None, shape: tuple[int, ...]) -> int:
    """Returns how many pairs an axis holds, or all its units where they are no pairs."""
    if block is None:
        return length
    if length % block:
        raise SchemeError(
            f"Expected an axis that holds whole blocks of {block} units. Received the shape {shape}, where it has "
            f"{length}."
        )
    return length // block * (block // 2)


def _mirrored(
    stack: np.ndarray, axis: int, block: int | None, length: int, left_over: np.ndarray, sign: int = -1
) -> np.ndarray:
    """Adds to each block's first half the same again, with the opposite sign, and what has no partner."""
    if block is None:
        return stack
    before, after = stack.shape[:axis], stack.shape[axis + 1 :]
    first = stack.reshape(*before, length // block, block // 2, *after)
    single = left_over.reshape(*before, length // block, block % 2, *after)
    return np.concatenate([first, sign * first, single], axis + 1).reshape(*before, length, *after)


def _bases() -> set[type[Any]]:
    """Returns the schemes that can draw the matrix of another."""
    drawing = {kind for kind in REGISTRY.values() if issubclass(kind, AxesScheme)}
    return {kind for kind in drawing if not kind.paired and not issubclass(kind, _Structured)}


def can_be_base(name: str) -> bool:
    """Whether a scheme of this name draws a matrix that another can repeat."""
    return REGISTRY.get(name.removeprefix(f"{PACKAGE}>")) in _bases()


def rebuilt(scheme: AxesScheme, **config: Any) -> AxesScheme:
    """Returns a copy of a scheme with those entries of its configuration set that it has."""
    own = scheme.get_config()
    return scheme.from_config({**own, **{key: value for key, value in config.items() if key in own}})


def _base(identifier: Any) -> AxesScheme:
    """Returns the base scheme; a bare name is one of this package's."""
    kind = REGISTRY.get(identifier.removeprefix(f"{PACKAGE}>")) if isinstance(identifier, str) else None
    try:
        # Keras reads the global random state for a scheme without a seed; this one's is not used.
        base: Any = keras.initializers.get(kind.from_config({"seed": 0}) if kind in _bases() else identifier)
    except ValueError:
        base = None
    if not isinstance(base, AxesScheme) or type(base) not in _bases():
        usable = sorted(kind.names[0] for kind in _bases())
        raise SchemeError(
            f"Expected `base` to be a scheme of this package that draws a matrix, such as {', '.join(usable)}. "
            f"Received: {identifier!r}."
        )
    return base
