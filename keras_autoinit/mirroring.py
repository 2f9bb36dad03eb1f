"""Which weights of a model can make mirrored pairs of units, and which read them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import keras

from keras_autoinit.activations import Activation, activation
from keras_autoinit.compositions import composed_activation, composition_at
from keras_autoinit.errors import ActivationError
from keras_autoinit.graphs import Call, Graph, activation_of, passes
from keras_autoinit.pairs import Fate, Key, Narrower, Pairs, bent, holds_attention, is_zero, kept
from keras_autoinit.ports import Depthwise, Port, ports_of

# Why an output layer makes no pairs.
SHOWN = "the model puts it out"


@dataclass(frozen=True)
class Reading:
    """What one call of a weight reads and makes.

    Attributes:
        pairs: the pairs that it reads; `None` for a signal without.
        second_moment: that of a signal without pairs, as the table would guess it.
        variance: that of a unit it makes, before any activation, by orthogonal matrices.
        port: where the weight reads and makes units.
        call: the call.
    """

    pairs: Pairs | None
    second_moment: float
    variance: float
    port: Port
    call: Call

    @property
    def narrowing(self) -> float:
        """What the matrix makes of a unit variance."""
        return self.variance / (1.0 if self.pairs is None else self.pairs.variance)


@dataclass
class Search:
    """Follows pairs from every weight that could make them, and again without those that failed.

    Attributes:
        graph: the model.
        kept: weights that are left alone.
        feed_forward: whether feed-forward blocks of transformers may take part.
        blocks: the weights that make pairs, and the block in which they do.
        ends: why a weight makes none.
        readings: what each weight reads, call by call.
        depthwise: the pairs that depthwise kernels meet, call by call: equal within each they keep them.
    """

    graph: Graph
    kept: Collection[Key]
    feed_forward: bool = False
    blocks: dict[Key, int] = field(default_factory=dict)
    ends: dict[Key, str] = field(default_factory=dict)
    readings: dict[Key, list[Reading]] = field(default_factory=dict)
    depthwise: dict[Key, list[Pairs | None]] = field(default_factory=dict)
    _pairs: dict[int, Pairs] = field(default_factory=dict)
    _moments: dict[int, float] = field(default_factory=dict)
    _hidden: set[int] = field(default_factory=set)
    _settled: bool = False

    def __post_init__(self) -> None:
        slots = [(place, slot) for place in self.graph.places for slot in place.slots]
        self.paths = {(id(place.layer), slot.weight): f"{place.path}/{slot.weight}" for place, slot in slots}
        self._transformer = holds_attention(self.graph)
        for place in self.graph.places:
            for call in self.graph.calls_of(place.layer)[:1]:
                self._candidate(place.layer, call)
        while not self._settled:
            self._settled = True
            for one in (self.readings, self.depthwise, self._pairs, self._moments, self._hidden):
                one.clear()
            for call in self.graph.calls:
                if id(call) not in self._hidden:
                    self._follow(call)
            self._judge()

    # --- Candidates ---

    def _candidate(self, layer: keras.Layer, call: Call) -> None:
        """Lets a weight make pairs until something speaks against it."""
        _, port = ports_of(layer, self._rank(call))
        key = (id(layer), "" if port is None else port.slot.weight)
        if port is None or key in self.kept or port.units_out < 2:
            return
        if not is_zero(getattr(layer, "bias_initializer", None)):
            self.ends[key] = "its bias does not start at zero"
        elif self._transformer and not self.feed_forward and _is_dense(layer) and self._rank(call) > 2:
            self.ends[key] = "mirroring did not help the feed-forward blocks of transformers"
        else:
            self.blocks[key] = port.units_out

    def _rank(self, call: Call) -> int:
        spec = self.graph.specs.get(call.inputs[0]) if call.inputs else None
        return 0 if spec is None else len(spec.shape)

    # --- Following ---

    def _follow(self, call: Call) -> None:
        depthwise, port = ports_of(call.operation, self._rank(call))
        if (depthwise or port) and call.outputs and len(call.inputs) == 1:
            self._weighted(call, depthwise, port)
        elif any(tensor in self._pairs for tensor in call.inputs):
            self._unweighted(call)
        else:
            self._plain(call)

    def _plain(self, call: Call) -> None:
        """Keeps the second moment of a signal without pairs in view: that of the last activation on its way."""
        met = activation_of(call)
        moment = self._moments.get(call.inputs[0], 1.0) if call.inputs else 1.0
        if met is not None and not met.linear:
            moment = _second_moment(met)
        elif not passes(call) or "normalization" in call.name or len(call.inputs) > 1:
            moment = 1.0
        self._moments.update(dict.fromkeys(call.outputs, moment))

    def _unweighted(self, call: Call) -> None:
        given = [self._pairs.get(tensor) for tensor in call.inputs]
        met = activation_of(call)
        first = given[0]
        fate = kept(self.graph, call, given) if met is None or first is None else bent(first, met)
        for tensor in call.outputs:
            self._set(tensor, given, fate)

    def _weighted(self, call: Call, depthwise: Depthwise | None, port: Port | None) -> None:
        pairs, slot = self._pairs.get(call.inputs[0]), None
        if depthwise is not None:
            pairs, slot = self._through(call, depthwise, pairs), depthwise.slot
        if port is not None:
            pairs, slot = self._mixed(call, port, pairs), port.slot
        met = activation(None if slot is None else slot.activation)
        if pairs is not None:
            self._set(call.outputs[0], [pairs], bent(pairs, met))
        else:
            self._moments[call.outputs[0]] = 1.0 if met.linear else _second_moment(met)

    def _through(self, call: Call, depthwise: Depthwise, pairs: Pairs | None) -> Pairs | None:
        """Returns the pairs behind a depthwise kernel that is equal within each."""
        key = (id(call.operation), depthwise.slot.weight)
        if pairs is not None and key in self.kept:
            self._refuse(pairs, f"{self.paths[key]}, left alone, tells a unit and its mirror image apart")
            pairs = None
        self.depthwise.setdefault(key, []).append(pairs)
        return None if pairs is None else dataclasses.replace(pairs, block=pairs.block * depthwise.multiplier)

    def _mixed(self, call: Call, port: Port, pairs: Pairs | None) -> Pairs | None:
        """Reads pairs where the weight can, and returns those that it makes."""
        key = (id(call.operation), port.slot.weight)
        obstacle = None if pairs is None else self._obstacle(key, port, pairs)
        if pairs is not None and obstacle is not None:
            self._refuse(pairs, obstacle)
            pairs = None
        rows = port.inputs * port.taps / (1 if pairs is None else 2)
        columns = port.outputs / (2 if key in self.blocks else 1)
        variance = (1.0 if pairs is None else pairs.variance) * min(1.0, rows / max(columns, 1.0))
        moment = self._moments.get(call.inputs[0], 1.0)
        self.readings.setdefault(key, []).append(Reading(pairs, moment, variance, port, call))
        made = Pairs(port.axis_out, self.blocks.get(key, 2), (key,), variance, None, math.sqrt(variance))
        return made if key in self.blocks else None

    def _obstacle(self, key: Key, port: Port, pairs: Pairs) -> Narrower | str | None:
        """Returns what keeps a weight from reading pairs."""
        if pairs.slope is None:
            return f"no activation stands before {self.paths[key]}"
        if key in self.kept:
            return f"{self.paths[key]}, which reads it, is left alone"
        if pairs.axis != port.axis_in:
            return f"{self.paths[key]} reads along another axis"
        if port.units_in % pairs.block:
            block = math.gcd(port.units_in, pairs.block)
            return Narrower(block) if block > 1 else f"a group of {self.paths[key]} reads half a pair"
        return None

    # --- Outcomes ---

    def _set(self, tensor: int, given: list[Pairs | None], fate: Fate) -> None:
        """Notes what has become of pairs, or that their origins fail."""
        if not isinstance(fate, Pairs):
            for pairs in given:
                self._refuse(pairs, fate)
            return
        self._pairs[tensor] = fate
        whole = composition_at(self.graph, tensor) if fate.slope is None else None
        met = None if whole is None else composed_activation(whole)
        if whole is not None and met is not None:
            # Operations that together are an activation count as one.
            self._hidden.update(map(id, whole.calls))
            self._set(whole.output, [fate], bent(fate, met))

    def _refuse(self, pairs: Pairs | None, why: Narrower | str) -> None:
        """Lets the weights that made pairs make none, or in narrower blocks."""
        for key in () if pairs is None else pairs.origins:
            if key not in self.blocks:
                continue
            self._settled = False
            if isinstance(why, Narrower):
                self.blocks[key] = math.gcd(self.blocks[key], why.block)
            if isinstance(why, str) or self.blocks[key] < 2:
                del self.blocks[key]
                self.ends[key] = why if isinstance(why, str) else "a layer behind it tears its pairs apart"

    def _judge(self) -> None:
        """Refuses pairs that are put out, or read by nobody, or by a weight that also reads others."""
        for tensor, pairs in self._pairs.items():
            if tensor in self.graph.outputs:
                self._refuse(pairs, SHOWN)
            elif not self.graph.readers(tensor):
                self._refuse(pairs, "nothing reads it")
        met = {key: [one.pairs for one in several] for key, several in self.readings.items()}
        for key, several in (*met.items(), *self.depthwise.items()):
            if len({None if pairs is None else pairs.block for pairs in several}) > 1:
                for one in several:
                    self._refuse(one, f"{self.paths[key]} reads other signals too")


class Layout:
    """How the weights that make and read pairs hang together.

    Attributes:
        stretches: the number of the stretch that each belongs to.
    """

    def __init__(self, search: Search) -> None:
        self._depths: dict[Key, int] = {}
        joined: dict[Key, int] = {}
        for key, origins in _links(search):
            self._depths[key] = 1 + max((self._depths.get(one, 0) for one in origins), default=0)
            numbers = {joined[one] for one in origins if one in joined}
            joined[key] = min(numbers, default=len(self._depths))
            if len(numbers) > 1:
                joined.update({one: joined[key] for one, number in joined.items() if number in numbers})
        order = {number: index for index, number in enumerate(dict.fromkeys(joined.values()))}
        self.stretches = {key: order[number] for key, number in joined.items()}
        self._lengths: dict[int, int] = {}
        for key, number in self.stretches.items():
            self._lengths[number] = max(self._lengths.get(number, 0), self._depths[key])
        read = [(key, one) for key, several in search.readings.items() for one in several]
        met = [(self.stretches[key], one.pairs) for key, one in read if key in self.stretches and one.pairs is not None]
        self._residuals: dict[int, float] = {}
        for number, pairs in met:
            self._residuals[number] = max(self._residuals.get(number, 0.0), pairs.residual)
        self._normalized = {number for number, pairs in met if pairs.normalized}
        self._branched = {number for number, pairs in met if pairs.several}
        self._convolved = {
            self.stretches[key] for key, one in read if key in self.stretches and not _is_dense(one.call.operation)
        }
        self._merged = {
            self.stretches[key]
            for key, one in read
            if key in self.stretches and key not in search.blocks and merges(search.graph, one.call)
        }
        self._flattened = {self.stretches[key] for key, one in read if key in self.stretches and _is_flattened(one)}

    def length(self, key: Key) -> int:
        """Returns how many weights follow each other in a weight's stretch."""
        return self._lengths[self.stretches[key]]

    def residual(self, key: Key) -> float:
        """Returns the largest share of power that is on no line in a weight's stretch."""
        return self._residuals.get(self.stretches[key], 0.0)

    def convolves(self, key: Key) -> bool:
        """Returns whether there is a convolution in a weight's stretch."""
        return self.stretches[key] in self._convolved

    def normalizes(self, key: Key) -> bool:
        """Returns whether there is a normalization in a weight's stretch."""
        return self.stretches[key] in self._normalized

    def branches(self, key: Key) -> bool:
        """Returns whether signals with pairs are added up or set side by side in a weight's stretch."""
        return self.stretches[key] in self._branched

    def merges(self, key: Key) -> bool:
        """Returns whether what a weight's stretch ends in is added to another signal: it is a residual branch."""
        return self.stretches[key] in self._merged

    def flattens(self, key: Key) -> bool:
        """Returns whether a weight's stretch flattens a feature map, so that all positions are read."""
        return self.stretches[key] in self._flattened


def _is_flattened(reading: Reading) -> bool:
    dense = isinstance(reading.call.operation, keras.layers.Dense)
    return dense and reading.pairs is not None and reading.port.units_in > reading.pairs.block


def merges(graph: Graph, call: Call) -> bool:
    """Whether what a call makes goes into a sum with nothing but passing operations between."""
    tensor = call.outputs[0]
    while len(graph.readers(tensor)) == 1:
        (reader,) = graph.readers(tensor)
        if len(set(reader.inputs)) > 1:
            return reader.name in ("add", "average", "subtract")
        if not passes(reader):
            return False
        tensor = reader.outputs[0]
    return False


def _links(search: Search) -> list[tuple[Key, list[Key]]]:
    """Returns each weight that takes part, in order, and those whose pairs it meets."""
    met = {key: [one.pairs for one in several] for key, several in search.readings.items()}
    met = {key: met.get(key) or search.depthwise[key] for key in dict.fromkeys([*_order(search)])}
    origins = {key: [one for pairs in several if pairs for one in pairs.origins] for key, several in met.items()}
    return [(key, several) for key, several in origins.items() if several or key in search.blocks]


def _order(search: Search) -> Iterable[Key]:
    """Yields the weights in the order in which the signal meets them."""
    for call in search.graph.calls:
        for weight in ("depthwise_kernel", "pointwise_kernel", "kernel"):
            key = (id(call.operation), weight)
            if key in search.depthwise or key in search.readings:
                yield key


def _is_dense(layer: keras.Layer) -> bool:
    return isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))


def _second_moment(met: Activation) -> float:
    """Returns what an activation makes of a unit Gaussian, one where that cannot be told."""
    try:
        moment = 1.0 if met.function is None else met.unit_moments.second_moment
    except ActivationError:
        return 1.0
    return moment if 0 < moment < math.inf else 1.0
