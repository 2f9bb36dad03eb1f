"""What the method `data` costs: time in forward passes, memory, and the nearest peer beside it.

    python benchmarks/data.py                     # every model
    python benchmarks/data.py --models resnet50 mlp100 --no-peer

Wanted: `plan` in at most 3 ordinary eager forward passes of the same batch; at least 20 times faster
than `anyinit`'s empirical mode on ResNet50 and the 100-layer MLP; peak memory at most 1.3 times that
of one forward pass, the model included. Each measurement runs in a process of its own, because a
process's peak memory never falls. Needs `keras_hub` for BERT and `anyinit` for the peer.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

PASSES, PEER, MEMORY = 3.0, 20.0, 1.3
WITH_PEER = ("resnet50", "mlp100")


def pictures(number: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(number, size, size, 3)).astype("float32")


def resnet50() -> tuple[keras.Model, Any]:
    return keras.applications.ResNet50(weights=None, input_shape=(224, 224, 3)), pictures(16, 224)


def efficientnet() -> tuple[keras.Model, Any]:
    return keras.applications.EfficientNetB0(weights=None), pictures(16, 224)


def bert() -> tuple[keras.Model, Any]:
    import keras_hub

    model = keras_hub.models.BertBackbone(30522, 12, 12, 768, 3072, max_sequence_length=128)
    tokens = np.random.default_rng(0).integers(1, 30522, (16, 128)).astype("int32")
    return model, {"token_ids": tokens, "segment_ids": 0 * tokens, "padding_mask": 0 * tokens + 1}


def mlp100() -> tuple[keras.Model, Any]:
    stack = [keras.layers.Dense(128, "gelu") for _ in range(100)]
    return keras.Sequential([keras.Input((64,)), *stack]), np.random.default_rng(0).normal(size=(256, 64)).astype("f")


MODELS: dict[str, Callable[[], tuple[keras.Model, Any]]] = {
    "resnet50": resnet50,
    "efficientnet": efficientnet,
    "bert": bert,
    "mlp100": mlp100,
}


def forward(model: keras.Model, batch: Any) -> None:
    keras.tree.map_structure(keras.ops.convert_to_numpy, model(batch, training=False))


def decide(model: keras.Model, batch: Any) -> None:
    from keras_autoinit import AutoInit

    AutoInit("data", seed=1).plan(model, batch)


def act(model: keras.Model, batch: Any) -> None:
    from keras_autoinit import AutoInit

    AutoInit("data", seed=1).apply(model, batch)


def peer(model: keras.Model, batch: Any) -> None:
    import anyinit

    anyinit.initialize(model, "empirical", batch)


ACTIONS = {"forward": forward, "plan": decide, "apply": act, "peer": peer}


def measure(name: str, action: str, repeats: int) -> None:
    """Prints the peak memory of one action, and its seconds and processor seconds beside a forward pass's.

    Memory is that of the first call in a process: what later ones find in pieces is the allocator's
    affair. The seconds are the least disturbed of calls that take turns with forward passes.
    """
    model, batch = MODELS[name]()
    first = seconds(ACTIONS[action], model, batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    turns = [(seconds(forward, model, batch), seconds(ACTIONS[action], model, batch)) for _ in range(repeats)]
    for each in zip(*turns) if turns else [[first]]:
        wall, cpu = map(min, zip(*each))
        print(wall, cpu)
    print(peak)


def seconds(action: Callable[..., None], model: keras.Model, batch: Any) -> tuple[float, float]:
    start = time.perf_counter(), time.process_time()
    action(model, batch)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def in_a_process(name: str, action: str, repeats: int) -> list[float]:
    """Returns what `measure` prints."""
    command = [sys.executable, __file__, "--measure", name, action, str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return [float(word) for word in done.stdout.split()]


def report(name: str, repeats: int, with_peer: bool) -> None:
    *_, memory_once = in_a_process(name, "forward", 0)
    for action in ("plan", "apply"):
        once, cpu_once, wall, cpu, memory = in_a_process(name, action, repeats)
        print(
            f"{name:13} {action:6} {wall:7.2f} s = {wall / once:5.2f} forward passes of {once:.2f} s "
            f"(wanted {PASSES}; {cpu / cpu_once:.2f} "
            f"in processor time), peak {memory:.0f} MiB = {memory / memory_once:.2f} x (wanted {MEMORY})",
            flush=True,
        )
    if with_peer and name in WITH_PEER:
        theirs, *_ = in_a_process(name, "peer", 0)
        print(f"{name:13} peer   {theirs:7.2f} s = {theirs / wall:.0f} x apply (wanted {PEER})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure[:2], int(options.measure[2]))
        return
    for name in options.models:
        report(name, options.repeats, not options.no_peer)


if __name__ == "__main__":
    main()
