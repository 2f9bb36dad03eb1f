"""A model as a graph: which layers stand where, and what meets what.

Beside `traces` the only package that reads Keras internals: the nodes that Functional models record, the layers
inside a layer, and the names of Keras's own operation classes.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from keras_autoinit.errors import ModelTypeError
from keras_autoinit.graphs.expansion import BATCH, Arguments, Reader, closed, functional_of, keep_whole, refs_in
from keras_autoinit.graphs.operations import ATTENTION, activation_of, adds, is_elementwise, passes
from keras_autoinit.graphs.places import is_unseen, layers_inside, shared_argument, walk
from keras_autoinit.graphs.records import Call, Graph, Opaque, Place, Ref, Spec, snake_case
from keras_autoinit.graphs.usage import with_uses
from keras_autoinit.traces import forget_nodes, untraced

__all__ = [
    "ATTENTION",
    "Call",
    "Graph",
    "Opaque",
    "Place",
    "Ref",
    "Spec",
    "activation_of",
    "adds",
    "is_elementwise",
    "is_unseen",
    "keep_whole",
    "layers_inside",
    "passes",
    "read",
    "shared_argument",
    "snake_case",
]


def read(model: Any, inputs: Any = None, runnable: bool = False) -> Graph:
    """Reads a model; changes nothing, but for building one that is not built and is given inputs.

    Args:
        model: any Keras model.
        inputs: what it is called on: an array, a tensor or a `keras.Input`, or a structure of
            these. Needed for a subclassed model that has never been called; shapes left open by
            any other are taken from it.
        runnable: whether the calls are to be computed with other weights than the model has.

    Raises:
        ModelTypeError: it is no Keras model.
    """
    if not isinstance(model, keras.Model):
        raise ModelTypeError(
            f"Expected a keras.Model (Functional, Sequential or a subclass). Received: {model!r} of type "
            f"{type(model).__name__}."
        )
    given = None if inputs is None else tree.map_structure(_symbol, inputs)
    if given is not None and not is_built(model):
        _build(model, given)
    places = tuple(walk(model))
    reader = Reader({id(place.layer): place.path for place in places}, runnable, _batch_of(given))
    with untraced([model, *(place.layer for place in places)]):
        symbols = _recorded_inputs(model) if given is None else ((given,), {})
        arguments = tree.map_structure(lambda symbol: reader.tensor(closed(symbol)), symbols)
        made = reader.expand(model, arguments or ((reader.tensor(),), {}))
    given_, made_ = (tuple(ref.number for ref in refs) for refs in (refs_in(arguments), made))
    calls, opaque = tuple(reader.calls), tuple(reader.opaque)
    losses = _losses(model)
    return with_uses(
        Graph(places, calls, given_, made_, reader.specs, reader.expanded, opaque, reader.constants, losses)
    )


def _losses(model: keras.Model) -> tuple[str, ...]:
    """Returns the names of what a model was compiled to minimize, however they were given: names, functions, losses."""
    given = [one for one in tree.flatten(getattr(model, "loss", None)) if one is not None]
    return tuple(one if isinstance(one, str) else getattr(one, "__name__", type(one).__name__) for one in given)


def _batch_of(given: Any) -> int:
    """Returns how many samples the inputs hold, or what stands in for that."""
    shapes = [tuple(symbol.shape) for symbol in tree.flatten(given) if symbol is not None]
    return shapes[0][0] or BATCH if shapes and shapes[0] else BATCH


def is_built(model: keras.Model) -> bool:
    """Whether every layer of a model has its weights."""
    return bool(model.built) and all(layer.built for layer in model._flatten_layers())


def _build(model: keras.Model, symbols: Any) -> None:
    """Builds a model by calling it once on symbols."""
    outputs = tree.flatten(model(symbols))
    forget_nodes([model._inbound_nodes[outputs[0]._keras_history.node_index]])


def _symbol(value: Any) -> Any:
    """Returns a symbolic tensor like an array, a tensor or another symbol."""
    shape = getattr(value, "shape", None)
    if shape is None:
        raise ModelTypeError(
            "Expected `inputs` to be an array, a tensor or a keras.Input, or a structure of these. "
            f"Received: {value!r}."
        )
    dtype = keras.backend.standardize_dtype(getattr(value, "dtype", None))
    return keras.KerasTensor(tuple(shape), dtype=dtype)


def _recorded_inputs(model: keras.Model) -> Arguments | tuple[()]:
    """Returns the arguments that a model was built for, with symbols; empty where they are not known."""
    functional = functional_of(model)
    if functional is not None:
        return (functional._inputs_struct,), {}
    config = model.get_build_config() or {}
    if not model.built:
        return ()
    if "shapes_dict" in config:
        return (), {name.removesuffix("_shape"): _symbols_of(shape) for name, shape in config["shapes_dict"].items()}
    return ((_symbols_of(config["input_shape"]),), {}) if "input_shape" in config else ()


def _symbols_of(shapes: Any) -> Any:
    """Returns symbols for a structure of shapes, as Keras keeps it."""
    if isinstance(shapes, dict):
        return {name: _symbols_of(shape) for name, shape in shapes.items()}
    if shapes and isinstance(shapes[0], (list, tuple)):
        return [_symbols_of(shape) for shape in shapes]
    return keras.KerasTensor(tuple(shapes), dtype="float32")
