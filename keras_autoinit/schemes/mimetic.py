"""Four weights of one attention layer that start as partners: two products near a multiple of the identity."""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_autoinit import draws
from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.schemes.base import AxesScheme, count, number, one_of, positive, register
from keras_autoinit.schemes.matrices import Matrices, without
from keras_autoinit.schemes.rotations import ROUNDING, orthogonal_matrices

ROLES = ("key", "output", "query", "value")
# Spread and diagonal of the two products, as the paper found best for images.
SCORES, VALUES = (0.7, 0.7), (0.4, 0.4)

# Words behind a seed that no head's number reaches: one for each further draw.
VALUE_WORD, TURN_WORD, SHARE_WORD, START_WORD = 1 << 20, 1 << 21, 1 << 22, 1 << 23
# Streams wider than this are not decomposed whole for each head: twice as many vectors as are kept, multiplied
# by the matrix so many times, carry what any of its rank can but for a hundredth.
EXACT, STEPS = 256, 8

Words = tuple[int, ...]


@register("mimetic")
class Mimetic(AxesScheme):
    """Attention that starts by looking at what is alike: two products near a multiple of the identity.

    When to use: self-attention, best with sinusoidal positions (`autoinit>sinusoids`); four weights
    of one layer together, all with the same `pair` and `seed`. `Theory(attention="mimetic")` gives
    them out.

    Formula: for each head `W_query W_key^T` is near `alpha Z / sqrt(d) + beta I`, and over all heads
    `W_value W_output` near `alpha Z / sqrt(d) - beta I`, with a standard normal `Z` of the layer's
    width `d` (Trockman and Kolter 2023, arXiv 2305.09828). Each partner computes the same singular
    values and takes its own factor; a product of lower rank than `d` keeps the largest. Beyond the
    paper: queries that share a key each have a matrix of their own, of which the key's directions
    are those of the mean; outputs that share a value sum to its partner. Factors wider than `d` are
    turned by a random rotation, so that no column is zero; in streams wider than 256, narrow heads
    keep the largest values but for a hundredth of the sum of squares.

    Args:
        role: which of the four weights this is: `"query"`, `"key"`, `"value"` or `"output"`.
        alpha: the spread of the noise; `None`: 0.7 for query and key, 0.4 for value and output.
        beta: the size of the diagonal, likewise; a negative number turns its sign.
        heads: how many heads the weight holds, a count; `None`: as many as its first head axis is
            long, or one where the heads' axis and width are not apart.
        group: how many query heads share a key and value head, a count.
        pair: names the attention layer; partners have the same.
        gain: multiplies this weight; a number, or the name of an activation.
        input_axes: axes that are inputs; those of a dense kernel when not given.
        output_axes: axes that are outputs, likewise.
        seed: `None`, an integer or a `keras.random.SeedGenerator`; partners need the same integer.

    Raises:
        SchemeError: an argument is out of range, or the weight is no matrix of whole heads.

    Example:
        >>> query, key = (Mimetic(role, seed=1) for role in ("query", "key"))
        >>> product = np.asarray(query((64, 64))) @ np.asarray(key((64, 64))).T
        >>> round(float(np.trace(product)) / 64, 1)
        0.7
    """

    paired = True

    def __init__(
        self,
        role: str = "query",
        alpha: float | None = None,
        beta: float | None = None,
        heads: int | None = None,
        group: int = 1,
        pair: str = "",
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        seed: Any = None,
    ) -> None:
        super().__init__(gain, input_axes, output_axes, 1.0, 1, seed)
        self.role = one_of("role", role, ROLES)
        self.alpha = None if alpha is None else positive("alpha", alpha)
        self.beta = None if beta is None else number("beta", beta)
        self.heads = None if heads is None else count("heads", heads)
        self.group = count("group", group)
        self.pair = str(pair)

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns the weight; a slice of it costs as much as the whole."""
        dtype = options.get("dtype", np.float32)
        weight = self.whole(shape, seed, dtype)
        return (weight * weight.dtype.type(self.gain_value))[options.get("part") or ...]

    def whole(self, shape: tuple[int, ...], seed: Seed, dtype: Any) -> np.ndarray:
        """Returns this weight's factor."""
        lie = self._lie(shape)
        if self.role in ("query", "key"):
            found = self._of_scores(lie, self._words(seed))
        else:
            found = self._of_values(lie, self._words(seed))
        if dtype == np.float32:
            # The last bits of a double depend on the linear algebra library.
            found = np.round(found * ROUNDING) / ROUNDING
        return lie.weight(found.reshape(1, 1, lie.rows, lie.columns).astype(dtype))

    def _words(self, seed: Seed) -> Words:
        named = int.from_bytes(hashlib.blake2b(self.pair.encode(), digest_size=6).digest(), "big")
        return (*((seed,) if isinstance(seed, int) else seed), named)

    def _of_scores(self, lie: Matrices, words: Words) -> np.ndarray:
        heads = self._heads_in(lie, lie.outputs, lie.columns)
        if self.role == "query":
            heads = self._shared(heads, lie)
        size = lie.columns // heads // (self.group if self.role == "query" else 1)
        alpha, beta = self._numbers(SCORES)
        parts = [
            score_factors((*words, head), lie.rows, size, self.group, alpha, beta)[self.role == "key"]
            for head in range(heads)
        ]
        return np.concatenate(parts, axis=1)

    def _of_values(self, lie: Matrices, words: Words) -> np.ndarray:
        alpha, beta = self._numbers(VALUES)
        if self.role == "value":
            return value_factors((*words, VALUE_WORD), lie.rows, lie.columns, alpha, beta)[0]
        heads = self._shared(self._heads_in(lie, lie.inputs, lie.rows), lie)
        right = value_factors((*words, VALUE_WORD), lie.columns, lie.rows // self.group, alpha, beta)[1]
        return _shared_out(right.reshape(heads, -1, lie.columns), self.group, words)

    def _numbers(self, usual: tuple[float, float]) -> tuple[float, float]:
        return usual[0] if self.alpha is None else self.alpha, usual[1] if self.beta is None else self.beta

    def _lie(self, shape: tuple[int, ...]) -> Matrices:
        lie = Matrices.of(shape, self.axes(shape)) if len(shape) >= 2 else None
        if lie is None or lie.batch or lie.taps:
            raise SchemeError(
                f"Expected a weight whose axes are inputs and outputs, as those of attention. Received the shape "
                f"{shape} for Mimetic: use 'autoinit>variance_scaling'."
            )
        return lie

    def _heads_in(self, lie: Matrices, axes: Sequence[int], length: int) -> int:
        heads = self.heads or (lie.lengths(axes)[0] if len(axes) > 1 else 1)
        if length % heads:
            raise SchemeError(
                f"Expected a weight that holds {heads} heads of equal width. Received the shape {lie.shape} as "
                f"{self.role}, where they have {length} in all."
            )
        return heads

    def _shared(self, heads: int, lie: Matrices) -> int:
        """Returns how many key and value heads so many query heads share."""
        if heads % self.group:
            raise SchemeError(
                f"Expected a number of heads that {self.group}, the size of a group, divides. Received {heads} heads "
                f"in a weight of the shape {lie.shape}: give `heads`, or another `group`."
            )
        return heads // self.group

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        own = {name: getattr(self, name) for name in ("role", "alpha", "beta", "heads", "group", "pair")}
        return {**own, **without(super().get_config(), "fan_divisor", "blocks")}


_ONE_AT_A_TIME = threading.Lock()


def score_factors(words: Words, width: int, size: int, group: int, alpha: float, beta: float) -> tuple[Any, Any]:
    """Returns the query factors of a group, side by side, and the key factor that they share."""
    with _ONE_AT_A_TIME:
        return _score_factors(words, width, size, group, alpha, beta)


def value_factors(words: Words, width: int, size: int, alpha: float, beta: float) -> tuple[Any, Any]:
    """Returns the factors of the product of values and outputs, which passes through `size` units."""
    with _ONE_AT_A_TIME:
        return _value_factors(words, width, size, alpha, beta)


# Partners are drawn soon after one another: the layer's heads are remembered until then.
@functools.lru_cache(maxsize=32)
def _score_factors(words: Words, width: int, size: int, group: int, alpha: float, beta: float) -> tuple[Any, Any]:
    wanted = [_near_identity((*words, query), width, alpha, beta) for query in range(group)]
    mean = sum(wanted[1:], wanted[0]) / group
    rank = min(size, width)
    vectors, values = _directions(mean, rank, words)
    roots = np.sqrt(values)
    turn = _turn(words, rank, size)
    queries = [matrix @ (vectors / roots) @ turn for matrix in wanted]
    return np.concatenate(queries, axis=1), (vectors * roots) @ turn


@functools.lru_cache(maxsize=2)
def _value_factors(words: Words, width: int, size: int, alpha: float, beta: float) -> tuple[Any, Any]:
    wanted, rank = _near_identity(words, width, alpha, -beta), min(size, width)
    vectors, values = _directions(wanted, rank, words)
    roots, turn = np.sqrt(values), _turn(words, rank, size)
    return wanted @ (vectors / roots) @ turn, turn.T @ (vectors * roots).T


def _near_identity(words: Words, width: int, alpha: float, beta: float) -> np.ndarray:
    noise = draws.normal((width, width), words, std=alpha / math.sqrt(width), dtype=np.float64)
    noise[np.diag_indices(width)] += beta
    return noise


def _directions(matrix: np.ndarray, rank: int, words: Words) -> tuple[np.ndarray, np.ndarray]:
    """Returns the right singular vectors with the largest values, and those; near them where all would take long."""
    width, gram = len(matrix), matrix.T @ matrix
    if width <= EXACT or 4 * rank > width:
        squares, vectors = np.linalg.eigh(gram)
    else:
        block = draws.normal((width, 2 * rank), (*words, START_WORD), dtype=np.float64)
        for _ in range(STEPS):
            block = gram @ block
        # Orthonormal by Cholesky: the singular values that count differ by a factor of two, so nothing is lost yet,
        # and products of matrices are all that takes time.
        block = np.linalg.solve(np.linalg.cholesky(block.T @ block), block.T).T
        squares, turn = np.linalg.eigh(block.T @ gram @ block)
        vectors = block @ turn
    return _signed(vectors[:, ::-1][:, :rank]), np.sqrt(np.maximum(squares[::-1][:rank], 1e-24))


def _signed(vectors: np.ndarray) -> np.ndarray:
    """Gives each column the sign with which its largest entry is positive: a library may return either."""
    return vectors * np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])])


def _turn(words: Words, rank: int, size: int) -> np.ndarray:
    """Returns orthonormal rows that spread a product over more units than its rank, so that none is idle."""
    if size == rank:
        return np.eye(rank)
    return orthogonal_matrices(1, rank, size, (*words, TURN_WORD), np.float64)[0]


def _shared_out(right: np.ndarray, group: int, words: Words) -> np.ndarray:
    """Returns what each query head adds to the output: over a group it sums to the value head's partner."""
    if group == 1:
        return right
    spread = float(np.sqrt(np.mean(right**2))) / group
    heads, size, width = right.shape
    apart = draws.normal((heads, group, size, width), (*words, SHARE_WORD), std=spread, dtype=np.float64)
    return right[:, None] / group + apart - apart.mean(axis=1, keepdims=True)
