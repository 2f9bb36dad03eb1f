"""A model that starts again must be as if just built, in every variable, or comparing starts is worth nothing.

And an error may not cost what has been learned.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from models import everything, mlp, regression, sentence, values

import keras_autoinit
from keras_autoinit import AutoInit, ModelTypeError, RebuildError, reinitialize


class Gated(layers.Layer):
    """Weights of its own, from the constructor and from `build`, and a layer inside."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units, self.inner = units, layers.Dense(units, name="inner")
        self.gate = self.add_weight(shape=(units,), initializer="random_normal")

    def build(self, shape):
        self.skip = self.add_weight(shape=(shape[-1], self.units), initializer=keras.initializers.HeNormal())
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) * self.gate + keras.ops.matmul(x, self.skip)


class Blocks(keras.Model):
    """A subclassed model: layers in a list and a dictionary, a weight and a seed generator of its own."""

    def __init__(self, units=8):
        super().__init__()
        self.units = units
        self.blocks, self.heads = [Gated(units), Gated(units)], {"out": layers.Dense(1)}
        self.token = self.add_weight(shape=(4,), initializer="random_normal")
        self.noise = keras.random.SeedGenerator()

    def call(self, x):
        x = x + self.token
        for block in self.blocks:
            x = block(x)
        return self.heads["out"](x)


class Tied(layers.Layer):
    """Uses a weight of another layer beside one of its own."""

    def __init__(self, length, **options):
        super().__init__(**options)
        self.length = length

    def tie(self, source):
        self.matrix = source.kernel
        return self

    def build(self, shape):
        self.offset = self.add_weight(shape=(self.length,), initializer="random_normal", name="offset")

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(self.matrix)) + self.offset


def fitted(model, optimizer="adam"):
    x, y = regression()
    # Eagerly, because compiling takes seconds.
    model.compile(optimizer, "mse", run_eagerly=True)
    model.fit(x, y, verbose=0)
    return model


def blocks():
    model = Blocks()
    model(np.zeros((1, 4), "float32"))
    return model


def array(variable):
    return values([variable])[0]


def same(first, second):
    return [np.array_equal(one, other) for one, other in zip(first, second, strict=True)]


def state(model):
    return [*values(model.variables), *(() if model.optimizer is None else values(model.optimizer.variables))]


@pytest.mark.parametrize("make", [everything, blocks], ids=["functional", "subclassed"])
def test_one_seed_gives_one_start_and_another_seed_another(make):
    model = make()
    assert reinitialize(model, 1) == 1
    first = values(model.variables)
    assert reinitialize(model, 2) == 2
    second = values(model.variables)
    keras.random.normal((2,))
    reinitialize(model, 1)
    assert all(same(first, values(model.variables)))
    # An LSTM's bias holds zeros and ones.
    drawn = [np.unique(each).size > 2 for each in first]
    assert not any(equal for equal, random in zip(same(first, second), drawn) if random and equal)


def test_the_seed_that_it_makes_up_is_returned():
    model = mlp(8, 1)
    seed = reinitialize(model)
    first = values(model.variables)
    assert reinitialize(model) != seed
    assert not all(same(first, values(model.variables)))
    reinitialize(model, seed)
    assert all(same(first, values(model.variables)))


def test_training_goes_on_without_a_new_compile_and_as_the_first_time():
    x, y = regression()
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    reinitialize(model, 1)
    start, first = values(model.variables), model.fit(x, y, epochs=2, shuffle=False, verbose=0).history
    assert not all(same(start, values(model.variables)))
    reinitialize(model, 1)
    assert all(same(start, values(model.variables)))
    again = model.fit(x, y, epochs=2, shuffle=False, verbose=0).history
    # One start and the same batches; threads may add up in another order.
    assert {name: pytest.approx(numbers, rel=1e-4) for name, numbers in first.items()} == again
    assert int(model.optimizer.iterations) == 2


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.1),
        lambda: keras.optimizers.Nadam(0.1),
        lambda: keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.3),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, gradient_accumulation_steps=2),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1), initial_scale=64.0),
    ],
    ids=["adam", "nadam", "adagrad", "sgd with averages", "loss scale"],
)
def test_the_optimizer_holds_what_a_new_one_would(optimizer):
    model = mlp(8, 1)
    fresh = optimizer()
    fresh.build(model.trainable_variables)
    fitted(model, optimizer())
    model.optimizer.learning_rate = 0.25
    reinitialize(model, 1)
    unequal = [
        variable.name
        for variable, equal in zip(fresh.variables, same(values(fresh.variables), values(model.optimizer.variables)))
        if not equal
    ]
    assert unequal == ["learning_rate"]
    assert float(model.optimizer.learning_rate) == 0.25


def test_optimizers_that_a_model_holds_by_other_names_start_afresh_too():
    inner = fitted(mlp(8, 1))
    outer = keras.Sequential([keras.Input((4,)), inner])
    outer.second = keras.optimizers.SGD(0.1, momentum=0.9)
    outer.second.build(outer.trainable_variables)
    outer.second.iterations.assign(5)
    reinitialize(outer, 1)
    assert int(inner.optimizer.iterations) == int(outer.second.iterations) == 0


def test_a_model_that_starts_again_does_not_look_trained():
    model = fitted(mlp(8, 1))
    with pytest.raises(keras_autoinit.TrainedModelError):
        AutoInit(seed=1).apply(model)
    reinitialize(model)
    AutoInit(seed=1).apply(model)


def test_frozen_layers_are_drawn_too_and_stay_frozen():
    model = mlp(8, 8, 1)
    model.layers[0].trainable = False
    before = values(model.layers[0].weights)
    reinitialize(model, 1)
    assert not np.array_equal(before[0], values(model.layers[0].weights)[0])
    assert not model.layers[0].trainable
    assert len(model.trainable_variables) == 4


def test_what_autoinit_left_on_the_layers_is_drawn_from_but_not_its_seed():
    model = keras.Sequential([keras.Input((256,)), layers.Dense(256, "relu", name="hidden")])
    AutoInit(seed=1).apply(model)
    kept, scheme = values(model.weights)[0], model.layers[0].kernel_initializer
    reinitialize(model, 2)
    drawn = values(model.weights)[0]
    assert not np.array_equal(kept, drawn)
    # The spread of 65,536 draws is known to 1 / sqrt(2 * 65,536) = 0.3 %; the default's is 30 % off.
    assert drawn.std() == pytest.approx(np.sqrt(2 / 256), rel=0.015)
    assert model.layers[0].kernel_initializer is scheme


def test_inserting_a_named_layer_leaves_the_other_draws_alone():
    def model(*more):
        return keras.Sequential([keras.Input((8,)), *more, layers.Dense(8, name="a"), layers.Dense(8, name="b")])

    first, second = model(), model(layers.Dense(8, name="new"))
    for each in (first, second):
        reinitialize(each, 1)
    assert all(same(values(first.weights), values(second.weights)[2:]))


def test_a_shared_layer_and_a_tied_weight_are_drawn_once():
    inputs, source = keras.Input((4,)), layers.Dense(4, name="source")
    alone = keras.Model(inputs, source(source(inputs)))
    reinitialize(alone, 1)
    expected = values(source.weights)
    tied = Tied(4, name="tied").tie(source)
    for output in (tied(source(inputs)), source(tied(inputs))):
        before = values([tied.offset])
        reinitialize(keras.Model(inputs, output), 1)
        assert all(same(expected, values(source.weights)))
        assert tied.matrix is source.kernel
        assert not np.array_equal(before[0], array(tied.offset))
        tied.offset.assign(np.zeros(4))


def test_data_that_layers_have_adapted_to_stays():
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)))
    model = keras.Sequential([keras.Input((4,)), normalization, layers.Dense(4)])
    before = values(normalization.weights)
    reinitialize(model, 1)
    assert all(same(before, values(normalization.weights)))


def test_seed_generators_return_to_their_seed_or_get_a_new_one():
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5, seed=3), layers.Dropout(0.5)])
    given, free = (layer.seed_generator.state for layer in model.layers)
    before = array(free)
    model(np.ones((2, 4), "float32"), training=True)
    reinitialize(model, 1)
    assert array(given).tolist() == [3, 0]
    assert array(free)[1] == 0
    assert array(free)[0] != before[0]


def test_states_and_metrics_start_afresh():
    model = keras.Sequential([keras.Input((3, 4), batch_size=2), layers.LSTM(4, stateful=True), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.evaluate(np.ones((2, 3, 4), "float32"), np.ones((2, 1)), verbose=0)
    model(np.ones((2, 3, 4), "float32"))
    assert any(array(state).any() for state in model.layers[0].states)
    reinitialize(model, 1)
    assert not any(array(state).any() for state in model.layers[0].states)
    assert not any(array(variable).any() for variable in model.metrics_variables)


def test_the_forget_gate_of_an_lstm_starts_open():
    model = keras.Sequential([keras.Input((3, 4)), layers.LSTM(4)])
    bias = model.layers[0].cell.bias
    bias.assign(np.full(16, 7.0))
    reinitialize(model, 1)
    assert array(bias).tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


def test_low_rank_kernels_are_drawn_too():
    model = mlp(8, 1)
    model.layers[0].enable_lora(2)
    fitted(model)
    reinitialize(model, 1)
    first, second = model.layers[0].lora_kernel_a, model.layers[0].lora_kernel_b
    assert array(first).std() > 0
    assert not array(second).any()


def test_what_is_not_built_yet_is_left_to_its_building():
    model = keras.Sequential([layers.Dense(4), layers.Dropout(0.5)])
    reinitialize(model, 1)
    assert not model.built
    assert model(np.ones((2, 3), "float32")).shape == (2, 4)


def test_only_models_start_again():
    with pytest.raises(ModelTypeError):
        reinitialize(layers.Dense(4))


class Stubborn(layers.Layer):
    """Cannot be made again from what it tells."""

    def __init__(self, thing):
        super().__init__()
        self.other = thing
        self.level = self.add_weight(shape=(3,), initializer="zeros")

    def call(self, x):
        return x


class Fickle(layers.Layer):
    """Has other weights each time."""

    def build(self, shape):
        self.level = self.add_weight(shape=(next(LENGTHS),), initializer="zeros", name="level")

    def call(self, x):
        return x


class Broken(keras.initializers.Initializer):
    """Draws once and never again."""

    def __call__(self, shape, dtype=None):
        next(ONCE)
        return keras.ops.ones(shape, dtype)


LENGTHS, ONCE = iter(range(1, 1000)), iter([None])


def quantized():
    layer = layers.Dense(4, name="last")
    layer.build((None, 1))
    layer.quantize("int8")
    return layer


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (lambda: Stubborn(object()), "no attributes that tell thing"),
        (Fickle, r"level \(1,\); the copy has level \(2,\)"),
        (lambda: layers.Dense(2, kernel_initializer=Broken(), name="last"), "StopIteration"),
        (quantized, "quantized"),
    ],
    ids=["constructor", "shapes", "draw", "quantized"],
)
def test_an_error_names_the_layer_and_leaves_everything_as_it_was(last, reason):
    inputs = keras.Input((4,))
    hidden = layers.Dropout(0.5)(layers.Dense(1, name="first")(inputs))
    layer = last()
    model = keras.Model(inputs, layer(hidden))
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(3)
    before = state(model)
    with pytest.raises(RebuildError, match=reason) as error:
        reinitialize(model, 1)
    assert repr(layer.name) in str(error.value)
    assert all(same(before, state(model)))


def next_of_everything(start_again):
    # In older Keras versions, setting the seed leaves a global generator that exists as it is.
    keras.utils.clear_session()
    keras.utils.set_random_seed(5)
    model = mlp(8, 1)
    if start_again:
        reinitialize(model)
    drawn = keras.initializers.HeNormal().seed, np.random.rand(), array(keras.random.normal((2,))).tolist()
    return layers.Dense(1).name, drawn


def test_names_and_chance_of_the_program_are_as_before():
    assert next_of_everything(True) == next_of_everything(False)


# Each process has counted other layers, and asked for other random numbers, by the time it gets there.
OTHER_PROCESS = """
import hashlib, sys
import keras, numpy as np
sys.path.insert(0, "tests")
from models import sentence, values
from keras_autoinit import reinitialize
extra = [keras.layers.Dense(2) for _ in range(int(sys.argv[1]))]
model = sentence()
keras.random.normal((int(sys.argv[1]) + 1,))
reinitialize(model, 11)
drawn = [each.tobytes() for each in values(model.variables)]
print(hashlib.sha256(b"".join(drawn)).hexdigest())
"""


def test_another_process_agrees():
    model = sentence()
    reinitialize(model, 11)
    expected = hashlib.sha256(b"".join(each.tobytes() for each in values(model.variables))).hexdigest()
    found = subprocess.run([sys.executable, "-c", OTHER_PROCESS, "3"], capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == expected


MEMORY = """
import sys
import keras, numpy as np
from keras_autoinit import reinitialize

class Stack(keras.Model):
    def __init__(self, number):
        super().__init__()
        self.number = number
        self.parts = [keras.layers.Dense(2048, use_bias=False) for _ in range(number)]
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x * self.scale

def megabytes(key):
    lines = open("/proc/self/status")
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024

def ready(number):
    model = Stack(number)
    model.compile("adam", "mse")
    model.fit(np.ones((1, 2048)), np.ones((1, 2048)), verbose=0)
    return model

reinitialize(ready(1))
model = ready(12)
open("/proc/self/clear_refs", "w").write("5")
before = megabytes("VmRSS")
reinitialize(model)
print(megabytes("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from Linux's /proc")
def test_memory_beyond_the_model_is_a_few_times_its_largest_layer():
    # Kernels of 16 MiB, twelve of them, and twice as much for Adam. Freed blocks go back to the system at once.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    found = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, env=environment, cwd=Path.cwd()
    )
    # A draw holds its bits, its result and its scaled result at once, and JAX its compiler's scratch.
    assert float(found.stdout.split()[-1]) < 11 * 16 < 12 * 16


class Everything(keras.Model):
    """One layer of every kind, built but not wired: a start depends on no calls."""

    def __init__(self):
        super().__init__()
        self.parts = [make() for make, *_ in ZOO]
        self.token = self.add_weight(shape=(16,), initializer="random_normal", name="token")
        for part, (_, *shapes) in zip(self.parts, ZOO):
            part.build(*shapes)


def kind(layer, *arguments, **options):
    return lambda: layer(*arguments, **options)


FLAT, SERIES, IMAGE, FILM = (None, 8), (None, 5, 8), (None, 8, 8, 8), (None, 3, 6, 6, 2)
VOLUME = (None, 5, 5, 5, 4)
ZOO = [
    (kind(layers.Dense, 16), FLAT),
    (kind(layers.Dense, 16, lora_rank=4), FLAT),
    (kind(layers.EinsumDense, "abc,cd->abd", (None, 16), bias_axes="d"), SERIES),
    (kind(layers.Embedding, 32, 8), SERIES),
    (kind(layers.Conv1D, 8, 3), SERIES),
    (kind(layers.Conv2D, 16, 3, groups=2, kernel_initializer="he_uniform"), IMAGE),
    (kind(layers.Conv3D, 4, 2, kernel_initializer="random_normal"), VOLUME),
    (kind(layers.Conv1DTranspose, 8, 3), SERIES),
    (kind(layers.Conv2DTranspose, 8, 3), IMAGE),
    (kind(layers.Conv3DTranspose, 4, 2), VOLUME),
    (kind(layers.DepthwiseConv1D, 3), SERIES),
    (kind(layers.DepthwiseConv2D, 3, depth_multiplier=2), IMAGE),
    (kind(layers.SeparableConv1D, 8, 3), SERIES),
    (kind(layers.SeparableConv2D, 8, 3), IMAGE),
    (kind(layers.BatchNormalization, gamma_initializer="random_uniform"), IMAGE),
    (kind(layers.LayerNormalization), SERIES),
    (kind(layers.GroupNormalization, 4), IMAGE),
    (kind(layers.PReLU, "glorot_normal"), FLAT),
    (kind(layers.LSTM, 8, bias_initializer="random_normal"), SERIES),
    (kind(layers.GRU, 8, recurrent_initializer="glorot_normal"), SERIES),
    (kind(layers.SimpleRNN, 8, dropout=0.1), SERIES),
    (lambda: layers.RNN(layers.StackedRNNCells([layers.LSTMCell(8), layers.GRUCell(8)])), SERIES),
    (lambda: layers.Bidirectional(layers.LSTM(8)), SERIES),
    (lambda: layers.TimeDistributed(layers.Dense(8)), SERIES),
    (lambda: layers.SpectralNormalization(layers.Dense(8)), FLAT),
    (kind(layers.ConvLSTM2D, 4, 3), FILM),
    (kind(layers.MultiHeadAttention, 2, 8), SERIES, SERIES),
    (kind(layers.GroupQueryAttention, 8, 4, 2), SERIES, SERIES),
    (kind(layers.AdditiveAttention), [SERIES, SERIES]),
    (kind(layers.Dropout, 0.5), FLAT),
    (kind(Gated, 8), FLAT),
]


def distance(first, second):
    """The largest distance between two samples' distribution functions: the statistic of Kolmogorov and Smirnov."""
    points = np.sort(np.concatenate([first, second]))
    below = [np.searchsorted(np.sort(each), points, side="right") / each.size for each in (first, second)]
    return np.abs(below[0] - below[1]).max()


def critical(number, chance):
    """The distance that two samples of this size from one distribution exceed with this chance."""
    return np.sqrt(-np.log(chance / 2) / number)


def drawn(number, start):
    """Every variable's values, one row a draw."""
    return [np.stack(rows).reshape(number, -1).astype("float64") for rows in zip(*(start(i) for i in range(number)))]


@pytest.mark.slow
def test_every_variable_is_distributed_as_in_a_model_that_was_just_built():
    model, number = Everything(), 50
    keras.utils.set_random_seed(1)
    fresh = drawn(number, lambda _: values(Everything().variables))
    again = drawn(number, lambda i: (reinitialize(model, i), values(model.variables))[1])
    # A chance of one in a thousand that any of three tests of any variable fails with nothing wrong.
    chance = 1e-3 / (3 * len(fresh))
    for variable, one, other in zip(model.variables, fresh, again, strict=True):
        # All values at once; then one number for each draw, which shows whether the draws are different ones.
        assert distance(one.ravel(), other.ravel()) <= critical(one.size, chance), variable.path
        for statistic in (lambda rows: rows.mean(axis=1), lambda rows: rows[:, 0]):
            assert distance(statistic(one), statistic(other)) <= critical(number, chance), variable.path
        assert len(np.unique(one, axis=0)) == len(np.unique(other, axis=0)), variable.path
