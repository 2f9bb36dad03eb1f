"""Models that people use, small: every `keras.applications` model, and Keras Hub backbones built from configuration.

Sizes are just large enough to build, weights are random and nothing is downloaded. Keras Hub is an extra: without it
the zoo is the applications alone.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect

import keras
from hub_zoo import BACKBONES
from specimens import Specimen

# The smallest picture that a model takes; 32 pixels a side where it is not named.
SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}


def _application(name: str) -> Specimen:
    size = SMALLEST.get(name, 32)
    build = functools.partial(getattr(keras.applications, name), weights=None, input_shape=(size, size, 3), classes=10)
    return Specimen(name, "image", build)


APPLICATIONS = [
    _application(name) for name, made in sorted(vars(keras.applications).items()) if inspect.isfunction(made)
]

HUB = BACKBONES if importlib.util.find_spec("keras_hub") else []
ZOO = {specimen.name: specimen for specimen in [*APPLICATIONS, *HUB]}
