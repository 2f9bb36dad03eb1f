"""Predicted against measured signals and gradients, for every weighted layer of real models.

    python benchmarks/prediction.py
    python benchmarks/prediction.py --models ResNet50 VGG16 --layers --seeds 1
    python benchmarks/prediction.py --models ResNet50 --out benchmarks/results/prediction
    python benchmarks/prediction.py --out benchmarks/results/prediction --report

Runs on TensorFlow, whose tape gives the gradient at every layer at once; the prediction itself knows
no backend. A model is planned and drawn by theory, its weights all independent (no linear start, whose
pairs `tests/test_prediction.py` measures, and no mimetic attention, of which gradients are not
predicted), runs in training mode on independent numbers of
unit variance (words and masks where it asks for those), and gets independent unit gradients at its
outputs. The table gives, over layers, the median, the 95th percentile and the largest of
`|log2(measured / predicted)|` of the standard deviation of each output, and of the second moment of
the gradient there, for each model and then over the layers of all. Wanted: 0.05 and 0.20 for the signal,
0.10 and 0.35 for the gradient.

What is predicted is a mean over draws, and what one draw makes is a random number: by less than a per
cent in a wide network with normalization, by a third in VGG16, whose samples all become alike, so that
one draw of the weights decides on all of them. So draws are pooled, `--seeds` at least, until the mean of
them is known to `PRECISION` in half of the layers, or `--most` are; the table says how many it took, and
to what the mean is known then. Nothing that is predicted has a say in it.

`--out` keeps what each model is off by, one file a model, and `--report` prints the table of all that are kept.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

import keras_autoinit as ka
from keras_autoinit.graphs import read

sys.path.insert(0, str(Path(__file__).parent))
import backbones

Inputs = Callable[[np.random.Generator], Any]

INDEPENDENT = ka.Theory(linear_start=False, attention="plain")
SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
BATCH = 32
# In log2: the standard error of the mean over draws at which no more are made.
PRECISION = 0.05
MOST = 40


def application(name: str) -> keras.Model:
    """One of `keras.applications`, at a small input size, up to the logits.

    Those of ten classes are nearly the same for all samples: what a soft-max makes of them, and of the
    gradients of all layers with it, is a matter of ten numbers.
    """
    # Dropout layers without a seed of their own take one from here.
    keras.utils.set_random_seed(0)
    size = SMALLEST.get(name, 64)
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)


def inputs_for(model: keras.Model, source: np.random.Generator) -> Any:
    """A batch of pictures."""
    return keras.tree.map_structure(
        lambda tensor: _raw(model, source.normal(size=(BATCH, *tensor.shape[1:])).astype(tensor.dtype)), model.input
    )


def _raw(model: keras.Model, values: np.ndarray) -> np.ndarray:
    """Returns what a model that centres and scales its input by given numbers turns into these values."""
    for layer in reversed(model.layers[:4]):
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is not None:
            values = values * np.sqrt(np.ravel(layer.input_variance)) + np.ravel(layer.input_mean)
        elif isinstance(layer, keras.layers.Rescaling):
            values = (values - np.array(layer.offset)) / np.array(layer.scale)
    return values.astype("float32") if values.dtype == np.float64 else values


def _recording(layer: Any, made: dict[int, list[Any]]) -> Callable[..., Any]:
    call = layer.call

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        made[id(layer)].append(keras.tree.flatten(result)[0])
        return result

    return wrapped


def _unit(source: np.random.Generator, shape: Any) -> np.ndarray:
    """Returns independent numbers whose second moment is one exactly: few outputs are no reason for an error."""
    numbers = source.normal(size=shape)
    return (numbers / np.sqrt(np.mean(numbers**2))).astype("float32")


def measured(model: keras.Model, layers: list[Any], inputs: Any, source: np.random.Generator) -> dict[int, Any]:
    """Returns the spread of each layer's output and the second moment of the gradient there."""
    made: dict[int, list[Any]] = defaultdict(list)
    for layer in layers:
        object.__setattr__(layer, "call", _recording(layer, made))
    try:
        with tf.GradientTape() as tape:
            outputs = [one for one in keras.tree.flatten(model(inputs, training=True)) if one.dtype.is_floating]
            loss = sum(tf.reduce_sum(one * _unit(source, one.shape)) for one in outputs)
        firsts = {key: tensors[0] for key, tensors in made.items()}
        gradients = tape.gradient(loss, list(firsts.values()))
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")
    return {
        key: (float(np.std(tensor)), np.nan if grad is None else float(np.mean(np.square(grad))))
        for (key, tensor), grad in zip(firsts.items(), gradients)
    }


def built(name: str) -> tuple[keras.Model, Inputs]:
    """Returns a model, by its name, and what gives it a batch."""
    if name not in backbones.SPECIMENS:
        return (model := application(name)), functools.partial(inputs_for, model)
    return (model := backbones.backbone(name)), functools.partial(backbones.inputs_for, name, model, BATCH)


def compared(
    model: keras.Model, inputs_of: Inputs, seeds: int, method: Any = INDEPENDENT, most: int | None = None
) -> tuple[Any, ...]:
    """Sets what is predicted beside what is measured.

    Args:
        model: is drawn anew for every seed.
        inputs_of: gives a batch, by a source of random numbers.
        seeds: how many draws to make at least.
        method: plans the model.
        most: how many draws to make at most; as many as at least, unless told otherwise.

    Returns:
        One row per layer: path, predicted and measured spread, predicted and measured gradient; the
        plan; how many draws were made; and to what their mean is known, in log2.
    """
    sums: dict[str, list[Any]] = defaultdict(list)
    for seed in range(max(seeds, most or 0)):
        if seed >= seeds and uncertainty(sums) <= PRECISION:
            break
        source = np.random.default_rng(seed)
        inputs = inputs_of(source)
        plan = ka.AutoInit(method, seed=seed, overwrite=True).apply(model, inputs)
        last: dict[str, Any] = {}
        for place in read(model).places:
            for slot in place.slots:
                last[place.path] = (place.layer, plan[f"{place.path}/{slot.weight}"])
        found = measured(model, [layer for layer, _ in last.values()], inputs, source)
        for path, (layer, row) in last.items():
            if id(layer) in found and row.output_std is not None:
                sums[path].append((row.output_std, row.gradient_factor, *found[id(layer)]))
    rows = []
    for path, several in sums.items():
        spread, factor = several[0][:2]
        stds, gradients = (np.array([one[i] for one in several], np.float64) for i in (2, 3))
        rows.append((path, spread, float(np.sqrt((stds**2).mean())), factor, float(gradients.mean())))
    return rows, plan, max(map(len, sums.values())), uncertainty(sums)


def uncertainty(sums: dict[str, list[Any]]) -> float:
    """Returns the standard error of the mean over draws, in log2: the median over layers, of spread or of gradient."""
    squares = [np.array([one[2] ** 2 for one in several]) for several in sums.values()]
    gradients = [np.array([one[3] for one in several]) for several in sums.values()]
    errors = [
        [np.std(one, ddof=1) / np.mean(one) / np.sqrt(len(one)) for one in kind if len(one) > 1 and np.mean(one) > 0]
        for kind in (squares, gradients)
    ]
    # A spread is the root of a square.
    of_spread, of_gradient = (float(np.median(one)) / np.log(2) if one else np.inf for one in errors)
    return max(of_spread / 2, of_gradient)


def errors(rows: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns `|log2|` of measured over predicted spreads, and gradients."""
    spreads = [abs(np.log2(row[2] / row[1])) for row in rows if row[1] and row[2]]
    gradients = [abs(np.log2(row[4] / row[3])) for row in rows if row[3] and row[4] > 0]
    return np.array(spreads), np.array(gradients)


def printed(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compares one model, prints its layers if asked to, and returns what they are off by."""
    keras.backend.clear_session()
    rows, plan, draws, known = compared(*built(name), options.seeds, most=options.most)
    if options.layers:
        for path, *numbers in rows:
            print(
                f"  {path:50} {numbers[0]:8.4g} {numbers[1]:8.4g} {np.log2(numbers[1] / numbers[0]):6.2f}   "
                f"{numbers[2] or np.nan:9.4g} {numbers[3]:9.4g} {np.log2(numbers[3] / (numbers[2] or np.nan)):6.2f}"
            )
        print(*plan.notes, sep="\n")
    signal, gradient = errors(rows)
    return {"signal": signal.round(4).tolist(), "gradient": gradient.round(4).tolist(), "draws": draws, "known": known}


def main(arguments: list[str] | None = None) -> None:
    names = [name for name, value in sorted(vars(keras.applications).items()) if callable(value)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=[*names, *backbones.SPECIMENS])
    parser.add_argument("--seeds", type=int, default=3, help="draws to pool at least")
    parser.add_argument("--most", type=int, default=MOST, help="draws to pool at most")
    parser.add_argument("--layers", action="store_true", help="print every layer")
    parser.add_argument("--out", type=Path, help="folder to keep results in, one file a model")
    parser.add_argument("--report", action="store_true", help="print what is kept there, and run nothing")
    options = parser.parse_args(arguments)
    print(
        f"{'model':24} {'layers':>6}  {'signal: median':>14} {'95 %':>6} {'worst':>6}  {'gradient: median':>16} "
        f"{'95 %':>6} {'worst':>6}  {'draws':>5} {'known to':>8}"
    )
    kept = sorted(options.out.glob("*.json")) if options.report else []
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for name in [path.stem for path in kept] if options.report else options.models:
        path = options.out and options.out / f"{name}.json"
        result = json.loads(path.read_text()) if options.report else printed(name, options)
        if path and not options.report:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result) + "\n")
        found.append((np.array(result["signal"]), np.array(result["gradient"])))
        print(f"{name:24} {_statistics(*found[-1])}  {result['draws']:5} {result['known']:8.3f}", flush=True)
    if len(found) > 1:
        print(f"{'all layers':24} {_statistics(*map(np.concatenate, zip(*found)))}")


def _statistics(spreads: np.ndarray, gradients: np.ndarray) -> str:
    cells = [f"{np.median(e):14.3f} {np.quantile(e, 0.95):6.3f} {e.max():6.3f}" for e in (spreads, gradients)]
    return f"{len(spreads):6}  {'   '.join(cells)}"


if __name__ == "__main__":
    main(sys.argv[1:])
