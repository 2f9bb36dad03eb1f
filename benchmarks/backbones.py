"""The Keras Hub backbones of the tests' zoo, eight times as wide and twice as deep: for a law of large numbers.

They are built small, and built again from their own configuration with its sizes multiplied.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hub_zoo import BACKBONES

WIDER, DEEPER = 8, 2
# Sizes from so many units on are multiplied, up to where a layer is wide enough: below stand counts and colours.
NARROW = range(4, 64)
WIDTHS = re.compile(
    r"((hidden|intermediate|embed|embedding|ffn|mlp|projection|vision|head|filter)_(dims?|sizes?)|filters|lora|growth_rate"
    r"|channels|stem_size|stackwise_expansion|last_layer_filter|cross_attention_hidden_size|output_shape)$"
)
# What a model is given, and what an embedding is cut into, are no widths.
GIVEN = {"input_channels", "output_channels", "num_output_channels"}
DEPTHS = re.compile(r"(^|_)(num_layers|layer_types|num_layers_enc|num_layers_dec|rope_layer_enabled_list)$")
SPECIMENS = {one.name: one for one in BACKBONES}
# Of few words each occurs in most samples.
WORDS = 40


def backbone(name: str) -> keras.Model:
    """Returns a model, wide and deep."""
    keras.utils.set_random_seed(0)
    small = SPECIMENS[name].build()
    return type(small).from_config(enlarged(small.get_config()))


def enlarged(config: Any) -> Any:
    """Returns a configuration, and those that stand in it, with the numbers multiplied that are widths and depths."""
    if not isinstance(config, dict):
        return config
    # Where each stage has a depth of its own, the number of layers is that of stages.
    staged = "layerwise_depths" in config
    return {name: value if staged and name == "num_layers" else _larger(name, value) for name, value in config.items()}


def _larger(name: str, value: Any) -> Any:
    if name == "build_config":
        # Of a layer that stands in a configuration with the shape it was built for.
        return {key: _wider(one) for key, one in value.items()}
    if isinstance(value, dict):
        return enlarged(value)
    if DEPTHS.search(name):
        return value * DEEPER
    return _wider(value) if WIDTHS.search(name) and name not in GIVEN else value


def _wider(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_wider, value))
    return value * WIDER if isinstance(value, int) and value in NARROW else value


def inputs_for(name: str, model: keras.Model, number: int, source: np.random.Generator) -> Any:
    """Returns a batch of so many samples: words, of which the last one ends the text, numbers, and masks of ones."""
    specimen = SPECIMENS[name]

    def sample(tensor: Any) -> np.ndarray:
        shape = (
            number,
            *specimen.shapes.get(tensor.name, (2, *(size or specimen.length for size in tensor.shape[1:])))[1:],
        )
        if "mask" in tensor.name or tensor.dtype == "bool":
            return np.ones(shape, tensor.dtype)
        if "token" in tensor.name:
            words = source.integers(3, WORDS - 1, shape)
            words[..., -1] = 2 if name == "MetaCLIP2Backbone" else WORDS - 1
            return words.astype(tensor.dtype)
        if "int" in tensor.dtype:
            return source.integers(0, 2, shape).astype(tensor.dtype)
        return source.normal(size=shape).astype(tensor.dtype)

    return keras.tree.map_structure(sample, model.input)
