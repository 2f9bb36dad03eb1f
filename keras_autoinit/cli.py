"""The command line: `keras-autoinit`, or `python -m keras_autoinit`.

Exit codes: 0 done; 1 refused (the model looks trained, the target exists, an option does not fit
the model), or not healthy (`diagnose`); 2 bad usage, or a file that cannot be read. Errors are one
line on standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_autoinit import (
    ActivationError,
    AutoInit,
    AutoInitError,
    DataError,
    Plan,
    PlanError,
    Report,
    __version__,
    activation,
    diagnose,
)
from keras_autoinit.demo import run_demo
from keras_autoinit.rendering import (
    RECOMMENDATION_COLUMNS,
    SCHEME_COLUMNS,
    recommendation_rows,
    scheme_rows,
    show,
    show_plan,
    show_report,
)

DONE, REFUSED, UNUSABLE = 0, 1, 2


class UnusableError(Exception):
    """A file cannot be read, or an argument makes no sense."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or DONE)
    except UnusableError as error:
        return _fail(error, UNUSABLE)
    except (AutoInitError, FileExistsError) as error:
        return _fail(error, REFUSED)
    except BrokenPipeError:
        # The reader, `head` say, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _fail(error: Exception, code: int) -> int:
    print(f"keras-autoinit: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="keras-autoinit", description="Gives every weight the right start.")
    parser.add_argument("--version", action="version", version=f"keras-autoinit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    plan = commands.add_parser("plan", help="say what each weight of a saved model should be drawn from")
    plan.add_argument("file", type=Path, metavar="FILE.keras")
    plan.add_argument("--json", action="store_true", help="print JSON, which `apply --plan` takes")
    plan.add_argument("--seed", type=int, help="an integer that names the draw")
    _add_method(plan)
    plan.set_defaults(run=_plan)

    apply = commands.add_parser("apply", help="write a copy of a saved model with fresh weights")
    apply.add_argument("file", type=Path, metavar="FILE.keras")
    apply.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.keras", help="where to write it")
    draw = apply.add_mutually_exclusive_group()
    draw.add_argument("--seed", type=int, help="an integer that names the draw")
    draw.add_argument("--plan", type=Path, metavar="PLAN.json", help="carry out this plan, with the seed that it names")
    _add_method(apply)
    apply.add_argument("--portable", action="store_true", help="store stock Keras initializers in the file")
    apply.add_argument("--overwrite", action="store_true", help="go ahead on a model that looks trained")
    apply.add_argument("--replace", action="store_true", help="replace OUT.keras where it exists")
    apply.set_defaults(run=_apply)

    look = commands.add_parser("diagnose", help="say what is wrong with a saved model's signals and gradients")
    look.add_argument("file", type=Path, metavar="FILE.keras")
    look.add_argument(
        "--data", type=Path, metavar="X.npz", help="samples, as `x` (or the only array), and labels, as `y`"
    )
    look.add_argument("--html", type=Path, metavar="OUT.html", help="write the report as a page")
    look.add_argument("--replace", action="store_true", help="replace OUT.html where it exists")
    look.add_argument("--json", action="store_true", help="print JSON")
    look.add_argument(
        "--fail-on",
        choices=("error", "warning", "never"),
        default="warning",
        help="the least severity at which the exit code is 1 (default: warning)",
    )
    look.set_defaults(run=_diagnose)

    schemes = commands.add_parser("schemes", help="list the schemes and their aliases")
    schemes.set_defaults(run=lambda options: show(SCHEME_COLUMNS, scheme_rows()))
    table = commands.add_parser("table", help="show the recommendation table")
    table.set_defaults(run=lambda options: show(RECOMMENDATION_COLUMNS, recommendation_rows()))
    gain = commands.add_parser("gain", help="compute an activation's gain")
    gain.add_argument("activation", metavar="ACTIVATION", help="a name, such as gelu")
    gain.set_defaults(run=_gain)
    demo = commands.add_parser("demo", help="train a deep network on digits from three starts")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--picture", type=Path, default=Path("keras_autoinit_demo.png"), metavar="FILE.png")
    demo.set_defaults(run=_demo)
    return parser


def _demo(options: argparse.Namespace) -> None:
    run_demo(options.seed, options.picture)


def _add_method(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--method", choices=("data", "table", "theory"), help="how to decide; by the table if not given"
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="X.npz",
        help="samples for the method `data`: one array, or one for each input under its name",
    )


def _plan(options: argparse.Namespace) -> None:
    model = _load(options.file)
    plan = AutoInit(options.method or "table", seed=options.seed).plan(model, _samples(options, model))
    print(plan.to_json()) if options.json else show_plan(plan)


def _apply(options: argparse.Namespace) -> None:
    if options.output.suffix != ".keras":
        raise UnusableError(f"Expected a target that ends in .keras. Received: {options.output}.")
    if options.output.exists() and not options.replace:
        raise FileExistsError(f"{options.output} exists. Pass --replace to replace it.")
    if options.plan and options.method:
        raise UnusableError("Expected --plan or --method. Received both: a plan is a decision already.")
    given = _read_plan(options.plan) if options.plan else None
    model = _load(options.file)
    method = options.method or "table"
    start = AutoInit(method, seed=options.seed, overwrite=options.overwrite, portable=options.portable)
    plan = start.apply(model, _samples(options, model), plan=given)
    _save(model, options.output)
    print(f"{options.output}: {plan.summary()}")


def _diagnose(options: argparse.Namespace) -> int:
    if options.html and options.html.exists() and not options.replace:
        raise FileExistsError(f"{options.html} exists. Pass --replace to replace it.")
    model, (x, y) = _load(options.file), _read_samples(options.data)
    try:
        report = diagnose(model, x, y)
    except DataError as error:
        raise UnusableError(error) from error
    if options.html:
        try:
            report.save_html(options.html, overwrite=options.replace)
        except OSError as error:
            raise UnusableError(f"Cannot write {options.html}: {error}") from error
    print(report.to_json()) if options.json else show_report(report)
    return REFUSED if _fails(report, options.fail_on) else DONE


def _fails(report: Report, least: str) -> bool:
    failing = {"error": ("error",), "warning": ("error", "warning"), "never": ()}[least]
    return report.worst in failing


def _read_samples(path: Path | None) -> tuple[Any, Any]:
    """Returns samples and labels: `x` and `y` of an archive; of one with other names, a dictionary of inputs."""
    if path is None:
        return None, None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise UnusableError(f"Cannot read {path} as arrays saved by numpy.savez: {error}") from error
    labels = arrays.pop("y", None)
    if not arrays:
        raise UnusableError(f"Expected {path} to hold samples, as `x`. It holds none.")
    return (next(iter(arrays.values())) if len(arrays) == 1 else arrays), labels


def _gain(options: argparse.Namespace) -> None:
    try:
        met = activation(options.activation)
        print(f"{met}: gain {met.gain:.7g}, chi {met.chi:.7g}")
    except ActivationError as error:
        raise UnusableError(error) from error


def _load(path: Path) -> keras.Model:
    """Loads a model, in Keras's safe mode."""
    try:
        model: Any = keras.saving.load_model(path)
    except Exception as error:
        raise UnusableError(f"Cannot read {path} as a saved Keras model: {error}") from error
    return model


def _samples(options: argparse.Namespace, model: keras.Model) -> Any:
    """Returns the arrays of a file in the structure that a model takes, or `None` where none are wanted."""
    if (options.method == "data") != (options.data is not None):
        raise UnusableError("Expected --data X.npz with --method data, and only with it.")
    if options.data is None:
        return None
    arrays = _arrays(options.data)
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    # A subclassed model does not say what its inputs are called.
    names = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
    if not set(names) <= set(arrays):
        raise UnusableError(
            f"Expected {options.data} to hold one array, or one for each input of the model under its name: "
            f"{', '.join(names)}. Received: {', '.join(arrays)}."
        )
    return {name: array for name, array in arrays.items() if not names or name in names}


def _arrays(path: Path) -> dict[str, Any]:
    try:
        held = np.load(path)
        return {"x": held} if isinstance(held, np.ndarray) else dict(held)
    except (OSError, ValueError) as error:
        raise UnusableError(f"Cannot read {path} as arrays of NumPy: {error}") from error


def _read_plan(path: Path) -> Plan:
    try:
        return Plan.from_json(path.read_text())
    except (OSError, PlanError) as error:
        raise UnusableError(f"Cannot read {path} as a plan: {error}") from error


def _save(model: keras.Model, path: Path) -> None:
    """Writes a model beside the target and renames it, so that no half-written file is left."""
    try:
        with tempfile.TemporaryDirectory(prefix=".keras-autoinit-", dir=path.parent) as folder:
            written = Path(folder) / path.name
            model.save(written)
            written.replace(path)
    except OSError as error:
        raise UnusableError(f"Cannot write {path}: {error}") from error
