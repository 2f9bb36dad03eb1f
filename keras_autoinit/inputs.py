"""What a model is measured on: a person's first samples, or numbers drawn from its input specification."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_autoinit.errors import DataError
from keras_autoinit.graphs import Graph, passes, read
from keras_autoinit.samples import batches_of, first_samples, is_batched

# What stands for a size that a model leaves open: of a picture, and of anything else.
PICTURE, LENGTH = 64, 8
_SCALINGS = (keras.layers.Rescaling, keras.layers.Normalization)
# Of what is drawn, so that two reports of one model agree.
SEED = 0


def given_batch(model: Any, x: Any, y: Any, number: int) -> tuple[Any, Any]:
    """Returns the first samples of what a person trains on, and their labels; `None` for no labels.

    Raises:
        DataError: there is no sample, or there are other numbers of labels.
    """
    if is_batched(x) and y is None:
        pair = first_samples(_labelled(x), number)
        batch, labels = (pair["x"], pair.get("y")) if isinstance(pair, dict) and "x" in pair else (pair, None)
    elif isinstance(x, tuple) and y is None and len(x) >= 2:
        batch, labels = first_samples(x, number), first_samples(x[1], number)
    else:
        batch, labels = first_samples(x, number), None if y is None else first_samples(y, number)
    arrays = [*tree.flatten(batch), *([] if labels is None else tree.flatten(labels))]
    sizes = {len(array) for array in arrays}
    if len(sizes) > 1:
        raise DataError(f"Expected as many labels as samples. Received arrays of the lengths {sorted(sizes)}.")
    return as_taken(model, batch), labels


def _labelled(data: Any) -> Iterator[Any]:
    """Yields each batch as a dictionary of inputs and labels, wrapped so that it counts as inputs."""
    with contextlib.closing(batches_of(data)) as batches:
        for batch in batches:
            if isinstance(batch, (tuple, list)) and len(batch) >= 2:
                yield ({"x": batch[0], "y": batch[1]},)
            else:
                yield ({"x": batch[0] if isinstance(batch, tuple) else batch},)


def as_taken(model: Any, batch: Any) -> Any:
    """Returns a batch in the types that a model converts its inputs to."""
    symbols = getattr(model, "inputs", None) if getattr(model, "built", False) else None
    if not symbols:
        return batch
    if isinstance(batch, dict):
        kinds = {symbol.name: symbol.dtype for symbol in symbols}
        return {name: array.astype(kinds.get(name, array.dtype)) for name, array in batch.items()}
    if len(tree.flatten(batch)) != len(symbols):
        return batch
    types = iter(symbol.dtype for symbol in symbols)
    return tree.map_structure(lambda array: array.astype(next(types)), batch)


def drawn_batch(model: Any, number: int) -> Any:
    """Returns samples drawn from a model's input specification.

    Unit normal; token ids below the size of the embedding that an input feeds; ones for a mask.

    Raises:
        DataError: the model does not tell what it takes.
    """
    structure = _specification(model)
    graph = read(model)
    source = np.random.default_rng(SEED)
    numbers: Iterator[int | None] = itertools.chain(graph.inputs, itertools.repeat(None))

    def draw(symbol: Any) -> np.ndarray:
        return _drawn(graph, next(numbers), symbol, number, source)

    return tree.map_structure(draw, structure)


def _specification(model: Any) -> Any:
    if getattr(model, "inputs", None):
        return model.input if not isinstance(model, keras.Sequential) else model.inputs[0]
    config = (model.get_build_config() or {}) if model.built else {}
    shape = config.get("input_shape")
    if isinstance(shape, (tuple, list)) and shape and not isinstance(shape[0], (tuple, list)):
        return keras.KerasTensor(tuple(shape), dtype="float32")
    raise DataError(
        f"Expected samples: {model.name!r} does not say what it is called on. Pass `x`, an array of a few samples."
    )


def _drawn(graph: Graph, number: int | None, symbol: Any, samples: int, source: np.random.Generator) -> np.ndarray:
    dtype = keras.backend.standardize_dtype(symbol.dtype)
    open_ = PICTURE if len(symbol.shape) >= 4 else LENGTH
    shape = (samples, *(size or open_ for size in symbol.shape[1:]))
    words = None if number is None else words_of(graph, number)
    if words is not None:
        return source.integers(0, max(1, words), shape).astype(dtype)
    if "float" not in dtype:
        # A mask, or ids of two kinds of segments: nothing is left out, one kind is enough.
        return np.ones(shape, dtype) if "mask" in symbol.name else np.zeros(shape, dtype)
    drawn = source.normal(size=shape)
    return (drawn if number is None else _before_scaling(graph, number, drawn)).astype(dtype)


def _before_scaling(graph: Graph, number: int, values: np.ndarray) -> np.ndarray:
    """Returns what a model's own scaling of its inputs turns into these values."""
    scalings: list[Any] = []
    while len(readers := graph.readers(number)) == 1 and isinstance(readers[0].operation, _SCALINGS):
        scalings.append(readers[0].operation)
        number = readers[0].outputs[0]
    for layer in reversed(scalings):
        if isinstance(layer, keras.layers.Rescaling):
            values = (values - np.asarray(layer.offset)) / np.asarray(layer.scale)
        else:
            mean, variance = (np.asarray(keras.ops.convert_to_numpy(one)) for one in (layer.mean, layer.variance))
            values = values * np.sqrt(variance) + mean
    return values


def words_of(graph: Graph, number: int) -> int | None:
    """Returns the size of the smallest embedding that an input goes into, `None` if it goes into none."""
    sizes: list[float] = []
    stack, seen = [number], {number}
    while stack:
        for call in graph.readers(stack.pop()):
            if isinstance(call.operation, keras.layers.Embedding):
                sizes.append(call.operation.input_dim)
            elif passes(call):
                stack.extend(set(call.outputs) - seen)
                seen.update(call.outputs)
    return int(min(sizes)) if sizes and math.isfinite(min(sizes)) else None
