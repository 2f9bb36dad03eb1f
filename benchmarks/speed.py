"""How long deciding, drawing and importing take, beside Keras's own draws and the nearest peer.

Run it on one backend at a time, on a machine that does nothing else:

    KERAS_BACKEND=tensorflow python benchmarks/speed.py
    KERAS_BACKEND=jax python benchmarks/speed.py --models resnet50 --repeats 9
    KERAS_BACKEND=torch python benchmarks/speed.py --no-peer

It needs `rich`, for BERT `keras_hub`, and for the peer `anyinit`.

Wanted: plan under 0.3 s for ResNet50; apply at most 1.2 times the bare draw of the same
distribution on TensorFlow, at most half on torch, first apply on JAX at least 10 times faster than
Keras's first draw; 0.75 GB/s normal, 0.5 truncated; import under 0.1 s. Of the plan by theory for
ResNet50: under 0.5 s, at most a tenth of the peer's analytic method given an input shape, and at most
half of it without. Each such number is printed with what is wanted of it and whether it holds.

"Bare draw" calls one Keras initializer once for every kernel (trainable weight of rank two or more)
and throws the values away: no deciding, no assigning. `HeNormal` draws from the distribution that
`AutoInit` mostly draws from, a truncated normal; `GlorotUniform` is Keras's default, and far
cheaper. A first call includes what the backend compiles: on JAX whatever building the model has
compiled is forgotten before it.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_autoinit import AutoInit, draws

BACKEND = keras.config.backend()

# Wanted, from the docstring.
PLAN_SECONDS = {"table": 0.3, "theory": 0.5}
THEORY_TO_PEER = {"no input": 0.5, "with input": 0.1}
APPLY_TO_DRAW = {"tensorflow": 1.2, "torch": 0.5}
FIRST_DRAW_TO_APPLY = {"jax": 10.0}
THROUGHPUT = {"normal": 0.75, "truncated normal": 0.5}
IMPORT_SECONDS = 0.1

# 128 MiB of float32: far beyond any cache.
ELEMENTS = 1 << 25
IMPORTS = 5
IMPORT_CODE = """
import time
import keras
start = time.perf_counter()
import keras_autoinit
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Line:
    """One number of the report, what is wanted of it, and whether that holds."""

    what: str
    value: str
    wanted: str = ""
    holds: bool | None = None


# --- Models ---


def build_resnet50() -> keras.Model:
    return keras.applications.ResNet50(weights=None)


def build_bert() -> keras.Model:
    import keras_hub

    return keras_hub.models.BertBackbone(
        vocabulary_size=30522, num_layers=12, num_heads=12, hidden_dim=768, intermediate_dim=3072
    )


def load(name: str) -> None:
    """Imports what building needs, so that building is timed without it."""
    if name == "bert":
        import keras_hub  # noqa: F401


def bert_batch() -> dict[str, np.ndarray]:
    names = ("token_ids", "segment_ids", "padding_mask")
    return {name: np.ones((2, 16), "int32") for name in names}


# How to build each model, and what the peer takes as its input.
MODELS: dict[str, tuple[Callable[[], keras.Model], Callable[[], Any]]] = {
    "resnet50": (build_resnet50, lambda: (2, 224, 224, 3)),
    "bert": (build_bert, bert_batch),
}


def kernels_of(model: keras.Model) -> list[keras.Variable]:
    return [weight for weight in model.trainable_weights if len(weight.shape) >= 2]


# --- Timing ---


def settle(values: Iterable[Any]) -> None:
    """Waits for values that JAX may still be computing; the other backends return when done."""
    if BACKEND == "jax":
        import jax

        jax.block_until_ready(list(values))


def seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def forget() -> None:
    """Empties JAX's caches, so that a first call compiles what it needs; the other backends compile nothing."""
    if BACKEND == "jax":
        import jax

        jax.clear_caches()


def first_and_median(action: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Returns the seconds of the first call and the median of the later ones."""
    forget()
    first = seconds(action)
    return first, statistics.median(seconds(action) for _ in range(max(repeats, 1)))


def draw_all(kernels: list[keras.Variable], kind: type) -> None:
    """Calls a fresh Keras initializer for every kernel."""
    settle([kind(seed=index)(tuple(kernel.shape), kernel.dtype) for index, kernel in enumerate(kernels)])


def plan(model: keras.Model, method: str) -> None:
    AutoInit(method, seed=1).plan(model)


def apply(model: keras.Model) -> None:
    AutoInit(seed=1).apply(model)
    settle(variable.value for variable in model.variables)


# --- One model ---


def model_lines(name: str, repeats: int, peer: bool) -> list[Line]:
    build, batch = MODELS[name]
    load(name)
    start = time.perf_counter()
    model = build()
    settle(variable.value for variable in model.variables)
    built = time.perf_counter() - start
    kernels = kernels_of(model)
    count = sum(int(np.prod(kernel.shape)) for kernel in kernels)
    lines = [Line("kernels", f"{len(kernels)} of {count / 1e6:.1f} million weights"), duration("build", built)]
    uniform = first_and_median(lambda: draw_all(kernels, keras.initializers.GlorotUniform), repeats)
    normal = first_and_median(lambda: draw_all(kernels, keras.initializers.HeNormal), repeats)
    lines += pair("Keras draws, GlorotUniform", uniform) + pair("Keras draws, HeNormal", normal)
    planned = {method: first_and_median(lambda m=method: plan(model, m), repeats) for method in PLAN_SECONDS}
    lines += [line for method, times in planned.items() for line in plan_lines(name, method, times)]
    lines += apply_lines(first_and_median(lambda: apply(model), repeats), normal, uniform)
    return lines + (peer_lines(name, model, batch(), planned["theory"][1]) if peer else [])


def plan_lines(name: str, method: str, times: tuple[float, float]) -> list[Line]:
    """Returns the seconds of planning; of theory's first plan most is the integrals, done once a process."""
    first, median = times
    limit = PLAN_SECONDS[method] if name == "resnet50" else None
    first_limit = None if method == "theory" else limit
    what = f"AutoInit.plan by {method}"
    return [below(f"{what}, first", first, first_limit), below(f"{what}, median", median, limit)]


def apply_lines(applied: tuple[float, float], normal: tuple[float, float], uniform: tuple[float, float]) -> list[Line]:
    """Returns apply's seconds, and their ratios to the bare draws."""
    lines = pair("AutoInit.apply", applied)
    lines.append(ratio("apply / HeNormal draw, median", applied[1] / normal[1], at_most=APPLY_TO_DRAW.get(BACKEND)))
    lines.append(ratio("apply / GlorotUniform draw, median", applied[1] / uniform[1]))
    lines.append(ratio("HeNormal draw / apply, first", normal[0] / applied[0], FIRST_DRAW_TO_APPLY.get(BACKEND)))
    return lines


def peer_lines(name: str, model: keras.Model, batch: Any, theory: float) -> list[Line]:
    """Returns the seconds of one call of the peer each without and with an input, last of all: it redraws."""
    try:
        import anyinit
    except ImportError:
        return [Line("anyinit", "not installed")]
    lines = []
    for what, given in (("no input", ()), ("with input", (batch,))):
        called = f"anyinit analytic, {what}, once"
        try:
            taken = seconds(lambda given=given: anyinit.initialize(model, "analytic", *given, seed=1))
        except Exception as error:
            lines.append(Line(called, f"raises {type(error).__name__}"))
            continue
        bound = THEORY_TO_PEER[what] if name == "resnet50" else None
        lines += [duration(called, taken), ratio(f"plan by theory / anyinit, {what}", theory / taken, at_most=bound)]
    return lines


# --- Lines ---


def duration(what: str, value: float) -> Line:
    return Line(what, f"{value:.3f} s")


def pair(what: str, values: tuple[float, float]) -> list[Line]:
    first, median = values
    return [duration(f"{what}, first", first), duration(f"{what}, median", median)]


def below(what: str, value: float, limit: float | None) -> Line:
    """Returns seconds of which there may be a limit."""
    if limit is None:
        return duration(what, value)
    return Line(what, f"{value:.3f} s", f"under {limit:g} s", value < limit)


def ratio(what: str, value: float, at_least: float | None = None, at_most: float | None = None) -> Line:
    """Returns a ratio of which there may be a bound."""
    if at_most is not None:
        return Line(what, f"{value:.2f}", f"at most {at_most:g}", value <= at_most)
    if at_least is not None:
        return Line(what, f"{value:.2f}", f"at least {at_least:g}", value >= at_least)
    return Line(what, f"{value:.2f}")


# --- Draws and import ---


def throughput(draw: Callable[[], Any], repeats: int) -> float:
    """Returns gigabytes of float32 a second, at best: whatever else a machine does only takes away from it."""
    draw()
    return 4e-9 * ELEMENTS / min(seconds(draw) for _ in range(repeats))


def draw_lines(repeats: int) -> list[Line]:
    shape, threads = (ELEMENTS,), draws.available_threads()
    kinds = {
        "normal": (draws.normal, keras.random.normal),
        "truncated normal": (draws.truncated_normal, keras.random.truncated_normal),
        "uniform": (draws.uniform, keras.random.uniform),
    }
    lines = []
    for name, (ours, theirs) in kinds.items():
        one = throughput(lambda ours=ours: ours(shape, 1, threads=1), repeats)
        every = throughput(lambda ours=ours: ours(shape, 1), repeats)
        keras_own = throughput(lambda theirs=theirs: settle([theirs(shape, dtype="float32", seed=1)]), repeats)
        lines += throughput_lines(name, one, every, keras_own, threads)
    return lines


def throughput_lines(name: str, one: float, every: float, keras_own: float, threads: int) -> list[Line]:
    wanted = THROUGHPUT.get(name)
    bound = ("", None) if wanted is None else (f"at least {wanted:g} GB/s", every >= wanted)
    return [
        Line(f"{name}, 1 thread", f"{one:.2f} GB/s"),
        Line(f"{name}, {threads} threads", f"{every:.2f} GB/s", *bound),
        Line(f"{name}, Keras", f"{keras_own:.2f} GB/s"),
    ]


def import_line() -> Line:
    """Returns the median seconds of importing the package after Keras, in processes of their own.

    Its byte code is on disk, as pip leaves it there.
    """
    with tempfile.TemporaryDirectory() as folder:
        there = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        there["PYTHONPYCACHEPREFIX"] = folder
        run = functools.partial(subprocess.run, check=True, capture_output=True, text=True, env=there)
        _, *times = [float(run([sys.executable, "-c", IMPORT_CODE]).stdout) for _ in range(IMPORTS + 1)]
    return below("import, beyond Keras, median", statistics.median(times), IMPORT_SECONDS)


# --- The report ---


def show(console: Console, title: str, lines: list[Line]) -> None:
    table = Table(title=f"{title} ({BACKEND})", title_justify="left")
    for heading, side in (("what", "left"), ("measured", "right"), ("wanted", "left"), ("holds", "left")):
        table.add_column(heading, justify=side, no_wrap=True)
    for line in lines:
        verdict = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[line.holds]
        table.add_row(line.what, line.value, line.wanted, verdict)
    console.print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="calls after the first, of which the median is taken")
    parser.add_argument("--models", nargs="*", choices=sorted(MODELS), default=["resnet50", "bert"])
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="leave anyinit out")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    console = Console(width=100)
    for name in options.models:
        show(console, name, model_lines(name, options.repeats, options.peer))
        keras.utils.clear_session()
    show(console, "draws and import", [*draw_lines(options.repeats), import_line()])


if __name__ == "__main__":
    main()
