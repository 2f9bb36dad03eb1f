"""keras_autoinit: gives every weight of any Keras model the right start."""

from keras_autoinit import schemes
from keras_autoinit.activations import Activation, activation
from keras_autoinit.autoinit import AutoInit
from keras_autoinit.by_data import Data
from keras_autoinit.by_table import Table
from keras_autoinit.by_theory import Theory
from keras_autoinit.errors import (
    ActivationError,
    AutoInitError,
    DataError,
    MissingExtraError,
    ModelTypeError,
    PlanError,
    RebuildError,
    SchemeError,
    SelectionError,
    TrainedModelError,
    TrainedModelWarning,
)
from keras_autoinit.fans import Axes
from keras_autoinit.moments import Moments
from keras_autoinit.plans import Decision, Plan
from keras_autoinit.recipes import Recipe
from keras_autoinit.reinitialization import reinitialize
from keras_autoinit.rules import register_rule
from keras_autoinit.samples import peek
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
    Mirrored,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    Sparse,
    TruncatedNormal,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    Zeros,
)
from keras_autoinit.signals import Signal
from keras_autoinit.slots import Slot, register_slots

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
    "HeNormal",
    "HeUniform",
    "Identity",
    "LecunNormal",
    "LecunUniform",
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
    "RebuildError",
    "Recipe",
    "SchemeError",
    "SelectionError",
    "Signal",
    "Slot",
    "Sparse",
    "Table",
    "Theory",
    "TrainedModelError",
    "TrainedModelWarning",
    "TruncatedNormal",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "__version__",
    "activation",
    "peek",
    "register_rule",
    "register_slots",
    "reinitialize",
    "schemes",
]
