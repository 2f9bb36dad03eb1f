"""From a graph to decisions by theory: every scale solved from predicted signals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from keras_autoinit.attention import mimetic_start
from keras_autoinit.by_table import feeds_of, kept_weights, role_of, told
from keras_autoinit.errors import SchemeError
from keras_autoinit.graphs import Call, Graph, Place
from keras_autoinit.linear_start import LinearStart, Part, recipe_of
from keras_autoinit.merges import MERGES, NORMALIZATIONS
from keras_autoinit.methods import FromGraph
from keras_autoinit.plans import Decision
from keras_autoinit.positions import tables_start
from keras_autoinit.prediction import Prediction, follow
from keras_autoinit.recipes import Recipe
from keras_autoinit.responses import chance_of, powers_of
from keras_autoinit.schemes import with_axes
from keras_autoinit.selection import Selection
from keras_autoinit.signals import Signal
from keras_autoinit.slots import Slot
from keras_autoinit.solving import Fixed, Residual, Solver
from keras_autoinit.stacks import NAMED
from keras_autoinit.stretches import fate_of, is_undone, puts_out_map, slot_calls
from keras_autoinit.sums import chance_of_square
from keras_autoinit.ways import FADE, FADING, fading

Distribution = Literal["truncated_normal", "normal", "uniform", "orthogonal"]
DISTRIBUTIONS = ("normal", "orthogonal", "truncated_normal", "uniform")
RESIDUALS = ("balanced", "deepnorm", "depth_scaled", "none", "t_fixup", "zero")
ResidualStart = Residual | Literal["deepnorm", "t_fixup"]
AttentionStart = Literal["mimetic", "plain"]
ATTENTIONS = ("mimetic", "plain")
# How attention starts unless asked for, by the evidence in docs/attention.md.
ATTENTION_DEFAULT: AttentionStart = "mimetic"

# A signal or a gradient that changes by more than this end to end is worth a note.
ALARMING = 1e4
# A spread that may be off by more, at two standard errors and in logarithms of two, is worth one too.
UNSURE = 0.5
# Over so little of a logarithm a function's power is that at one size.
SMALL = 0.01


_OPTIONS = (
    ("attention", ATTENTIONS),
    ("distribution", DISTRIBUTIONS),
    ("linear_start", (True, False, "auto")),
    ("residual", RESIDUALS),
)


@dataclass(frozen=True)
class Theory(FromGraph):
    """Solves each scale from predicted signals: forward, backward, and between two inputs.

    When to use: for networks that no table row describes: unusual activations, deep stacks,
    residual branches without normalization, convolutions with batch normalization. It needs no data;
    shapes make it exact at borders.

    Formula: what meets an activation has a unit second moment, or, in deep stretches, the one at which
    the worst of forward and backward distortion is smallest. A weight in front of a batch
    normalization, which undoes its scale, has a standard deviation of 0.05 at most; a map that a
    convolution puts out has one of 0.2, and signals fade by sqrt(0.5) at each weight on the way to
    it, where that joins a way with a longer one (U-Nets). What a plain network of fewer than 6 dense
    layers says of classes has a spread of 2, unless the model was compiled with another loss than a
    cross-entropy.

    Assumption: weights are independent and layers are wide, so that sums are Gaussian (Poole et
    al. 2016, arXiv 1606.05340; Schoenholz et al. 2017, arXiv 1611.01232).

    Args:
        distribution: `"orthogonal"`, `"truncated_normal"`, `"normal"` or `"uniform"`. Orthogonal
            convolutions are delta-orthogonal in stretches of 30 weights and more. Depthwise kernels
            and embeddings, and weights whose shape is not known yet, are truncated normal where
            others are orthogonal; recurrent kernels are orthogonal in any case.
        residual: `"balanced"`: the branches of a chain of merges together as large as its
            trunk, so that the second moment at most doubles; `"zero"`: branches start at zero
            (Zhang et al. 2019, arXiv 1901.09321; De and Smith 2020, arXiv 2002.10444);
            `"none"`: each branch as large as a unit signal; `"depth_scaled"`: that over the square
            root of how many stand on one trunk (GPT-2, Radford et al. 2019). For transformers only,
            others being balanced: `"t_fixup"` (Huang et al. 2020, for blocks without normalization)
            and `"deepnorm"` (Wang et al. 2022, arXiv 2203.00555, for blocks that end in one, whose
            trunk the model itself multiplies by alpha), which draw the weights of the branches by
            the paper's formula (see `docs/attention.md`).
        linear_start: `"auto"`: mirror the weights of long stretches that can begin as one linear map: of 6
            weights and more, of 60 where the activation is only nearly a line, of 2 (with normalization, 15)
            where there are convolutions, and residual branches of these, but none that branches itself;
            `True`: of every such stretch; `False`: of none. The scales of all others are solved around them. In
            plain deep networks it makes the difference between training and not (see `docs/linear_start.md`).
        attention: `"mimetic"`: the query-key product of each self-attention starts near a positive
            identity, the value-output product near a negative one, and learned positions beside
            words as sinusoids; `"plain"`: as any other weight (see `docs/attention.md`). A paper
            that `residual` names decides on attention itself.

    Raises:
        SchemeError: an option is none of these.

    Example:
        >>> Theory(residual="zero").residual
        'zero'
    """

    distribution: Distribution = "orthogonal"
    residual: ResidualStart = "balanced"
    linear_start: bool | Literal["auto"] = "auto"
    attention: AttentionStart = ATTENTION_DEFAULT

    def __post_init__(self) -> None:
        for name, allowed in _OPTIONS:
            value = getattr(self, name)
            if value not in allowed:
                listed = ", ".join(repr(word) for word in allowed)
                raise SchemeError(f"Expected `{name}` to be one of {listed}. Received: {value!r}.")

    def decide(
        self, graph: Graph, selection: Selection, fixed: Mapping[str, Fixed] | None = None
    ) -> tuple[Decision, ...]:
        """Returns one decision per weight; looks, runs and changes nothing."""
        return self.solve(graph, selection, fixed)[0]

    def solve(
        self, graph: Graph, selection: Selection, fixed: Mapping[str, Fixed] | None = None
    ) -> tuple[tuple[Decision, ...], tuple[str, ...]]:
        """Returns one decision per weight, and notes on the whole.

        Args:
            graph: the model.
            selection: what may be touched.
            fixed: recipes that others have chosen, by the path of the weight.
        """
        remarks: dict[str, str] = {}
        notes: tuple[str, ...] = ()
        if fixed is None:
            fixed, remarks, notes = self._fixed(graph, selection)
        solver, prediction = self._followed(graph, selection, fixed)
        rows = tuple(
            _decision(self, solver, prediction, *solver.places[id(place.layer), slot.weight])
            for place in graph.places
            for slot in place.slots
        )
        rows, unknown = _as_far_as_known(_remarked(rows, remarks))
        chance = _chance_notes(solver, prediction)
        return rows, (*prediction.notes, *_stretch_notes(solver), *chance, *notes, *unknown)

    def _followed(self, graph: Graph, selection: Selection, fixed: Mapping[str, Fixed]) -> tuple[Solver, Prediction]:
        # What those two say nothing of is balanced.
        residual: Residual = "balanced" if self.residual == "deepnorm" or self.residual == "t_fixup" else self.residual
        solver = Solver.of(graph, selection, fixed, residual, self.distribution == "orthogonal")
        return solver, follow(graph, solver, solver.signals)

    def _fixed(self, graph: Graph, selection: Selection) -> tuple[dict[str, Fixed], dict[str, str], tuple[str, ...]]:
        """Returns what the starts that are asked for choose themselves, why they choose no more, and notes."""
        plain = dataclasses.replace(self, linear_start=False, attention="plain")
        kept = kept_weights(graph, selection)
        fixed: dict[str, Fixed] = {}
        remarks: dict[str, str] = {}
        notes: tuple[str, ...] = ()
        parts = self._parts(graph, selection, kept)
        if any(part.stretch is not None for part in parts.values()):
            fixed = _mirrored(lambda: plain.decide(graph, selection), graph, _isometric(parts, graph))
        if not kept:
            fixed = _faded(plain, graph, selection, fixed)
        if self.linear_start is True:
            remarks = {path: part.reason for path, part in parts.items() if part.stretch is None}
        taken = set(kept)
        if self.residual in NAMED:
            chosen, notes = NAMED[self.residual](graph, kept)
            fixed, taken = {**fixed, **chosen}, taken | set(chosen)
        if self.attention == "mimetic":
            chosen, why = mimetic_start(graph, taken)
            tables: dict[str, Fixed] = {}
            others: dict[str, str] = {}
            if chosen:
                tables, others = tables_start(graph, plain._followed(graph, selection, fixed)[1].signals, taken)
            fixed, remarks = {**fixed, **chosen, **tables}, {**remarks, **why, **others}
        return fixed, remarks, notes

    def _parts(self, graph: Graph, selection: Selection, kept: Mapping[str, str]) -> dict[str, Part]:
        """Returns what the linear start says of each weight."""
        if not self.linear_start:
            return {}
        start = LinearStart(stretches="long" if self.linear_start == "auto" else "all")
        return start.parts(graph, selection, kept)


def _remarked(rows: tuple[Decision, ...], remarks: Mapping[str, str]) -> tuple[Decision, ...]:
    return tuple(
        dataclasses.replace(row, reason=f"{row.reason} {remarks[row.path]}") if row.path in remarks else row
        for row in rows
    )


MIMETIC = (
    "Attention that looks at what is alike hands on more of it, and takes it off its trunk: gradients are not "
    "predicted, and spreads behind mimetic attention may be half or twice as large as predicted."
)


def _as_far_as_known(rows: tuple[Decision, ...]) -> tuple[tuple[Decision, ...], list[str]]:
    """Returns decisions without what is not known where attention's weights depend on each other, and a note on it."""
    if all(row.new.name != "autoinit>mimetic" for row in rows):
        return rows, []
    return tuple(dataclasses.replace(row, gradient_factor=None) for row in rows), [MIMETIC]


def _isometric(parts: dict[str, Part], graph: Graph) -> dict[str, Part]:
    """Returns parts none of which is scaled for a sum that a batch normalization stands in front of."""
    layers = {place.path: place.layer for place in graph.places}
    summed = [path for path, part in parts.items() if part.merges]
    calls = {path: graph.calls_of(layers[path.rpartition("/")[0]]) for path in summed}
    free = {path for path in summed if is_undone(fate_of(graph, call.outputs[0]) for call in calls[path])}
    return {path: dataclasses.replace(part, merges=False) if path in free else part for path, part in parts.items()}


def _mirrored(plain: Callable[[], tuple[Decision, ...]], graph: Graph, parts: Mapping[str, Part]) -> dict[str, Fixed]:
    """Returns the weights that take part in a linear stretch, with what they are to be drawn from.

    Args:
        plain: decides without a linear start.
        graph: the model.
        parts: what the linear start says of each weight.
    """
    slots = {f"{place.path}/{slot.weight}": slot for place in graph.places for slot in place.slots}
    calls = ((place, call) for place in graph.places for call in graph.calls_of(place.layer))
    maps = {place.path for place, call in calls if puts_out_map(graph, call)}
    taking = {path: part for path, part in parts.items() if part.stretch is not None}
    by_others = {p for p, part in taking.items() if part.merges or not part.base or p.rpartition("/")[0] in maps}
    # What would stand in their place: the signal is not followed once more for nothing.
    rows = {row.path: row for row in plain() if row.path in by_others} if by_others else {}
    zeros = {path for path, row in rows.items() if row.new.name == "autoinit>zeros"}
    return {
        path: _mirrored_one(part, slots[path], rows.get(path)) for path, part in taking.items() if path not in zeros
    }


def _faded(theory: Theory, graph: Graph, selection: Selection, fixed: dict[str, Fixed]) -> dict[str, Fixed]:
    """Returns what is fixed, and every weight at which a signal fades: as it would be, but smaller."""
    slots = [(place, slot) for place in graph.places for slot in place.slots]
    calls = {id(call): call for place, slot in slots for call in slot_calls(graph, place.layer, slot)}
    fading_calls = fading(graph, [call for call in graph.calls if id(call) in calls])
    if not fading_calls:
        return fixed
    solver, prediction = theory._followed(graph, selection, fixed)
    met = {key: solver.places[key] for key in solver.powers if fading_calls.issuperset(map(id, solver.uses[key]))}
    rows = {key: _decision(theory, solver, prediction, *found) for key, found in met.items()}
    smaller = {
        row.path: Fixed(
            _smaller(row.new),
            f"{row.reason} {FADING}",
            power=solver.powers[key] * FADE,
            centred=solver.centred(met[key][0].layer, met[key][1]),
        )
        for key, row in rows.items()
    }
    return {**fixed, **smaller}


def _smaller(recipe: Recipe) -> Recipe:
    config = {name: value for name, value in recipe.config.items() if name != "gain"}
    return Recipe(recipe.name, {**config, **_gain(recipe.config.get("gain", 1.0) * math.sqrt(FADE))})


def _mirrored_one(part: Part, slot: Slot, other: Decision | None) -> Fixed:
    """Returns one weight of a linear stretch.

    Inside, a gain is one over the slope, whatever is lost at borders. Where a stretch begins, and where
    it ends in a branch or a map, which are to be as large as without it, the gain is solved.

    Args:
        part: what the linear start says of it.
        slot: the weight.
        other: what would stand in its place, if that decides on its size.
    """
    recipe = recipe_of(part, slot, None if other is None else other.new)
    if not part.base:
        # A depthwise kernel keeps its own scheme and with it what it makes of a signal.
        return Fixed(recipe, part.reason)
    reads = part.pairs_in is not None
    # Two units of a pair are each read with half of the difference.
    unit_power = part.narrowing * (2.0 if reads else 1.0)
    fixed = Fixed(recipe, part.reason, power=unit_power * part.gain**2, centred=part.base == "delta_orthogonal")
    wanted = None if reads else part.variance
    if other is not None and other.output_std is not None:
        wanted = other.output_std**2
    return fixed if wanted is None else dataclasses.replace(fixed, second_moment=wanted, unit_power=unit_power)


def _decision(theory: Theory, solver: Solver, prediction: Prediction, place: Place, slot: Slot) -> Decision:
    key = (id(place.layer), slot.weight)
    variable = slot.variable(place.layer)
    shape = None if variable is None else tuple(variable.shape)
    fan_in, fan_out = (None, None) if shape is None or slot.axes is None else slot.axes.fans(shape)
    old, keep = slot.recipe(place.layer), solver.kept.get(key)
    power = solver.powers.get(key)
    if keep is not None:
        new, reason = old, keep
    elif key in solver.fixed:
        fixed = solver.fixed[key]
        new, reason = fixed.recipe if power is None else fixed.solved(power), fixed.reason
    elif power is None:
        new, reason = _recipe(theory, slot, shape, 1.0), "No signal is seen to meet it: keeps a unit signal."
    else:
        centred = solver.centred(place.layer, slot)
        new, reason = _recipe(theory, slot, shape, power, centred), solver.why.get(key, "Keeps the signal.")
    if new != old:
        reason = told(slot, reason)
    spread, factor = _predicted(solver, prediction, place, key)
    return Decision(
        f"{place.path}/{slot.weight}",
        role_of(place, slot),
        shape,
        fan_in,
        fan_out,
        str(feeds_of(solver.graph, place, slot)),
        old,
        new,
        reason,
        output_std=spread,
        gradient_factor=factor,
    )


def _predicted(
    solver: Solver, prediction: Prediction, place: Place, key: tuple[int, str]
) -> tuple[float | None, float | None]:
    """Returns the spread of what a weight's call makes, and the squared gradient there."""
    tensors = [tensor for call in solver.uses[key] for tensor in call.outputs[:1]]
    tensors = tensors or solver.graph.made_by(place.layer)[:1]
    signal = next((prediction.signals[tensor] for tensor in tensors if tensor in prediction.signals), None)
    gradient = next((prediction.gradients[tensor] for tensor in tensors if tensor in prediction.gradients), None)
    spread = None if signal is None else float(f"{math.sqrt(signal.variance):.6g}")
    return spread, None if gradient is None else float(f"{gradient.second_moment:.6g}")


def _recipe(theory: Theory, slot: Slot, shape: tuple[int, ...] | None, power: float, centred: bool = False) -> Recipe:
    """Returns the scheme and the gain that give a weight its power."""
    if power == 0:
        return Recipe("autoinit>zeros")
    if slot.role == "recurrent":
        return with_axes(Recipe("autoinit>orthogonal", _gain(math.sqrt(power))), slot.axes)
    # The rows of a matrix that widens are longer: its gain depends on a shape that must be known.
    if theory.distribution == "orthogonal" and shape is not None and slot.role not in ("embeddings", "depthwise"):
        taps = math.prod(shape[:-2]) if centred else 1
        gain = _gain(math.sqrt(power * _widening(slot, shape, taps)))
        return with_axes(Recipe(f"autoinit>{'delta_' * centred}orthogonal", gain), slot.axes)
    distribution = theory.distribution if theory.distribution in ("normal", "uniform") else None
    config = {**_gain(math.sqrt(power)), **({} if distribution is None else {"distribution": distribution})}
    return with_axes(Recipe("autoinit>variance_scaling", config), slot.axes)


def _gain(gain: float) -> dict[str, float]:
    """Returns the argument: six digits, so that a plan is the same on every backend."""
    rounded = float(f"{gain:.6g}")
    return {} if rounded == 1.0 else {"gain": rounded}


def _widening(slot: Slot, shape: tuple[int, ...], taps: int) -> float:
    """Returns columns over rows where an orthogonal matrix has more columns: each row's length is then one."""
    if slot.axes is None:
        return 1.0
    rows = math.prod(shape[axis] for axis in slot.axes.inputs) / taps
    columns = math.prod(shape[axis] for axis in slot.axes.outputs if axis not in slot.axes.inputs)
    return max(1.0, columns / slot.axes.blocks / max(rows, 1))


def _chance_notes(solver: Solver, prediction: Prediction) -> list[str]:
    """Names the layers of which one draw of the weights may make another spread than all draws on average."""
    chances, found = _chances(solver, prediction), []
    for key, (place, _) in solver.places.items():
        tensors = [tensor for call in solver.uses[key] for tensor in call.outputs[:1]]
        # The standard error of a spread is half that of its square.
        if any(math.sqrt(chances.get(tensor, 0.0)) / math.log(2) > UNSURE for tensor in tensors):
            found.append(place.path)
    if not found:
        return []
    listed = ", ".join(dict.fromkeys(found))
    return [
        "Few units that make nearly the same of every sample are few numbers: one draw of their weights may make a "
        f"spread that is more than 1.4 times as large or as small as predicted, in {listed}."
    ]


def _chances(solver: Solver, prediction: Prediction) -> dict[int, float]:
    """Returns how uneven the mean square of what each weight makes is over draws, since the last normalization."""
    mixing = {id(call) for calls in solver.uses.values() for call in calls}
    found: dict[int, float] = {}
    made: dict[int, float] = {}
    for call in solver.graph.calls:
        for tensor in call.outputs:
            signal, spec = prediction.signals[tensor], solver.graph.specs.get(tensor)
            if spec is None or _normalizes(solver.graph, call):
                continue
            found[tensor] = _inherited(call, signal, prediction, found)
            if id(call) in mixing:
                found[tensor] += chance_of_square(prediction.before.get(id(call), signal), spec.shape)
                made[tensor] = found[tensor]
            if signal.bent is not None and call.inputs and signal is not prediction.signals.get(call.inputs[0]):
                function, source = signal.bent
                given = (function, round(source.mean, 2), round(source.variance, 2), source.channels)
                # A gate is nearly the same whatever it is given.
                found[tensor] *= powers_of(*given, SMALL)[0] ** 2
                found[tensor] += chance_of(*given) * chance_of_square(source, spec.shape) / 2
    return made


def _inherited(call: Call, signal: Signal, prediction: Prediction, found: Mapping[int, float]) -> float:
    """Returns the chance of what a call takes: of a sum, by the squares of the parts' shares."""
    # What a layer makes of its weights alone may have no signal.
    known = set(call.inputs) & prediction.signals.keys()
    parts = [(prediction.signals[one].second_moment, found.get(one, 0.0)) for one in sorted(known)]
    if type(call.operation).__name__ not in MERGES:
        return max((chance for _, chance in parts), default=0.0)
    total = max(signal.second_moment, 1e-300)
    return sum(min(size / total, 1.0) ** 2 * chance for size, chance in parts)


def _normalizes(graph: Graph, call: Call) -> bool:
    """Whether a call divides by the spread of what it is given, as a layer or by hand."""
    makers = [graph.maker(tensor) for tensor in call.inputs]
    by_hand = any(maker is not None and type(maker.operation).__name__ == "Rsqrt" for maker in makers)
    return isinstance(call.operation, NORMALIZATIONS) or by_hand


def _stretch_notes(solver: Solver) -> list[str]:
    """Warns of stretches that no scale can help."""
    notes = []
    for stretch in {id(one): one for one in solver.structure.stretches.values()}.values():
        forward, backward = abs(math.log(stretch.target)), abs(math.log(max(stretch.growth, 1e-300)))
        if max(forward, backward) > math.log(ALARMING):
            name = stretch.activations[-1]
            notes.append(
                f"No scale can help a stretch of {len(stretch.activations)} layers with {name}: at best the signal "
                f"changes by a factor of {stretch.target:.3g} and the squared gradient by {stretch.growth:.3g}. "
                "Put normalizations or residual connections in, or take another activation."
            )
    return notes


__all__ = ["Fixed", "Solver", "Theory"]
