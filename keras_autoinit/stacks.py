"""Stacks of attention blocks, and by what published schemes scale the weights of their residual branches.

A deep stack of residual blocks without warm-up diverges because every branch moves the output a little, and
all of them together too far. T-Fixup and DeepNorm make each branch smaller with the number of layers. Both
are formulas for transformers: a stack without attention in its branches has none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from keras_autoinit.attention_layers import Attention, attentions_of
from keras_autoinit.by_table import beside_tied, role_of
from keras_autoinit.graphs import Call, Graph, Place, passes
from keras_autoinit.merges import Merge, is_merge, merges_of, unscaled
from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes import with_axes
from keras_autoinit.slots import Slot
from keras_autoinit.solving import Fixed
from keras_autoinit.stretches import slot_calls

T_FIXUP = "T-Fixup, Huang et al. 2020"
DEEPNORM = "DeepNorm, Wang et al. 2022, arXiv 2203.00555"

# Weights that a branch computes with.
_SCALED = ("kernel", "pointwise", "query", "key", "value", "output")
_UNSCALED = ("query", "key")

Start = tuple[dict[str, Fixed], tuple[str, ...]]


@dataclass(frozen=True)
class Stack:
    """Residual blocks that follow each other on one trunk, through normalizations too.

    Attributes:
        branches: how many residual branches it has: a count.
        crosses: whether a branch looks at another signal, as those of a decoder do.
        weights: role of each weight in its branches, by path.
    """

    branches: int
    crosses: bool
    weights: dict[str, str]

    @property
    def layers(self) -> int:
        """How many layers it has, of two branches each, or three with cross-attention: a count."""
        return max(1, round(self.branches / (3 if self.crosses else 2)))


def stacks_of(graph: Graph) -> list[Stack]:
    """Finds the stacks that have attention in their branches."""
    order = {id(call): index for index, call in enumerate(graph.calls)}
    found: dict[int, list[Merge]] = {}
    chain: dict[int, int] = {}
    for merge in merges_of(graph, order).values():
        if merge.trunk is None:
            continue
        before = _merge_behind(graph, merge.trunk)
        number = chain.get(id(before), len(found))
        chain[id(merge.call)] = number
        found.setdefault(number, []).append(merge)
    attentions = attentions_of(graph)
    stacks = [_stack(graph, merges, attentions, order) for merges in found.values()]
    return [stack for stack in stacks if stack is not None]


def _merge_behind(graph: Graph, tensor: int) -> Call | None:
    """Returns the merge that a trunk comes from, through normalizations too: a block may end in one."""
    while (maker := graph.maker(tensor)) is not None and not is_merge(maker):
        if len(set(maker.inputs)) != 1 or not passes(maker):
            return None
        tensor = maker.inputs[0]
    return maker


def _stack(graph: Graph, merges: list[Merge], attentions: list[Attention], order: dict[int, int]) -> Stack | None:
    inside = {id(call) for merge in merges for call in _branch(graph, merge, order)}
    own = [one for one in attentions if _reads(one, "query") & _read_inside(graph, inside)]
    if not own:
        return None
    roles = {projection.path: role for one in own for role, projection in one.projections.items()}
    for place in graph.places:
        for slot in place.slots:
            calls = slot_calls(graph, place.layer, slot)
            if role_of(place, slot) in _SCALED and any(id(call) in inside for call in calls):
                roles.setdefault(f"{place.path}/{slot.weight}", "kernel")
    crosses = any(_reads(one, "query") != _reads(one, "key") for one in own)
    return Stack(sum(merge.parts - 1 for merge in merges), crosses, roles)


def _reads(attention: Attention, role: str) -> set[int]:
    return set(attention.projections[role].reads)


def _read_inside(graph: Graph, inside: Collection[int]) -> set[int]:
    return {tensor for call in graph.calls if id(call) in inside for tensor in call.inputs}


def _branch(graph: Graph, merge: Merge, order: dict[int, int]) -> list[Call]:
    """Returns the calls on the ways from a trunk to the sum that it meets again in."""
    assert merge.trunk is not None
    source = unscaled(graph, merge.trunk)
    behind = _behind(graph, [tensor for tensor in merge.call.inputs if tensor != merge.trunk], source)
    reached, calls = {source}, []
    for call in sorted(behind, key=lambda one: order[id(one)]):
        if reached.intersection(call.inputs):
            reached.update(call.outputs)
            calls.append(call)
    return calls


def _behind(graph: Graph, tensors: list[int], source: int) -> Iterable[Call]:
    """Returns the calls that tensors come from, back to a source or to other sums."""
    found: dict[int, Call] = {}
    stack = list(tensors)
    while stack:
        tensor = stack.pop()
        maker = None if tensor == source else graph.maker(tensor)
        if maker is not None and id(maker) not in found:
            found[id(maker)] = maker
            stack.extend(maker.inputs)
    return found.values()


# --- What each scheme makes of them ---


def t_fixup_start(graph: Graph, kept: Collection[str]) -> Start:
    """Returns what T-Fixup draws branches and token tables from, and notes.

    Formula: Xavier uniform; values, outputs and feed-forward weights times `0.67 N^(-1/4)` in
    encoders and `(9 N)^(-1/4)` in decoders of `N` layers; tables of tokens and positions normal of the spread
    `d^(-1/2) (9 N)^(-1/4)`. A stack without cross-attention counts as an encoder. The paper also takes
    the normalizations out of the model.

    Args:
        graph: the model.
        kept: paths of weights that stay as they are.
    """
    stacks = stacks_of(graph)
    fixed: dict[str, Fixed] = {}
    for stack in stacks:
        factor = (9 * stack.layers) ** -0.25 if stack.crosses else 0.67 * stack.layers**-0.25
        fixed.update(_scaled(graph, stack, "xavier_uniform", factor, T_FIXUP, kept))
    if not stacks:
        return _none("t_fixup")
    layers = next((stack.layers for stack in stacks if stack.crosses), stacks[0].layers)
    fixed.update(_tables(graph, layers, kept))
    return fixed, ("T-Fixup is made for blocks without normalization, which it only sets the weights of.",)


def deepnorm_start(graph: Graph, kept: Collection[str]) -> Start:
    """Returns what DeepNorm draws branches from, and notes.

    Formula: Xavier normal; values, outputs and feed-forward weights times `beta`, where trunks are
    multiplied by `alpha` before they meet a branch: `alpha = (2 N)^(1/4)`, `beta = (8 N)^(-1/4)` in a
    stack of `N` layers alone; in a decoder of `M` layers beside an encoder `alpha = (3 M)^(1/4)`,
    `beta = (12 M)^(-1/4)`, and in that encoder `alpha = 0.81 (N^4 M)^(1/16)`,
    `beta = 0.87 (N^4 M)^(-1/16)`. The multiplication is the model's own: only weights are set.

    Args:
        graph: the model.
        kept: paths of weights that stay as they are.
    """
    stacks = stacks_of(graph)
    decoder = next((stack for stack in stacks if stack.crosses), None)
    fixed: dict[str, Fixed] = {}
    notes = []
    for stack in stacks:
        alpha, beta = _deepnorm(stack, decoder)
        fixed.update(_scaled(graph, stack, "xavier_normal", beta, DEEPNORM, kept))
        notes.append(
            f"DeepNorm: normalize after each sum, and multiply the trunk of {stack.layers} layers by "
            f"{alpha:.4g} before it, which is up to the model."
        )
    return (fixed, tuple(notes)) if stacks else _none("deepnorm")


NAMED: dict[str, Callable[[Graph, Collection[str]], Start]] = {"deepnorm": deepnorm_start, "t_fixup": t_fixup_start}


def _deepnorm(stack: Stack, decoder: Stack | None) -> tuple[float, float]:
    """Returns the factor on the trunk, and that on the weights."""
    if decoder is None:
        return (2 * stack.layers) ** 0.25, (8 * stack.layers) ** -0.25
    if stack.crosses:
        return (3 * stack.layers) ** 0.25, (12 * stack.layers) ** -0.25
    both = stack.layers**4 * decoder.layers
    return 0.81 * both ** (1 / 16), 0.87 * both ** (-1 / 16)


def _none(name: str) -> Start:
    return {}, (f"residual={name!r} found no residual blocks with attention: branches are balanced.",)


def _scaled(
    graph: Graph, stack: Stack, scheme: str, factor: float, source: str, kept: Collection[str]
) -> dict[str, Fixed]:
    """Returns Xavier weights, times a factor but for queries and keys."""
    fixed = {}
    for path, place, slot in _slots(graph, kept):
        role = stack.weights.get(path)
        variable = slot.variable(place.layer)
        if role is None or variable is None or slot.axes is None:
            continue
        gain = 1.0 if role in _UNSCALED else float(f"{factor:.6g}")
        fan_in, fan_out = slot.axes.fans(tuple(variable.shape))
        recipe = with_axes(Recipe(f"autoinit>{scheme}", {} if gain == 1 else {"gain": gain}), slot.axes)
        times = "" if gain == 1 else f" times {gain:.3g}"
        reason = f"Xavier{times}, in a stack of {stack.layers} layers ({source})."
        fixed[path] = Fixed(recipe, reason, power=2 * fan_in * gain**2 / (fan_in + fan_out))
    return fixed


def _tables(graph: Graph, layers: int, kept: Collection[str]) -> dict[str, Fixed]:
    """Returns the tables of tokens and positions; one that is tied to the output is left to that."""
    fixed = {}
    for path, place, slot in _slots(graph, kept):
        variable = slot.variable(place.layer)
        if variable is not None and slot.role in ("embeddings", "positions"):
            spread = float(f"{variable.shape[-1] ** -0.5 * (9 * layers) ** -0.25:.6g}")
            config: dict[str, Any] = {"stddev": spread}
            reason = f"Of the spread d^(-1/2) (9 N)^(-1/4), beside a stack of {layers} layers ({T_FIXUP})."
            fan_in = 1.0 if slot.axes is None else slot.axes.fans(tuple(variable.shape))[0]
            power = max(fan_in, 1.0) * spread**2
            fixed[path] = Fixed(Recipe("autoinit>random_normal", config), reason, power=power)
    return fixed


def _slots(graph: Graph, kept: Collection[str]) -> Iterator[tuple[str, Place, Slot]]:
    """Yields every weight that may be drawn anew."""
    for place in graph.places:
        for slot in place.slots:
            path = f"{place.path}/{slot.weight}"
            if path not in kept:
                yield path, place, beside_tied(graph, place, slot)


__all__ = ["NAMED", "Stack", "deepnorm_start", "stacks_of", "t_fixup_start"]
