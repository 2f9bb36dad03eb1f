"""What a good start is worth to transformers: the loss they reach, over starts, depths and learning rates.

    python benchmarks/attention.py --out attention                              # every cell: hours of a processor
    python benchmarks/attention.py --out attention --cells "vision-6" "text-2" --seeds 1
    python benchmarks/attention.py --out attention --report                   # the table and the figure

With `KERAS_BACKEND=jax` it is several times faster. A cell is a task, its number of blocks, and perhaps
`warm`, for a learning rate that grows to its value over the first tenth of the steps:

- `vision-DEPTH`: images of MNIST (6,000 to train on, 2,000 to judge by) in 49 patches, width 64, four heads;
- `text-DEPTH`: the next character of the language reference that Python ships, causal, 64 characters at a time;
- `sort-DEPTH`: an encoder and a decoder with cross-attention put 12 symbols in order, then repeat them.

All are pre-normalized. Each cell is one JSON file in the folder `--out`; what is there is not run again, so
the benchmark may be stopped and resumed at any time. The first seed trains at every learning rate, the
others at the one that was best for it. A cell's network is compiled once and given the weights of each start.

Starts: Keras's default; GPT-2's scaling (normal of spread 0.02, residual projections over sqrt(2 L)); AutoInit by
its table, and by theory with plain and with mimetic attention. It needs matplotlib for the figure.

Wanted: on images the mimetic start's training loss is at most 0.6 of the default's; elsewhere it is nowhere
worse than the best other start beyond the seeds' spread; 24 blocks train without warm-up.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import functools
import itertools
import json
import math
import os
import pydoc_data.topics
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops

from keras_autoinit import AutoInit, Theory

DEPTHS = (2, 6, 12, 24)
TASKS = ("vision", "text", "sort")
CELLS = tuple(f"{task}-{depth}{warm}" for task in TASKS for depth in DEPTHS for warm in ("", "-warm"))
RATES = (3e-3, 1e-3, 3e-4)
WIDTH, HEADS = 64, 4
EPOCHS = {"vision": 3, "text": 3, "sort": 6}
BATCH = 64
# A tenth of the steps, as is usual.
WARM = 0.1
CHARACTERS, SYMBOLS, LENGTH = 64, 16, 12
IMAGES = Path(__file__).parent / "data" / "mnist_small.npz"

THEORIES = {
    "theory_plain": Theory(attention="plain"),
    "theory_mimetic": Theory(attention="mimetic"),
}
STARTS = ("default", "gpt2", "table", *THEORIES)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its start, seed and learning rate, and what came of it."""

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


# --- Data ---


def data_of(task: str, limit: int | None = None) -> tuple[Any, np.ndarray, Any, np.ndarray]:
    """Returns what to train on and what to judge by."""
    x, y, *judged = {"vision": images, "text": text, "sort": sorting}[task]()
    cut = slice(limit)
    return *(_cut(one, cut) for one in (x, y)), *(_cut(one, cut) for one in judged)


def _cut(value: Any, cut: slice) -> Any:
    return [one[cut] for one in value] if isinstance(value, list) else value[cut]


def images() -> tuple[np.ndarray, ...]:
    data = np.load(IMAGES)
    x, judged = ((data[name][..., None].astype("float32") / 255 - 0.1307) / 0.3081 for name in ("x_train", "x_test"))
    return x, data["y_train"], judged, data["y_test"]


def text() -> tuple[np.ndarray, ...]:
    """Returns windows of what Python ships to read, and the same one character on."""
    whole = "\n".join(pydoc_data.topics.topics.values())
    symbols = sorted(set(whole))
    known = {character: number for number, character in enumerate(symbols)}
    numbers = np.array([known[character] for character in whole], "int32")
    count = (len(numbers) - 1) // CHARACTERS
    x = numbers[: count * CHARACTERS].reshape(count, CHARACTERS)
    y = numbers[1 : count * CHARACTERS + 1].reshape(count, CHARACTERS)
    order = np.random.RandomState(0).permutation(count)
    train, judged = order[:6000], order[6000:7000]
    return x[train], y[train], x[judged], y[judged]


def sorting() -> tuple[Any, ...]:
    """Returns symbols, what the decoder has said so far, and what it is to say: them in order, then as they came."""
    source = np.random.RandomState(0)
    given = source.randint(1, SYMBOLS, (7000, LENGTH)).astype("int32")
    wanted = np.concatenate([np.sort(given, 1), given], 1)
    said = np.concatenate([np.zeros((len(given), 1), "int32"), wanted[:, :-1]], 1)
    return [given[:6000], said[:6000]], wanted[:6000], [given[6000:], said[6000:]], wanted[6000:]


# --- Networks ---


class Positions(layers.Layer):
    """Adds a learned table."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:], initializer=_small_uniform(), name="table")

    def call(self, x: Any) -> Any:
        return x + self.table


def _small_uniform() -> keras.initializers.Initializer:
    """Returns what Keras draws embeddings from."""
    return keras.initializers.RandomUniform(-0.05, 0.05)


def block(x: Any, context: Any = None, causal: bool = False) -> Any:
    """Returns what a pre-normalized block makes: self-attention, attention to a context if any, two dense layers."""
    normal = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(normal, normal, use_causal_mask=causal)
    if context is not None:
        normal = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(normal, context)
    normal = layers.LayerNormalization()(x)
    return x + layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, "gelu")(normal))


def network(task: str, depth: int) -> keras.Model:
    return {"vision": vision, "text": language, "sort": translation}[task](depth)


def vision(depth: int) -> keras.Model:
    inputs = keras.Input((28, 28, 1))
    x = Positions()(layers.Reshape((49, WIDTH))(layers.Conv2D(WIDTH, 4, strides=4)(inputs)))
    for _ in range(depth):
        x = block(x)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def language(depth: int) -> keras.Model:
    inputs = keras.Input((CHARACTERS,), dtype="int32")
    x = Positions()(layers.Embedding(_vocabulary(), WIDTH)(inputs))
    for _ in range(depth):
        x = block(x, causal=True)
    return keras.Model(inputs, layers.Dense(_vocabulary())(layers.LayerNormalization()(x)))


@functools.cache
def _vocabulary() -> int:
    return int(max(text()[0].max(), text()[1].max())) + 1


def translation(depth: int) -> keras.Model:
    given, said = keras.Input((LENGTH,), dtype="int32"), keras.Input((2 * LENGTH,), dtype="int32")
    context = Positions()(layers.Embedding(SYMBOLS, WIDTH)(given))
    x = Positions()(layers.Embedding(SYMBOLS, WIDTH)(said))
    for _ in range(depth):
        context = block(context)
    context = layers.LayerNormalization()(context)
    for _ in range(depth):
        x = block(x, context, causal=True)
    return keras.Model([given, said], layers.Dense(SYMBOLS)(layers.LayerNormalization()(x)))


# --- Starts ---


def started(task: str, depth: int, start: str, seed: int) -> keras.Model:
    """Returns a task's network with a start."""
    keras.utils.set_random_seed(seed)
    model = network(task, depth)
    if start == "gpt2":
        as_gpt2(model, depth * (5 if task == "sort" else 2), seed)
    elif start == "table":
        AutoInit(seed=seed).apply(model)
    elif start in THEORIES:
        AutoInit(THEORIES[start], seed=seed).apply(model)
    return model


def as_gpt2(model: keras.Model, branches: int, seed: int) -> None:
    """Draws all weights with a spread of 0.02, and what is added to the trunk smaller with the number of branches."""
    source = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if len(variable.shape) < 2 or "bias" in variable.name:
            continue
        added = "attention_output" in variable.path or tuple(variable.shape) == (4 * WIDTH, WIDTH)
        spread = 0.02 / math.sqrt(branches) if added else 0.02
        variable.assign(spread * source.standard_normal(tuple(variable.shape)))


# --- Running ---


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
    """A cell's network, compiled once."""

    def __init__(self, cell: str, args: argparse.Namespace) -> None:
        self.task, depth, *warm = cell.split("-")
        self.depth, self.warm = int(depth), bool(warm)
        self.epochs = args.epochs or EPOCHS[self.task]
        self.data = data_of(self.task, args.limit)
        self.model = network(self.task, self.depth)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        jit = keras.config.backend() == "jax"
        self.model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], jit_compile=jit)
        self.model.optimizer.build(self.model.trainable_variables)
        self.fresh = [ops.convert_to_numpy(variable).copy() for variable in self.model.optimizer.variables]

    def train(self, start: str, seed: int, rate: float) -> Run:
        x, y, *judged = self.data
        begin = time.perf_counter()
        self.model.set_weights(_weights(self.task, self.depth, start, seed))
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


@functools.lru_cache(maxsize=1)
def _weights(task: str, depth: int, start: str, seed: int) -> list[np.ndarray]:
    return started(task, depth, start, seed).get_weights()


def carry_out(cell: str, folder: Path, args: argparse.Namespace) -> None:
    """Trains a cell from each start, but for what is there already."""
    path = folder / f"{cell}.json"
    done = read_runs(path)
    trainer = None
    for start, seed in itertools.product(args.starts or STARTS, range(args.seeds)):
        first = [run for run in done if run.start == start and run.seed == 0]
        for rate in args.rates or RATES if seed == 0 else (min(first, key=lambda run: run.last).rate,):
            if any((run.start, run.seed, run.rate) == (start, seed, rate) for run in done):
                continue
            trainer = trainer or Trainer(cell, args)
            done.append(trainer.train(start, seed, rate))
            write_runs(path, done)
            print(f"{cell}: {_told(done[-1])}", flush=True)
    keras.utils.clear_session()


def _told(run: Run) -> str:
    return (
        f"{run.start}, seed {run.seed}, rate {run.rate:g}: training loss "
        f"{' '.join(f'{loss:.3f}' for loss in run.loss)}, judged {run.judged_loss[-1]:.3f}, accuracy "
        f"{run.accuracy[-1]:.3f}, {run.seconds:.0f} s"
    )


def read_runs(path: Path) -> list[Run]:
    if not path.exists():
        return []
    return [Run(**{name: _frozen(value) for name, value in one.items()}) for one in json.loads(path.read_text())]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def write_runs(path: Path, runs: list[Run]) -> None:
    rows = [dataclasses.asdict(run) for run in runs]
    for row in rows:
        row.update({name: [round(v, 4) for v in row[name]] for name in ("loss", "judged_loss", "accuracy")})
    partial = path.with_suffix(".part")
    partial.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    partial.replace(path)


# --- Reporting ---


@dataclasses.dataclass(frozen=True)
class Best:
    """A start's best learning rate in a cell, over seeds: medians, and the spread of the training loss."""

    rate: float
    loss: float
    spread: float
    judged_loss: float
    accuracy: float
    seeds: int


def summary(folder: Path) -> dict[tuple[str, str], Best]:
    best = {}
    for path in sorted(folder.glob("*.json")):
        runs = read_runs(path)
        for start in dict.fromkeys(run.start for run in runs):
            own = [run for run in runs if run.start == start]
            rate = min((run for run in own if run.seed == 0), key=lambda run: run.last).rate
            best[path.stem, start] = _over_seeds(rate, [run for run in own if run.rate == rate])
    return best


def _over_seeds(rate: float, runs: list[Run]) -> Best:
    losses = [run.last for run in runs]
    spread = statistics.stdev(losses) if len(losses) > 1 and np.isfinite(losses).all() else 0.0
    judged, accuracy = ([one[-1] for one in some] for some in zip(*((r.judged_loss, r.accuracy) for r in runs)))
    return Best(
        rate, *(statistics.median(losses), spread, statistics.median(judged), statistics.median(accuracy)), len(runs)
    )


def report(folder: Path) -> None:
    best = summary(folder)
    cells = sorted({cell for cell, _ in best}, key=lambda cell: (cell.split("-")[0], int(cell.split("-")[1]), cell))
    names = list(dict.fromkeys(start for _, start in best))
    print("\nTraining loss, spread over seeds (judged loss, accuracy; learning rate; seeds)")
    for cell in cells:
        print(f"{cell}")
        for name in (name for name in names if (cell, name) in best):
            print(f"  {name:16}{_brief(best[cell, name])}{_against(best, cell, name)}")
    figure(best, cells, names, folder)


def _brief(one: Best) -> str:
    return f"{one.loss:.3f} +- {one.spread:.3f} ({one.judged_loss:.3f}, {one.accuracy:.3f}; {one.rate:g}; {one.seeds})"


def _against(best: dict[tuple[str, str], Best], cell: str, name: str) -> str:
    default = best.get((cell, "default"))
    return (
        "" if default is None or name == "default" else f"  {best[cell, name].loss / default.loss:.2f} of the default"
    )


def figure(best: dict[tuple[str, str], Best], cells: list[str], names: list[str], folder: Path) -> None:
    """Draws the training loss over depth, a panel for each task."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("No figure: matplotlib is not installed.")
        return
    panels = list(dict.fromkeys((cell.split("-")[0], cell.endswith("warm")) for cell in cells))
    fig, axes = pyplot.subplots(1, len(panels), figsize=(3.4 * len(panels), 3), squeeze=False)
    for (task, warm), axis in zip(panels, axes[0]):
        for name in names:
            own = [cell for cell in cells if (cell.split("-")[0], cell.endswith("warm")) == (task, warm)]
            points = sorted((int(cell.split("-")[1]), best[cell, name].loss) for cell in own if (cell, name) in best)
            axis.plot(*zip(*points), marker="o", label=name) if points else None
        axis.set(title=f"{task}{', warm-up' if warm else ''}", xlabel="blocks", xscale="log")
    axes[0][0].set_ylabel("training loss")
    axes[0][0].legend(fontsize=7)
    fig.tight_layout()
    fig.savefig(folder / "loss_over_depth.png", dpi=150)
    pyplot.close(fig)
    print(f"Figure: {folder / 'loss_over_depth.png'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("attention"), help="the folder of the results")
    parser.add_argument("--cells", nargs="+", default=["*"], help="names or patterns of cells")
    parser.add_argument("--starts", nargs="+", choices=STARTS, help="only these starts")
    parser.add_argument("--rates", nargs="+", type=float, help="only these learning rates")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="how many, for every task")
    parser.add_argument("--limit", type=int, help="only so many samples, to see that it runs")
    parser.add_argument("--report", action="store_true", help="only print and draw what is there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for cell in dict.fromkeys(cell for one in args.cells for cell in _cells(one)) if not args.report else ():
        carry_out(cell, args.out, args)
    report(args.out)


def _cells(pattern: str) -> list[str]:
    """Returns the cells of a pattern; a name of another depth, such as `vision-4`, is one too."""
    named = pattern.split("-")[0] in TASKS and "*" not in pattern
    return [pattern] if named else [cell for cell in CELLS if fnmatch.fnmatchcase(cell, pattern)]


if __name__ == "__main__":
    main()
