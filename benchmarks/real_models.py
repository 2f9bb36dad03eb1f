"""How many steps real models need to the loss that Keras's default ends with, from each start.

    python benchmarks/real_models.py --out real_models                       # every model, three seeds
    python benchmarks/real_models.py --out real_models --models vgg unet --seeds 1 --rates 1e-3
    python benchmarks/real_models.py --out real_models --report              # the table of what is there
    python benchmarks/real_models.py --out unit_signals --nimble 1           # with another choice of theory's

On 6,000 images of MNIST (`benchmarks/data`), Adam, batches of 64: `vgg`, plain convolutions
with two max-poolings, and `vgg_bn`, the same with batch normalization; `resnet50` and `mobilenet`
(MobileNetV2, 0.35 times as wide) of `keras.applications` on 32x32 pixels; `vit`, six pre-normalized blocks of width 64;
`inception`, four blocks of four ways side by side, with batch normalization; `unet`, an autoencoder
that takes noise off. Each model is compiled once and given the weights of each
start, and is one JSON file in the folder `--out`; what is there is not run again. The first seed
trains at every learning rate, the others at the one that was best for it.

Starts: Keras's default, He by hand, AutoInit by its table, and by theory: plain, with every linear
start that there is, and as it is by default, which is mostly one of the two and then not run again.
Losses are means over ten steps.

Wanted: with theory, a median of 0.7 times the default's steps or fewer, and a final loss that is
nowhere worse beyond the seeds' spread.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from keras_autoinit import AutoInit, Theory, beforehand, solving

IMAGES = Path(__file__).parent / "data" / "mnist_small.npz"
BATCH, PIECE = 64, 10
RATES = (1e-3, 3e-4, 3e-3)
# Pieces of ten steps that a loss is averaged over when it is compared.
SMOOTH = 6
METHODS: dict[str, Any] = {
    "table": "table",
    "plain": Theory(linear_start=False, attention="plain"),
    "linear": Theory(linear_start=True, attention="plain"),
    "theory": Theory(),
}
STARTS = ("default", "he", *METHODS)


# --- Models ---


def vgg(normalized: bool = False) -> keras.Model:
    x = inputs = keras.Input((28, 28, 1))
    for number, width in enumerate((32, 32, 64, 64, 64)):
        x = layers.Conv2D(width, 3, padding="same")(x)
        x = layers.BatchNormalization()(x) if normalized else x
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D()(x) if number in (1, 3) else x
    x = layers.Dense(128, "relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def resnet50() -> keras.Model:
    inputs = keras.Input((28, 28, 1))
    padded = layers.ZeroPadding2D(2)(inputs)
    trunk = keras.applications.ResNet50(weights=None, input_tensor=padded, classes=10, classifier_activation=None)
    return keras.Model(inputs, trunk.output)


def mobilenet() -> keras.Model:
    inputs = keras.Input((28, 28, 1))
    padded = layers.ZeroPadding2D(2)(inputs)
    trunk = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, input_tensor=padded, classes=10, classifier_activation=None
    )
    return keras.Model(inputs, trunk.output)


class Positions(layers.Layer):
    """Adds a learned table."""

    def build(self, shape: Any) -> None:
        start = keras.initializers.RandomUniform(-0.05, 0.05, seed=0)
        self.table = self.add_weight(shape=shape[1:], initializer=start, name="table")

    def call(self, x: Any) -> Any:
        return x + self.table


def vit() -> keras.Model:
    inputs = keras.Input((28, 28, 1))
    x = Positions()(layers.Reshape((49, 64))(layers.Conv2D(64, 4, strides=4)(inputs)))
    for _ in range(6):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 16)(y, y)
        y = layers.Dense(256, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(64)(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def inception() -> keras.Model:
    def conv(x: Any, width: int, side: int) -> Any:
        x = layers.Conv2D(width, side, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    inputs = keras.Input((28, 28, 1))
    x = layers.AveragePooling2D(2)(conv(conv(inputs, 16, 3), 32, 3))
    for number in range(4):
        ways = [conv(x, 16, 1), conv(conv(x, 16, 1), 16, 3), conv(conv(conv(x, 16, 1), 16, 3), 16, 3)]
        ways.append(conv(layers.AveragePooling2D(3, strides=1, padding="same")(x), 16, 1))
        x = layers.Concatenate()(ways)
        x = layers.AveragePooling2D(2)(x) if number == 1 else x
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def unet() -> keras.Model:
    def block(x: Any, width: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", activation="gelu")(x)
        return x

    inputs = keras.Input((28, 28, 1))
    noisy = layers.GaussianNoise(0.5, seed=0)(inputs)
    high = block(noisy, 16)
    middle = block(layers.AveragePooling2D(2)(high), 32)
    low = block(layers.AveragePooling2D(2)(middle), 64)
    x = layers.Conv2DTranspose(32, 2, strides=2)(low)
    x = block(layers.Concatenate()([x, middle]), 32)
    x = layers.Conv2DTranspose(16, 2, strides=2)(x)
    x = block(layers.Concatenate()([x, high]), 16)
    return keras.Model(inputs, layers.Conv2D(1, 1)(x))


MODELS = {
    "vgg": vgg,
    "vgg_bn": functools.partial(vgg, True),
    "resnet50": resnet50,
    "mobilenet": mobilenet,
    "inception": inception,
    "vit": vit,
    "unet": unet,
}
STEPS = {"mobilenet": 190, "resnet50": 190}
PLENTY = 280


# --- Training ---


def started(name: str, start: str, seed: int) -> keras.Model:
    """Returns a model with a start."""
    keras.utils.set_random_seed(seed)
    model = MODELS[name]()
    if start == "he":
        for number, layer in enumerate(model.layers):
            if isinstance(layer, (layers.Dense, layers.Conv2D)):
                layer.kernel.assign(keras.initializers.HeNormal(seed=1000 * seed + number)(layer.kernel.shape))
    elif start != "default":
        AutoInit(METHODS[start], seed=seed).apply(model)
    return model


def batches(x: np.ndarray, y: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches without end, every epoch in an order of its own."""
    chance = np.random.default_rng(seed)
    while True:
        order = chance.permutation(len(x))
        for begin in range(0, len(x) - BATCH + 1, BATCH):
            chosen = order[begin : begin + BATCH]
            yield x[chosen], y[chosen]


class Trainer:
    """A model, compiled once."""

    def __init__(self, name: str) -> None:
        self.name, self.model = name, MODELS[name]()
        data = np.load(IMAGES)
        self.x = (data["x_train"][..., None].astype("float32") / 255 - 0.1307) / 0.3081
        self.y = self.x if name == "unet" else data["y_train"]
        loss = "mse" if name == "unet" else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(keras.optimizers.Adam(RATES[0]), loss, jit_compile=keras.config.backend() == "jax")
        self.model.optimizer.build(self.model.trainable_variables)
        self.fresh = [keras.ops.convert_to_numpy(variable) for variable in self.model.optimizer.variables]

    def train(self, weights: list[np.ndarray], seed: int, rate: float) -> list[float]:
        """Returns the losses from a start, each a mean over ten steps."""
        self.model.set_weights(weights)
        for variable, value in zip(self.model.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        self.model.optimizer.learning_rate = rate
        keras.utils.set_random_seed(seed)
        steps = STEPS.get(self.name, PLENTY)
        history = self.model.fit(
            batches(self.x, self.y, seed), steps_per_epoch=PIECE, epochs=steps // PIECE, verbose=0
        ).history
        return [round(float(one), 5) for one in history["loss"]]


def carry_out(name: str, folder: Path, args: argparse.Namespace) -> None:
    path = folder / f"{name}.json"
    done: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    trainer = None
    for seed, start in itertools.product(range(args.seeds), args.starts):
        for rate in args.rates if seed == 0 else (best_rate(done, start),):
            known = {one["start"]: one["loss"] for one in done if (one["seed"], one["rate"]) == (seed, rate)}
            if start in known:
                continue
            weights = started(name, start, seed).get_weights()
            twin = next((one for one in known if one in METHODS and _equal(weights, started(name, one, seed))), None)
            if twin is None:
                trainer = trainer or Trainer(name)
                losses = trainer.train(weights, seed, rate)
            else:
                losses = known[twin]
            done.append({"start": start, "seed": seed, "rate": rate, "loss": losses})
            _write(path, done)
            shown = " ".join(f"{one:.3f}" for one in losses[::4])
            print(f"{name}, {start}, seed {seed}, rate {rate:g}: {shown}, {losses[-1]:.4f}", flush=True)
    keras.utils.clear_session()


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    partial = path.with_suffix(".part")
    partial.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    partial.replace(path)


def _equal(weights: list[np.ndarray], model: keras.Model) -> bool:
    return all(map(np.array_equal, weights, model.get_weights()))


# --- Reporting ---


def steps_to(losses: list[float], goal: float) -> float:
    """Returns the steps until a loss is reached, as a mean over so many pieces that single batches do not decide."""
    smooth = np.convolve(losses, np.ones(SMOOTH) / SMOOTH, "valid")
    reached = np.flatnonzero(smooth <= goal)
    return float(PIECE * (reached[0] + SMOOTH)) if reached.size else float("inf")


def final(losses: list[float]) -> float:
    """Returns the mean over the last steps; infinite where it is no number."""
    mean = float(np.mean(losses[-SMOOTH:]))
    return mean if np.isfinite(mean) else float("inf")


def best_rate(runs: list[dict[str, Any]], start: str) -> float:
    """Returns the learning rate at which the first seed ends lowest."""
    own = [one for one in runs if (one["start"], one["seed"]) == (start, 0)]
    return min(own, key=lambda one: final(one["loss"]))["rate"]


def at_best(runs: list[dict[str, Any]], start: str) -> tuple[float, dict[int, list[float]]]:
    """Returns a start's best learning rate, and the losses of each seed at it."""
    rate = best_rate(runs, start)
    return rate, {one["seed"]: one["loss"] for one in runs if (one["start"], one["rate"]) == (start, rate)}


def report(folder: Path) -> None:
    print("\nAt each start's best learning rate: final loss (mean of the last 60 steps, and the spread of seeds);")
    print("steps to the default's final loss, over the default's")
    ratios: dict[str, list[float]] = {}
    for path in sorted(folder.glob("*.json")):
        runs = json.loads(path.read_text())
        _, default = at_best(runs, "default")
        for start in [one for one in STARTS if any(run["start"] == one for run in runs)]:
            rate, own = at_best(runs, start)
            finals = [final(losses) for losses in own.values()]
            spread = statistics.stdev(finals) if len(finals) > 1 else 0.0
            steps = [
                steps_to(losses, final(default[seed])) / (PIECE * len(losses))
                for seed, losses in own.items()
                if seed in default
            ]
            ratios.setdefault(start, []).extend(steps)
            told = f"{statistics.fmean(finals):.4f} +- {spread:.4f} at {rate:g}"
            print(f"{path.stem:10} {start:8} {told}   {statistics.median(steps):.2f}, {len(own)} seeds")
    for start, own_ratios in ratios.items():
        print(f"median over models and seeds, {start}: {statistics.median(own_ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("real_models"), help="the folder of the results")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nimble", type=float, help="another standard deviation in front of batch normalizations")
    parser.add_argument("--map", type=float, help="another spread of the map that a model puts out")
    parser.add_argument("--fade", type=float, help="what becomes of the second moment at each weight of a U-Net")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    solving.NIMBLE, solving.MAP = args.nimble or solving.NIMBLE, args.map or solving.MAP
    beforehand.FADE = args.fade or beforehand.FADE
    if not args.report:
        for name in args.models:
            carry_out(name, args.out, args)
    report(args.out)


if __name__ == "__main__":
    main()
