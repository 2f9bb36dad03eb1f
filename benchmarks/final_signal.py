"""What is left of the signal after 20 layers: ours beside Keras's default and `anyinit`'s analytic mode.

    python benchmarks/final_signal.py
    python benchmarks/final_signal.py --seeds 3 --no-peer

An MLP of 20 layers of width 256 reads 1,024 samples of independent unit numbers. The table gives the
second moment of what the last layer makes, before its activation, as a mean over seeds, and in
brackets how far that is from what the start aims at, as `|log2|` of the quotient, seed by seed. Ours
aims at what its plan says (a stretch of tanh keeps less than one, so that gradients come back, too);
of the others one is taken for the aim. Wanted: ours nearer to its aim in every row.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_autoinit import AutoInit

LAYERS, WIDTH, SAMPLES = 20, 256, 1024
ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu")


def built(activation: str) -> keras.Model:
    """Layers and activations by turns; the last layer has none."""
    inputs = x = keras.Input((WIDTH,))
    for index in range(LAYERS):
        x = keras.layers.Dense(WIDTH, name=f"layer_{index}")(
            x if index == 0 else keras.layers.Activation(activation)(x)
        )
    # An activation behind the last one, too: each layer is asked for what an activation wants.
    return keras.Model(inputs, keras.layers.Activation(activation)(x))


def default(model: keras.Model, x: np.ndarray, seed: int) -> float:
    """As Keras draws it."""
    return 1.0


def theory(model: keras.Model, x: np.ndarray, seed: int) -> float:
    """By theory."""
    plan = AutoInit("theory", seed=seed).apply(model)
    spread = plan[f"layer_{LAYERS - 1}/kernel"].output_std
    assert spread is not None
    return spread**2


def peer(model: keras.Model, x: np.ndarray, seed: int) -> float:
    """By the peer's analytic mode."""
    import anyinit

    anyinit.initialize(model, "analytic", x[:8], seed=seed)
    return 1.0


def measured(start: Callable[..., float], activation: str, seed: int) -> tuple[float, float]:
    """Returns the second moment of the last layer's output, and what it should be."""
    keras.utils.set_random_seed(seed)
    x = np.random.default_rng(seed).normal(size=(SAMPLES, WIDTH)).astype("float32")
    model = built(activation)
    aim = start(model, x, seed)
    last: Any = keras.Model(model.inputs[0], model.get_layer(f"layer_{LAYERS - 1}").output)
    return float(np.mean(keras.ops.convert_to_numpy(last(x)).astype(np.float64) ** 2)), aim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="leave anyinit out")
    options = parser.parse_args()
    starts = {"default": default, "anyinit": peer, "theory": theory}
    if not options.peer:
        del starts["anyinit"]
    print(f"{'activation':12}" + "".join(f"{name:>24}" for name in starts) + "   theory's aim   nearest")
    for activation in ACTIVATIONS:
        errors, cells, aim = {}, [], 1.0
        for name, start in starts.items():
            found = [measured(start, activation, seed) for seed in range(options.seeds)]
            aim = found[0][1]
            errors[name] = float(np.mean([abs(np.log2(max(value, 1e-300) / wanted)) for value, wanted in found]))
            cells.append(f"{np.mean([value for value, _ in found]):13.3g} ({errors[name]:8.2f})")
        print(f"{activation:12}" + "".join(f"{cell:>24}" for cell in cells), end="")
        print(f"{aim:15.3g}   {min(errors, key=lambda name: errors[name])}", flush=True)


if __name__ == "__main__":
    main()
