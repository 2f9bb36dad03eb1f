"""The table of Vaswani et al. 2017, section 3.5, entry by entry: a wave off by one column still looks right."""

import math

import numpy as np
import pytest

from keras_autoinit import SchemeError, Sinusoids


@pytest.mark.parametrize(("positions", "width"), [(5, 8), (7, 5), (1, 2), (3, 1)])
def test_every_entry_is_the_formulas(positions, width):
    table = Sinusoids(scale=0.5, period=100.0).array((positions, width), "float64")
    for position in range(positions):
        for column in range(width):
            angle = position / 100.0 ** (2 * (column // 2) / width)
            wave = math.cos(angle) if column % 2 else math.sin(angle)
            assert table[position, column] == pytest.approx(0.5 * wave, abs=1e-14)


def test_near_positions_are_alike():
    table = Sinusoids().array((50, 64), "float64")
    alike = table @ table.T
    assert (np.diagonal(alike) == alike.max(1)).all()
    assert (alike[20, 21:25] < alike[20, 20:24]).all()


def test_axes_before_the_positions_repeat_the_table():
    whole = Sinusoids().array((2, 1, 5, 8), "float32")
    np.testing.assert_array_equal(whole[1, 0], Sinusoids().array((5, 8), "float32"))


@pytest.mark.parametrize("config", [{"scale": 0.0}, {"scale": "large"}, {"period": -1.0}])
def test_an_argument_out_of_range_is_refused(config):
    with pytest.raises(SchemeError):
        Sinusoids(**config)


def test_a_vector_is_refused():
    with pytest.raises(SchemeError, match=r"\(8,\)"):
        Sinusoids()((8,))
