"""How large a branch is to be beside the trunk that it is added to, where no normalization decides it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.activations import Activation, activation
from keras_autoinit.graphs import Call, Graph
from keras_autoinit.merges import Merge, merges_of
from keras_autoinit.responses import input_variance
from keras_autoinit.stretches import fate_of

# Variances outside are where the search for one ends that there is not.
POSSIBLE = (1e-5, 1e3)


@dataclass(frozen=True)
class Share:
    """What a weight that ends a residual branch is to put on its trunk.

    Attributes:
        trunk: number of the trunk's tensor.
        fraction: of the trunk's variance.
        length: how many merges follow each other on this trunk.
        function: the activation between the weight and the merge, if there is one.
    """

    trunk: int
    fraction: float
    length: int
    function: Activation | None = None

    def target(self, trunk_std: float) -> float:
        """Returns the standard deviation that the weight is to make, before the activation.

        Of an activation it is assumed that it is given a Gaussian; one that cannot make so little, as
        a sigmoid cannot, is given a unit signal.
        """
        wanted = self.fraction * trunk_std**2
        if self.function is None:
            return math.sqrt(wanted)
        variance = input_variance(self.function, wanted)
        return math.sqrt(variance) if POSSIBLE[0] < variance < POSSIBLE[1] else 1.0


def shares_of(graph: Graph, calls: Iterable[Call]) -> dict[int, Share]:
    """Returns the share of each of these calls that ends a residual branch, by the call's `id`.

    The branches of a chain of merges together at most double their trunk's variance, as in the
    method `theory`. A branch that ends in a normalization has none.
    """
    merges = merges_of(graph, {id(call): index for index, call in enumerate(graph.calls)})
    if all(merge.trunk is None for merge in merges.values()):
        return {}
    found = ((call, _share(graph, call, merges)) for call in calls)
    return {id(call): share for call, share in found if share is not None}


def _share(graph: Graph, call: Call, merges: dict[int, Merge]) -> Share | None:
    if not call.outputs or isinstance(call.operation, (keras.layers.RNN, keras.layers.Bidirectional)):
        return None
    own = _own_activation(call)
    fate = fate_of(graph, call.outputs[0])
    if fate.kind == "merge" and fate.call is not None:
        return _of(merges[id(fate.call)], fate.tensor, own)
    if fate.kind != "activation" or own is not None or fate.made is None:
        return None
    met = [merge for reader in graph.readers(fate.made) if (merge := merges.get(id(reader))) is not None]
    return _of(met[0], fate.made, fate.activation) if met else None


def _of(merge: Merge, tensor: int, function: Activation | None) -> Share | None:
    if merge.trunk is None or merge.trunk == tensor or (function is not None and function.function is None):
        return None
    fraction = (2 ** (1 / merge.length) - 1) / max(merge.parts - 1, 1)
    return Share(merge.trunk, fraction, merge.length, function)


def _own_activation(call: Call) -> Activation | None:
    own: Any = getattr(call.operation, "activation", None) if isinstance(call.operation, keras.Layer) else None
    found = activation(own)
    return None if found.linear else found
