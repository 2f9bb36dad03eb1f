"""A measurement is one run forward and one back, against the same by hand, and changes nothing."""

import keras
import numpy as np
import pytest
from keras import layers
from keras.initializers import HeNormal
from models import mlp, regression, values

from keras_autoinit.errors import DataError, ModelTypeError
from keras_autoinit.measurement import SAMPLES, Measurer, measure

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 4)).astype("float32")


def chain():
    """Two kernels and a ReLU between them, without biases, so that all of it is a product by hand."""
    hidden = layers.Dense(16, use_bias=False, kernel_initializer=HeNormal(seed=1), name="hidden")
    head = layers.Dense(4, use_bias=False, kernel_initializer=HeNormal(seed=2), name="head")
    return keras.Sequential([keras.Input((8,)), hidden, layers.ReLU(name="relu"), head], name="chain")


def test_signals_and_gradients_are_those_counted_by_hand():
    model = chain()
    first, second = values(model.weights)
    found = measure(model, X, Y, loss="mse", samples=32)
    before, out = X @ first, np.maximum(X @ first, 0) @ second
    # The loss is the mean over samples of the mean over outputs.
    back = 2 * (out - Y) / out.size
    inner = (back @ second.T) * (before > 0)
    for path, signal, gradient in (
        ("hidden", before, inner),
        ("relu", np.maximum(before, 0), back @ second.T),
        ("head", out, back),
    ):
        row = found[path]
        assert (row.mean, row.second_moment) == pytest.approx((signal.mean(), np.mean(signal**2)), rel=1e-4, abs=1e-6)
        assert row.std == pytest.approx(signal.std(), rel=1e-4)
        assert row.gradient == pytest.approx(np.mean(gradient**2), rel=1e-4)
        size = np.linalg.norm(gradient) * np.sqrt(np.mean(signal**2))
        end = np.linalg.norm(back) * np.sqrt(np.mean(out**2))
        assert row.sensitivity == pytest.approx(size / end, rel=1e-4)
    assert found["hidden"].weights[0].gradient == pytest.approx(np.mean((X.T @ inner) ** 2), rel=1e-4)
    assert found["relu"].dead == np.mean((before <= 0).all(axis=0))


def test_it_says_what_it_was_measured_on():
    drawn = measure(chain())
    assert (drawn.samples, drawn.data, drawn.labels, drawn.model) == (SAMPLES, "drawn", "random", "chain")
    given = measure(chain(), 3 * X, Y, loss="mse", samples=5)
    assert (given.samples, given.data, given.labels) == (5, "given", "given")
    assert given.input_second_moment == pytest.approx(9 * np.mean(X[:5] ** 2), rel=1e-5)
    assert -1 < given.input_cosine < 1


def test_nothing_is_changed():
    """Not what a batch normalization averages, a dropout draws from, or an optimizer keeps."""
    kept = [layers.BatchNormalization(), layers.Dropout(0.5, seed=1)]
    model = keras.Sequential([*chain().layers, *kept])
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    before = values([*model.variables, *model.optimizer.variables])
    measure(model, X, Y)
    after = values([*model.variables, *model.optimizer.variables])
    assert len(before) == len(after)
    assert all(map(np.array_equal, before, after))


def test_the_same_is_measured_each_time():
    model = chain()
    assert measure(model) == measure(model)


def test_of_unit_normal_input_theory_predicts_what_is_measured():
    wide = [layers.Dense(512, "relu", kernel_initializer=HeNormal(seed=i), name=f"d{i}") for i in range(2)]
    for row in measure(keras.Sequential([keras.Input((512,)), *wide]), samples=64):
        # Kernels of 512 columns and 64 samples: a few per cent each.
        assert row.second_moment == pytest.approx(row.predicted_second_moment, rel=0.15)
    assert all(row.predicted_second_moment is None for row in measure(chain(), predict=False))


def test_a_brief_look_leaves_out_what_is_compared_and_drawn():
    brief = Measurer(chain(), X).measure(predict=False, brief=True)
    assert all(row.histogram is None for row in brief)
    assert all(weight.distinct is None for row in brief for weight in row.weights)
    assert brief["hidden"].second_moment == measure(chain(), X)["hidden"].second_moment


def test_several_outputs_each_have_a_loss_of_their_own():
    inputs = keras.Input((8,))
    ends = [layers.Dense(1, name="a")(inputs), layers.Dense(3, "softmax", name="b")(inputs)]
    model = keras.Model(inputs, ends)
    labels = {"a": np.zeros((32, 1)), "b": np.zeros(32, "int32")}
    losses = {"a": "mse", "b": "sparse_categorical_crossentropy"}
    for given, wanted in ((labels, losses), ([*labels.values()], [*losses.values()])):
        found = measure(model, X, given, loss=wanted)
        assert found["a"].gradient > 0
        assert found["b"].gradient > 0
    # An output without a loss gets no gradient.
    assert measure(model, X, labels, loss={"a": "mse"})["b"].gradient == 0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model": 3}, ModelTypeError, "Expected a keras.Model. Received: 3 of type int"),
        ({"samples": 0}, DataError, "integer of 1 or more. Received: 0"),
        ({"samples": True}, DataError, "Received: True"),
        ({"samples": 2.0}, DataError, "Received: 2.0"),
        ({"y": regression()[1]}, DataError, "Expected a loss for the labels, .* Received: None, for 1 output"),
        ({"y": regression()[1], "loss": "sadness"}, DataError, "a loss that Keras knows. Received: 'sadness'"),
        ({"y": [regression()[1]] * 2, "loss": "mse"}, DataError, "each of the model's 1 outputs. Received 2"),
        ({"y": np.zeros((16, 3)), "loss": "categorical_crossentropy"}, DataError, "labels that fit the loss"),
    ],
)
def test_what_does_not_fit_is_refused(options, error, words):
    given = {"model": mlp(3, 1), "x": regression()[0], **options}
    with pytest.raises(error, match=words):
        measure(**given)


def test_labels_without_samples_are_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(DataError, match="samples beside the labels"):
        measure(model, y=np.zeros(3))
