"""keras_autoinit: gives every weight of any Keras model the right start."""

import importlib
from typing import TYPE_CHECKING, Any

from keras_autoinit import schemes
from keras_autoinit.activations import Activation, activation
from keras_autoinit.autoinit import AutoInit
from keras_autoinit.by_table import Table
from keras_autoinit.errors import (
    ActivationError,
    AutoInitError,
    DataError,
    MissingExtraError,
    ModelTypeError,
    PlanError,
    RebuildError,
    ReportError,
    SchemeError,
    SelectionError,
    TrainedModelError,
    TrainedModelWarning,
    UnhealthyModelError,
)
from keras_autoinit.fans import Axes
from keras_autoinit.moments import Moments
from keras_autoinit.plans import Decision, Plan
from keras_autoinit.recipes import Recipe
from keras_autoinit.schemes import (
    ICNR,
    Constant,
    DeltaOrthogonal,
    Dirac,
    HeNormal,
    HeUniform,
    Identity,
    LecunNormal,
    LecunUniform,
    Mimetic,
    Mirrored,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    Sinusoids,
    Sparse,
    TruncatedNormal,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    Zeros,
)
from keras_autoinit.slots import Slot, register_slots

if TYPE_CHECKING:
    from keras_autoinit.by_data import Data
    from keras_autoinit.by_theory import Theory
    from keras_autoinit.comparing import compare_reports
    from keras_autoinit.diagnosis import diagnose
    from keras_autoinit.findings import Finding
    from keras_autoinit.monitoring import SignalMonitor
    from keras_autoinit.readings import Reading, Signals
    from keras_autoinit.reinitialization import reinitialize
    from keras_autoinit.reports import Report
    from keras_autoinit.rules import register_rule
    from keras_autoinit.samples import peek
    from keras_autoinit.signals import Signal

__version__ = "0.1.0"

__all__ = [
    "ICNR",
    "Activation",
    "ActivationError",
    "AutoInit",
    "AutoInitError",
    "Axes",
    "Constant",
    "Data",
    "DataError",
    "Decision",
    "DeltaOrthogonal",
    "Dirac",
    "Finding",
    "HeNormal",
    "HeUniform",
    "Identity",
    "LecunNormal",
    "LecunUniform",
    "Mimetic",
    "Mirrored",
    "MissingExtraError",
    "ModelTypeError",
    "Moments",
    "Ones",
    "Orthogonal",
    "Plan",
    "PlanError",
    "RandomNormal",
    "RandomUniform",
    "Reading",
    "RebuildError",
    "Recipe",
    "Report",
    "ReportError",
    "SchemeError",
    "SelectionError",
    "Signal",
    "SignalMonitor",
    "Signals",
    "Sinusoids",
    "Slot",
    "Sparse",
    "Table",
    "Theory",
    "TrainedModelError",
    "TrainedModelWarning",
    "TruncatedNormal",
    "UnhealthyModelError",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "__version__",
    "activation",
    "compare_reports",
    "diagnose",
    "peek",
    "register_rule",
    "register_slots",
    "reinitialize",
    "schemes",
]

# Loaded when first asked for: a program that only names schemes has nothing else to wait for.
_LAZY = {
    "Data": "by_data",
    "Finding": "findings",
    "Reading": "readings",
    "Report": "reports",
    "Signal": "signals",
    "SignalMonitor": "monitoring",
    "Signals": "readings",
    "Theory": "by_theory",
    "compare_reports": "comparing",
    "diagnose": "diagnosis",
    "peek": "samples",
    "register_rule": "rules",
    "reinitialize": "reinitialization",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
