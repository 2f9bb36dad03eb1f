"""Which plain networks train at all, from which start: accuracy over depth, one line a start.

    python benchmarks/trainability.py --out trainability                  # every cell: many hours of a processor
    python benchmarks/trainability.py --out trainability --cells "mlp-100-gelu" "mlp-30-*" --seeds 1 --epochs 3
    python benchmarks/trainability.py --out trainability --report         # the table and the figure of what is there
    python benchmarks/trainability.py --out bases --bases 10 20 40        # matrices of convolutions, by depth

A cell is a network, `mlp-DEPTH-ACTIVATION` or `cnn-DEPTH-ACTIVATION` (`mlp-1000-gelu` is 64 wide,
the others 128; convolutions have 32 filters of 3x3 and are flattened before the head), on
scikit-learn's digits: 1,400 to train on and 397 to judge by, Adam, batches of 64. Each cell, start,
learning rate and seed is one JSON file in the folder `--out`; what is there is not run again, so the
benchmark may be stopped and resumed at any time. Of a start's learning rates the one counts whose
validation accuracy, averaged over seeds, is best.

Starts: Keras's default, He by hand, AutoInit by its table, the same with the linear start, and, where
they are installed, the methods of the nearest peer. It needs scikit-learn, and matplotlib for the figure.

Wanted: the linear start trains (accuracy above 0.9) every cell that another start trains, and twice as
many as the default; in networks of 3 and 10 layers its loss is nowhere worse beyond the seeds' spread.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

from keras_autoinit import AutoInit
from keras_autoinit.linear_start import LinearStart, with_linear_start

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "gelu", "silu", "elu", "selu", "mish")
CELLS = (
    *(f"mlp-{depth}-{name}" for depth in (3, 10, 30, 50, 100) for name in ACTIVATIONS),
    *(f"mlp-{depth}-{name}" for depth in (200, 400) for name in ("relu", "gelu", "silu")),
    "mlp-1000-gelu",
    *(f"cnn-{depth}-{name}" for depth in (20, 50) for name in ("relu", "tanh", "gelu")),
    *(f"cnn-100-{name}" for name in ("relu", "gelu")),
)
RATES = (1e-3, 3e-4, 1e-4)
# The deepest asks for smaller steps.
DEEPEST, DEEPEST_RATES = 1000, (1e-4, 3e-5, 1e-5)
TRAINED = 0.9

Start = Callable[[keras.Model], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its cell, start, learning rate and seed."""

    cell: str
    start: str
    rate: float
    seed: int

    @property
    def file(self) -> str:
        """The name of its result."""
        return f"{self.cell}--{self.start}--{self.rate:g}--{self.seed}.json"


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
    if kind == "mlp":
        width = 64 if int(depth) >= DEEPEST else 128
        hidden: list[Any] = [
            keras.layers.Dense(width, activation, kernel_initializer=kernel) for _ in range(int(depth))
        ]
        return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    hidden = [
        keras.layers.Conv2D(32, 3, padding="same", activation=activation, kernel_initializer=kernel)
        for _ in range(int(depth))
    ]
    head = keras.layers.GlobalAveragePooling2D() if kind == "pooled" else keras.layers.Flatten()
    return keras.Sequential([keras.Input((8, 8, 1)), *hidden, head, keras.layers.Dense(10)])


# --- Starts ---


def linear(seed: int, **options: Any) -> Start:
    def start(model: keras.Model) -> None:
        job = AutoInit(seed=seed)
        job.apply(model, plan=with_linear_start(job.plan(model), model, start=LinearStart(**options)))

    return start


def started(run: Run) -> keras.Model:
    """Returns the run's network with its start."""
    keras.utils.set_random_seed(run.seed)
    model = network(run.cell, "he_normal" if run.start == "he" else "glorot_uniform")
    if run.start == "table":
        AutoInit(seed=run.seed).apply(model)
    elif run.start == "linear":
        linear(run.seed)(model)
    elif run.start.startswith("linear_"):
        linear(run.seed, base=run.start.removeprefix("linear_"))(model)
    elif run.start.startswith("anyinit_"):
        peer(model, run)
    return model


def peer(model: keras.Model, run: Run) -> None:
    """Applies the nearest peer's methods."""
    import anyinit

    mode = run.start.removeprefix("anyinit_")
    x = digits(not run.cell.startswith("mlp"))[0][:64]
    anyinit.initialize(model, mode, tuple(x.shape) if mode == "analytic" else x, seed=run.seed)


def starts() -> list[str]:
    try:
        import anyinit  # noqa: F401
    except ImportError:
        return ["default", "he", "table", "linear"]
    return ["default", "he", "anyinit_analytic", "anyinit_empirical", "table", "linear"]


# --- Running ---


def train(run: Run, epochs: int) -> dict[str, Any]:
    x, y, x_test, y_test = digits(not run.cell.startswith("mlp"))
    begin = time.perf_counter()
    model = started(run)
    ready = time.perf_counter() - begin
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Compiling XLA code for a thousand layers takes longer than running them without.
    model.compile(keras.optimizers.Adam(run.rate), loss, metrics=["accuracy"], jit_compile=False)
    history = model.fit(
        x, y, batch_size=64, epochs=epochs, verbose=0, validation_data=(x_test, y_test), callbacks=[_StopWhenBroken()]
    ).history
    return {
        **dataclasses.asdict(run),
        "epochs": epochs,
        "loss": history["loss"],
        "accuracy": history["val_accuracy"],
        "seconds_to_start": round(ready, 2),
        "seconds": round(time.perf_counter() - begin, 1),
        "backend": keras.config.backend(),
    }


class _StopWhenBroken(keras.callbacks.Callback):
    """Stops a training whose loss is no number any more."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = not np.isfinite((logs or {}).get("loss", 0.0))


def runs(args: argparse.Namespace) -> Iterator[Run]:
    chosen = [cell for cell in CELLS if any(fnmatch.fnmatchcase(cell, one) for one in args.cells)]
    for cell in chosen:
        rates = args.rates or (DEEPEST_RATES if cell.split("-")[1] == str(DEEPEST) else RATES)
        for start, rate, seed in itertools.product(args.starts or starts(), rates, range(args.seeds)):
            yield Run(cell, start, rate, seed)


def carry_out(run: Run, folder: Path, epochs: int) -> None:
    path = folder / run.file
    if path.exists() and json.loads(path.read_text())["epochs"] >= epochs:
        return
    sys.setrecursionlimit(100_000)
    result = train(run, epochs)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(result))
    partial.replace(path)
    print(
        f"{run.file.removesuffix('.json')}: loss {result['loss'][0]:.3f} after one epoch, {result['loss'][-1]:.3f} "
        f"after {len(result['loss'])}, accuracy {result['accuracy'][-1]:.3f}, {result['seconds']:.0f} s",
        flush=True,
    )
    keras.utils.clear_session()


# --- Reporting ---


@dataclasses.dataclass(frozen=True)
class Best:
    """A start's best learning rate in a cell, averaged over seeds."""

    rate: float
    accuracy: float
    first_loss: float
    last_loss: float
    spread: float
    seeds: int


def summary(folder: Path) -> dict[tuple[str, str], Best]:
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for one in results:
        groups.setdefault((one["cell"], one["start"], one["rate"]), []).append(one)
    best: dict[tuple[str, str], Best] = {}
    for (cell, start, rate), group in groups.items():
        found = _averaged(rate, group)
        if (cell, start) not in best or found.accuracy > best[cell, start].accuracy:
            best[cell, start] = found
    return best


def _averaged(rate: float, group: list[dict[str, Any]]) -> Best:
    def mean(values: list[float]) -> float:
        return statistics.fmean(values) if np.isfinite(values).all() else float("inf")

    last = [one["loss"][-1] for one in group]
    spread = statistics.stdev(last) if len(last) > 1 and np.isfinite(last).all() else 0.0
    accuracy = mean([one["accuracy"][-1] for one in group])
    return Best(rate, accuracy, mean([one["loss"][0] for one in group]), mean(last), spread, len(group))


def report(folder: Path) -> None:
    best = summary(folder)
    cells = [cell for cell in CELLS if any(key[0] == cell for key in best)]
    names = list(dict.fromkeys(start for _, start in best))
    print("\nAccuracy (loss after one epoch, after the last; learning rate)")
    for cell in cells:
        print(f"{cell:18}" + "  ".join(f"{name}: {_brief(best.get((cell, name)))}" for name in names))
    for name in names:
        done = [best[cell, name] for cell in cells if (cell, name) in best]
        print(f"{name}: trains {sum(one.accuracy > TRAINED for one in done)} of {len(done)} cells")
    figure(best, names, folder)


def _brief(one: Best | None) -> str:
    if one is None:
        return "-"
    return f"{one.accuracy:.3f} ({one.first_loss:.2f}, {one.last_loss:.3f}; {one.rate:g})"


def figure(best: dict[tuple[str, str], Best], names: list[str], folder: Path) -> None:
    """Draws accuracy over depth, a panel for each kind of network and activation."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("No figure: matplotlib is not installed.")
        return
    panels = sorted({(cell.split("-")[0], cell.split("-")[2]) for cell, _ in best})
    fig, axes = pyplot.subplots(1, len(panels), figsize=(3.2 * len(panels), 3), sharey=True, squeeze=False)
    for (kind, activation), axis in zip(panels, axes[0]):
        for name in names:
            points = sorted(
                (int(cell.split("-")[1]), one.accuracy)
                for (cell, start), one in best.items()
                if start == name and cell.split("-")[::2] == [kind, activation]
            )
            if points:
                axis.plot(*zip(*points), marker="o", label=name)
        axis.set(title=f"{kind}, {activation}", xlabel="layers", xscale="log", ylim=(0, 1.02))
    axes[0][0].set_ylabel("validation accuracy")
    axes[0][0].legend(fontsize=7)
    fig.tight_layout()
    fig.savefig(folder / "accuracy_over_depth.png", dpi=150)
    pyplot.close(fig)
    print(f"Figure: {folder / 'accuracy_over_depth.png'}")


def compare_bases(args: argparse.Namespace) -> None:
    """Trains convolutions of several depths from orthogonal and from delta-orthogonal matrices."""
    bases, rates = ("orthogonal", "delta_orthogonal"), args.rates or [1e-3]
    options = itertools.product(("cnn", "pooled"), args.bases or (3, 10, 20, 40), bases, rates, range(args.seeds))
    for kind, depth, base, rate, seed in options:
        carry_out(Run(f"{kind}-{depth}-relu", f"linear_{base}", rate, seed), args.out, args.epochs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("trainability"), help="the folder of the results")
    parser.add_argument("--cells", nargs="+", default=["*"], help="names or patterns of cells")
    parser.add_argument("--starts", nargs="+", help="only these starts")
    parser.add_argument("--rates", nargs="+", type=float, help="only these learning rates")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--bases", nargs="*", type=int, help="compare matrices of convolutions at these depths instead")
    parser.add_argument("--report", action="store_true", help="only print and draw what is there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.bases is not None:
        compare_bases(args)
        return
    if not args.report:
        for run in runs(args):
            carry_out(run, args.out, args.epochs)
    report(args.out)


if __name__ == "__main__":
    main()
