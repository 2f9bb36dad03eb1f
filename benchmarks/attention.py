"""What a good start is worth to transformers: the loss they reach, over starts, depths and learning rates.

    python benchmarks/attention.py                                      # every cell: hours of a processor
    python benchmarks/attention.py --cells "vision-6" "text-2" --seeds 1
    python benchmarks/attention.py --report                           # the table and the figure of what is there

A cell is a task, its number of blocks, and perhaps `warm`, for a learning rate that grows to its value
over the first tenth of the steps:

- `vision-DEPTH`: images of MNIST (6,000 to train on, 2,000 to judge by) in 49 patches, width 64, four heads;
- `digits-DEPTH`: the same network on scikit-learn's digits (1,400 and 397) in 16 patches;
- `text-DEPTH`: the next character of the language reference that Python ships, causal, 64 characters at a time;
- `sort-DEPTH`: an encoder and a decoder with cross-attention put 12 symbols in order, then repeat them.

All are pre-normalized. Each cell is one JSON file in the folder `--out`; what is there is not run again
(see `runs.py`). On a processor TensorFlow is the fastest backend here: 0.1 s for a step of `vision-6` on one
core, where JAX takes 0.27 s. TF_NUM_INTRAOP_THREADS=1 leaves the other cores alone.

Starts: Keras's default; GPT-2's scaling (normal of spread 0.02, residual projections over sqrt(2 L)); AutoInit by
its table, and by theory. More by name: see `THEORIES`, `TABLES` and `PROPOSALS`. It needs scikit-learn for digits, and
matplotlib for the figure.

Wanted: on images the training loss of theory is at most 0.6 of the default's; elsewhere it is nowhere
worse than the best other start beyond the seeds' spread; 24 blocks train without warm-up.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import math
import os
import pydoc_data.topics
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from runs import Best, Trainer, carry_out, read_runs, summary

from keras_autoinit import AutoInit, Orthogonal, Sinusoids, Theory

DEPTHS = (2, 6, 12, 24)
TASKS = ("vision", "digits", "text", "sort")
CELLS = tuple(f"{task}-{depth}{warm}" for task in TASKS for depth in DEPTHS for warm in ("", "-warm"))
RATES = (3e-3, 1e-3, 3e-4)
WIDTH, HEADS = 64, 4
EPOCHS = {"vision": 3, "digits": 6, "text": 2, "sort": 4}
CHARACTERS, SYMBOLS, LENGTH = 64, 16, 12
HERE = Path(__file__).parent
IMAGES, RESULTS = HERE / "data" / "mnist_small.npz", HERE / "results" / "attention"
# The picture of the documentation.
FIGURE = HERE.parent / "docs" / "images" / "attention.png"

THEORIES = {
    "theory_plain": Theory(attention="plain"),
    "theory_mimetic": Theory(attention="mimetic"),
    "theory_none": Theory(residual="none"),
    "theory_zero": Theory(residual="zero"),
    "theory_depth_scaled": Theory(residual="depth_scaled"),
    "theory_deepnorm": Theory(residual="deepnorm"),
    "theory_t_fixup": Theory(residual="t_fixup"),
    "theory_linear": Theory(linear_start=True),
}
TABLES = {"sinusoids": Sinusoids(math.sqrt(2)), "no_sinusoids": Orthogonal(gain=math.sqrt(WIDTH))}
STARTS = ("default", "gpt2", "table", "theory_plain", "theory_mimetic")
# Newer proposals, on top of theory.
PROPOSALS = ("norm_scales", "conditioned")


# --- Data ---


def data_of(task: str, limit: int | None = None) -> tuple[Any, np.ndarray, Any, np.ndarray]:
    """Returns what to train on and what to judge by."""
    x, y, *judged = {"vision": images, "digits": digits, "text": text, "sort": sorting}[task]()
    cut = slice(limit)
    return *(_cut(one, cut) for one in (x, y)), *(_cut(one, cut) for one in judged)


def _cut(value: Any, cut: slice) -> Any:
    return [one[cut] for one in value] if isinstance(value, list) else value[cut]


def images() -> tuple[np.ndarray, ...]:
    data = np.load(IMAGES)
    x, judged = ((data[name][..., None].astype("float32") / 255 - 0.1307) / 0.3081 for name in ("x_train", "x_test"))
    return x, data["y_train"], judged, data["y_test"]


def digits() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = ((x - x.mean()) / x.std()).astype("float32").reshape(-1, 8, 8, 1)
    order = np.random.RandomState(0).permutation(len(x))
    train, judged = order[:1400], order[1400:]
    return x[train], y[train], x[judged], y[judged]


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
    train, judged = order[:3000], order[3000:3500]
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
    if task == "text":
        return language(depth)
    if task == "sort":
        return translation(depth)
    return vision(depth, 28, 4) if task == "vision" else vision(depth, 8, 2)


def vision(depth: int, size: int, patch: int) -> keras.Model:
    inputs = keras.Input((size, size, 1))
    patches = layers.Conv2D(WIDTH, patch, strides=patch)(inputs)
    x = Positions()(layers.Reshape(((size // patch) ** 2, WIDTH))(patches))
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
    elif start in TABLES:
        # What positions are worth: the mimetic start with another table of them, as large as its tokens.
        job = AutoInit(Theory(attention="mimetic"), seed=seed)
        job.apply(model, plan=job.plan(model).replace("*/table", TABLES[start]))
    elif start in PROPOSALS:
        AutoInit(Theory(attention="mimetic" if start == "norm_scales" else "plain"), seed=seed).apply(model)
        {"norm_scales": shrink_by_depth, "conditioned": condition}[start](model)
    return model


def shrink_by_depth(model: keras.Model) -> None:
    """Scales the normalizations of the l-th block by 1 / sqrt(l) ('curse of depth', arXiv 2502.05795), at the start."""
    normal = [layer for layer in model.layers if isinstance(layer, layers.LayerNormalization)]
    for number, layer in enumerate(normal[:-1]):
        layer.gamma.assign(layer.gamma / math.sqrt(1 + number // 2))


def condition(model: keras.Model) -> None:
    """Adds the identity to queries, keys and values, which lowers their condition number (spectral conditioning)."""
    for layer in model.layers:
        if isinstance(layer, layers.MultiHeadAttention):
            for dense in (layer.query_dense, layer.key_dense, layer.value_dense):
                kernel = np.asarray(keras.ops.convert_to_numpy(dense.kernel))
                dense.kernel.assign(kernel + np.eye(WIDTH).reshape(kernel.shape))


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


def run_cell(cell: str, args: argparse.Namespace) -> None:
    """Trains a cell from each start, but for what is there already."""
    task, depth, *warm = cell.split("-")

    def trainer() -> Trainer:
        epochs = args.epochs or EPOCHS[task]
        return Trainer(network(task, int(depth)), data_of(task, args.limit), epochs, bool(warm))

    @functools.lru_cache(maxsize=1)
    def weights(start: str, seed: int) -> list[np.ndarray]:
        return started(task, int(depth), start, seed).get_weights()

    path = args.out / f"{cell}.json"
    carry_out(path, args.starts or STARTS, args.seeds, args.rates or RATES, trainer, weights)
    keras.utils.clear_session()


# --- Reporting ---


def report(folder: Path) -> None:
    """Prints a table of what is there, and draws it."""
    best = summary(folder)
    cells = sorted({cell for cell, _ in best}, key=lambda cell: (cell.split("-")[0], int(cell.split("-")[1]), cell))
    names = [name for name in (*STARTS, *THEORIES, *TABLES, *PROPOSALS) if any((cell, name) in best for cell in cells)]
    names = list(dict.fromkeys(names))
    print("\nTraining loss, over the default's (judged loss, accuracy; learning rate; seeds and the spread over them)")
    print(f"| cell | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for cell in cells:
        told = [_brief(best[cell, name], best.get((cell, "default"))) if (cell, name) in best else "" for name in names]
        print(f"| {cell} | {' | '.join(told)} |")
    figure(best, [cell for cell in cells if (cell, "default") in best], list(STARTS), folder)


def _brief(one: Best, default: Best | None) -> str:
    share = "" if default is None or default is one else f", {one.loss / default.loss:.2f}"
    seeds = f"; {one.seeds} seeds ±{one.spread:.3f}" if one.seeds > 1 else ""
    return f"{one.loss:.3f}{share} ({one.judged_loss:.3f}, {one.accuracy:.3f}; {one.rate:g}{seeds})"


def figure(best: dict[tuple[str, str], Best], cells: list[str], names: list[str], folder: Path) -> None:
    """Draws the training loss over epochs, a panel for each cell: the median seed at the best learning rate."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("No figure: matplotlib is not installed.")
        return
    fig, axes = pyplot.subplots(1, len(cells), figsize=(3.2 * len(cells), 3.2), squeeze=False, layout="constrained")
    for cell, axis in zip(cells, axes[0]):
        runs = read_runs(folder / f"{cell}.json")
        for name in names:
            rate = best[cell, name].rate if (cell, name) in best else None
            losses = [run.loss for run in runs if (run.start, run.rate) == (name, rate)]
            middle = np.median(losses, axis=0) if losses else np.empty(0)
            axis.plot(range(1, len(middle) + 1), middle, marker="o", markersize=4, label=name.replace("_", ", "))
            axis.set_xticks(range(1, max(len(run.loss) for run in runs) + 1))
        axis.set(title=cell.replace("-", ", ") + " blocks", xlabel="epoch", yscale="log")
    axes[0][0].set_ylabel("training loss")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=len(names))
    path = FIGURE if folder.resolve() == RESULTS else folder / "attention.png"
    fig.savefig(path, dpi=110)
    pyplot.close(fig)
    print(f"Figure: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    parser.add_argument("--cells", nargs="+", default=["*"], help="names or patterns of cells")
    parser.add_argument(
        "--starts", nargs="+", choices=(*STARTS, *THEORIES, *TABLES, *PROPOSALS), help="only these starts"
    )
    parser.add_argument("--rates", nargs="+", type=float, help="only these learning rates")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="how many, for every task")
    parser.add_argument("--limit", type=int, help="only so many samples, to see that it runs")
    parser.add_argument("--report", action="store_true", help="only print and draw what is there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for cell in dict.fromkeys(cell for one in args.cells for cell in _cells(one)) if not args.report else ():
        run_cell(cell, args)
    report(args.out)


def _cells(pattern: str) -> list[str]:
    """Returns the cells of a pattern; a name of another depth, such as `vision-4`, is one too."""
    named = pattern.split("-")[0] in TASKS and "*" not in pattern
    return [pattern] if named else [cell for cell in CELLS if fnmatch.fnmatchcase(cell, pattern)]


if __name__ == "__main__":
    main()
