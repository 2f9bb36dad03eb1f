"""The edge of chaos is a published curve: it is held against the published points and its own definition."""

import math

import keras
import numpy as np
import pytest

from keras_autoinit import ActivationError, activation
from keras_autoinit.criticality import find_edge, find_root, find_spread
from keras_autoinit.functions import FUNCTIONS

ELEMENTWISE = [name for name, function in FUNCTIONS.items() if function is not None]


@pytest.mark.parametrize(
    ("name", "bias_variance", "weight_variance", "digits"),
    [
        ("tanh", 0.0, 1.0, 9),
        # Schoenholz et al. 2017 and Xiao et al. 2018: the critical points of their tanh experiments.
        ("tanh", 0.05, 1.76, 2),
        ("tanh", 2.01e-5, 1.05, 4),
        # Hayou et al. 2019: `f'(0) = 1 / 2` for SiLU and GELU.
        ("silu", 0.0, 4.0, 9),
        ("gelu", 0.0, 4.0, 9),
        ("elu", 0.0, 1.0, 9),
    ],
)
def test_published_points(name, bias_variance, weight_variance, digits):
    assert round(activation(name).edge_of_chaos(bias_variance).weight_variance, digits) == weight_variance


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.2, 0.3, 1.5])
def test_a_rectifier_is_critical_at_he(slope):
    edge = activation(keras.layers.LeakyReLU(negative_slope=slope)).edge_of_chaos()
    assert edge.weight_variance == pytest.approx(2 / (1 + slope**2), rel=1e-15)
    assert edge.variance_slope == 1.0


@pytest.mark.parametrize("bias_variance", [0.0, 1e-4, 0.04, 1.0])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_definition_holds_wherever_there_is_an_edge(name, bias_variance):
    try:
        edge = activation(name).edge_of_chaos(bias_variance)
    except ActivationError:
        pytest.skip("there is none")
    moments = activation(name).moments(edge.variance)
    assert edge.weight_variance * moments.derivative_second_moment == pytest.approx(1.0, rel=1e-9)
    carried = edge.weight_variance * moments.second_moment + bias_variance
    assert carried == pytest.approx(edge.variance, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "linear"])
def test_a_rectifier_with_bias_has_no_edge(name):
    with pytest.raises(ActivationError, match=r"no edge of chaos at a bias variance of 0\.01"):
        activation(name).edge_of_chaos(0.01)


@pytest.mark.parametrize("name", ["softplus", "squareplus", "relu_squared", "tanh_shrink", "hard_shrink"])
def test_other_functions_without_an_edge(name):
    with pytest.raises(ActivationError, match=f"The activation {name} has no edge of chaos"):
        activation(name).edge_of_chaos()


@pytest.mark.parametrize(("name", "drawn"), [("tanh", True), ("elu", True), ("silu", False), ("gelu", False)])
def test_whether_the_variance_is_drawn_to_the_fixed_point(name, drawn):
    """Followed for 20 layers from 1 % beside it."""
    met = activation(name)
    edge = met.edge_of_chaos(0.04)
    variance = 1.01 * edge.variance
    for _ in range(20):
        variance = edge.weight_variance * met.moments(variance).second_moment + 0.04
    assert (abs(variance / edge.variance - 1) < 0.01) == drawn == (edge.variance_slope < 1)


def test_a_steeper_function_needs_less_weight():
    """`tanh(a z)` at weight variance `w` is `tanh` at `a^2 w`: the edge moves accordingly."""
    one = find_edge(lambda q: pair(np.tanh, lambda z: 1 - np.tanh(z) ** 2, q), 0.05)
    assert one.weight_variance == pytest.approx(activation("tanh").edge_of_chaos(0.05).weight_variance, rel=1e-9)


def pair(function, slope, variance):
    """Returns `E f^2` and `E f'^2` by a trapezoid rule."""
    t = np.arange(-9, 9, 0.02)
    mass = np.exp(-t * t / 2) * 0.02 / math.sqrt(2 * math.pi)
    z = math.sqrt(variance) * t
    return float(mass @ function(z) ** 2), float(mass @ slope(z) ** 2)


# --- The self-consistent spread, and the search under both ---


@pytest.mark.parametrize(
    ("name", "spread"), [("silu", 1.5588), ("gelu", 1.4680), ("mish", 1.4515), ("elu", 1.2780), ("selu", 1.0)]
)
def test_published_spreads(name, spread):
    assert activation(name).fixed_point() == pytest.approx(spread, abs=5e-5)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softsign", "hard_tanh", "sin", "exponential"])
def test_a_function_without_a_self_consistent_spread(name):
    with pytest.raises(ActivationError, match="has no self-consistent spread"):
        activation(name).fixed_point()


def test_a_spread_from_a_formula():
    assert find_spread(lambda variance: 3 * variance**2) == pytest.approx(3**-0.25, rel=1e-12)


@pytest.mark.parametrize("root", [1e-5, 0.3, 1.0, 7.7, 1e5])
def test_a_root_is_found_to_the_last_digit(root):
    assert find_root(lambda x: x - root, 2.0**-20) == pytest.approx(root, rel=1e-15)


def test_where_nothing_crosses_zero():
    assert find_root(lambda x: -1.0, 2.0**-20) is None
    assert find_root(lambda x: 1.0, 2.0**-20) is None
    assert find_root(lambda x: math.nan, 2.0**-20) is None
