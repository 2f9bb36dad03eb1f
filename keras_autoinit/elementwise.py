"""An elementwise activation, and what it does to a Gaussian signal."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from keras_autoinit.closed_forms import closed_cross_moments, closed_moments
from keras_autoinit.criticality import EdgeOfChaos, find_edge, find_spread
from keras_autoinit.errors import ActivationError
from keras_autoinit.functions import FUNCTIONS, breaks_of, width_of
from keras_autoinit.integrals import Pieces, gaussian_cross_moments, gaussian_moments, search_pieces
from keras_autoinit.moments import (
    DOUBLE,
    SINGLE,
    ActivationMoments,
    CrossMoments,
    Function,
    Moments,
    OddPart,
    Precision,
    activation_moments,
    find_breaks,
    odd_part,
)

Parameters = tuple[tuple[str, float], ...]

# Results that an activation remembers: a solver asks for the same few again and again.
REMEMBERED = 1024
# The spread over which a callable is differentiated at least, relative to its mean: less would be rounding.
SMALLEST_SPREADS = {DOUBLE: 1e-5, SINGLE: 3e-2}
# What a search for the pieces of a callable may leave, how often it halves, and the panel, in standard
# deviations, below which the slopes of the callable are rounding.
SEARCHES = {DOUBLE: (1e-11, 8, 1e-10), SINGLE: (1e-5, 4, 3e-4)}


@dataclass(frozen=True)
class Activation:
    """What a weighted layer's output passes through, and what that does to a Gaussian.

    Attributes:
        name: its Keras name, or that of the callable.
        parameters: keyword arguments that differ from the defaults, by name.
        function: the function on NumPy arrays, or `None` where it mixes units (softmax, GLU).
        known: whether this package has its own definition, or had to measure a callable.
        precision: how exactly `function` computes.
    """

    name: str
    parameters: Parameters = ()
    function: Function | None = None
    known: bool = True
    precision: Precision = DOUBLE

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value:g}" for name, value in self.parameters)
        return f"{self.name}({arguments})" if arguments else self.name

    @property
    def linear(self) -> bool:
        """Whether it does nothing."""
        return self.name == "linear"

    @property
    def gain(self) -> float:
        """`1 / sqrt(E f(z)^2)` for a unit Gaussian `z`: what restores a unit second moment.

        Not the constant of `torch.nn.init.calculate_gain`, which is set by hand (5/3 for tanh).
        """
        second_moment = self.unit_moments.second_moment
        if not 0 < second_moment < math.inf:
            raise ActivationError(
                f"The activation {self} has no gain: the second moment of its output is {second_moment:g} for a "
                "unit Gaussian. Give a number as `gain` instead."
            )
        return 1 / math.sqrt(second_moment)

    @property
    def chi(self) -> float:
        """`E f'(z)^2 / E f(z)^2`: the growth of the squared gradient per layer at that gain."""
        return self.unit_moments.derivative_second_moment * self.gain**2

    @functools.cached_property
    def unit_moments(self) -> ActivationMoments:
        """The moments for a unit Gaussian."""
        return self.moments()

    def moments(self, variance: float = 1.0, mean: float = 0.0) -> ActivationMoments:
        """Returns `E f(z)`, `E f(z)^2` and `E f'(z)^2` for a Gaussian `z` of this variance and mean.

        To 1e-9 for an activation that is known, or computes in float64.
        """
        return self._remembered_moments(*self._checked(variance, mean))

    def cross_moments(self, variance: float, covariance: float, mean: float = 0.0) -> CrossMoments:
        """Returns `E f(z) f(z')` and `E f'(z) f'(z')` for two jointly Gaussian inputs.

        When to use: to follow how alike two inputs of a network, or their gradients, stay.

        Args:
            variance: of both inputs.
            covariance: of the one with the other, from `-variance` to `variance`.
            mean: of both inputs.

        Returns:
            The cross moments, at any correlation: to 1e-9 of `E f^2` and `E f'^2` for a known activation,
            to 1e-6 for a callable in float64, whose kinks are searched for; in float32 to 1e-5 and 2e-3.

        Example:
            >>> from keras_autoinit import activation
            >>> round(activation("relu").cross_moments(1.0, 0.5).cross_moment, 6)
            0.304499
        """
        variance, mean = self._checked(variance, mean)
        if not abs(covariance) <= variance * (1 + 1e-9):
            raise ActivationError(
                f"Expected a covariance of at most the variance, {variance:g}. Received: {covariance}."
            )
        return self._remembered_cross_moments(variance, float(covariance), mean)

    def propagate(self, signal: Moments) -> Moments:
        """Returns the moments of the output for pre-activations of these moments, taken as Gaussian.

        Example:
            >>> from keras_autoinit import activation
            >>> out = activation("relu").propagate(Moments(mean=0.0, second_moment=2.0, covariance=1.0))
            >>> round(out.second_moment, 6), round(out.correlation, 6)
            (1.0, 0.426422)
        """
        out = self.moments(signal.variance, signal.mean)
        covariance = self.cross_moments(signal.variance, signal.correlation * signal.variance, signal.mean).covariance
        return Moments(out.mean, out.second_moment, max(-out.variance, min(out.variance, covariance)))

    def odd_part(self, variance: float = 1.0) -> OddPart:
        """Returns how far `f(z) - f(-z)`, which a mirrored pair of units computes, is a line.

        Example:
            >>> from keras_autoinit import activation
            >>> round(activation("gelu").odd_part().slope, 9)
            1.0
        """
        variance, _ = self._checked(variance, 0.0)
        return self._remembered_odd_parts(self._divisible(variance, 0.0))

    def fixed_point(self) -> float:
        """Returns the pre-activation spread `s` at which `E f(s z)^2 = 1`: scaled so, a stack keeps its signal.

        Not the gain, which restores a unit second moment *before* the activation: silu 1.5588 for 1.6765.

        Raises:
            ActivationError: the output's second moment is one at no spread (tanh, sigmoid).

        Example:
            >>> from keras_autoinit import activation
            >>> round(activation("silu").fixed_point(), 4)
            1.5588
        """
        spread = find_spread(lambda variance: self.moments(variance).second_moment)
        if spread is None:
            raise ActivationError(
                f"The activation {self} has no self-consistent spread: the second moment of its output is 1 at no "
                "spread of its input. Use `gain`, which restores a unit second moment before the activation."
            )
        return spread

    def edge_of_chaos(self, bias_variance: float = 0.0) -> EdgeOfChaos:
        """Returns the weight variance, times `fan_in`, at which a deep stack neither forgets nor tears apart.

        When to use: to choose the scale of a deep plain network of a smooth activation.

        At the fixed point `q` of the pre-activation variance, `chi = weight_variance E f'(z)^2` is one;
        where there are several, the smallest `q`.

        Args:
            bias_variance: variance of the biases.

        Raises:
            ActivationError: there is no such point (a rectifier with bias, softplus).

        Example:
            >>> from keras_autoinit import activation
            >>> activation("leaky_relu").edge_of_chaos().weight_variance * (1 + 0.2**2)
            2.0
            >>> round(activation("tanh").edge_of_chaos(bias_variance=0.05).weight_variance, 2)
            1.76

        Source: Schoenholz et al. 2017, arXiv 1611.01232; Hayou et al. 2019, arXiv 1902.06853.
        """
        bias_variance, _ = self._checked(bias_variance, 0.0)
        edge = find_edge(self._second_moments, bias_variance)
        if edge is None:
            raise ActivationError(
                f"The activation {self} has no edge of chaos at a bias variance of {bias_variance:g}: no weight "
                "variance keeps both the variance of the signal and, with chi = 1, that of the gradient."
            )
        return edge

    def _second_moments(self, variance: float) -> tuple[float, float]:
        found = self.moments(variance)
        return found.second_moment, found.derivative_second_moment

    @property
    def _elementwise(self) -> Function:
        if self.function is None:
            raise ActivationError(
                f"The activation {self} mixes units, so it has no gain of its own. Expected an elementwise "
                "activation such as 'relu'; give a number as `gain` instead."
            )
        return self.function

    def _checked(self, variance: float, mean: float) -> tuple[float, float]:
        if not (0 <= variance < math.inf and math.isfinite(mean)):
            raise ActivationError(
                "Expected a finite variance of zero or more and a finite mean. "
                f"Received: variance {variance}, mean {mean}."
            )
        return float(variance), float(mean)

    # Kept on the activation, so that a callable's results go when it does.
    @functools.cached_property
    def _remembered_moments(self) -> Callable[[float, float], ActivationMoments]:
        return functools.lru_cache(REMEMBERED)(functools.partial(_moments, self))

    @functools.cached_property
    def _remembered_cross_moments(self) -> Callable[[float, float, float], CrossMoments]:
        return functools.lru_cache(REMEMBERED)(functools.partial(_cross_moments, self))

    @functools.cached_property
    def _remembered_odd_parts(self) -> Callable[[float], OddPart]:
        return functools.lru_cache(REMEMBERED)(lambda variance: odd_part(self._elementwise, variance, self.precision))

    @functools.cached_property
    def _arguments(self) -> dict[str, float] | None:
        """All parameters, defaults among them; `None` for a function that is not one of ours."""
        definition = FUNCTIONS.get(self.name) if self.known else None
        return None if definition is None else {**parameters_of(definition), **dict(self.parameters)}

    @functools.cached_property
    def _pieces(self) -> Callable[[float, float], Pieces]:
        """Where to cut, at a variance and mean: known, or searched for."""
        if self._arguments is not None:
            known = Pieces(breaks_of(self.name, self._arguments), width_of(self.name, self._arguments))
            return lambda variance, mean: known
        return functools.lru_cache(REMEMBERED)(functools.partial(_search, self))

    def _divisible(self, variance: float, mean: float) -> float:
        """Returns the variance, or the smallest over which a callable can be differentiated."""
        return max(variance, SMALLEST_SPREADS[self.precision] ** 2 * max(1.0, mean * mean))


def _moments(met: Activation, variance: float, mean: float) -> ActivationMoments:
    function, arguments = met._elementwise, met._arguments
    if arguments is None:
        return _measured_moments(met, function, variance, mean)
    formula = closed_moments(met.name, arguments)
    found = (
        formula(variance, mean) if formula else gaussian_moments(function, met._pieces(variance, mean), variance, mean)
    )
    return ActivationMoments(*found)


def _measured_moments(met: Activation, function: Function, variance: float, mean: float) -> ActivationMoments:
    smallest = met._divisible(variance, mean)
    found = activation_moments(function, smallest, met.precision, mean)
    if variance == smallest:
        return found
    mean_, second_moment, _ = gaussian_moments(function, Pieces(), variance, mean)
    return ActivationMoments(mean_, second_moment, found.derivative_second_moment)


def _cross_moments(met: Activation, variance: float, covariance: float, mean: float) -> CrossMoments:
    function, arguments = met._elementwise, met._arguments
    formula = None if arguments is None else closed_cross_moments(met.name, arguments)
    found = formula(variance, covariance, mean) if formula else None
    if found is None:
        pieces, resolution = met._pieces(variance, mean), SEARCHES[met.precision][2]
        found = gaussian_cross_moments(function, pieces, variance, covariance, mean, resolution)
    return CrossMoments(found[0] - met.moments(variance, mean).mean ** 2, *found)


def _search(met: Activation, variance: float, mean: float) -> Pieces:
    variance = met._divisible(variance, mean)
    breaks = find_breaks(met._elementwise, variance, met.precision, mean)
    tolerance, depth, _ = SEARCHES[met.precision]
    return search_pieces(met._elementwise, breaks, variance, mean, tolerance, depth)


@functools.cache
def parameters_of(definition: Function) -> Mapping[str, float]:
    """Returns the parameters of one of our definitions, with their defaults."""
    return {key: value.default for key, value in list(inspect.signature(definition).parameters.items())[1:]}
