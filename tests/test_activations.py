"""However an activation is named, it must be found and its gain be right: the variances of whole plans depend on it."""

import functools
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import activations, layers, ops

from keras_autoinit import ActivationError, activation
from keras_autoinit.activations import is_activation_layer, is_keras_function, measured
from keras_autoinit.functions import ALIASES, FUNCTIONS
from keras_autoinit.moments import DOUBLE, NODES, PANELS, SINGLE

# Moments by adaptive quadrature in float64, with a relative error below 1e-9.
ORACLE = json.loads((Path(__file__).parent / "data" / "activation_moments.json").read_text())
VARIANCES = ("0.25", "1.0", "4.0")
EXACT = 1e-9

# Between the steps, which lie at multiples of a half: on a step itself the backends differ.
GRID = np.linspace(-8.01, 8.03, 641)

EXPORTED = sorted(
    name
    for name in dir(activations)
    if callable(getattr(activations, name)) and name not in {"get", "serialize", "deserialize"}
)
MIXING = {"glu", "log_softmax", "softmax", "sparsemax"}
# `threshold` has no defaults in Keras: it is compared with arguments.
ELEMENTWISE = [name for name in EXPORTED if name not in MIXING | {"threshold"}]
OPERATIONS = [name for name in [*FUNCTIONS, *ALIASES] if hasattr(ops, name) and name not in MIXING | {"threshold"}]

WITH_ARGUMENTS = [
    ("relu", {"negative_slope": 0.1}),
    ("relu", {"max_value": 2.0}),
    ("relu", {"threshold": 0.5}),
    ("relu", {"negative_slope": 0.3, "max_value": 1.5, "threshold": 1.0}),
    ("leaky_relu", {"negative_slope": 0.01}),
    ("elu", {"alpha": 0.5}),
    ("celu", {"alpha": 2.0}),
    ("gelu", {"approximate": True}),
    ("soft_shrink", {"threshold": 1.5}),
    ("hard_shrink", {"threshold": 1.5}),
    ("squareplus", {"b": 1.0}),
    ("threshold", {"threshold": 0.5, "default_value": -1.0}),
]

LAYERS = [
    layers.ReLU(),
    layers.ReLU(max_value=6),
    layers.ReLU(max_value=2.5),
    layers.ReLU(negative_slope=0.1),
    layers.ReLU(negative_slope=0.25, max_value=3.0, threshold=0.5),
    layers.LeakyReLU(),
    layers.LeakyReLU(negative_slope=0.05),
    layers.ELU(),
    layers.ELU(alpha=0.5),
    layers.PReLU(),
    layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25)),
    layers.Activation("gelu"),
    layers.Activation(activations.mish),
    layers.Activation(functools.partial(activations.leaky_relu, negative_slope=0.3)),
]


def described(value):
    """Returns a test's name: layers, functions and partial functions by theirs."""
    if isinstance(value, keras.Layer):
        return f"{type(value).__name__}-{activation(value)}"
    return getattr(value, "__name__", None) or (value.func.__name__ if hasattr(value, "func") else str(value))


def assert_equal_on_grid(found, function):
    """Compares with what Keras computes, up to a few dozen roundings in its precision."""
    expected = ops.convert_to_numpy(function(ops.convert_to_tensor(GRID, "float64")))
    # JAX computes in float32 unless told otherwise, and TensorFlow's slopes are float32 constants.
    double = expected.dtype == np.float64 and keras.config.backend() == "torch"
    rounding = 32 * float(np.finfo(np.float64 if double else np.float32).eps)
    error = np.abs(found.function(GRID) - expected)
    size = np.maximum(np.maximum(np.abs(GRID), 1), np.abs(expected))
    assert (error / size).max() <= rounding


# --- The oracle ---


def of_oracle(name):
    """Returns the activation of a row such as `leaky_relu(negative_slope=0.01)`."""
    plain, _, arguments = name.partition("(")
    if not arguments:
        return activation(plain)
    key, value = arguments.rstrip(")").split("=")
    return activation(functools.partial(getattr(activations, plain), **{key: float(value)}))


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("name", ORACLE)
def test_moments(name, variance):
    found, expected = of_oracle(name).moments(float(variance)), ORACLE[name]["moments"][variance]
    assert found.mean == pytest.approx(expected["mean"], rel=EXACT, abs=EXACT)
    assert found.second_moment == pytest.approx(expected["second_moment"], rel=EXACT)
    assert found.derivative_second_moment == pytest.approx(expected["derivative_second_moment"], rel=EXACT)


@pytest.mark.parametrize("name", ORACLE)
def test_gain(name):
    assert of_oracle(name).gain == pytest.approx(ORACLE[name]["gain"], rel=EXACT)


@pytest.mark.parametrize("name", ORACLE)
def test_chi(name):
    assert of_oracle(name).chi == pytest.approx(ORACLE[name]["chi"], rel=EXACT)


def test_the_oracle_covers_what_it_should():
    """So that a file cut short cannot pass."""
    assert len(ORACLE) == 27
    assert all(tuple(row["moments"]) == VARIANCES for row in ORACLE.values())


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.2, 0.3, 1.5])
def test_gain_of_a_leaky_rectifier_in_closed_form(slope):
    found = activation(layers.LeakyReLU(negative_slope=slope))
    assert found.gain == pytest.approx(math.sqrt(2 / (1 + slope**2)), rel=1e-12)
    assert found.chi == pytest.approx(1.0, rel=1e-12)


def test_gain_is_not_the_constant_of_torch():
    assert activation("tanh").gain == pytest.approx(1.5925374, abs=1e-7)
    assert activation("tanh").gain != pytest.approx(5 / 3, rel=0.01)


# --- Our definitions against Keras's own ---


def test_every_keras_activation_is_known():
    assert {ALIASES.get(name, name) for name in EXPORTED} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_definition_is_that_of_keras(name):
    assert_equal_on_grid(activation(name), getattr(activations, name))


@pytest.mark.parametrize(("name", "arguments"), WITH_ARGUMENTS, ids=str)
def test_arguments_mean_what_they_mean_in_keras(name, arguments):
    if name not in EXPORTED:
        pytest.skip(f"this Keras has no {name}")
    bound = functools.partial(getattr(activations, name), **arguments)
    assert activation(bound).known
    assert_equal_on_grid(activation(bound), bound)


@pytest.mark.parametrize("layer", LAYERS, ids=described)
def test_an_activation_layer_is_the_function_that_it_computes(layer):
    assert is_activation_layer(layer)
    assert activation(layer).known
    assert_equal_on_grid(activation(layer), lambda tensor: layer(tensor[None])[0])


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu_squared", lambda z: np.maximum(z, 0) ** 2),
        ("sin", np.sin),
        ("linear", lambda z: z),
        ("threshold", lambda z: np.maximum(z, 0)),
    ],
)
def test_definitions_beyond_those_of_keras(name, function):
    assert activation(name).function(GRID) == pytest.approx(function(GRID), rel=1e-15)


@pytest.mark.parametrize("name", [name for name, function in FUNCTIONS.items() if function is not None])
def test_definitions_stay_finite_far_out(name):
    """An integral reaches 28 spreads out at a variance of 4, and no warning may escape."""
    far = np.array([-60.0, -28.0, 28.0, 60.0])
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(activation(name).function(far)).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_that_is_an_activation_is_known(name):
    assert activation(getattr(ops, name)).known
    assert_equal_on_grid(activation(getattr(ops, name)), getattr(ops, name))


# --- Names ---


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_name_names_itself(name):
    found = activation(name)
    assert (found.name, str(found), found.parameters, found.known) == (name, name, (), True)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("swish", "silu"), ("hard_swish", "hard_silu"), ("exp", "exponential"), (None, "linear")],
    ids=str,
)
def test_an_alias_is_the_same_activation(alias, name):
    assert activation(alias) == activation(name)


@pytest.mark.parametrize("name", EXPORTED)
def test_a_function_of_keras_is_its_name(name):
    function = getattr(activations, name)
    assert is_keras_function(function)
    assert activation(function) == activation(name)


@pytest.mark.parametrize(
    "function", [np.tanh, ops.log, lambda x: x, functools.partial(activations.relu), "relu"], ids=described
)
def test_what_is_no_activation_of_keras(function):
    assert not is_keras_function(function)


@pytest.mark.parametrize(
    "identifier", ["gelu", activations.gelu, layers.Activation("gelu")], ids=["name", "function", "layer"]
)
def test_one_activation_is_one_object(identifier):
    """So that its moments are integrated once."""
    assert activation(identifier) is activation("gelu")


def test_an_activation_is_itself():
    found = activation("tanh")
    assert activation(found) is found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_linear_is_linear(name):
    assert activation(name).linear == (name == "linear")


@pytest.mark.parametrize(
    ("identifier", "printed"),
    [
        (layers.ReLU(), "relu"),
        (layers.ReLU(max_value=6), "relu6"),
        (layers.ReLU(max_value=2.5), "relu(max_value=2.5)"),
        (layers.ReLU(negative_slope=0.1), "leaky_relu(negative_slope=0.1)"),
        (layers.ReLU(0.5, 0.25, 1.0), "relu(max_value=0.5, negative_slope=0.25, threshold=1)"),
        (layers.LeakyReLU(), "leaky_relu(negative_slope=0.3)"),
        (layers.LeakyReLU(negative_slope=0.2), "leaky_relu"),
        (layers.ELU(), "elu"),
        (layers.ELU(alpha=0.5), "elu(alpha=0.5)"),
        (layers.PReLU(), "leaky_relu(negative_slope=0)"),
        (layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25)), "leaky_relu(negative_slope=0.25)"),
        (layers.Softmax(), "softmax"),
        (layers.Activation("swish"), "silu"),
        (layers.Activation(None), "linear"),
        (functools.partial(activations.gelu), "gelu"),
        (functools.partial(activations.gelu, approximate=True), "gelu(approximate=1)"),
        (functools.partial(activations.relu, max_value=None), "relu"),
        (functools.partial(activations.relu, max_value=6.0), "relu6"),
        (functools.partial(activations.softmax, axis=1), "softmax"),
    ],
    ids=lambda value: value if isinstance(value, str) else described(value),
)
def test_arguments_show_where_they_differ_from_the_defaults(identifier, printed):
    assert str(activation(identifier)) == printed


def test_a_prelu_starts_from_its_mean_slope():
    layer = layers.PReLU(alpha_initializer=keras.initializers.RandomUniform(0.1, 0.3, seed=1))
    ((name, slope),) = activation(layer).parameters
    assert name == "negative_slope"
    # The mean of 256 uniform numbers has a standard error of 0.2 / sqrt(12 * 256).
    assert slope == pytest.approx(0.2, abs=5 * 0.2 / math.sqrt(12 * 256))


def test_asking_a_prelu_leaves_its_initializer_as_it_was():
    initializer = keras.initializers.RandomNormal(seed=keras.random.SeedGenerator(3))
    try:
        initializer.clone()
    except ValueError:
        pytest.skip("this Keras cannot copy an initializer that has a seed generator")
    layer = layers.PReLU(alpha_initializer=initializer)
    state = ops.convert_to_numpy(layer.alpha_initializer.seed.state)
    activation(layer)
    assert np.array_equal(ops.convert_to_numpy(layer.alpha_initializer.seed.state), state)


def test_a_subclass_of_an_activation_layer_is_served_as_its_base():
    class Mine(layers.LeakyReLU):
        pass

    assert activation(Mine(negative_slope=0.4)) == activation(layers.LeakyReLU(negative_slope=0.4))


@pytest.mark.parametrize("other", [layers.Dense(3), layers.Dropout(0.5), activations.relu, "relu", None], ids=range(5))
def test_what_is_no_activation_layer(other):
    assert not is_activation_layer(other)


# --- Callables, measured by calling them ---


def bent(x):
    """A smooth function that nobody knows by name."""
    return x * ops.sigmoid(1.702 * x)


def bent_by_numpy(z):
    return z / (1 + np.exp(-1.702 * z))


# By a trapezoid rule with 400,000 steps: exact to machine precision for a smooth function that decays.
Z = np.linspace(-14, 14, 400_001)
BENT_SECOND_MOMENT = float((bent_by_numpy(Z) ** 2 * np.exp(-Z * Z / 2)).sum() * (Z[1] - Z[0]) / math.sqrt(2 * math.pi))
# Single precision, of which JAX's moments are, stops at a change of 1e-6 in each of 16 panels.
MEASURED = 2e-5 if keras.config.backend() == "jax" else EXACT


@keras.saving.register_keras_serializable(package="test_activations")
def registered(x):
    return bent(x)


class Bent(layers.Layer):
    def call(self, inputs):
        # Fails where reading it would never end: far more numbers than any precision asks for.
        assert inputs.shape[0] < 200_000
        return bent(inputs)


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        (bent, "bent"),
        (lambda x: bent(x), "<lambda>"),
        (functools.partial(lambda factor, x: factor * bent(x), 1.0), "partial"),
        (layers.Activation(bent), "bent"),
        (registered, "registered"),
        ("test_activations>registered", "registered"),
    ],
    ids=["function", "lambda", "partial", "layer", "registered", "registered name"],
)
def test_a_callable_is_measured(identifier, name):
    found = activation(identifier)
    assert (found.name, found.known, found.parameters) == (name, False, ())
    assert found.gain == pytest.approx(BENT_SECOND_MOMENT**-0.5, rel=MEASURED)


def test_a_layer_is_measured_in_the_precision_that_it_computes_in():
    found = activation(Bent())
    assert (found.name, found.known) == ("Bent", False)
    assert found.gain == pytest.approx(BENT_SECOND_MOMENT**-0.5, rel=2e-5)


@pytest.mark.parametrize(
    ("function", "printed"),
    [
        (lambda x: activations.gelu(x, approximate=True), "gelu(approximate=1)"),
        (lambda x: activations.relu(x, negative_slope=0.1), "leaky_relu(negative_slope=0.1)"),
        (lambda x: activations.softmax(x), "softmax"),
        (lambda x: ops.tanh(x), "tanh"),
    ],
    ids=["gelu", "relu", "softmax", "tanh"],
)
def test_a_callable_that_applies_one_activation_of_keras_is_that_one(function, printed):
    assert str(activation(function)) == printed
    assert activation(function).known


@pytest.mark.parametrize("function", [lambda x: x, lambda x: 2 * ops.tanh(x), lambda x: x * ops.sigmoid(x), ops.log])
def test_a_callable_that_does_anything_else_is_measured(function):
    assert not activation(function).known


@pytest.mark.parametrize("name", ["tanh", "softplus", "silu"])
def test_measuring_agrees_with_our_own_definition(name):
    found, own = measured(lambda x: getattr(ops, name)(x)), activation(name)
    assert found.gain == pytest.approx(own.gain, rel=MEASURED)
    assert found.chi == pytest.approx(own.chi, rel=10 * MEASURED)


def test_a_callable_is_called_in_the_precision_of_the_backend():
    single = keras.config.backend() == "jax"
    seen = set()

    def spy(x):
        if ops.is_tensor(x):
            seen.add(keras.backend.standardize_dtype(x.dtype))
        return x

    found = activation(spy)
    assert found.gain == pytest.approx(1.0, rel=MEASURED)
    assert seen == {"float32" if single else "float64"}
    assert found.precision == (SINGLE if single else DOUBLE)


def test_a_custom_object_scope_is_seen():
    with keras.saving.custom_object_scope({"scoped": bent}):
        assert activation("scoped").name == "bent"


def test_a_custom_object_is_forgotten_after_its_scope():
    with keras.saving.custom_object_scope({"scoped": bent}):
        pass
    with pytest.raises(ActivationError, match="'scoped'"):
        activation("scoped")


def test_a_function_that_borrows_a_name_is_not_taken_for_that_of_keras():
    def relu(x):
        return 3 * x

    found = activation(relu)
    assert (found.name, found.known) == ("relu", False)
    assert found.gain == pytest.approx(1 / 3, rel=MEASURED)


# --- Errors say what arrived and what was expected ---


def message_of(do):
    with pytest.raises(ActivationError) as caught:
        do()
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.mark.parametrize("name", ["reluu", "Relu", "", "he_normal"])
def test_an_unknown_name_lists_the_known_ones(name):
    message = message_of(lambda: activation(name))
    assert message.startswith(f"Expected the name of an activation. Received: {name!r}.")
    assert f"Known names: {', '.join(sorted(FUNCTIONS))};" in message
    assert "register_keras_serializable" in message


@pytest.mark.parametrize("identifier", [3.5, True, b"relu", {"class_name": "ReLU"}, ["relu"]], ids=str)
def test_what_cannot_be_called_is_refused(identifier):
    message = message_of(lambda: activation(identifier))
    assert message == (
        f"Expected an activation: a name, a callable, an activation layer or None. Received: {identifier!r}."
    )


@pytest.mark.parametrize("name", sorted(MIXING))
@pytest.mark.parametrize("ask", ["gain", "chi", "unit_moments"])
def test_what_mixes_units_has_no_gain(name, ask):
    message = message_of(lambda: getattr(activation(name), ask))
    assert message.startswith(f"The activation {name} mixes units, so it has no gain of its own.")
    assert "elementwise activation such as 'relu'" in message
    assert "give a number as `gain`" in message


def test_a_softmax_layer_has_no_gain_either():
    assert "softmax mixes units" in message_of(lambda: activation(layers.Softmax()).gain)


def test_a_function_that_is_zero_has_no_gain():
    message = message_of(lambda: activation(lambda x: 0 * x).gain)
    assert message.startswith("The activation <lambda> has no gain: the second moment of its output is 0")
    assert message.endswith("Give a number as `gain` instead.")


def test_a_function_that_fails_is_named_with_its_error():
    def broken(x):
        raise KeyError("no such thing")

    message = message_of(lambda: activation(broken).gain)
    assert message == "Calling 'broken' on numbers failed: 'no such thing'"


@pytest.mark.parametrize(
    ("function", "shape"),
    [(lambda x: x[:3], (3,)), (lambda x: ops.sum(x), ()), (lambda x: ops.stack([x, x]), (2, PANELS * NODES))],
    ids=["shorter", "scalar", "longer"],
)
def test_a_function_of_another_shape_is_not_elementwise(function, shape):
    message = message_of(lambda: activation(function).gain)
    assert message == (
        "Expected '<lambda>' to be an elementwise function with finite values. "
        f"Received an output of shape {shape} for an input of shape ({PANELS * NODES},)."
    )


@pytest.mark.parametrize("function", [ops.log, ops.sqrt, lambda x: 1 / ops.relu(x)], ids=["log", "sqrt", "inverse"])
def test_a_function_that_is_not_finite_near_zero_is_refused(function):
    message = message_of(lambda: activation(function).gain)
    assert "to be an elementwise function with finite values" in message
    assert message.endswith("with values that are not finite.")
