"""Which activation something is: a name, a callable or a layer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_autoinit.elementwise import Activation as Activation
from keras_autoinit.elementwise import Parameters, parameters_of
from keras_autoinit.errors import ActivationError
from keras_autoinit.functions import ALIASES, FUNCTIONS
from keras_autoinit.moments import DOUBLE, SINGLE
from keras_autoinit.traces import operation_of


def activation(identifier: Any) -> Activation:
    """Finds out which activation something is.

    When to use: to ask for the gain of an activation, by hand or in a scheme.

    Args:
        identifier: a name (`"gelu"`), `None` (linear), a function of `keras.activations`, an
            activation layer, a `functools.partial` of a function with keyword arguments, or any
            elementwise callable: where it applies one operation of Keras, that one; otherwise it is
            measured on the current backend.

    Returns:
        An `Activation`.

    Raises:
        ActivationError: a name that nobody registered, or something that cannot be called.

    Example:
        >>> round(activation("gelu").gain, 4)
        1.5335
    """
    if isinstance(identifier, Activation):
        return identifier
    if identifier is None:
        return known("linear", {})
    if isinstance(identifier, str):
        return _named(identifier)
    if isinstance(identifier, keras.Layer):
        return _layer(identifier)
    if isinstance(identifier, functools.partial) and not identifier.args:
        name = getattr(identifier.func, "__name__", "")
        if is_keras_function(identifier.func):
            return known(name, {**_defaults(identifier.func), **identifier.keywords})
    if is_keras_function(identifier):
        # With its own defaults: `keras.ops.gelu` approximates, `keras.activations.gelu` does not.
        return known(identifier.__name__, _defaults(identifier))
    if callable(identifier):
        # Measuring would compile on JAX.
        return operation_activation(operation_of(identifier)) or measured(identifier)
    raise ActivationError(
        f"Expected an activation: a name, a callable, an activation layer or None. Received: {identifier!r}."
    )


def is_activation_layer(layer: Any) -> bool:
    """Whether a layer is one of Keras's activation layers, or a subclass of one."""
    return isinstance(layer, _LAYERS)


def is_keras_function(function: Any) -> bool:
    """Whether a callable is an activation that `keras.activations` or `keras.ops` exports."""
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or ALIASES.get(name, name) not in FUNCTIONS:
        return False
    return function in (getattr(keras.activations, name, None), getattr(keras.ops, name, None))


def is_own(operation: Any) -> bool:
    """Whether an operation is one of Keras's own."""
    return type(operation).__module__.startswith("keras.")


def operation_activation(operation: Any) -> Activation | None:
    """Returns the activation that one of Keras's operations applies, or `None` if it applies none."""
    if isinstance(operation, keras.Layer) or not is_own(operation):
        return None
    name = _BY_CLASS.get(type(operation).__name__.lower())
    return None if name is None else known(name, vars(operation))


def measured(function: Callable[[Any], Any], name: str | None = None) -> Activation:
    """Returns a callable as an activation whose moments are measured by calling it.

    Args:
        function: takes and returns a tensor of the current backend, element by element.
        name: what to call it; the callable's own name when not given.
    """
    # JAX computes in float32 unless told otherwise at its start, and a layer in its own type.
    single = keras.config.backend() == "jax" or isinstance(function, keras.Layer) or _answers_in_single(function)
    dtype, precision = ("float32", SINGLE) if single else ("float64", DOUBLE)

    @functools.wraps(function)
    def on_arrays(z: np.ndarray) -> np.ndarray:
        return _call_on_array(function, z, dtype)

    return Activation(name or _name_of(function), (), on_arrays, known=False, precision=precision)


def _answers_in_single(function: Callable[[Any], Any]) -> bool:
    """Whether a callable's answer to float64 is less precise: some operations of Keras make float32 of it."""
    try:
        answer = function(keras.ops.convert_to_tensor(np.zeros(512), "float64"))
        return keras.backend.standardize_dtype(answer.dtype) != "float64"
    except Exception:  # Told when its moments are asked for, with the numbers at hand.
        return False


def _call_on_array(function: Callable[[Any], Any], z: np.ndarray, dtype: str) -> np.ndarray:
    # Of few sizes: JAX compiles once for each.
    padded = np.zeros(max(512, 1 << (z.size - 1).bit_length()))
    padded[: z.size] = z
    try:
        result = keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(padded, dtype)))
    except Exception as error:
        raise ActivationError(f"Calling {_name_of(function)!r} on numbers failed: {error}") from error
    values = np.asarray(result, np.float64)
    if values.shape != padded.shape or not np.isfinite(values[np.abs(padded) < 1]).all():
        raise ActivationError(
            f"Expected {_name_of(function)!r} to be an elementwise function with finite values. Received an output of "
            f"shape {values.shape} for an input of shape {padded.shape}"
            + ("." if values.shape != padded.shape else ", with values that are not finite.")
        )
    return values[: z.size]


@functools.cache
def _defaults(function: Any) -> Mapping[str, Any]:
    """Returns the arguments that a function of Keras assumes."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


def _name_of(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _named(name: str) -> Activation:
    plain = ALIASES.get(name, name)
    if plain in FUNCTIONS:
        return known(plain, {})
    try:
        function = keras.saving.get_registered_object(name) or keras.activations.get(name)
    except Exception as error:
        raise ActivationError(
            f"Expected the name of an activation. Received: {name!r}. Known names: {', '.join(sorted(FUNCTIONS))}; "
            "others can be registered with `keras.saving.register_keras_serializable`."
        ) from error
    return activation(function)


def known(name: str, parameters: Mapping[str, Any]) -> Activation:
    """Returns one of our own definitions; parameters at their defaults are dropped."""
    name = ALIASES.get(name, name)
    definition = FUNCTIONS[name]
    if definition is None:
        return Activation(name)
    defaults = parameters_of(definition)
    given = {key: float(value) for key, value in parameters.items() if key in defaults and value is not None}
    changed = tuple(sorted((key, value) for key, value in given.items() if value != defaults[key]))
    if name == "relu" and [key for key, _ in changed] == ["negative_slope"]:
        return known("leaky_relu", given)
    if name == "relu" and changed == (("max_value", 6.0),):
        return known("relu6", {})
    return _bound(name, changed)


@functools.cache
def _bound(name: str, parameters: Parameters) -> Activation:
    """Returns one object for one activation, so that its moments are integrated once."""
    definition = FUNCTIONS[name]
    assert definition is not None
    return Activation(name, parameters, functools.partial(definition, **dict(parameters)) if parameters else definition)


def _layer(layer: keras.Layer) -> Activation:
    if isinstance(layer, keras.layers.Activation):
        return activation(layer.activation)
    if isinstance(layer, keras.layers.PReLU):
        return known("leaky_relu", {"negative_slope": _initial_slope(layer)})
    for kind, name in _LAYER_NAMES.items():
        if isinstance(layer, kind):
            return known(name, vars(layer))
    return measured(layer, type(layer).__name__)


def _initial_slope(layer: keras.layers.PReLU) -> float:
    """Returns the mean slope that a PReLU starts from, from one draw of a copy of its initializer."""
    initializer = layer.alpha_initializer
    copy = initializer.clone() if isinstance(initializer, keras.Initializer) else initializer
    return float(np.mean(keras.ops.convert_to_numpy(copy((256,), dtype="float32"))))


# Keras names its operation classes `LeakyRelu`, and `ReLU`.
_BY_CLASS = {name.replace("_", ""): name for name in (*FUNCTIONS, *ALIASES)}
_LAYER_NAMES: dict[type, str] = {
    keras.layers.ReLU: "relu",
    keras.layers.LeakyReLU: "leaky_relu",
    keras.layers.ELU: "elu",
    keras.layers.Softmax: "softmax",
}
_LAYERS = (keras.layers.Activation, keras.layers.PReLU, *_LAYER_NAMES)
