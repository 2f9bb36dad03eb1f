"""The command line: `keras-autoinit`, or `python -m keras_autoinit`.

Exit codes: 0 done; 1 refused (the model looks trained, the target exists, an option does not fit
the model); 2 bad usage, or a file that cannot be read. Errors are one line on standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_autoinit import ActivationError, AutoInit, AutoInitError, Plan, PlanError, __version__, activation
from keras_autoinit.demo import run_demo
from keras_autoinit.rendering import (
    RECOMMENDATION_COLUMNS,
    SCHEME_COLUMNS,
    recommendation_rows,
    scheme_rows,
    show,
    show_plan,
)

DONE, REFUSED, UNUSABLE = 0, 1, 2


class UnusableError(Exception):
    """A file cannot be read, or an argument makes no sense."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
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
    plan.set_defaults(run=_plan)

    apply = commands.add_parser("apply", help="write a copy of a saved model with fresh weights")
    apply.add_argument("file", type=Path, metavar="FILE.keras")
    apply.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.keras", help="where to write it")
    draw = apply.add_mutually_exclusive_group()
    draw.add_argument("--seed", type=int, help="an integer that names the draw")
    draw.add_argument("--plan", type=Path, metavar="PLAN.json", help="carry out this plan, with the seed that it names")
    apply.add_argument("--portable", action="store_true", help="store stock Keras initializers in the file")
    apply.add_argument("--overwrite", action="store_true", help="go ahead on a model that looks trained")
    apply.add_argument("--replace", action="store_true", help="replace OUT.keras where it exists")
    apply.set_defaults(run=_apply)

    schemes = commands.add_parser("schemes", help="list the schemes and their aliases")
    schemes.set_defaults(run=lambda options: show(SCHEME_COLUMNS, scheme_rows()))
    table = commands.add_parser("table", help="show the recommendation table")
    table.set_defaults(run=lambda options: show(RECOMMENDATION_COLUMNS, recommendation_rows()))
    gain = commands.add_parser("gain", help="compute an activation's gain")
    gain.add_argument("activation", metavar="ACTIVATION", help="a name, such as gelu")
    gain.set_defaults(run=_gain)
    demo = commands.add_parser("demo", help="train a deep network on digits from two starts")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--picture", type=Path, default=Path("keras_autoinit_demo.png"), metavar="FILE.png")
    demo.set_defaults(run=lambda options: run_demo(options.seed, options.picture))
    return parser


def _plan(options: argparse.Namespace) -> None:
    plan = AutoInit(seed=options.seed).plan(_load(options.file))
    print(plan.to_json()) if options.json else show_plan(plan)


def _apply(options: argparse.Namespace) -> None:
    if options.output.suffix != ".keras":
        raise UnusableError(f"Expected a target that ends in .keras. Received: {options.output}.")
    if options.output.exists() and not options.replace:
        raise FileExistsError(f"{options.output} exists. Pass --replace to replace it.")
    given = _read_plan(options.plan) if options.plan else None
    model = _load(options.file)
    start = AutoInit(seed=options.seed, overwrite=options.overwrite, portable=options.portable)
    plan = start.apply(model, plan=given)
    _save(model, options.output)
    print(f"{options.output}: {plan.summary()}")


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
