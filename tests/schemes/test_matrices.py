"""Matrices lie in a weight as its axes say, and a weight that holds none is refused."""

import numpy as np
import pytest

from keras_autoinit import Axes, DeltaOrthogonal, Dirac, Identity, Orthogonal, SchemeError, Sparse
from keras_autoinit.schemes.matrices import Matrices


@pytest.mark.parametrize(
    ("shape", "axes", "number", "rows", "columns"),
    [
        ((5, 6), Axes((0,), (1,)), 1, 5, 6),
        ((5, 6), Axes((1,), (0,)), 1, 6, 5),
        ((5, 24), Axes((0,), (1,), blocks=4), 4, 5, 6),
        ((3, 3, 5, 6), Axes((0, 1, 2), (0, 1, 3)), 1, 5, 6),
        ((3, 3, 5, 6), Axes((0, 1), (0, 1, 3)), 5, 1, 6),
        ((2, 5, 6), Axes((1,), (0, 2)), 1, 5, 12),
        ((2, 5, 6), Axes((1,), (2,)), 2, 5, 6),
    ],
)
def test_a_weight_holds_so_many_matrices_of_such_a_size(shape, axes, number, rows, columns):
    lie = Matrices.of(shape, axes)
    assert (lie.number, lie.rows, lie.columns) == (number, rows, columns)


def test_matrices_are_put_where_the_axes_say():
    lie = Matrices.of((3, 4, 2, 10), Axes((0, 1, 2), (0, 1, 3), blocks=2))
    stack = np.arange(240.0).reshape(2, 12, 2, 5)
    weight = lie.weight(stack)
    assert weight.shape == (3, 4, 2, 10)
    for block, row, column in np.ndindex(2, 3, 4):
        tap = weight[row, column, :, 5 * block : 5 * block + 5]
        np.testing.assert_array_equal(tap, stack[block, 4 * row + column])


@pytest.mark.parametrize("shape", [(), (5,)])
@pytest.mark.parametrize("kind", [Orthogonal, DeltaOrthogonal, Identity, Dirac, Sparse])
def test_a_vector_is_refused(kind, shape):
    with pytest.raises(SchemeError) as caught:
        kind()(shape)
    assert all(word in str(caught.value) for word in ["two or more dimensions", kind.__name__, str(shape), "use"])


@pytest.mark.parametrize("kind", [DeltaOrthogonal, Dirac])
def test_a_matrix_is_refused_by_schemes_for_convolutions(kind):
    with pytest.raises(SchemeError) as caught:
        kind()((4, 5))
    words = ["kernel of a convolution", kind.__name__, "(4, 5)", "'autoinit>orthogonal' or 'autoinit>identity'"]
    assert all(word in str(caught.value) for word in words)
