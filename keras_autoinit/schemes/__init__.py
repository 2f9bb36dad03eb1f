"""Schemes: `keras.initializers` subclasses, registered as `autoinit>name`, one family a file."""

from keras_autoinit.schemes.base import REGISTRY, AxesScheme, Scheme, make, seed_key, unseeded, with_axes
from keras_autoinit.schemes.constants import Constant, Ones, Zeros
from keras_autoinit.schemes.identities import Dirac, Identity
from keras_autoinit.schemes.mimetic import Mimetic
from keras_autoinit.schemes.orthogonal import DeltaOrthogonal, Orthogonal
from keras_autoinit.schemes.positions import Sinusoids
from keras_autoinit.schemes.random import RandomNormal, RandomUniform, TruncatedNormal
from keras_autoinit.schemes.scaled import (
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
)
from keras_autoinit.schemes.sparse import Sparse
from keras_autoinit.schemes.structured import ICNR, Mirrored, can_be_base

__all__ = [
    "ICNR",
    "REGISTRY",
    "AxesScheme",
    "Constant",
    "DeltaOrthogonal",
    "Dirac",
    "HeNormal",
    "HeUniform",
    "Identity",
    "LecunNormal",
    "LecunUniform",
    "Mimetic",
    "Mirrored",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "Scheme",
    "Sinusoids",
    "Sparse",
    "TruncatedNormal",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "can_be_base",
    "make",
    "seed_key",
    "unseeded",
    "with_axes",
]
