"""What every rule shares: what it is given, what it returns, and how it is found."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import keras
import numpy as np
from keras import tree

from keras_autoinit.activations import Activation
from keras_autoinit.graphs import Call, Graph, Ref
from keras_autoinit.recipes import Recipe
from keras_autoinit.rectified import RELU, rectified_sum
from keras_autoinit.responses import Response, powers_of, respond, respond_unevenly, slope_where
from keras_autoinit.signals import (
    FAINT,
    Near,
    Shape,
    Signal,
    aligned,
    blended,
    constant,
    part_of,
    side_by_side,
    weighted_by,
)
from keras_autoinit.sizes import Sizes, covariance, product, shift_where, to_power
from keras_autoinit.slots import Slot
from keras_autoinit.variables import Variable

# Samples whose squares differ by less are alike: of what that changes, a few thousandths would be left.
EVEN = 0.01

Gradients = tuple[Signal | None, ...]
Backward = Callable[[Gradients], Gradients]


@dataclass(frozen=True)
class Mirrored:
    """What a weight has to do with mirrored pairs of units.

    Attributes:
        reads: whether it reads both units of a pair with opposite signs.
        makes: whether it makes pairs.
    """

    reads: bool = False
    makes: bool = False


def mirrored_by(recipe: Recipe | None, slot: Slot) -> Mirrored:
    """Returns what a weight of this recipe has to do with pairs; a depthwise kernel leaves them as they are."""
    if recipe is None or recipe.name != "autoinit>mirrored" or slot.role == "depthwise":
        return Mirrored()
    return Mirrored(recipe.config.get("pairs_in") is not None, recipe.config.get("pairs_out") is not None)


class Weights(Protocol):
    """Knows, or decides, how large each weight is."""

    @property
    def orthogonal(self) -> bool:
        """Whether matrices are orthogonal, as far as is known."""

    def power(self, owner: Any, slot: Slot, base: float) -> float:
        """Returns fan-in times the second moment of a layer's weight.

        Args:
            owner: the layer.
            slot: the weight.
            base: the second moment of what the weight makes if its power is one.
        """

    def centred(self, owner: Any, slot: Slot) -> bool:
        """Whether of a convolution's taps only the one in the centre is not zero."""

    def mirrored(self, owner: Any, slot: Slot) -> Mirrored:
        """Returns whether a weight reads mirrored pairs of units, and whether it makes them."""

    def variable(self, variable: Any, base: float) -> float | None:
        """Returns the second moment of a variable's entries, or `None` to have it read."""


@dataclass(frozen=True)
class Effect:
    """What a call makes of the signals that it takes.

    Attributes:
        outputs: one signal for each tensor that it makes.
        backward: from the gradients at its outputs to those at its inputs.
        before: the signal inside a layer, before the layer's own activation.
        note: a sentence on what could not be told.
    """

    outputs: tuple[Signal, ...]
    backward: Backward
    before: Signal | None = None
    note: str | None = None


@dataclass(frozen=True)
class Operand:
    """One argument that is computed with: a tensor, a weight or a number."""

    signal: Signal
    shape: Shape
    number: int | None


@dataclass(frozen=True)
class Context:
    """What a rule is given.

    Attributes:
        call: the call.
        graph: the graph that it stands in.
        signals: what the call takes, in the order of `call.inputs`.
        weights: how large the weights are.
        differences: asks for the signals of what mirrored pairs of units differ in, scaled so that they
            count as signals of as many units; `None` where that cannot be told.
    """

    call: Call
    graph: Graph
    signals: tuple[Signal, ...]
    weights: Weights = field(repr=False)
    differences: Callable[[], tuple[Signal, ...] | None] = field(default=lambda: None, repr=False)

    @property
    def layer(self) -> Any:
        """The layer or operation."""
        return self.call.operation

    @property
    def signal(self) -> Signal:
        """The first signal that the call takes."""
        return self.signals[0]

    def read_by(self, slot: Slot) -> Signal:
        """Returns what a weight sums up: the first signal, or what its mirrored pairs differ in."""
        differences = self.differences() if self.weights.mirrored(self.layer, slot).reads else None
        return self.signal if differences is None else differences[0]

    def shape_in(self, index: int = 0) -> Shape:
        """The shape of an input; empty where it is not known."""
        spec = self.graph.specs.get(self.call.inputs[index])
        return () if spec is None else spec.shape

    def shape_out(self, index: int = 0) -> Shape:
        """The shape of an output; empty where it is not known."""
        spec = self.graph.specs.get(self.call.outputs[index])
        return () if spec is None else spec.shape

    @property
    def growth(self) -> float:
        """How many entries come out for each that goes in; one where shapes are not known."""
        given, made = self.shape_in(), self.shape_out()
        if not given or not made:
            return 1.0
        # Sample by sample: the reader closes the batch as it likes.
        return float(np.prod(made[1:])) / max(float(np.prod(given[1:])), 1.0)

    def option(self, name: str, default: Any = None) -> Any:
        """Returns what an operation was made with, or called with, under a name."""
        if name in self.call.kwargs:
            return self.call.kwargs[name]
        return getattr(self.layer, name, default)

    @functools.cached_property
    def operands(self) -> tuple[Operand, ...]:
        """What is computed with, in order; what is neither tensor nor number is left out."""
        given = dict(zip(self.call.inputs, self.signals))
        found = []
        for value in tree.flatten((self.call.args, self.call.kwargs)):
            if isinstance(value, Ref):
                spec = self.graph.specs.get(value.number)
                found.append(Operand(given[value.number], spec.shape if spec else (), value.number))
            elif isinstance(value, Variable):
                found.append(Operand(self.of_variable(value), tuple(value.shape), None))
            elif not isinstance(value, bool) and (isinstance(value, _NUMBERS) or keras.ops.is_tensor(value)):
                found.append(Operand(self._of_table(value) or constant(_numbers(value))[0], np.shape(value), None))
        return tuple(found)

    def of_variable(self, variable: Any, base: float = 1.0) -> Signal:
        """Returns the signal of a weight that an operation takes."""
        second_moment = self.weights.variable(variable, base)
        if second_moment is not None:
            return Signal(second_moment, 0.0, (0.0,) * len(variable.shape))
        return constant(_numbers(variable))[0]

    def _of_table(self, value: Any) -> Signal | None:
        """Returns the signal of a table that a layer has read before it met a symbol, as of positions; else `None`.

        What the weight holds now stands among the arguments: it may be drawn anew from something else.
        """
        rank = len(getattr(value, "shape", ()))
        if rank < 2 or self.call.within is None:
            return None
        for variable in self.call.within.weights:
            shape = tuple(variable.shape)
            if len(shape) >= 2 and _repeats(value, variable):
                return aligned(self.of_variable(variable), shape, tuple(value.shape))
        return None


def _repeats(value: Any, variable: Any) -> bool:
    """Whether a tensor holds the numbers of a variable, repeated along axes of length one or new ones at most."""
    wanted, given = tuple(value.shape), tuple(variable.shape)
    ends = wanted[len(wanted) - len(given) :]
    if len(given) > len(wanted) or any(one not in (1, other) for one, other in zip(given, ends)):
        return False
    return bool(np.array_equal(_numbers(value), np.broadcast_to(_numbers(variable), wanted)))


_NUMBERS = (int, float, np.number, np.ndarray)


def _numbers(value: Any) -> Any:
    if isinstance(value, _NUMBERS):
        return value
    return keras.ops.convert_to_numpy(value)


Rule = Callable[[Context], Effect | None]
OPERATIONS: dict[str, Rule] = {}


@functools.singledispatch
def layer_rule(layer: Any, context: Context) -> Effect | None:
    """Returns what a layer does, or `None` where no rule is known."""
    return None


AnyRule = TypeVar("AnyRule", bound=Rule)


def for_layers(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Registers a rule for layers of Keras, by the names of their classes: older versions lack some."""

    def decorate(rule: AnyRule) -> AnyRule:
        for name in names:
            kind = getattr(keras.layers, name, None)
            if kind is not None:
                layer_rule.register(kind, lambda layer, context: rule(context))
        return rule

    return decorate


def for_operations(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Registers a rule for operation classes, which Keras does not export, by their names."""

    def decorate(rule: AnyRule) -> AnyRule:
        OPERATIONS.update(dict.fromkeys(names, rule))
        return rule

    return decorate


def same(context: Context) -> Effect:
    """Hands the signal on as it is."""
    return Effect((context.signal,) * len(context.call.outputs), lambda gradients: (_first(gradients),))


def _first(gradients: Gradients) -> Signal | None:
    return next((one for one in gradients if one is not None), None)


def scaled(context: Context, number: float) -> Effect:
    """Multiplies by a number."""
    return Effect((context.signal.times(number),), lambda gradients: (scale(gradients[0], number**2),))


def scale(gradient: Signal | None, factor: float) -> Signal | None:
    """Returns a gradient whose squares have grown by a factor."""
    if gradient is None:
        return None
    along = tuple(value * factor for value in gradient.along)
    return Signal(gradient.second_moment * factor, 0.0, along, profile=gradient.profile)


def activated(signal: Signal, function: Activation) -> tuple[Signal, Callable[[Signal | None], Signal | None]]:
    """Returns what an activation makes of a signal, and what it makes of a gradient."""
    if function.linear or function.function is None:
        return signal, lambda gradient: gradient
    if signal.parts is not None and function == RELU:
        return _rectified_again(signal, *signal.parts)
    if signal.joined is not None:
        return _each_activated(*signal.joined, function)
    channels = signal.channels
    sizes = signal.sizes or {}
    uneven = float(f"{covariance(sizes, sizes):.2g}")
    given = (function, signal.mean, signal.variance, channels)
    response = respond_unevenly(*given, uneven) if uneven > EVEN else respond(*given)
    # Powers to three digits: signals that are nearly alike, as behind normalizations, share them.
    rounded = (function, float(f"{signal.mean:.3g}"), float(f"{signal.variance:.3g}"), channels)
    power, steepness, of_mean = powers_of(*rounded, max(uneven, EVEN)) if sizes else (1.0, 0.0, 0.5)
    correlations = [_correlation(signal, value) for value in signal.along]
    unlike = _unlike(signal)
    along = tuple(map(response.covariance, correlations, unlike))
    along = (*map(response.between_samples, correlations[:1]), *along[1:])
    apart = tuple(response.between_samples(_correlation(signal, value)) for value in signal.apart)
    near = _near(signal, response, max(unlike, default=0.0))
    made = Signal(response.second_moment, response.mean, along, apart=apart, patterns=signal.patterns, near=near)
    powers = _powers(function, signal, response) if signal.profile else (0.0, 0.0)
    shares = [_to_power(signal, power) for power in powers]
    made = dataclasses.replace(
        weighted_by(made, shares[0], 1.0),
        bent=(function, signal),
        sizes=to_power(sizes, power),
        mean_power=of_mean / power if power > 0 else None,
    )

    def back(gradient: Signal | None) -> Signal | None:
        if gradient is None:
            return None
        slope = response.slope
        if gradient.tilt is not None:
            slope *= slope_where(function, signal.mean, signal.variance, gradient.tilt, channels) / max(
                respond(*given).slope, 1e-300
            )
        slope *= _steeper(given, sizes, gradient.sizes or {}, uneven)
        grown = slope / response.slope if response.slope > 0 else 1.0
        slopes = zip(gradient.along, correlations)
        passed = Signal(
            gradient.second_moment * slope,
            0.0,
            tuple(v * response.slope_covariance(c) * grown for v, c in slopes),
            profile=gradient.profile,
            sizes=product([gradient.sizes or {}, to_power(sizes, steepness)]),
        )
        passed = dataclasses.replace(weighted_by(passed, shares[1], 1.0), bent=(function, signal))
        if channels is None:
            return passed
        alike = gradient.agreement([axis for axis, one in enumerate(unlike) if one])
        # Other taps that both positions have in common make what is there alike, and leave less to this one.
        steered = max(response.slope_powers[1] + 2 * channels.share * response.turn, 0.0)
        return dataclasses.replace(passed, steered=alike * steered)

    return made, back


def coherence(gradient: Signal) -> float:
    """Returns how much more squared gradient comes back through mirrored pairs of units than through single ones.

    Both units of a pair get the gradient `r` of what reads them, with opposite signs, and hand back
    `r (f'(z) + f'(-z))` together: `E (f'(z) + f'(-z))^2 / (2 E f'(z)^2)` times the sum of two that know
    nothing of each other.
    """
    if gradient.bent is None:
        return 1.0
    function, signal = gradient.bent
    slope = respond(function, signal.mean, signal.variance).slope
    return respond(within_pairs(function), signal.mean, signal.variance).slope / slope if slope > 0 else 1.0


@functools.lru_cache(maxsize=256)
def within_pairs(function: Activation) -> Activation:
    """Returns what weights of opposite sign read of a pair that sees `z` and `-z`: the odd part, times a root of two.

    Half of the sum over all units of `w^2 f_odd^2` comes twice, once from each unit of a pair.
    """
    f = function.function
    assert f is not None
    return Activation(f"odd part of {function}", (), lambda z: (f(z) - f(-z)) / math.sqrt(2), function.known)


def _steeper(given: Any, sizes: Sizes, gradient: Sizes, uneven: float) -> float:
    """Returns how much steeper a function is in samples where the gradient is large."""
    shift = round(shift_where(sizes, gradient), 2) if uneven > EVEN else 0.0
    if not shift:
        return 1.0
    return respond_unevenly(*given, uneven, shift).slope / max(respond_unevenly(*given, uneven).slope, 1e-300)


def _each_activated(axis: int, parts: tuple[tuple[int, Signal], ...], function: Activation) -> Any:
    """Bends signals that stand side by side: a rectifier lets the gradient at one that is never negative through."""
    found = [activated(dataclasses.replace(one, joined=None), function) for _, one in parts]
    counts = [count for count, _ in parts]
    ends, shares = np.cumsum(counts).tolist(), [count / sum(counts) for count in counts]

    def whole(several: Sequence[Signal]) -> Signal:
        return side_by_side(blended(several, shares), axis, list(zip(counts, several)))

    def back(gradient: Signal | None) -> Signal | None:
        if gradient is None:
            return None
        places = zip(found, [0, *ends], ends)
        passed = [back(part_of(gradient, axis, start, end)) for (_, back), start, end in places]
        return whole([one for one in passed if one is not None])

    made = [one for one, _ in found]
    return dataclasses.replace(whole(made), joined=(axis, tuple(zip(counts, made)))), back


def _unlike(signal: Signal) -> tuple[float, ...]:
    """Returns the variance of the correlation of two entries that differ on each axis: of positions, it has one."""
    rank = len(signal.along)
    if signal.channels is None:
        return (0.0,) * rank
    unit = [axis == signal.channels.axis for axis in range(rank)]
    return tuple(0.0 if axis == 0 or unit[axis] else signal.channels.unlike for axis in range(rank))


def _to_power(signal: Signal, power: float) -> tuple[Any, ...]:
    """Returns a power of a signal's profile; with mean one, where the law of all positions is known already."""
    if power == 0:
        return ()
    found = [None if one is None else np.maximum(one, FAINT) ** power for one in signal.profile]
    return tuple(None if one is None else one / (1.0 if signal.channels is None else one.mean()) for one in found)


def _near(signal: Signal, response: Response, unlike: float) -> Near | None:
    """Returns how far neighbours agree in what a function makes.

    Args:
        signal: what is given to it.
        response: of the function.
        unlike: the variance of the correlation of two positions of one sample.
    """
    if signal.near is None or signal.variance <= 1e-24:
        return None
    alike, mean, variance = signal.alike(), signal.mean**2, signal.variance
    # Where a border leaves nothing, nothing agrees.
    sizes = np.maximum(alike, 1e-30)
    same, other = ((values / sizes - mean) / variance for values in (signal.near.same, signal.near.other))
    within = response.covariances(same, unlike)
    if unlike:
        # A position has nothing unlike itself.
        within.ravel()[0] = response.covariance(float(same.ravel()[0]))
    near = dataclasses.replace(signal.near, same=alike * within, other=alike * response.all_between_samples(other))
    if not signal.profile or response.powers[0] <= 1e-6 * response.second_moment:
        return near
    # The mean of a rectifier grows as the spread does.
    roots = [np.ones(1) if (one := signal.profile[axis]) is None else np.sqrt(one) for axis in near.axes]
    return dataclasses.replace(near, pulls=tuple(one / one.mean() for one in roots))


def _powers(function: Activation, signal: Signal, response: Response) -> tuple[float, float]:
    """Returns the powers with which the second moment of a function, and of its slope, go with that of its input."""
    step = 1.1
    more = respond(function, math.sqrt(step) * signal.mean, step * signal.variance, signal.channels)
    pairs = ((more.second_moment, response.second_moment), (more.slope, response.slope))
    found = tuple(math.log(one / other) / math.log(step) if min(one, other) > 0 else 0.0 for one, other in pairs)
    # Of what bends every scale alike, rounding would leave a power of nearly nothing.
    return round(found[0], 3), round(found[1], 3)


def slope_power(gradient: Signal) -> float:
    """Returns the power of a unit's square with which the slope goes that a gradient has come back through."""
    if gradient.bent is None:
        return 0.0
    function, signal = gradient.bent
    mean, variance = float(f"{signal.mean:.3g}"), float(f"{signal.variance:.3g}")
    given = dataclasses.replace(signal, mean=mean, second_moment=mean**2 + variance)
    return _powers(function, given, respond(function, mean, variance, signal.channels))[1]


def _rectified_again(signal: Signal, law: Any, other: Signal) -> Any:
    found = rectified_sum(law, other)

    def back(gradient: Signal | None) -> Signal | None:
        if gradient is None:
            return None
        factor, slopes, tilt = found.back(gradient.tilt)
        along = tuple(value * slope for value, slope in zip(gradient.along, slopes))
        return Signal(gradient.second_moment * factor, 0.0, along, profile=gradient.profile, tilt=tilt)

    joined = signal.joined and (
        signal.joined[0],
        tuple((count, activated(part, RELU)[0]) for count, part in signal.joined[1]),
    )
    # What has been rectified is nearly so again: its squares grow as they did.
    made = dataclasses.replace(found.whole, profile=signal.profile, patterns=signal.patterns, sizes=signal.sizes)
    return dataclasses.replace(made, joined=joined), back


def _correlation(signal: Signal, agreement: float) -> float:
    return (agreement - signal.mean**2) / signal.variance if signal.variance > 1e-24 else 0.0


def axes_of(value: Any, rank: int) -> tuple[int, ...]:
    """Returns axes as numbers from zero on; all of them for `None`."""
    if value is None:
        return tuple(range(rank))
    several: Sequence[int] = (value,) if isinstance(value, int) else tuple(value)
    return tuple(int(axis) % rank for axis in several) if rank else ()
