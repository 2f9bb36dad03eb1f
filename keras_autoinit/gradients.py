"""True gradients of a model at every tensor of its flat graph and at every weight, on each backend.

The graph is run forward call by call, and each call leaves a pullback behind: from the gradients at
what it has put out to those at what it was given and at its weights. Going back over the calls in
reverse, and adding up where a tensor has several readers, is the chain rule. The model is not
changed: weights are lent to the calls as plain tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops, tree

from keras_autoinit.execution import Arguments, computed, executed
from keras_autoinit.graphs import Call, Graph, Ref
from keras_autoinit.variables import Variable

# Takes the gradient at each tensor that a function has put out (`None` for none), and returns those at its arguments.
Pullback = Callable[[list[Any]], list[Any]]
Function = Callable[[list[Any]], list[Any]]
# Is shown a call and one tensor, or `None`, for each of its outputs.
See = Callable[[Call, list[Any]], None]


@dataclass(frozen=True)
class Passed:
    """What is left of a run forward.

    Attributes:
        graph: what was run.
        outputs: the model's outputs.
    """

    graph: Graph
    outputs: list[Any]
    _records: list[_Record] = field(repr=False)

    def back(self, cotangents: list[Any], see: See) -> dict[int, Any]:
        """Runs back, and lets go of what the run forward has kept.

        Args:
            cotangents: the gradient at each of the model's outputs.
            see: is shown, for each call from last to first, the gradient at each of its outputs.

        Returns:
            The gradient at each weight that one reaches, by the `id` of its variable.
        """
        at: dict[int, Any] = {}
        weights: dict[int, Any] = {}
        for number, cotangent in zip(self.graph.outputs, cotangents):
            _add(at, number, cotangent)
        while self._records:
            record = self._records.pop()
            gradients = [at.pop(number, None) for number in record.call.outputs]
            see(record.call, gradients)
            if all(one is None for one in gradients):
                continue
            found = record.pullback(gradients)
            for number, gradient in zip(record.inputs, found):
                _add(at, number, gradient)
            for variable, gradient in zip(record.variables, found[len(record.inputs) :]):
                _add(weights, id(variable), gradient)
        return weights


@dataclass(frozen=True)
class _Record:
    """A call that has been computed.

    Attributes:
        call: the call.
        inputs: numbers of the tensors that its pullback gives a gradient for.
        variables: weights, likewise; their gradients come after those of the tensors.
        pullback: from the gradients at its outputs.
    """

    call: Call
    inputs: list[int]
    variables: list[Any]
    pullback: Pullback


def forward(graph: Graph, batch: Any, see: See) -> Passed:
    """Runs a graph on a batch, and keeps what it takes to go back.

    When to use: to see what passes between the layers of a model in both directions. Takes the
    memory of a training step. Batch statistics as in training, dropout off.

    Args:
        graph: read with this very batch, `runnable`.
        batch: what the model is called on.
        see: is shown each call and the tensors that it has put out.

    Example:
        >>> import numpy as np
        >>> from keras_autoinit.graphs import read
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
        >>> batch = np.ones((2, 3), "float32")
        >>> passed = forward(read(model, batch, runnable=True), batch, lambda call, outputs: None)
        >>> found = passed.back([np.ones((2, 1), "float32")], lambda call, gradients: None)
        >>> ops.convert_to_numpy(found[id(model.layers[0].kernel)]).ravel().tolist()
        [2.0, 2.0, 2.0]
    """
    records: list[_Record] = []

    def compute(calls: tuple[Call, ...], arguments: list[Arguments]) -> list[Any]:
        return [_recorded(call, each, records) for call, each in zip(calls, arguments)]

    kept = dict(graph.constants)
    wanted = {*graph.outputs}
    kept.update(zip(graph.inputs, map(ops.convert_to_tensor, tree.flatten(batch))))
    for call, outputs in executed(graph, batch, compute):
        see(call, outputs)
        kept.update((number, tensor) for number, tensor in zip(call.outputs, outputs) if number in wanted)
    return Passed(graph, [kept[number] for number in graph.outputs], records)


def _recorded(call: Call, arguments: Arguments, records: list[_Record]) -> list[Any]:
    """Computes a call, and adds what it takes to go back over it."""
    refs, leaves = tree.flatten((call.args, call.kwargs)), tree.flatten(arguments)
    places = [i for i, ref in enumerate(refs) if isinstance(ref, Ref) and is_float(leaves[i])]
    variables = _variables(call)

    def function(given: list[Any]) -> list[Any]:
        filled = list(leaves)
        for place, tensor in zip(places, given):
            filled[place] = tensor
        substitutes = list(zip(variables, given[len(places) :]))
        made = computed(call.operation, tree.pack_sequence_as(arguments, filled), substitutes, differentiable=True)
        return [tensor for tensor in tree.flatten(made) if tensor is not None]

    given = [*(leaves[place] for place in places), *(variable.value for variable in variables)]
    outputs, pullback = pullback_of(function, given)
    records.append(_Record(call, [refs[place].number for place in places], variables, pullback))
    return outputs


def _variables(call: Call) -> list[Any]:
    """Returns the weights that a call trains, each once."""
    layer = isinstance(call.operation, keras.Layer)
    found: list[Any] = call.operation.trainable_variables if layer else call.variables
    return list(
        {id(one): one for one in found if isinstance(one, Variable) and one.trainable and is_float(one)}.values()
    )


def _add(sums: dict[int, Any], key: int, gradient: Any) -> None:
    if gradient is not None:
        sums[key] = gradient if key not in sums else ops.add(sums[key], gradient)


def is_float(value: Any) -> bool:
    """Whether something is a tensor of floating-point numbers, of which there is a gradient."""
    dtype = getattr(value, "dtype", None)
    return dtype is not None and "float" in keras.backend.standardize_dtype(dtype)


# --- One function for each backend ---


def pullback_of(function: Function, given: list[Any]) -> tuple[list[Any], Pullback]:
    """Returns what a function puts out, and its pullback; integers among its outputs have no gradient.

    Example:
        >>> outputs, pullback = pullback_of(lambda given: [given[0] * given[0]], [ops.convert_to_tensor([3.0])])
        >>> float(pullback([ops.convert_to_tensor([1.0])])[0][0])
        6.0
    """
    makers = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return makers[keras.config.backend()](function, given)


def _tensorflow(function: Function, given: list[Any]) -> tuple[list[Any], Pullback]:
    import tensorflow as tf

    # A tensor that is given twice is two arguments.
    sources = [tf.identity(tensor) for tensor in given]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs = function(sources)

    def back(gradients: list[Any]) -> list[Any]:
        pairs = [(made, one) for made, one in zip(outputs, gradients) if one is not None and is_float(made)]
        if not pairs or not sources:
            return [None] * len(sources)
        found = tape.gradient([made for made, _ in pairs], sources, [tf.cast(one, made.dtype) for made, one in pairs])
        # A look-up gives the rows that it has read, not the table.
        return [None if one is None else tf.convert_to_tensor(one) for one in found]

    return outputs, back


def _jax(function: Function, given: list[Any]) -> tuple[list[Any], Pullback]:
    import jax

    def floats(arguments: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = function(arguments)
        return [one for one in outputs if is_float(one)], outputs

    made, pull, outputs = jax.vjp(floats, [jax.numpy.asarray(tensor) for tensor in given], has_aux=True)

    def back(gradients: list[Any]) -> list[Any]:
        wanted = [one for one, output in zip(gradients, outputs) if is_float(output)]
        at = [
            jax.numpy.zeros_like(output) if one is None else jax.numpy.asarray(one, output.dtype)
            for one, output in zip(wanted, made)
        ]
        return list(pull(at)[0])

    return outputs, back


def _torch(function: Function, given: list[Any]) -> tuple[list[Any], Pullback]:
    import torch

    sources = [tensor.detach().requires_grad_() for tensor in given]
    made = function(sources)

    def back(gradients: list[Any]) -> list[Any]:
        pairs = [
            (one, ops.convert_to_tensor(g)) for one, g in zip(made, gradients) if g is not None and one.requires_grad
        ]
        if not pairs or not sources:
            return [None] * len(sources)
        at = [gradient.to(one.device, one.dtype) for one, gradient in pairs]
        return list(torch.autograd.grad([one for one, _ in pairs], sources, at, allow_unused=True))

    return [tensor.detach() for tensor in made], back
