"""Formulas are held against the quadrature that serves everything else."""

import math

import numpy as np
import pytest

from keras_autoinit.closed_forms import closed_cross_moments, closed_moments
from keras_autoinit.integrals import Pieces, gaussian_cross_moments, gaussian_moments

EXACT = 1e-9

CASES = [
    ("linear", {}, lambda z: z, Pieces()),
    ("relu", {}, lambda z: np.maximum(z, 0), Pieces((0.0,))),
    ("relu", {"negative_slope": 0.1, "max_value": math.inf}, lambda z: np.maximum(z, 0.1 * z), Pieces((0.0,))),
    ("leaky_relu", {"negative_slope": 0.3}, lambda z: np.maximum(z, 0.3 * z), Pieces((0.0,))),
    ("leaky_relu", {"negative_slope": -1.0}, np.abs, Pieces((0.0,))),
    ("exponential", {}, np.exp, Pieces(width=1.0)),
    ("sin", {}, np.sin, Pieces(width=1.0)),
]


@pytest.mark.parametrize("mean", [0.0, 0.8, -2.5])
@pytest.mark.parametrize("variance", [0.1, 1.0])
@pytest.mark.parametrize(("name", "parameters", "function", "pieces"), CASES, ids=range(len(CASES)))
def test_one_input(name, parameters, function, pieces, variance, mean):
    found = closed_moments(name, parameters)(variance, mean)
    assert found == pytest.approx(gaussian_moments(function, pieces, variance, mean), rel=EXACT, abs=EXACT)


@pytest.mark.parametrize("mean", [0.0, 0.8])
@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.6, 0.999, 1.0, -1.0])
@pytest.mark.parametrize(("name", "parameters", "function", "pieces"), CASES, ids=range(len(CASES)))
def test_two_inputs(name, parameters, function, pieces, correlation, mean):
    found = closed_cross_moments(name, parameters)(0.5, 0.5 * correlation, mean)
    if found is None:
        assert mean
        assert name in {"relu", "leaky_relu"}
        return
    assert found == pytest.approx(
        gaussian_cross_moments(function, pieces, 0.5, 0.5 * correlation, mean), rel=1e-8, abs=EXACT
    )


@pytest.mark.parametrize("name", ["tanh", "relu6", "nobody"])
def test_where_there_is_no_formula(name):
    assert closed_moments(name, {}) is None
    assert closed_cross_moments(name, {}) is None


@pytest.mark.parametrize("changed", [{"max_value": 2.0}, {"threshold": 0.5}])
def test_a_relu_that_is_cut_has_none(changed):
    assert closed_moments("relu", changed) is None


@pytest.mark.parametrize(
    ("mean", "expected"), [(2.0, (2.0, 4.0, 1.0)), (-2.0, (0.0, 0.0, 0.0)), (0.0, (0.0, 0.0, 0.5))]
)
def test_a_rectifier_without_variance_is_the_limit(mean, expected):
    assert closed_moments("relu", {})(0.0, mean) == expected


def test_an_exponential_that_overflows_is_infinite():
    assert closed_moments("exponential", {})(1e4, 0.0)[1] == math.inf
