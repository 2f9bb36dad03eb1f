"""The first samples of whatever a person trains on: arrays, data sets, loaders, generators."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_autoinit.errors import DataError


def first_samples(data: Any, number: int) -> Any:
    """Returns the inputs of the first samples, as NumPy arrays in the structure that a model takes.

    Args:
        data: an array, a list or dictionary of arrays, a pair `(x, y)`, a `tf.data.Dataset`, a
            torch `DataLoader`, a `keras.utils.PyDataset`, or an iterator of batches. Of a pair, and
            of each batch that is one, the first is taken.
        number: how many samples at most.

    Raises:
        DataError: it holds no sample, or is none of these.

    Example:
        >>> first_samples((np.zeros((100, 3)), np.zeros(100)), 8).shape
        (8, 3)
    """
    if not is_batched(data):
        return tree.map_structure(lambda array: _array(array)[:number], _inputs_of(data))
    taken: list[Any] = []
    with contextlib.closing(batches_of(data)) as batches:
        for batch in batches:
            taken.append(tree.map_structure(_array, _inputs_of(batch)))
            if sum(map(samples_in, taken)) >= number:
                break
    if not taken:
        raise DataError(f"Expected data with at least one sample. Received none from {type(data).__name__}.")
    return tree.map_structure(lambda *parts: np.concatenate(parts)[:number], *taken)


def samples_in(structure: Any) -> int:
    """Returns how many samples a structure of arrays holds."""
    return len(tree.flatten(structure)[0])


def is_once_only(data: Any) -> bool:
    """Whether what is taken from it cannot be had again."""
    return hasattr(data, "__next__")


def is_batched(data: Any) -> bool:
    """Whether data come in batches, rather than as arrays with all the samples."""
    arrays = hasattr(data, "shape") or isinstance(data, (list, tuple, dict))
    return not arrays and isinstance(data, (keras.utils.PyDataset, Iterable))


def peek(batches: Iterator[Any], samples: int = 256) -> tuple[Any, Iterator[Any]]:
    """Returns the first samples of a generator, and a generator that gives everything, those too.

    When to use: before `fit` on a generator, from which nothing can be taken twice.

    Args:
        batches: a generator of batches, or of pairs `(x, y)` of them.
        samples: how many samples to look at; whole batches are kept in memory.

    Returns:
        The inputs of the first samples, and a generator to train on.

    Example:
        >>> x, batches = peek((np.full((2, 3), i) for i in range(4)), samples=3)
        >>> x.shape, len(list(batches))
        ((3, 3), 4)
    """
    seen: list[Any] = []

    def remembered() -> Iterator[Any]:
        for batch in batches:
            seen.append(batch)
            yield batch

    return first_samples(remembered(), samples), _chained(seen, batches)


def _chained(seen: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    # A generator, as `fit` takes no other iterator.
    yield from itertools.chain(seen, rest)


def batches_of(data: Any) -> Generator[Any, None, None]:
    """Yields batches; random states that a loader draws from are put back."""
    if isinstance(data, keras.utils.PyDataset):
        yield from (data[index] for index in range(data.num_batches or 0))
    elif type(data).__module__.startswith("torch."):
        import torch

        source = getattr(data, "generator", None)
        before = None if source is None else source.get_state()
        try:
            with torch.random.fork_rng(devices=[]):
                yield from (tuple(batch) if isinstance(batch, list) else batch for batch in data)
        finally:
            if source is not None:
                source.set_state(before)
    else:
        yield from data


def _inputs_of(batch: Any) -> Any:
    """Returns `x` of `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`."""
    if isinstance(batch, tuple):
        if not 1 <= len(batch) <= 3:
            raise DataError(
                "Expected a tuple to be (x,), (x, y) or (x, y, sample_weight); several inputs come as a list or a "
                f"dictionary. Received a tuple of {len(batch)}."
            )
        return batch[0]
    return batch


def _array(value: Any) -> np.ndarray:
    """Returns a NumPy array, in Keras's float type where it is wider."""
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(keras.ops.convert_to_numpy(value))
    except Exception as error:
        raise DataError(f"Expected an array or a tensor. Received: {value!r}.") from error
    if not array.ndim or not len(array) or array.dtype.kind not in "biuf":
        raise DataError(
            f"Expected arrays of numbers, of one sample at least. Received the shape {array.shape}, {array.dtype}."
        )
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array
