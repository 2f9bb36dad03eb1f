"""How the time of `plan` grows with depth: seconds a layer should not.

    python benchmarks/depth.py
    KERAS_BACKEND=jax python benchmarks/depth.py --repeats 9 --method theory

Wanted: seconds a layer from 100 to 2,000 layers constant within 1.5 times. Each depth is planned
several times and the median counts. The recursion limit is raised for Keras's sake, which builds a
deep Functional model by recursion; reading it is iterative.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from rich.console import Console
from rich.table import Table

from keras_autoinit import AutoInit

DEPTHS = (10, 100, 1000, 2000)
FROM, TIMES = 100, 1.5


def chain(depth: int) -> keras.Model:
    """Dense layers one after the other."""
    inputs = keras.Input((8,))
    x = inputs
    for _ in range(depth):
        x = keras.layers.Dense(8, "relu")(x)
    return keras.Model(inputs, x)


def residual(depth: int) -> keras.Model:
    """Two dense layers and a normalization a block, each on a branch that is added."""
    inputs = keras.Input((8,))
    x = inputs
    for _ in range(depth // 2):
        y = keras.layers.Dense(8, "gelu")(keras.layers.LayerNormalization()(x))
        x = keras.layers.Add()([x, keras.layers.Dense(8)(y)])
    return keras.Model(inputs, x)


@keras.saving.register_keras_serializable("benchmarks", "Block")
class Block(keras.layers.Layer):
    """A block of one's own, which must be called on symbols to be seen."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.first, self.second = keras.layers.Dense(8), keras.layers.Dense(8)

    def build(self, shape: tuple[int, ...]) -> None:
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x: object) -> object:
        return x + self.second(keras.ops.gelu(self.first(x)))


def blocks(depth: int) -> keras.Model:
    """Blocks of one's own, with two dense layers each."""
    inputs = keras.Input((8,))
    x = inputs
    for _ in range(depth // 2):
        x = Block()(x)
    return keras.Model(inputs, x)


def seconds(build: Callable[[int], keras.Model], depth: int, repeats: int, method: str) -> float:
    """Returns the median time of a plan."""
    model, times = build(depth), []
    for _ in range(repeats):
        start = time.perf_counter()
        AutoInit(method, seed=0).plan(model)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--method", choices=("table", "theory"), default="table")
    options = parser.parse_args()
    table = Table("model", *(f"{depth:,} layers" for depth in DEPTHS), f"largest / smallest, {FROM} on", "wanted")
    for build in (chain, residual, blocks):
        each = {depth: seconds(build, depth, options.repeats, options.method) / depth for depth in DEPTHS}
        deep = [value for depth, value in each.items() if depth >= FROM]
        ratio = max(deep) / min(deep)
        cells = [f"{1e6 * value:.0f} us a layer" for value in each.values()]
        table.add_row(build.__name__, *cells, f"{ratio:.2f}", f"at most {TIMES}: {'yes' if ratio <= TIMES else 'no'}")
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.setrecursionlimit(100_000)
    threading.stack_size(512 * 1024 * 1024)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
