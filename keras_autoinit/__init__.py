"""keras_autoinit: gives every weight of any Keras model the right start."""

from keras_autoinit import schemes
from keras_autoinit.activations import Activation, activation
from keras_autoinit.autoinit import AutoInit
from keras_autoinit.by_table import Table
from keras_autoinit.errors import (
    ActivationError,
    AutoInitError,
    MissingExtraError,
    ModelTypeError,
    PlanError,
    SchemeError,
    SelectionError,
    TrainedModelError,
    TrainedModelWarning,
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
    "Recipe",
    "SchemeError",
    "SelectionError",
    "Slot",
    "Sparse",
    "Table",
    "TrainedModelError",
    "TrainedModelWarning",
    "TruncatedNormal",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "__version__",
    "activation",
    "register_slots",
    "schemes",
]
