"""Which plain networks train at all, from which start: accuracy over depth, one line a start.

    python benchmarks/trainability.py --out trainability                  # every cell: hours of a processor
    python benchmarks/trainability.py --out trainability --cells "mlp-100-gelu" "mlp-30-*" --seeds 1
    python benchmarks/trainability.py --out trainability --report         # the table and the figure of what is there
    python benchmarks/trainability.py --out bases --bases 10 20 40        # matrices of convolutions, by depth

A cell is a network, `mlp-DEPTH-ACTIVATION`, `bn-DEPTH-ACTIVATION` (the same with batch normalization
before every activation), `cnn-DEPTH-ACTIVATION` or `cnnbn-DEPTH-ACTIVATION` (`mlp-1000-gelu` is 64
wide, the others 128; convolutions have 32 filters of 3x3 and are flattened before the head, with batch
normalization pooled), on
scikit-learn's digits: 1,400 to train on and 397 to judge by, Adam, batches of 64, at most 15 epochs.
Each cell is one JSON file in the folder `--out`; what is there is not run again, so the benchmark may
be stopped and resumed at any time.

The first seed trains at every learning rate, the others at the one that was best for it, or with
`--every-rate` at all of them, as the shallow networks always do; of rates tried by equally many seeds
the one that is best on average counts. Networks of 20 layers and more stop as soon as they are judged
above 0.9, which is the question; and any network whose training loss after six epochs is still that of
chance. A cell's network is compiled once and given the weights of each start.

Starts: Keras's default, He by hand, AutoInit by its table and by theory, and, where they are installed,
the methods of the nearest peer. Others by name: see `THEORIES`. It needs scikit-learn, and matplotlib
for the figure.

Wanted: theory trains (accuracy above 0.9) every cell that another start trains, and twice as many as
the default; in networks of 3 and 10 layers its loss is nowhere worse beyond the seeds' spread.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import functools
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

from keras_autoinit import AutoInit, Theory, solving
from keras_autoinit.linear_start import LinearStart, with_linear_start

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "gelu", "silu", "elu", "selu", "mish")
CELLS = (
    *(f"mlp-{depth}-{name}" for depth in (3, 10, 30, 50, 100) for name in ACTIVATIONS),
    *(f"mlp-{depth}-{name}" for depth in (200, 400) for name in ("relu", "gelu", "silu")),
    "mlp-1000-gelu",
    *(f"cnn-{depth}-{name}" for depth in (20, 50) for name in ("relu", "tanh", "gelu")),
    *(f"cnn-100-{name}" for name in ("relu", "gelu")),
    *(f"bn-{depth}-{name}" for depth in (10, 30, 60) for name in ("relu", "gelu")),
)
# From how many layers on the linear start is worth it.
LENGTHS = (
    *(f"mlp-{depth}-{name}" for depth in (4, 5, 6, 8) for name in ("relu", "gelu", "silu", "elu", "selu")),
    *(f"cnn-{depth}-{name}" for depth in (3, 6, 10) for name in ("relu", "gelu")),
    *(f"cnnbn-{depth}-relu" for depth in (6, 10, 19)),
)
RATES = (1e-3, 3e-4, 1e-4)
# The deepest asks for smaller steps.
DEEPEST, DEEPEST_RATES = 1000, (1e-4, 3e-5, 1e-5)
TRAINED = 0.9
# From this depth on the question is whether it trains.
DEEP = 20
# A loss of chance is log 10 = 2.303.
CHANCE, PATIENCE = 2.25, 6


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its start, seed and learning rate, and what came of it."""

    start: str
    seed: int
    rate: float
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    seconds_to_start: float
    seconds: float

    @property
    def judged(self) -> float:
        """Its last validation accuracy; nothing where the loss is no number."""
        return self.accuracy[-1] if np.isfinite(self.loss[-1]) else 0.0


# --- Data and networks ---


def digits(images: bool) -> tuple[np.ndarray, ...]:
    x, y = load_digits(return_X_y=True)
    x = ((x - x.mean()) / x.std()).astype("float32")
    order = np.random.RandomState(0).permutation(len(x))
    x, y = x[order], y[order]
    x = x.reshape(-1, 8, 8, 1) if images else x
    return x[:1400], y[:1400], x[1400:], y[1400:]


def network(cell: str, kernel: str = "glorot_uniform") -> keras.Model:
    kind, depth, activation = cell.split("-")
    width = 64 if int(depth) >= DEEPEST else 128
    if kind == "mlp":
        hidden: list[Any] = [
            keras.layers.Dense(width, activation, kernel_initializer=kernel) for _ in range(int(depth))
        ]
        return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    if kind == "bn":
        dense = functools.partial(keras.layers.Dense, width, use_bias=False, kernel_initializer=kernel)
        return keras.Sequential([keras.Input((64,)), *_normalized(dense, cell), keras.layers.Dense(10)])
    if kind == "cnnbn":
        mixing = functools.partial(
            keras.layers.Conv2D, 32, 3, padding="same", use_bias=False, kernel_initializer=kernel
        )
        pooled = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
        return keras.Sequential([keras.Input((8, 8, 1)), *_normalized(mixing, cell), *pooled])
    hidden = [
        keras.layers.Conv2D(32, 3, padding="same", activation=activation, kernel_initializer=kernel)
        for _ in range(int(depth))
    ]
    head = keras.layers.GlobalAveragePooling2D() if kind == "pooled" else keras.layers.Flatten()
    return keras.Sequential([keras.Input((8, 8, 1)), *hidden, head, keras.layers.Dense(10)])


def _normalized(weighted: Callable[[], keras.Layer], cell: str) -> list[keras.Layer]:
    """Returns a cell's layers, each with a normalization and its activation."""
    _, depth, activation = cell.split("-")
    several = (
        (weighted(), keras.layers.BatchNormalization(), keras.layers.Activation(activation)) for _ in range(int(depth))
    )
    return [*itertools.chain(*several)]


def digits_of(cell: str) -> tuple[np.ndarray, ...]:
    return digits(cell.startswith(("cnn", "pooled")))


# --- Starts ---

THEORIES = {
    "theory": Theory(),
    "linear": Theory(linear_start=True),
    "theory_orthogonal": Theory(linear_start=False),
    "theory_normal": Theory(linear_start=False, distribution="truncated_normal"),
    "linear_normal": Theory(linear_start=True, distribution="truncated_normal"),
}


def started(cell: str, start: str, seed: int) -> keras.Model:
    """Returns a cell's network with a start."""
    keras.utils.set_random_seed(seed)
    model = network(cell, "he_normal" if start == "he" else "glorot_uniform")
    if start == "table":
        AutoInit(seed=seed).apply(model)
    elif start == "data":
        AutoInit("data", seed=seed).apply(model, digits_of(cell)[0])
    elif start in THEORIES:
        AutoInit(THEORIES[start], seed=seed).apply(model)
    elif start.startswith("linear_"):
        job, base = AutoInit(seed=seed), LinearStart(base=start.removeprefix("linear_"))
        job.apply(model, plan=with_linear_start(job.plan(model), model, start=base))
    elif start.startswith("anyinit_"):
        peer(model, cell, start.removeprefix("anyinit_"), seed)
    return model


def peer(model: keras.Model, cell: str, mode: str, seed: int) -> None:
    """Applies the nearest peer's methods."""
    import anyinit

    x = digits_of(cell)[0][:64]
    anyinit.initialize(model, mode, tuple(x.shape) if mode == "analytic" else x, seed=seed)


def starts() -> list[str]:
    try:
        import anyinit  # noqa: F401
    except ImportError:
        return ["default", "he", "table", "data", "theory"]
    return ["default", "he", "anyinit_analytic", "anyinit_empirical", "table", "data", "theory"]


# --- Running ---


class Trainer:
    """A cell's network, compiled once."""

    def __init__(self, cell: str, epochs: int) -> None:
        self.cell, self.epochs = cell, epochs
        self.deep = _is_deep(cell)
        self.data = digits_of(cell)
        self.model = network(cell)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        jit = keras.config.backend() == "jax"
        self.model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], jit_compile=jit)
        self.model.optimizer.build(self.model.trainable_variables)
        self.fresh = [keras.ops.convert_to_numpy(variable) for variable in self.model.optimizer.variables]

    def train(self, start: str, seed: int, rate: float) -> Run:
        x, y, *judged = self.data
        begin = time.perf_counter()
        self.model.set_weights(_weights(self.cell, start, seed))
        ready = time.perf_counter() - begin
        for variable, value in zip(self.model.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        self.model.optimizer.learning_rate = rate
        keras.utils.set_random_seed(seed)
        history = self.model.fit(
            x,
            y,
            batch_size=64,
            epochs=self.epochs,
            verbose=0,
            validation_data=judged,
            callbacks=[_StopWhenDecided(self.deep)],
        ).history
        seconds = time.perf_counter() - begin
        found = (tuple(history["loss"]), tuple(history["val_accuracy"]), round(ready, 2), round(seconds, 1))
        return Run(start, seed, rate, *found)


@functools.lru_cache(maxsize=1)
def _weights(cell: str, start: str, seed: int) -> list[np.ndarray]:
    return started(cell, start, seed).get_weights()


class _StopWhenDecided(keras.callbacks.Callback):
    """Stops a training that is broken, at chance, or, of a deep network, successful."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.deep = deep

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        loss, accuracy = logs["loss"], logs["val_accuracy"]
        at_chance = epoch + 1 >= PATIENCE and loss > CHANCE
        self.model.stop_training = not np.isfinite(loss) or at_chance or (self.deep and accuracy > TRAINED)


def carry_out(cell: str, folder: Path, names: list[str], args: argparse.Namespace) -> None:
    """Trains a cell from each start, but for what is there already."""
    path = folder / f"{cell}.json"
    done = read_runs(path)
    rates = args.rates or (DEEPEST_RATES if cell.split("-")[1] == str(DEEPEST) else RATES)
    trainer = None
    for start, seed in itertools.product(names, range(args.seeds)):
        every = seed == 0 or args.every_rate or not _is_deep(cell)
        for rate in rates if every else (_best_rate(cell, [run for run in done if run.start == start]),):
            if any((run.start, run.seed, run.rate) == (start, seed, rate) for run in done):
                continue
            trainer = trainer or Trainer(cell, args.epochs)
            done.append(trainer.train(start, seed, rate))
            write_runs(path, done)
            print(f"{cell}: {_told(done[-1])}", flush=True)
    keras.utils.clear_session()


def _goodness(runs: list[Run], deep: bool) -> tuple[float, float, float]:
    """Which learning rate is best: one that more seeds tried; then of deep networks, with which more train, sooner."""
    if not deep:
        return len(runs), 0.0, -statistics.fmean(map(_tenth, runs))
    trained = statistics.fmean(min(run.judged, TRAINED) for run in runs)
    return len(runs), trained, -statistics.fmean(len(run.accuracy) for run in runs)


def _tenth(run: Run) -> float:
    """The loss after ten epochs, or after the last before; beyond all where it is no number."""
    return run.loss[:10][-1] if np.isfinite(run.loss[:10][-1]) else float("inf")


def _is_deep(cell: str) -> bool:
    return int(cell.split("-")[1]) >= DEEP


def _best_rate(cell: str, runs: list[Run]) -> float:
    rates = {rate: [run for run in runs if run.rate == rate] for rate in {run.rate for run in runs}}
    return max(rates, key=lambda rate: _goodness(rates[rate], _is_deep(cell)))


def _told(run: Run) -> str:
    return (
        f"{run.start}, seed {run.seed}, rate {run.rate:g}: loss {run.loss[0]:.3f} after one epoch, {run.loss[-1]:.3f} "
        f"after {len(run.loss)}, accuracy {run.accuracy[-1]:.3f}, {run.seconds:.0f} s"
    )


def read_runs(path: Path) -> list[Run]:
    if not path.exists():
        return []
    fields = [field.name for field in dataclasses.fields(Run)]
    return [Run(**{name: _frozen(one[name]) for name in fields}) for one in json.loads(path.read_text())]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def write_runs(path: Path, runs: list[Run]) -> None:
    rows = [dataclasses.asdict(run) for run in runs]
    for row in rows:
        row["loss"], row["accuracy"] = ([round(v, 4) for v in row[name]] for name in ("loss", "accuracy"))
    partial = path.with_suffix(".part")
    partial.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    partial.replace(path)


# --- Reporting ---


@dataclasses.dataclass(frozen=True)
class Best:
    """A start's best learning rate in a cell, averaged over seeds."""

    rate: float
    accuracy: float
    first_loss: float
    tenth_loss: float
    epochs: float
    spread: float
    seeds: int


def summary(folder: Path) -> dict[tuple[str, str], Best]:
    best = {}
    for path in sorted(folder.glob("*.json")):
        runs = read_runs(path)
        for start in dict.fromkeys(run.start for run in runs):
            own = [run for run in runs if run.start == start]
            rate = _best_rate(path.stem, own)
            best[path.stem, start] = _averaged(rate, [run for run in own if run.rate == rate])
    return best


def _averaged(rate: float, runs: list[Run]) -> Best:
    tenth = [_tenth(run) for run in runs]
    spread = statistics.stdev(tenth) if len(tenth) > 1 and np.isfinite(tenth).all() else 0.0
    return Best(
        rate,
        statistics.fmean(run.judged for run in runs),
        float(np.mean([run.loss[0] for run in runs])),
        float(np.mean(tenth)),
        statistics.fmean(len(run.loss) for run in runs),
        spread,
        len(runs),
    )


def report(folder: Path, patterns: list[str]) -> None:
    found = summary(folder).items()
    best = {key: one for key, one in found if any(fnmatch.fnmatchcase(key[0], pattern) for pattern in patterns)}
    cells = [cell for cell in (*CELLS, *LENGTHS) if any(key[0] == cell for key in best)]
    names = list(dict.fromkeys(start for _, start in best))
    print("\nAccuracy (loss after one epoch, after the tenth or the last before; learning rate; epochs)")
    for cell in cells:
        print(f"{cell:18}" + "  ".join(f"{name}: {_brief(best.get((cell, name)))}" for name in names))
    for name in names:
        done = [best[cell, name] for cell in cells if (cell, name) in best and _is_deep(cell)]
        print(f"{name}: trains {sum(one.accuracy > TRAINED for one in done)} of {len(done)} deep cells")
    figures(best, folder)


def _brief(one: Best | None) -> str:
    if one is None:
        return "-"
    return f"{one.accuracy:.3f} ({one.first_loss:.2f}, {one.tenth_loss:.3f}; {one.rate:g}; {one.epochs:.0f})"


LABELS = {
    "default": "Keras default",
    "he": "He by hand",
    "anyinit_analytic": "anyinit analytic",
    "anyinit_empirical": "anyinit empirical",
    "table": "AutoInit, table",
    "data": "AutoInit, data",
    "theory": "AutoInit, theory",
}
KINDS = {
    "mlp": "dense",
    "bn": "dense, normalized",
    "cnn": "convolutions",
    "cnnbn": "convolutions, normalized",
    "pooled": "pooled convolutions",
}


def figures(best: dict[tuple[str, str], Best], folder: Path) -> None:
    """Draws accuracy over depth: a panel for each kind of network and activation, and one for dense GELU alone."""
    try:
        import matplotlib

        matplotlib.use("Agg")
    except ImportError:
        print("No figure: matplotlib is not installed.")
        return
    panels = sorted({(cell.split("-")[0], cell.split("-")[2]) for cell, start in best if start in LABELS})
    draw(best, panels, folder / "accuracy_over_depth.png")
    draw(best, [panel for panel in panels if panel == ("mlp", "gelu")], folder / "gelu_over_depth.png")


def draw(best: dict[tuple[str, str], Best], panels: list[tuple[str, str]], path: Path) -> None:
    from matplotlib import pyplot

    if not panels:
        return
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    size = (6.4, 3.6) if len(panels) == 1 else (3.2 * columns, 2.9 * rows)
    fig, axes = pyplot.subplots(rows, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for panel, axis in zip(panels, axes.flat):
        draw_panel(axis, *panel, best)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    axes[0][0].set_ylabel("validation accuracy")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=4)
    fig.savefig(path, dpi=130)
    pyplot.close(fig)
    print(f"Figure: {path}")


def draw_panel(axis: Any, kind: str, activation: str, best: dict[tuple[str, str], Best]) -> None:
    own = {key: one for key, one in best.items() if key[0].split("-")[::2] == [kind, activation]}
    for name, label in LABELS.items():
        points = sorted((int(cell.split("-")[1]), one.accuracy) for (cell, start), one in own.items() if start == name)
        axis.plot(*(zip(*points) if points else ((), ())), marker="o", markersize=4, label=label)
    depths = sorted({int(cell.split("-")[1]) for cell, _ in own})
    axis.set(title=f"{KINDS[kind]}, {activation}", xlabel="layers", xscale="log", ylim=(0, 1.02))
    axis.set_xticks(depths, [str(depth) for depth in depths], fontsize=7)
    axis.minorticks_off()
    axis.axhline(TRAINED, color="0.8", linewidth=0.8, zorder=0)


def compare_bases(args: argparse.Namespace) -> None:
    """Trains convolutions of several depths from orthogonal and from delta-orthogonal matrices."""
    names = ["linear_orthogonal", "linear_delta_orthogonal"]
    for kind, depth in itertools.product(("cnn", "pooled"), args.bases or (3, 10, 20, 40)):
        carry_out(f"{kind}-{depth}-relu", args.out, names, args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("trainability"), help="the folder of the results")
    parser.add_argument("--cells", nargs="+", default=["*"], help="names or patterns of cells")
    parser.add_argument("--starts", nargs="+", help="only these starts")
    parser.add_argument("--rates", nargs="+", type=float, help="only these learning rates")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--every-rate", action="store_true", help="every seed of deep networks at every rate too")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--bases", nargs="*", type=int, help="compare matrices of convolutions at these depths instead")
    parser.add_argument("--logits", type=float, help="another spread of what few dense layers say of classes")
    parser.add_argument("--report", action="store_true", help="only print and draw what is there")
    args = parser.parse_args()
    solving.LOGITS = args.logits or solving.LOGITS
    args.out.mkdir(parents=True, exist_ok=True)
    if args.bases is not None:
        compare_bases(args)
        return
    if not args.report:
        sys.setrecursionlimit(100_000)
        for cell in (*CELLS, *LENGTHS):
            if any(fnmatch.fnmatchcase(cell, one) for one in args.cells):
                carry_out(cell, args.out, args.starts or starts(), args)
    report(args.out, args.cells)


if __name__ == "__main__":
    main()
