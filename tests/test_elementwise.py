"""What theory is built on: moments of any activation for any Gaussian, known or measured alike."""

import functools
import gc
import math
import time
import weakref

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import activations, layers, ops

from keras_autoinit import ActivationError, Moments, activation
from keras_autoinit.activations import measured
from keras_autoinit.functions import FUNCTIONS
from keras_autoinit.moments import activation_moments

EXACT = 1e-9
ELEMENTWISE = sorted(name for name, function in FUNCTIONS.items() if function is not None)
# The search of `activation_moments` reaches 14 spreads: an exponential of a large variance is beyond it.
GENTLE = [name for name in ELEMENTWISE if name != "exponential"]

WITH_ARGUMENTS = [
    layers.LeakyReLU(negative_slope=0.05),
    layers.ELU(alpha=0.5),
    layers.ELU(alpha=-0.5),
    layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25)),
    layers.ReLU(negative_slope=0.25, max_value=3.0, threshold=0.5),
    functools.partial(activations.gelu, approximate=True),
    functools.partial(activations.relu, max_value=2.0),
]
if hasattr(activations, "celu"):
    WITH_ARGUMENTS += [
        functools.partial(activations.celu, alpha=0.05),
        functools.partial(activations.celu, alpha=3.0),
        functools.partial(activations.squareplus, b=0.01),
        functools.partial(activations.soft_shrink, threshold=1.5),
        functools.partial(activations.hard_shrink, threshold=1.5),
    ]


def assert_agrees_with_the_search(met, variance, mean):
    """Compares with the adaptive integrals, which know nothing of kinks."""
    expected = activation_moments(met.function, variance, mean=mean)
    found = met.moments(variance, mean)
    assert found.mean == pytest.approx(expected.mean, rel=EXACT, abs=EXACT)
    assert found.second_moment == pytest.approx(expected.second_moment, rel=EXACT, abs=EXACT)
    assert found.derivative_second_moment == pytest.approx(expected.derivative_second_moment, rel=EXACT, abs=EXACT)


# --- Any mean, any variance ---


@pytest.mark.parametrize(("variance", "mean"), [(0.04, 0.0), (1.0, 0.6), (9.0, -2.0), (50.0, 5.0)])
@pytest.mark.parametrize("name", GENTLE)
def test_known_activations(name, variance, mean):
    assert_agrees_with_the_search(activation(name), variance, mean)


@pytest.mark.parametrize(("variance", "mean"), [(0.04, 0.0), (1.0, 0.6), (9.0, -2.0)])
@pytest.mark.parametrize("identifier", WITH_ARGUMENTS, ids=lambda one: str(activation(one)))
def test_arguments_move_the_kinks(identifier, variance, mean):
    assert_agrees_with_the_search(activation(identifier), variance, mean)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ELEMENTWISE), st.floats(0, 10), st.floats(-3, 3), st.floats(-1, 1))
def test_moments_are_those_of_some_variable(name, variance, mean, correlation):
    """No variance is negative, no correlation beyond one: `Moments` would refuse it."""
    signal = Moments(mean, mean**2 + variance, correlation * variance)
    out = activation(name).propagate(signal)
    assert abs(out.covariance) <= out.variance * (1 + EXACT) + EXACT


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(GENTLE), st.floats(0.01, 10), st.floats(-2, 2), st.floats(-1, 1))
def test_the_square_of_the_mean_and_the_second_moment_bound_the_cross_moment(name, variance, mean, correlation):
    met = activation(name)
    own, two = met.moments(variance, mean), met.cross_moments(variance, correlation * variance, mean)
    assert abs(two.cross_moment) <= own.second_moment * (1 + EXACT)
    assert abs(two.derivative_cross_moment) <= own.derivative_second_moment * (1 + 1e-8) + EXACT


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_identical_inputs_stay_identical(name):
    met = activation(name)
    own, two = met.moments(1.3, 0.4), met.cross_moments(1.3, 1.3, 0.4)
    assert two.covariance == pytest.approx(own.variance, rel=1e-8, abs=EXACT)
    assert two.derivative_cross_moment == pytest.approx(own.derivative_second_moment, rel=1e-8)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_independent_inputs_stay_independent(name):
    assert activation(name).cross_moments(1.3, 0.0, 0.4).covariance == pytest.approx(0.0, abs=EXACT)


@pytest.mark.parametrize("variance", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("correlation", [0.0, 0.5, -0.5, 0.999, 1.0])
def test_gelu_in_closed_form(correlation, variance):
    """Integration by parts of `z z' Phi(z) Phi(z')`, as in Tsuchida et al. 2021."""
    v, c = variance, correlation * variance
    both = 0.25 + math.asin(c / (1 + v)) / (2 * math.pi)
    densities = 1 / (2 * math.pi * math.sqrt((1 + v) ** 2 - c**2))
    expected = c * both + (v**2 + c**2 - 2 * v * c**2 / (1 + v)) * densities
    assert activation("gelu").cross_moments(v, c).cross_moment == pytest.approx(expected, abs=EXACT)


# --- Measured callables ---


# On JAX callables compute in float32.
SINGLE = keras.config.backend() == "jax"


@pytest.mark.parametrize("mean", [0.0, 0.6])
@pytest.mark.parametrize("variance", [0.25, 4.0])
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("tanh", ops.tanh),
        ("silu", lambda x: x * ops.sigmoid(x)),
        ("mish", lambda x: x * ops.tanh(ops.softplus(x))),
        ("softsign", lambda x: x / (1 + ops.abs(x))),
        ("hard_tanh", lambda x: ops.clip(x, -1.0, 1.0)),
        ("hard_shrink", lambda x: ops.where(ops.abs(x) > 0.5, x, 0 * x)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_callable_has_the_moments_of_what_it_computes(name, function, variance, mean):
    known, found = activation(name), measured(lambda x: function(x))
    assert not found.known
    own, met = known.moments(variance, mean), found.moments(variance, mean)
    assert met.mean == pytest.approx(own.mean, abs=1e-5 if SINGLE else EXACT)
    assert met.second_moment == pytest.approx(own.second_moment, rel=1e-5 if SINGLE else EXACT)
    for correlation in (0.0, 0.9, -0.5):
        one = known.cross_moments(variance, correlation * variance, mean)
        two = found.cross_moments(variance, correlation * variance, mean)
        assert abs(two.cross_moment - one.cross_moment) <= (1e-5 if SINGLE else 1e-6) * own.second_moment
        difference = abs(two.derivative_cross_moment - one.derivative_cross_moment)
        assert difference <= (2e-3 if SINGLE else 1e-6) * own.derivative_second_moment


def test_a_callable_without_variance():
    found = activation(lambda x: ops.tanh(x)).moments(0.0, 0.5)
    assert found.mean == pytest.approx(math.tanh(0.5), abs=1e-6)
    assert found.derivative_second_moment == pytest.approx((1 - math.tanh(0.5) ** 2) ** 2, rel=1e-2 if SINGLE else 1e-6)


def test_a_callable_that_answers_in_single_precision_is_read_so():
    """Followed in double precision its rounding would look like kinks everywhere."""
    found = activation(lambda x: ops.cast(ops.relu(x), "float32"))
    assert found.moments(1.0).second_moment == pytest.approx(0.5, rel=1e-5)
    assert found.cross_moments(1.0, 0.0).cross_moment == pytest.approx(1 / (2 * math.pi), rel=1e-4)


def test_a_callable_is_forgotten_with_its_results():
    """A closure may hold a whole model."""

    class Held:
        pass

    held = Held()
    met = activation(lambda x, held=held: ops.tanh(x))
    met.moments(1.0)
    gone = weakref.ref(held)
    del held, met
    gc.collect()
    assert gone() is None


# --- The mirrored pair ---


@pytest.mark.parametrize("variance", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(
    ("name", "slope"),
    [("relu", 1.0), ("leaky_relu", 1.2), ("gelu", 1.0), ("silu", 1.0), ("softplus", 1.0), ("linear", 2.0)],
)
def test_a_mirrored_pair_of_rectifiers_is_a_line(name, slope, variance):
    odd = activation(name).odd_part(variance)
    assert odd.slope == pytest.approx(slope, rel=EXACT)
    assert odd.second_moment == pytest.approx(slope**2 * variance, rel=EXACT)
    assert odd.residual == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["elu", "tanh", "mish", "hard_silu", "sin", "relu_squared"])
def test_other_pairs_are_near_a_line(name):
    odd = activation(name).odd_part()
    assert odd.residual == pytest.approx(1 - odd.slope**2 / odd.second_moment, abs=1e-9)
    assert 0 <= odd.residual < 0.2


def test_an_even_function_has_no_odd_part():
    odd = activation(layers.LeakyReLU(negative_slope=0.0)).odd_part()
    even = activation(lambda x: ops.abs(x)).odd_part()
    assert odd.residual < 1e-12
    assert (even.slope, even.residual) == (0.0, 1.0)


# --- Errors ---


@pytest.mark.parametrize(("variance", "mean"), [(-1.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), (1.0, math.nan)])
def test_a_variance_that_is_none_is_refused(variance, mean):
    with pytest.raises(ActivationError, match="Expected a finite variance of zero or more and a finite mean"):
        activation("tanh").moments(variance, mean)


@pytest.mark.parametrize("covariance", [1.1, -1.1, math.nan])
def test_a_covariance_beyond_the_variance_is_refused(covariance):
    with pytest.raises(ActivationError, match="Expected a covariance of at most the variance"):
        activation("tanh").cross_moments(1.0, covariance)


@pytest.mark.parametrize("ask", ["moments", "odd_part", "fixed_point", "edge_of_chaos"])
def test_what_mixes_units_is_refused(ask):
    with pytest.raises(ActivationError, match="softmax mixes units"):
        getattr(activation("softmax"), ask)()


# --- Speed, which a plan by theory depends on ---


def seconds(do, times):
    """Returns the least processor time of one call: free of what else the machine does."""
    found = []
    for start in range(5):
        begin = time.process_time()
        for index in range(times):
            do(1 + 0.01 * (start * times + index))
        found.append((time.process_time() - begin) / times)
    return min(found)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "silu", "hard_silu"])
def test_moments_at_new_variances_are_cheap(name):
    """Ten times what was measured, so that only a change of kind fails."""
    met = activation(name)
    assert seconds(lambda variance: met.moments(variance, 0.1), 20) < 2e-3
    assert seconds(lambda variance: met.cross_moments(variance, 0.5, 0.1), 5) < 20e-3


def test_what_was_asked_before_is_remembered():
    met = activation("mish")
    assert met.moments(1.7, 0.2) is met.moments(1.7, 0.2)
    assert met.cross_moments(1.7, 0.3) is met.cross_moments(1.7, 0.3)
    assert met.odd_part(1.7) is met.odd_part(1.7)


def test_numbers_of_numpy_are_numbers():
    assert activation("tanh").moments(np.float32(0.5)) == activation("tanh").moments(0.5)
