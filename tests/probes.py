"""What the weights of a model make, by wrapping its layers: no part of the package measures here."""

from __future__ import annotations

import contextlib
import importlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras import layers, ops

SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
# Those whose own activation is given what their kernel makes.
LINEAR = (
    layers.Dense,
    layers.EinsumDense,
    *(getattr(layers, f"Conv{rank}D{kind}") for rank in (1, 2, 3) for kind in ("", "Transpose")),
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    *SEPARABLE,
)


class Probe:
    """Runs a model once, and keeps what each weight makes, before an activation.

    Batch normalizations use the batch's own statistics, as in training; dropout is off. The model is
    of no more use afterwards.

    Attributes:
        made: arrays, one for each call, by the `id` of the variable.
    """

    def __init__(self, model: keras.Model, batch: Any) -> None:
        self.made: dict[int, list[np.ndarray]] = defaultdict(list)
        self._operated: set[int] = set()
        for layer in model._flatten_layers():
            self._wrap(layer)
        with self._recording_operations():
            model(batch, training=False)

    def std(self, variable: Any, calls: int | None = None) -> float | None:
        """Standard deviation of all that a weight has made, or in its first calls; `None` if nothing was seen."""
        seen = [each.astype(np.float64).ravel() for each in self.made.get(id(variable), [])[:calls]]
        return float(np.concatenate(seen).std()) if seen else None

    def _wrap(self, layer: Any) -> None:
        if isinstance(layer, layers.BatchNormalization):
            layer.call = _in_training(layer.call)
        elif isinstance(layer, LINEAR) and layer.built:
            kernel = layer.pointwise_kernel if isinstance(layer, SEPARABLE) else layer.kernel
            layer.activation = self._before(kernel, layer.activation)
            if isinstance(layer, SEPARABLE):
                layer.call = self._between(layer, layer.call)
        elif own := [each for each in layer._trainable_variables if len(each.shape) > 1]:
            self._operated.update(map(id, own))
            layer.call = self._after(own, layer.call)

    def _keep(self, variable: Any, made: Any) -> None:
        for tensor in (each for each in keras.tree.flatten(made) if each is not None):
            self.made[id(variable)].append(np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32"))))

    def _before(self, variable: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(x: Any) -> Any:
            self._keep(variable, x)
            return function(x)

        return recorded

    def _after(self, variables: list[Any], function: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            counts = [len(self.made[id(variable)]) for variable in variables]
            made = function(*args, **kwargs)
            for variable, count in zip(variables, counts):
                # Where an operation has told what this weight makes, that counts.
                if len(self.made[id(variable)]) == count:
                    self._keep(variable, made)
            return made

        return recorded

    def _between(self, layer: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        options = {name: getattr(layer, name) for name in ("strides", "padding", "data_format", "dilation_rate")}

        def recorded(x: Any) -> Any:
            self._keep(layer.depthwise_kernel, ops.depthwise_conv(x, layer.depthwise_kernel, **options))
            return function(x)

        return recorded

    @contextlib.contextmanager
    def _recording_operations(self) -> Iterator[None]:
        """Sees what a layer of one's own makes of a weight by an operation."""
        numpy = importlib.import_module("keras.src.backend").numpy
        with contextlib.ExitStack() as patches:
            for name in ("einsum", "matmul"):
                patches.enter_context(mock.patch.object(numpy, name, self._operation(getattr(numpy, name))))
            yield

    def _operation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            made = function(*args, **kwargs)
            for variable in args:
                if id(variable) in self._operated:
                    self._keep(variable, made)
            return made

        return recorded


def _in_training(call: Callable[..., Any]) -> Callable[..., Any]:
    def called(x: Any, training: Any = None, **kwargs: Any) -> Any:
        return call(x, training=True, **kwargs)

    return called
