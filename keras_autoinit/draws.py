"""Random numbers in seeded blocks, filled by threads: one source for every scheme.

An array is cut, in row-major order, into blocks of `BLOCK` elements. Each block has a generator
of its own, seeded by `(seed, block)`, so one seed gives one array whatever the backend and the
number of threads, and any slice of the array can be made without the rest.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Seed = int | tuple[int, ...]
Slices = tuple[slice, ...]
Fill = Callable[[np.random.Generator, np.ndarray], None]

# Large enough that seeding a block (about 20 microseconds) costs a few per cent of filling it
# (about a millisecond), small enough that a kernel of a few hundred thousand weights keeps two
# threads busy.
BLOCK = 1 << 17

# Two scratch arrays of this length stay in a core's cache.
CHUNK = 1 << 15

# JAX takes an array that begins at a multiple of so many bytes as it is, and copies others.
ALIGNMENT = 64

# The quantile function of the truncated normal is v P(v^2) / Q(v^2) for v uniform in (-1, 1), with
# a relative error of 2e-6, and 1.5e-5 near two where float32 loses digits: the best rational
# function of these degrees, found by weighted least squares, shrunk so that no value lies beyond
# two. The spread is right to 6e-7. Coefficients from the constant up.
NUMERATOR = np.array([1.19628667, -2.18734141, 1.18857043, -0.156096116, -0.0095779726], np.float32)
DENOMINATOR = np.array([1.0, -2.06698791, 1.36735696, -0.284448239], np.float32)

# Spread of a unit normal cut off at two standard deviations (its density there is redrawn).
TRUNCATED_STD = 0.87962566103423978


def uniform(shape: Sequence[int], seed: Seed, low: float = 0.0, high: float = 1.0, **options: Any) -> np.ndarray:
    """Returns uniform numbers from low to high, `high` by rounding only; for the options see `fill`."""

    def draw(source: np.random.Generator, out: np.ndarray) -> None:
        source.random(dtype=out.dtype, out=out)
        out *= high - low
        out += low

    return fill(draw, shape, seed, **options)


def normal(shape: Sequence[int], seed: Seed, mean: float = 0.0, std: float = 1.0, **options: Any) -> np.ndarray:
    """Returns normal numbers; for the options see `fill`."""

    def draw(source: np.random.Generator, out: np.ndarray) -> None:
        source.standard_normal(dtype=out.dtype, out=out)
        _place(out, mean, std)

    return fill(draw, shape, seed, **options)


def truncated_normal(
    shape: Sequence[int], seed: Seed, mean: float = 0.0, std: float = 1.0, **options: Any
) -> np.ndarray:
    """Returns normal numbers, those beyond two spreads drawn again.

    `std` is the spread before they are: that of the result is `TRUNCATED_STD * std`.
    For the options see `fill`.
    """

    def draw(source: np.random.Generator, out: np.ndarray) -> None:
        (_invert_truncated if out.dtype == np.float32 else _redraw_beyond_two)(source, out)
        _place(out, mean, std)

    return fill(draw, shape, seed, **options)


def fill(
    draw: Fill,
    shape: Sequence[int],
    seed: Seed,
    *,
    dtype: Any = np.float32,
    part: Slices | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """Fills an array block by block.

    Args:
        draw: writes random numbers into the one-dimensional array it is given.
        shape: shape of the whole array.
        seed: an integer, or several that are hashed together.
        dtype: `float32` or `float64`.
        part: make only this slice of the array, the same numbers that the whole would hold.
        threads: how many threads fill blocks; the number of cores that the process may use
            when not given. The numbers do not depend on it.

    Returns:
        A NumPy array of `shape`, or of the part's shape.
    """
    if part is not None:
        return _part(draw, tuple(shape), seed, np.dtype(dtype), part)
    array = _aligned(math.prod(shape), np.dtype(dtype))
    blocks = range(-(-array.size // BLOCK))
    workers = min(threads or available_threads(), len(blocks))
    fill_block = functools.partial(_fill_block, draw, array, seed)
    if workers <= 1:
        for block in blocks:
            fill_block(block)
    else:
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(fill_block, blocks):
                pass
    return array.reshape(shape)


def _aligned(count: int, dtype: np.dtype) -> np.ndarray:
    """Returns an array, not yet filled, that every backend can take without a copy."""
    memory = np.empty(count * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + count * dtype.itemsize].view(dtype)


def generator(seed: Seed, block: int = 0) -> np.random.Generator:
    """Returns the generator of one block.

    SFC64 is the fastest of NumPy's generators, and separate seeds give it separate streams.
    """
    words = (seed,) if isinstance(seed, int) else tuple(seed)
    # Halves of fixed width, after their number: otherwise NumPy takes (3, block 1) and (3 + 2^32, block 0) for one.
    halves = [half for word in (*words, block) for half in (word & 0xFFFF_FFFF, word >> 32 & 0xFFFF_FFFF)]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([len(words), *halves])))


@functools.cache
def available_threads() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fill_block(draw: Fill, array: np.ndarray, seed: Seed, block: int) -> None:
    draw(generator(seed, block), array[block * BLOCK : (block + 1) * BLOCK])


def _part(draw: Fill, shape: tuple[int, ...], seed: Seed, dtype: np.dtype, part: Slices) -> np.ndarray:
    """Fills `shape[part]`, one block of the whole at a time."""
    ranges = [np.arange(length)[piece] for length, piece in zip(shape, part, strict=True)]
    positions = np.ravel_multi_index(np.ix_(*ranges), shape)
    flat, size = positions.ravel(), math.prod(shape)
    out = np.empty(flat.size, dtype)
    for block in np.unique(flat // BLOCK):
        start = block * BLOCK
        whole = np.empty(min(BLOCK, size - start), dtype)
        draw(generator(seed, int(block)), whole)
        mine = np.flatnonzero((flat >= start) & (flat < start + BLOCK))
        out[mine] = whole[flat[mine] - start]
    return out.reshape(positions.shape)


def _invert_truncated(source: np.random.Generator, out: np.ndarray) -> None:
    """Turns uniform numbers into truncated normal ones: five times as fast as drawing again."""
    source.random(dtype=np.float32, out=out)
    out *= np.float32(2)
    # The uniform numbers are multiples of 2^-24 below one: this centres them on zero.
    out -= np.float32(1 - 2**-24)
    square, value = np.empty((2, min(CHUNK, out.size)), np.float32)
    for start in range(0, out.size, CHUNK):
        v = out[start : start + CHUNK]
        s, p = square[: v.size], value[: v.size]
        np.multiply(v, v, out=s)
        v *= _polynomial(NUMERATOR, s, p)
        v /= _polynomial(DENOMINATOR, s, p)


def _polynomial(coefficients: np.ndarray, s: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Evaluates a polynomial by Horner's rule, in place."""
    np.multiply(s, coefficients[-1], out=out)
    for coefficient in coefficients[-2:0:-1]:
        out += coefficient
        out *= s
    out += coefficients[0]
    return out


def _redraw_beyond_two(source: np.random.Generator, out: np.ndarray) -> None:
    """Draws again what lies beyond two: exact, for double precision."""
    source.standard_normal(dtype=out.dtype, out=out)
    beyond = np.flatnonzero(np.abs(out) > 2)
    while beyond.size:
        redrawn = source.standard_normal(beyond.size, dtype=out.dtype)
        out[beyond] = redrawn
        beyond = beyond[np.abs(redrawn) > 2]


def _place(out: np.ndarray, mean: float, std: float) -> None:
    out *= std
    if mean:
        out += mean


def derived_seed(seed: int, key: str) -> int:
    """Returns a seed of its own for whatever `key` names, of 53 bits so that JSON keeps it.

    Example:
        >>> derived_seed(1, "dense/kernel") == derived_seed(1, "dense/kernel") != derived_seed(2, "dense/kernel")
        True
    """
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 11
