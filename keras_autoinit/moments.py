"""What is known of a signal, and Gaussian integrals of any function, exact across kinks.

`Moments` is the record that analysis carries through a network. The integrals here search for the
kinks of a function that nobody has described; `integrals` is faster where they are known.

For a search the line is cut into panels. On each, the function is read at Gauss-Lobatto nodes, the panel's ends
among them so that no kink hides beside one; its derivative there is that of the polynomial through
them. A panel whose integral changes when it is halved is halved again, so a kink ends up in a panel
too narrow to matter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]

# The density is below 1e-42 beyond this many standard deviations, so that even the square of an
# exponential at a variance of 4 is integrated to full precision.
REACH = 14.0
# Narrow enough that a step hidden between two nodes shifts no moment by 1e-9.
PANELS = 128
NODES = 16
# A function that bends in more places at once is one that computes in half or single precision.
PANEL_LIMIT = 8 * PANELS
# Kinks and steps that are worth listing: beyond, a function is better taken as it comes.
BREAK_LIMIT = 16
# Halvings that place a break, once it is seen: to a rounding of its panel in float64.
CLOSING_IN = 24
# Of a moment, relative to the largest: what a few dozen operations in float64 may lose.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Precision:
    """When to stop halving: the change that no longer matters, and how often at most.

    A panel that still changes after `depth` halvings holds a step, whose derivative is left out:
    the moments are those of the derivative that training sees, defined almost everywhere.
    """

    tolerance: float
    depth: int


DOUBLE = Precision(tolerance=1e-13, depth=44)
# For functions that can only be read in float32: a narrower panel would differentiate rounding.
SINGLE = Precision(tolerance=1e-6, depth=10)


@dataclass(frozen=True)
class Moments:
    """What is known of a signal: of the value `x` of one unit, and of its value `y` for another input.

    Float64 throughout. Over the draw of weights as well as over inputs, so that after a linear layer
    without bias the mean is zero and the covariance is what is common to all inputs.

    Attributes:
        mean: `E x`.
        second_moment: `E x^2`.
        covariance: `E x y - (E x)^2`, between two different inputs of the network.

    Raises:
        ValueError: a number that is not finite, a second moment below the square of the mean, or a
            covariance beyond the variance.

    Example:
        >>> signal = Moments(mean=1.0, second_moment=5.0, covariance=2.0)
        >>> signal.variance, signal.correlation, signal.cross_moment
        (4.0, 0.5, 3.0)
    """

    mean: float = 0.0
    second_moment: float = 1.0
    covariance: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) for number in (self.mean, self.second_moment, self.covariance)):
            raise ValueError(
                f"Expected finite moments. Received: {self}. The signal overflows: choose a smaller scale."
            )
        spare = ROUNDING * max(self.second_moment, self.mean**2)
        if self.second_moment < self.mean**2 - spare:
            raise ValueError(f"Expected a second moment of at least the square of the mean. Received: {self}.")
        if abs(self.covariance) > self.variance + spare:
            raise ValueError(f"Expected a covariance of at most the variance, {self.variance:g}. Received: {self}.")

    @property
    def variance(self) -> float:
        """`E x^2 - (E x)^2`, never negative."""
        return max(self.second_moment - self.mean**2, 0.0)

    @property
    def correlation(self) -> float:
        """`covariance / variance`, from -1 to 1; 1 for a constant."""
        return max(-1.0, min(1.0, self.covariance / self.variance)) if self.variance else 1.0

    @property
    def cross_moment(self) -> float:
        """`E x y`: what a linear layer without bias hands on, as it does the second moment."""
        return self.covariance + self.mean**2


@dataclass(frozen=True)
class ActivationMoments:
    """What a function does to a Gaussian `z`.

    Attributes:
        mean: `E f(z)`.
        second_moment: `E f(z)^2`.
        derivative_second_moment: `E f'(z)^2`, with the derivative defined almost everywhere.
    """

    mean: float
    second_moment: float
    derivative_second_moment: float

    @property
    def variance(self) -> float:
        """`E f(z)^2 - (E f(z))^2`, never negative."""
        return max(self.second_moment - self.mean**2, 0.0)


@dataclass(frozen=True)
class CrossMoments:
    """What a function does to two jointly Gaussian inputs `z` and `z'`.

    Attributes:
        covariance: `E f(z) f(z') - (E f(z))^2`.
        cross_moment: `E f(z) f(z')`.
        derivative_cross_moment: `E f'(z) f'(z')`: the slope of `covariance` in that of the inputs, and
            what becomes of the correlation of gradients.
    """

    covariance: float
    cross_moment: float
    derivative_cross_moment: float


@dataclass(frozen=True)
class OddPart:
    """How far `g(z) = f(z) - f(-z)` is a line: what a mirrored pair of units computes.

    Attributes:
        second_moment: `E g(z)^2`.
        slope: `E z g(z) / E z^2`: the `c` of the line `c z` nearest to it.
        residual: `E (g(z) - c z)^2 / E g(z)^2`, from 0 (a line: ReLU, GELU, SiLU) to 1 (also where `g` is zero).
    """

    second_moment: float
    slope: float
    residual: float


def activation_moments(
    function: Function, variance: float = 1.0, precision: Precision = DOUBLE, mean: float = 0.0
) -> ActivationMoments:
    """Integrates an elementwise function against a Gaussian.

    Args:
        function: takes and returns an array, element by element.
        variance: variance of the Gaussian, above zero.
        precision: `SINGLE` for a function that computes in float32.
        mean: mean of the Gaussian.

    Returns:
        The moments, in float64; exact to 1e-9 for a function that computes in float64.

    Example:
        >>> round(activation_moments(np.tanh).second_moment, 6)
        0.394294
    """
    reach = REACH * math.sqrt(variance)
    found = _search(function, np.linspace(mean - reach, mean + reach, PANELS + 1), variance, precision, mean)
    mean_of, second_moment, _ = found.settled + found.rest.sum(0)
    # What never settled holds a step, whose derivative is left out, unless there is too much of it: then the
    # function is noisy, and its rounding, differentiated, would never settle.
    slope = found.settled[2] + (found.rest[:, 2].sum() if len(found.rest) > PANEL_LIMIT else 0.0)
    return ActivationMoments(float(mean_of), float(second_moment), float(slope))


def find_breaks(
    function: Function, variance: float = 1.0, precision: Precision = DOUBLE, mean: float = 0.0
) -> tuple[float, ...]:
    """Returns the places of kinks and steps within reach of a Gaussian; none where they are too many to list.

    Where only the second derivative jumps there is nothing to find: integrals hardly notice.

    Example:
        >>> [round(place, 9) for place in find_breaks(lambda z: np.clip(z, -1, 1))]
        [-1.0, 1.0]
    """
    spread = math.sqrt(variance)
    # At odd places: a kink at the edge of a panel is integrated exactly, and would not be noticed.
    edges = np.linspace(mean - 1.0137 * REACH * spread, mean + 1.0291 * REACH * spread, PANELS + 1)
    found = _search(function, edges, variance, replace(precision, depth=precision.depth // 2), mean)
    if not 0 < len(found.left) <= 2 * BREAK_LIMIT:
        return ()
    # Panels come in pairs, the halves of one that holds a break.
    left, right = found.left[::2], found.right[1::2]
    for _ in range(CLOSING_IN):
        left, right = _worse_half(function, left, right, variance, mean)
    return tuple(((left + right) / 2).tolist())


def _worse_half(
    function: Function, left: np.ndarray, right: np.ndarray, variance: float, mean: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns of each panel the half whose integrals change more when it is halved: the break is there."""
    edges = np.linspace(left, right, 5, axis=1)
    quarters = _integrals(function, edges[:, :-1].ravel(), edges[:, 1:].ravel(), variance, mean).reshape(-1, 2, 2, 3)
    halves = _integrals(function, edges[:, :-1:2].ravel(), edges[:, 2::2].ravel(), variance, mean).reshape(-1, 2, 3)
    second = np.abs(quarters.sum(2) - halves).sum(2).argmax(1)
    row = np.arange(len(left))
    return edges[row, 2 * second], edges[row, 2 * second + 2]


def odd_part(function: Function, variance: float = 1.0, precision: Precision = DOUBLE) -> OddPart:
    """Returns how far `f(z) - f(-z)` is a line, for a Gaussian with mean zero.

    Example:
        >>> odd = odd_part(lambda z: np.maximum(z, 0))
        >>> round(odd.slope, 9), round(odd.residual, 9)
        (1.0, 0.0)
    """

    def odd(z: np.ndarray) -> np.ndarray:
        return np.asarray(function(z) - function(-z), np.float64)

    second_moment = activation_moments(odd, variance, precision).second_moment
    if second_moment <= precision.tolerance:
        return OddPart(second_moment, 0.0, 1.0)
    beside = activation_moments(lambda z: odd(z) + z, variance, precision).second_moment
    slope = (beside - second_moment - variance) / (2 * variance)
    left = activation_moments(lambda z: odd(z) - slope * z, variance, precision).second_moment
    return OddPart(second_moment, slope, min(left / second_moment, 1.0))


@dataclass(frozen=True)
class _Found:
    """A search that has ended: the sums of all settled panels, and the panels that never settled."""

    settled: np.ndarray
    left: np.ndarray
    right: np.ndarray
    rest: np.ndarray


def _search(function: Function, edges: np.ndarray, variance: float, precision: Precision, mean: float) -> _Found:
    """Halves panels until their integrals no longer change."""
    left, right = edges[:-1], edges[1:]
    coarse = _integrals(function, left, right, variance, mean)
    # Fixed here: a step's slope grows with every halving, and would widen the tolerance of the rest.
    allowed = precision.tolerance * (1.0 + np.abs(coarse.sum(0)))
    settled = np.zeros(3)
    for _ in range(precision.depth):
        middle = (left + right) / 2
        left, right = np.stack([left, middle], 1), np.stack([middle, right], 1)
        fine = _integrals(function, left.ravel(), right.ravel(), variance, mean).reshape(-1, 2, 3)
        open_ = (np.abs(fine.sum(1) - coarse) > allowed).any(1)
        settled += fine[~open_].sum((0, 1))
        left, right, coarse = left[open_].ravel(), right[open_].ravel(), fine[open_].reshape(-1, 3)
        if not 0 < len(left) <= PANEL_LIMIT:
            break
    return _Found(settled, left, right, coarse)


def _integrals(function: Function, left: np.ndarray, right: np.ndarray, variance: float, mean: float) -> np.ndarray:
    """Returns, panel by panel, the integrals of f, f^2 and f'^2 against the density."""
    nodes, weights, differentiate = _rule()
    half = (right - left)[:, None] / 2
    z = left[:, None] + half * (nodes + 1)
    values = np.asarray(function(z.ravel()), np.float64).reshape(z.shape)
    slopes = values @ differentiate.T / half
    mass = weights * half * np.exp(-((z - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return np.stack([(mass * term).sum(1) for term in (values, values**2, slopes**2)], 1)


@functools.cache
def _rule() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns Gauss-Lobatto nodes and weights, and the differentiation matrix on the nodes."""
    basis = np.polynomial.legendre.Legendre.basis(NODES - 1)
    nodes = np.concatenate([[-1.0], np.sort(basis.deriv().roots().real), [1.0]])
    weights = 2 / (NODES * (NODES - 1) * basis(nodes) ** 2)
    gap = nodes[:, None] - nodes[None, :] + np.eye(NODES)
    scale = gap.prod(1)
    matrix = scale[:, None] / (scale[None, :] * gap)
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(1))
    return nodes, weights, matrix
