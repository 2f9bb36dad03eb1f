"""How many weights a signal meets on its way through a model, and what few of them ask for.

A step of Adam changes every weight by about the learning rate. What that does to the output is the more
the smaller the weight itself is, beside the others: of a network's gain from end to end, every layer sees
the gain over its own. So a last weight that is larger, above others that are smaller, lets these learn
faster. Deep networks learn fast enough as they are; shallow ones do not (docs/linear_start.md has the numbers).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import keras

from keras_autoinit.graphs import Call, Graph
from keras_autoinit.linear_start import LONG
from keras_autoinit.merges import NORMALIZATIONS, is_merge
from keras_autoinit.stretches import puts_out_map

# Fewer weights than a linear start of dense layers is worth it for: measured from 3 hidden layers to 10.
SHALLOW = LONG
# What becomes of the second moment at each weight of a network that fades. A U-Net whose longer ways alone were made
# smaller learned slower (docs/linear_start.md).
FADE = 0.5
FADING = (
    f"Smaller by a factor of {math.sqrt(FADE):.3f}: signals fade on the way to a map, so that a shorter way begins "
    "larger than the longer one that it is joined with."
)

CONVOLUTIONS = tuple(getattr(keras.layers, f"Conv{n}D{kind}") for n in (1, 2, 3) for kind in ("", "Transpose"))
_WRITTEN = ("BatchNorm", "LayerNorm", "Normalize", "RMSNorm", "Rsqrt")


@dataclass(frozen=True)
class Ways:
    """How many weights stand between a model's inputs and what each call with weights makes, itself among them.

    Attributes:
        shortest: on the shortest way, by the call's `id`.
        longest: on the longest.
        read: the calls whose output another weight reads, by `id`.
    """

    shortest: dict[int, int]
    longest: dict[int, int]
    read: frozenset[int]


def ways_of(graph: Graph, mixing: Iterable[Call]) -> Ways:
    """Counts the weights on every way.

    Args:
        graph: the model.
        mixing: the calls that mix with a weight.
    """
    weighted = {id(call) for call in mixing}
    shortest: dict[int, int] = {}
    longest: dict[int, int] = {}
    # Of each tensor: the fewest weights before it, the most, and the calls with weights that it was last made by.
    tensors: dict[int, tuple[int, int, frozenset[int]]] = {}
    read: set[int] = set()
    for call in graph.calls:
        given = [tensors.get(tensor, (0, 0, frozenset())) for tensor in call.inputs] or [(0, 0, frozenset())]
        few, many = min(one[0] for one in given), max(one[1] for one in given)
        last: frozenset[int] = frozenset().union(*(one[2] for one in given))
        if id(call) in weighted:
            few, many = few + 1, many + 1
            shortest[id(call)], longest[id(call)] = few, many
            read |= last
            last = frozenset((id(call),))
        tensors.update(dict.fromkeys(call.outputs, (few, many, last)))
    return Ways(shortest, longest, frozenset(read))


def logits_of_few(graph: Graph, mixing: Iterable[Call]) -> frozenset[int]:
    """Returns the calls that choose among classes at the end of a plain network of few dense layers, by `id`.

    They make several numbers, but fewer than the model is given, and the model was not compiled with another
    loss than a cross-entropy: of a regression, a large output is an error to begin with.
    """
    mixing = list(mixing)
    if any("crossentropy" not in name.lower().replace("_", "") for name in graph.losses):
        return frozenset()
    if not _is_plain(graph, mixing) or not all(isinstance(call.operation, keras.layers.Dense) for call in mixing):
        return frozenset()
    ways = ways_of(graph, mixing)
    if any(number >= SHALLOW for number in ways.longest.values()):
        return frozenset()
    # A layer alone has nothing below it that could learn faster; one number is no choice among classes, and as many as
    # the model is given are what an autoencoder makes of them.
    given = sum(math.prod(graph.specs[tensor].shape[1:]) for tensor in graph.inputs if tensor in graph.specs)
    last = [call for call in mixing if id(call) not in ways.read and ways.shortest[id(call)] > 1]
    return frozenset(id(call) for call in last if 1 < call.operation.units < given)


def fading(graph: Graph, mixing: Iterable[Call]) -> frozenset[int]:
    """Returns the calls at which a signal fades on its way to a map, by `id`: all but those that make the map.

    It does where a short way and a longer one made from it are joined, as in a U-Net: the short one is
    then larger, as the trunk is beside a residual branch. The map itself is as large as ever.
    """
    mixing = list(mixing)
    maps = [call for call in mixing if puts_out_map(graph, call)]
    convolved = maps and all(isinstance(call.operation, CONVOLUTIONS) for call in mixing)
    if not convolved or not _is_plain(graph, mixing) or not _joins_ways(graph):
        return frozenset()
    ways = ways_of(graph, mixing)
    short = all(ways.shortest[id(call)] < SHALLOW for call in maps)
    return ways.read if short else frozenset()


def _is_plain(graph: Graph, mixing: list[Call]) -> bool:
    """Whether all weights of a model were seen at work, and no signal is normalized or added to another."""
    seen = {id(call.operation) for call in mixing}
    weighted = all(id(place.layer) in seen for place in graph.places if place.slots)
    return weighted and not any(is_merge(call) or _normalizes(call) for call in graph.calls)


def _normalizes(call: Call) -> bool:
    return isinstance(call.operation, NORMALIZATIONS) or type(call.operation).__name__ in _WRITTEN


def _joins_ways(graph: Graph) -> bool:
    """Whether a signal is joined with one that was made from it."""
    joins = (call for call in graph.calls if type(call.operation).__name__ == "Concatenate")
    return any(_is_from(graph, one, set(call.inputs) - {one}) for call in joins for one in call.inputs)


def _is_from(graph: Graph, tensor: int, sources: set[int]) -> bool:
    """Whether a tensor was made from one of others."""
    stack, seen = [tensor], {tensor}
    while stack:
        maker = graph.maker(stack.pop())
        before = set() if maker is None else set(maker.inputs) - seen
        if before & sources:
            return True
        seen |= before
        stack.extend(before)
    return False
