"""Trainings that are compared: what came of each, kept in files, and one compiled network for all starts.

A benchmark names its cells; each is one JSON file, written anew after every training, so that it may be
stopped and resumed at any time. The first seed trains at every learning rate, the others at the one that
was best for it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

BATCH = 64
# A tenth of the steps, as is usual.
WARM = 0.1


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its start, seed and learning rate, and what came of it, epoch by epoch."""

    start: str
    seed: int
    rate: float
    loss: tuple[float, ...]
    judged_loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    seconds_to_start: float
    seconds: float

    @property
    def last(self) -> float:
        """Its last training loss; infinite where it is no number."""
        return self.loss[-1] if math.isfinite(self.loss[-1]) else math.inf


@dataclasses.dataclass(frozen=True)
class Best:
    """A start's best learning rate in a cell, over seeds: medians, and the spread of the training loss."""

    rate: float
    loss: float
    spread: float
    judged_loss: float
    accuracy: float
    seeds: int


# --- Files ---


def read_runs(path: Path) -> list[Run]:
    if not path.exists():
        return []
    return [Run(**{name: _frozen(value) for name, value in one.items()}) for one in json.loads(path.read_text())]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def write_runs(path: Path, runs: Iterable[Run]) -> None:
    rows = [dataclasses.asdict(run) for run in runs]
    for row in rows:
        row.update({name: [_told(v) for v in row[name]] for name in ("loss", "judged_loss", "accuracy")})
    partial = path.with_suffix(".part")
    partial.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    partial.replace(path)


def _told(value: float) -> float:
    # What is no number is no JSON either.
    return round(value, 4) if math.isfinite(value) else 1e30


# --- Training ---


class Warmth(keras.callbacks.Callback):
    """Lets the learning rate grow over the first steps."""

    def __init__(self, rate: float, steps: int) -> None:
        super().__init__()
        self.rate, self.steps, self.taken = rate, steps, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.taken += 1
        if self.taken <= self.steps:
            self.model.optimizer.learning_rate = self.rate * self.taken / self.steps


class Trainer:
    """A network that is compiled once, and given the weights of each start."""

    def __init__(self, model: keras.Model, data: Sequence[Any], epochs: int, warm: bool = False) -> None:
        self.model, self.data, self.epochs, self.warm = model, data, epochs, warm
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        jit = keras.config.backend() == "jax"
        model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], jit_compile=jit)
        model.optimizer.build(model.trainable_variables)
        self.fresh = [ops.convert_to_numpy(variable).copy() for variable in model.optimizer.variables]

    def train(self, start: str, seed: int, rate: float, weights: Callable[[str, int], list[np.ndarray]]) -> Run:
        x, y, *judged = self.data
        begin = time.perf_counter()
        self.model.set_weights(weights(start, seed))
        ready = time.perf_counter() - begin
        for variable, value in zip(self.model.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        self.model.optimizer.learning_rate = rate
        keras.utils.set_random_seed(seed)
        steps = self.epochs * math.ceil(len(y) / BATCH)
        watching = [keras.callbacks.TerminateOnNaN(), *([Warmth(rate, round(WARM * steps))] if self.warm else [])]
        history = self.model.fit(
            x, y, batch_size=BATCH, epochs=self.epochs, verbose=0, validation_data=tuple(judged), callbacks=watching
        ).history
        seconds = time.perf_counter() - begin
        found = (tuple(history.get(name, (math.inf,))) for name in ("loss", "val_loss", "val_accuracy"))
        return Run(start, seed, rate, *found, round(ready, 2), round(seconds, 1))


def carry_out(
    path: Path,
    starts: Sequence[str],
    seeds: int,
    rates: Sequence[float],
    trainer: Callable[[], Trainer],
    weights: Callable[[str, int], list[np.ndarray]],
) -> None:
    """Trains a cell from each start, but for what its file has already."""
    done = read_runs(path)
    ready: Trainer | None = None
    for seed, start in itertools.product(range(seeds), starts):
        for rate in rates if seed == 0 else (best_rate(done, start),):
            if any((run.start, run.seed, run.rate) == (start, seed, rate) for run in done):
                continue
            ready = ready or trainer()
            done.append(ready.train(start, seed, rate, weights))
            write_runs(path, done)
            print(f"{path.stem}: {told(done[-1])}", flush=True)


def told(run: Run) -> str:
    return (
        f"{run.start}, seed {run.seed}, rate {run.rate:g}: training loss "
        f"{' '.join(f'{loss:.3f}' for loss in run.loss)}, judged {run.judged_loss[-1]:.3f}, accuracy "
        f"{run.accuracy[-1]:.3f}, {run.seconds:.0f} s"
    )


# --- Comparing ---


def best_rate(runs: Iterable[Run], start: str) -> float:
    """Returns the learning rate at which the first seed's training loss is lowest."""
    return min((run for run in runs if run.start == start and run.seed == 0), key=lambda run: run.last).rate


def summary(folder: Path) -> dict[tuple[str, str], Best]:
    """Returns, for each cell and start, what its best learning rate came to."""
    best = {}
    for path in sorted(folder.glob("*.json")):
        runs = read_runs(path)
        for start in dict.fromkeys(run.start for run in runs):
            rate = best_rate(runs, start)
            best[path.stem, start] = _over_seeds(rate, [r for r in runs if (r.start, r.rate) == (start, rate)])
    return best


def _over_seeds(rate: float, runs: list[Run]) -> Best:
    losses = [run.last for run in runs]
    spread = statistics.stdev(losses) if len(losses) > 1 and np.isfinite(losses).all() else 0.0
    judged, accuracy = ([one[-1] for one in some] for some in zip(*((r.judged_loss, r.accuracy) for r in runs)))
    middle = (statistics.median(losses), spread, statistics.median(judged), statistics.median(accuracy))
    return Best(rate, *middle, len(runs))
