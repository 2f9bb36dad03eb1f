"""Schemes whose variance is set by the fans: Xavier, He, LeCun, and the general one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from keras_autoinit import draws
from keras_autoinit.draws import TRUNCATED_STD, Seed
from keras_autoinit.schemes.base import AxesScheme, one_of, register

MODES = ("fan_in", "fan_out", "fan_avg")
NORMAL = ("truncated_normal", "normal")
DISTRIBUTIONS = (*NORMAL, "uniform")


class _FanScaled(AxesScheme):
    """Independent numbers with mean zero and variance `factor * gain^2 / n`.

    `n` is the fan-in, the fan-out, or the mean of the two.
    """

    factor: ClassVar[float] = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"

    def _set_scale(self, factor: float, mode: str, distribution: str) -> None:
        """Keeps Keras's own attribute `scale` true for whoever reads it."""
        self.scale = factor * self.gain_value**2
        self.mode = mode
        self.distribution = distribution

    def variance(self, shape: Sequence[int]) -> float:
        """Returns the variance of the numbers drawn for a weight of this shape."""
        fan_in, fan_out = self.axes(shape).fans(shape)
        terms = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return self.scale / terms if terms else 0.0

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns numbers of the stated variance."""
        std = math.sqrt(self.variance(shape))
        if self.distribution == "uniform":
            limit = math.sqrt(3) * std
            return draws.uniform(shape, seed, -limit, limit, **options)
        if self.distribution == "normal":
            return draws.normal(shape, seed, 0.0, std, **options)
        return draws.truncated_normal(shape, seed, 0.0, std / TRUNCATED_STD, **options)


class _Normal(_FanScaled):
    """A fan-scaled scheme with normal numbers, truncated or not."""

    def __init__(
        self,
        gain: float | str = 1.0,
        distribution: str = "truncated_normal",
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        fan_divisor: float = 1.0,
        blocks: int = 1,
        seed: Any = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, fan_divisor, blocks, seed)
        self._set_scale(type(self).factor, type(self).mode, one_of("distribution", distribution, NORMAL))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {"distribution": self.distribution, **super().get_config()}


class _Uniform(_FanScaled):
    """A fan-scaled scheme with uniform numbers."""

    def __init__(
        self,
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        fan_divisor: float = 1.0,
        blocks: int = 1,
        seed: Any = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, fan_divisor, blocks, seed)
        self._set_scale(type(self).factor, type(self).mode, "uniform")


_ARGUMENTS = """    Args:
        gain: multiplies the standard deviation; a number, or the name of an activation, which
            stands for `1 / sqrt(E f(z)^2)`.{distribution}
        input_axes: axes of the weight whose lengths multiply to the fan-in; those of a dense or
            convolution kernel when not given.
        output_axes: axes whose lengths multiply to the fan-out, likewise.
        fan_divisor: what the fan-in is divided by: the product of the strides of a transposed
            convolution.
        blocks: independent matrices packed along the last axis (gates, groups), a count.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: an argument is out of range, or the weight lacks an axis.
        ActivationError: `gain` names no activation, or one without a gain.
"""
_DISTRIBUTION = """
        distribution: `"truncated_normal"` (numbers beyond two spreads are drawn again and the
            spread corrected for it) or `"normal"`. In Keras `"normal"` means the former."""


def _documented(scheme: type[_FanScaled]) -> type[_FanScaled]:
    """Fills in the arguments that all fan-scaled schemes share."""
    distribution = _DISTRIBUTION if issubclass(scheme, _Normal) else ""
    scheme.__doc__ = (scheme.__doc__ or "").replace("    {arguments}\n", _ARGUMENTS.format(distribution=distribution))
    return scheme


@register("variance_scaling")
class VarianceScaling(_FanScaled):
    """Mean zero and a variance of `gain^2 / n`, the general fan-scaled scheme.

    When to use: to set a gain that no named scheme has, such as one measured on data.

    Formula: `var = gain^2 / n` with `n` the fan-in (`mode="fan_in"`: the signal keeps its
    size), the fan-out (the gradient does) or their mean. Keras's scheme of this name takes
    `scale = gain^2` instead.

    Args:
        gain: multiplies the standard deviation; a number, or the name of an activation, which
            stands for `1 / sqrt(E f(z)^2)`.
        mode: `"fan_in"`, `"fan_out"` or `"fan_avg"`.
        distribution: `"truncated_normal"` (numbers beyond two spreads are drawn again and the
            spread corrected for it), `"normal"` or `"uniform"`.
        input_axes: axes of the weight whose lengths multiply to the fan-in; those of a dense or
            convolution kernel when not given.
        output_axes: axes whose lengths multiply to the fan-out, likewise.
        fan_divisor: what the fan-in is divided by: the product of the strides of a transposed
            convolution.
        blocks: independent matrices packed along the last axis (gates, groups), a count.
        seed: `None`, an integer or a `keras.random.SeedGenerator`.

    Raises:
        SchemeError: an argument is out of range, or the weight lacks an axis.
        ActivationError: `gain` names no activation, or one without a gain.

    Example:
        >>> round(VarianceScaling(gain="gelu").variance((100, 50)), 5)
        0.02352
    """

    def __init__(
        self,
        gain: float | str = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        fan_divisor: float = 1.0,
        blocks: int = 1,
        seed: Any = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, fan_divisor, blocks, seed)
        self._set_scale(1.0, one_of("mode", mode, MODES), one_of("distribution", distribution, DISTRIBUTIONS))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {"mode": self.mode, "distribution": self.distribution, **super().get_config()}


@register("xavier_normal", "xavier", "glorot_normal")
@_documented
class XavierNormal(_Normal):
    """Xavier (Glorot) normal: the compromise between keeping the signal and the gradient.

    When to use: tanh, sigmoid, softmax and linear layers.

    Formula: `var = 2 / (fan_in + fan_out)`, from unit derivative at zero (Glorot and Bengio
    2010, equation 12).

    {arguments}

    Example:
        >>> round(XavierNormal().variance((60, 40)), 4)
        0.02
    """

    mode = "fan_avg"


@register("xavier_uniform", "glorot_uniform")
@_documented
class XavierUniform(_Uniform):
    """Xavier (Glorot) uniform: as `XavierNormal`, within bounds.

    When to use: tanh, sigmoid, softmax and linear layers; it is Keras's default.

    Formula: `limit = sqrt(6 / (fan_in + fan_out))`, hence `var = 2 / (fan_in + fan_out)`
    (Glorot and Bengio 2010, equation 16). Texts that print `sqrt(6) / sqrt(n)` with `n` the mean
    of the fans would have twice that variance; the paper has their sum.

    {arguments}

    Example:
        >>> round(XavierUniform().variance((60, 40)), 4)
        0.02
    """

    mode = "fan_avg"


@register("he_normal", "he", "kaiming_normal")
@_documented
class HeNormal(_Normal):
    """He (Kaiming) normal: keeps the second moment of a ReLU network.

    When to use: ReLU, Leaky ReLU (with its slope in the gain, `sqrt(1 / (1 + slope^2))`), and
    activations shaped like them.

    Formula: `var = 2 / fan_in` (He et al. 2015, arXiv 1502.01852, equation 10): half of a
    symmetric input is cut off, so the kernel makes up for it with twice the variance.

    {arguments}

    Example:
        >>> round(HeNormal().variance((100, 50)), 4)
        0.02
    """

    factor = 2.0


@register("he_uniform", "kaiming_uniform")
@_documented
class HeUniform(_Uniform):
    """He (Kaiming) uniform: as `HeNormal`, within bounds.

    When to use: ReLU and Leaky ReLU, where a rare large weight would hurt.

    Formula: `limit = sqrt(6 / fan_in)`, hence `var = 2 / fan_in` (He et al. 2015, arXiv
    1502.01852).

    {arguments}

    Example:
        >>> round(HeUniform().variance((100, 50)), 4)
        0.02
    """

    factor = 2.0


@register("lecun_normal", "lecun")
@_documented
class LecunNormal(_Normal):
    """LeCun normal: keeps the second moment of a linear layer.

    When to use: SELU and linear layers, and with `gain="name"` any other activation.

    Formula: `var = 1 / fan_in` (LeCun et al. 1998, Efficient BackProp, equation 16).

    {arguments}

    Example:
        >>> round(LecunNormal().variance((100, 50)), 4)
        0.01
    """


@register("lecun_uniform")
@_documented
class LecunUniform(_Uniform):
    """LeCun uniform: as `LecunNormal`, within bounds.

    When to use: SELU and linear layers, where a rare large weight would hurt.

    Formula: `limit = sqrt(3 / fan_in)`, hence `var = 1 / fan_in` (LeCun et al. 1998).

    {arguments}

    Example:
        >>> round(LecunUniform().variance((100, 50)), 4)
        0.01
    """
