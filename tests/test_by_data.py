"""After the method `data`, each weighted layer's output has a standard deviation of 1 on the samples.

The probe here is no part of the package: the model itself runs, in training mode, and activations
that record replace those of its layers.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import everything, samples, values
from probes import Probe

from keras_autoinit import AutoInit, Data, Plan, Table, Theory
from keras_autoinit.errors import DataError, SelectionError, TrainedModelError
from keras_autoinit.graphs import read

# What float32 sums of some thousand numbers leave of a standard deviation.
TOLERANCE = 1e-3


class Recorder:
    """Stands in for a layer's activation and keeps the standard deviation of all that it is given."""

    def __init__(self, activation):
        self.activation, self.seen = activation, []

    def __call__(self, x):
        self.seen.append(np.asarray(ops.convert_to_numpy(x), np.float64).ravel())
        return self.activation(x)

    @property
    def std(self):
        return np.concatenate(self.seen).std()


def probed(model, batch):
    """Standard deviations before the activation of every layer that has one, by the layer's name."""
    found = {}
    for layer in model._flatten_layers(include_self=False):
        kernel = getattr(layer, "kernel", getattr(layer, "pointwise_kernel", None))
        if getattr(layer, "activation", None) is not None and kernel is not None:
            found[layer.name] = layer.activation = Recorder(layer.activation)
        elif isinstance(layer, layers.Embedding):
            found[layer.name] = record = Recorder(layer.call)
            layer.call = lambda x, record=record: record_output(record, record.activation(x))
        elif isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    model(batch, training=True)
    return {name: recorder.std for name, recorder in found.items() if recorder.seen}


def record_output(record, output):
    record.seen.append(np.asarray(ops.convert_to_numpy(output), np.float64).ravel())
    return output


def image(number=16, size=12, channels=3):
    # Far from Gaussian: positive, skewed, correlated between channels.
    source = np.random.default_rng(0)
    return (source.gamma(0.5, size=(number, size, size, 1)) + source.uniform(size=channels)).astype("float32")


def tokens(number=16, length=10, words=40):
    return np.random.default_rng(0).integers(1, words, (number, length)).astype("int32")


def residual():
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)
    for i in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.SeparableConv2D(16, 3, padding="same", activation="silu", name=f"separable{i}")(y)
        y = layers.DepthwiseConv2D(3, padding="same", activation="gelu", name=f"depthwise{i}")(y)
        x = layers.Add()([x, layers.Conv2D(16, 1, groups=2, name=f"branch{i}")(y)])
    x = layers.Conv2DTranspose(8, 4, strides=2, activation="relu", name="up")(x)
    x = layers.Dense(16, "tanh", name="dense")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(4, "softmax", name="head")(x))


def transformer():
    words = keras.Input((10,), dtype="int32")
    x = layers.Embedding(40, 16, name="embedding")(words)
    for i in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, 8, dropout=0.1, name=f"attention{i}")(y, y)])
        y = layers.EinsumDense("abc,cd->abd", (None, 32), bias_axes="d", activation="gelu", name=f"up{i}")(x)
        x = layers.Add()([x, layers.Dense(16, name=f"down{i}")(layers.Dropout(0.0)(y))])
    return keras.Model(words, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(x)))


def deep():
    stack = [layers.Dense(32, "tanh", bias_initializer="random_normal", name=f"dense{i}") for i in range(30)]
    return keras.Sequential([keras.Input((12, 12, 3)), layers.Flatten(), *stack])


def siamese():
    left, right = keras.Input((12, 12, 3)), keras.Input((12, 12, 3))
    tower = keras.Sequential([layers.Conv2D(8, 3, activation="relu", name="seen_twice"), layers.Flatten()])
    tower.add(layers.Dense(8, name="code"))
    return keras.Model([left, right], layers.Dense(1, name="head")(layers.Subtract()([tower(left), tower(right)])))


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.up, self.down = layers.Dense(32, "relu", name="up"), layers.Dense(3, name="down")

    def build(self, shape):
        self.up.build(shape)
        self.down.build((*shape[:-1], 32))

    def call(self, x):
        return x + self.down(self.up(x))


def subclassed():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = Block()
            self.wrapped = layers.TimeDistributed(layers.Dense(5, "relu", name="wrapped"))

        def call(self, x):
            return self.wrapped(ops.reshape(self.block(x), (-1, 12, 36)))

    return Model()


MODELS = {
    "residual": (residual, image),
    "transformer": (transformer, tokens),
    "deep": (deep, image),
    "siamese": (siamese, lambda: [image(), image() ** 2]),
    "subclassed": (subclassed, image),
}


# What ends a residual branch without a normalization has its share of the trunk instead.
BRANCHES = {
    "residual": {"branch0", "branch1"},
    "transformer": {"attention_output", "down0", "down1"},
    "subclassed": {"down"},
}


@pytest.mark.parametrize("name", MODELS)
def test_every_weighted_layer_has_unit_spread_or_its_share(name):
    build, data = MODELS[name]
    model, batch = build(), data()
    plan = AutoInit("data", seed=1).apply(model, batch)
    layers_ = {place.path: place.layer for place in read(model).places}
    probe = Probe(model, batch)
    rows = [row for row in plan if row.fan_in and row.shape]
    assert len(rows) >= 3
    for row in rows:
        layer = layers_[row.path.rpartition("/")[0]]
        variable = getattr(layer, row.path.rpartition("/")[2])
        assert probe.std(variable) == pytest.approx(row.output_std, abs=TOLERANCE)
        branch = layer.name in BRANCHES.get(name, ())
        assert ("residual branch" in row.reason) == branch
        assert row.output_std == pytest.approx(1, abs=TOLERANCE) or branch


def unnormalized(depth=30, width=32):
    x = inputs = keras.Input((36,))
    x = layers.Dense(width, name="stem")(x)
    for i in range(depth):
        y = layers.Dense(width, "relu", name=f"up{i}")(layers.ReLU()(x))
        x = layers.Add()([x, layers.Dense(width, name=f"down{i}")(y)])
    return keras.Model(inputs, x)


@pytest.mark.parametrize("base", [Table(), Theory(), Theory(distribution="orthogonal"), Theory(linear_start=True)])
def test_a_deep_residual_stack_without_normalization_stays_in_bounds(base):
    model, batch = unnormalized(), image().reshape(-1, 36)
    plan = AutoInit(Data(base=base), seed=1).apply(model, batch)
    # Trunk and branches are independent but for chance: together they double the trunk's second moment, at most.
    assert 0.5 < np.mean(ops.convert_to_numpy(model(batch)) ** 2) < 4
    theirs = Data().base if base == Table() else base
    kept = {row.path: row.new.name for row in AutoInit(theirs, seed=1).plan(model)}
    # The scheme stays, or becomes the general one of its family: only the scale is set.
    assert {row.new.name for row in plan if row.new.name != kept[row.path]} <= {"autoinit>variance_scaling"}


def test_branches_that_a_base_leaves_alone_are_left_alone():
    model, batch = unnormalized(3), image().reshape(-1, 36)
    plan = AutoInit(Data(base=Theory(residual="none")), seed=1).plan(model, batch)
    assert plan["down1/kernel"].output_std == 1
    plan = AutoInit(Data(base=Theory(residual="zero")), seed=1).plan(model, batch)
    assert plan["down1/kernel"].new.name == "autoinit>zeros"


def test_a_branch_that_ends_in_an_activation_has_its_share_after_it():
    x = inputs = keras.Input((36,))
    for i in range(4):
        x = layers.Add()([x, layers.Dense(36, "relu", name=f"branch{i}")(x)])
    model, batch = keras.Model(inputs, x), np.random.default_rng(0).normal(size=(256, 36)).astype("float32")
    plan = AutoInit("data", seed=1).apply(model, batch)
    made = ops.convert_to_numpy(model.get_layer("branch0")(batch))
    # A quarter of the way to twice the second moment; what a ReLU makes of some thousand numbers strays a little.
    assert np.mean(made**2) == pytest.approx(2 ** (1 / 4) - 1, rel=0.1)
    assert "residual branch" in plan["branch0/kernel"].reason


def test_both_kernels_of_a_separable_convolution():
    model, batch = keras.Sequential([keras.Input((12, 12, 3)), layers.SeparableConv2D(8, 3, name="both")]), image()
    AutoInit("data", seed=1).apply(model, batch)
    layer = model.get_layer("both")
    between = ops.convert_to_numpy(ops.depthwise_conv(batch, layer.depthwise_kernel))
    assert [between.std(), ops.convert_to_numpy(model(batch)).std()] == pytest.approx([1, 1], abs=TOLERANCE)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_a_recurrent_layer_is_set_on_what_its_input_contributes(kind):
    both = layers.Bidirectional(getattr(layers, kind)(8))
    model = keras.Sequential([keras.Input((12, 36)), both])
    batch = image().reshape(16, 12, 36)
    AutoInit("data", seed=1).apply(model, batch)
    for layer in (both.forward_layer, both.backward_layer):
        assert (batch @ ops.convert_to_numpy(layer.cell.kernel)).std() == pytest.approx(1, abs=TOLERANCE)
        square = ops.convert_to_numpy(layer.cell.recurrent_kernel)[:, :8]
        np.testing.assert_allclose(square @ square.T, np.eye(8), atol=1e-5)


def test_deciding_changes_nothing():
    model, (x, _) = everything(), samples()
    model.compile("adam", "sparse_categorical_crossentropy")
    before, config = values(model.variables), model.to_json()
    AutoInit(Data(center=True), seed=1).plan(model, x)
    assert all(map(np.array_equal, before, values(model.variables)))
    assert model.to_json() == config


class Failing(layers.Layer):
    def call(self, x):
        raise RuntimeError("in the middle")

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_an_error_on_the_way_leaves_the_model_as_it_was():
    model = keras.Sequential([keras.Input((12, 12, 3)), layers.Conv2D(4, 3), Failing(), layers.Conv2D(4, 3)])
    before, config = values(model.variables), model.get_config()
    with pytest.raises(RuntimeError, match="in the middle"):
        AutoInit("data").apply(model, image())
    assert all(map(np.array_equal, before, values(model.variables)))
    assert model.get_config() == config


@pytest.mark.parametrize(("value", "reason"), [(0.0, "constant"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_a_batch_that_tells_nothing_is_said_in_the_row(value, reason):
    model = keras.Sequential([keras.Input((12,)), layers.Dense(8, "relu"), layers.Dense(3)])
    plan = AutoInit("data", seed=1).apply(model, np.full((4, 12), value, "float32"))
    assert all(reason in row.reason for row in plan)
    assert all(np.isfinite(weight).all() for weight in values(model.variables))


def test_a_plan_is_carried_out_later_to_the_bit_and_a_clone_draws_the_same():
    batch = image()
    model = residual()
    plan = AutoInit("data", seed=1).plan(model, batch)
    AutoInit("data").apply(model, plan=Plan.from_json(plan.to_json()))
    other = keras.models.clone_model(model)
    assert all(map(np.array_equal, values(model.weights), values(other.weights)))
    assert probed(other, batch)["head"] == pytest.approx(1, abs=TOLERANCE)


def test_calibrated_averages_make_inference_like_training_and_do_not_look_trained():
    model, batch = residual(), image()
    training = keras.models.clone_model(model)
    AutoInit("data", seed=1).apply(model, batch)
    AutoInit("data", seed=1).apply(training, batch)
    expected = ops.convert_to_numpy(training(batch, training=True))
    np.testing.assert_allclose(ops.convert_to_numpy(model(batch, training=False)), expected, atol=1e-4)
    AutoInit("data", seed=1).apply(model, batch)
    AutoInit(seed=1).plan(model)
    model.layers[2].moving_mean.assign_add(ops.ones(16))
    with pytest.raises(TrainedModelError):
        AutoInit("data", seed=1).apply(model, batch)


def test_averages_are_left_alone_on_demand():
    model, batch = residual(), image()
    plan = AutoInit(Data(calibrate=False), seed=1).apply(model, batch)
    assert not any("moving" in row.path for row in plan)
    assert not ops.convert_to_numpy(model.layers[2].moving_mean).any()


def test_centered_units_have_mean_zero():
    model, batch = residual(), image()
    plan = AutoInit(Data(center=True), seed=1).apply(model, batch)
    spreads = probed(model, batch)
    stated = {name: plan[f"{name}/kernel"].output_std for name in spreads if f"{name}/kernel" in plan.to_json()}
    assert len(stated) >= 6
    assert {name: spreads[name] for name in stated} == pytest.approx(stated, abs=TOLERANCE)
    units = model.get_layer("dense").activation.seen[0].reshape(16, 16)
    np.testing.assert_allclose(units.mean(0), 0, atol=1e-4)


def test_the_last_bias_holds_the_classes_frequencies():
    model = residual()
    AutoInit(Data(output_prior=[1, 2, 3, 4]), seed=1).apply(model, image())
    np.testing.assert_allclose(np.exp(values([model.get_layer("head").bias])[0]), [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    one = keras.Sequential([keras.Input((3,)), layers.Dense(1, "sigmoid")])
    AutoInit(Data(output_prior=0.1), seed=1).apply(one, np.ones((4, 3)) * np.arange(3))
    assert values([one.layers[0].bias])[0] == pytest.approx(np.log(0.1 / 0.9))
    with pytest.raises(DataError, match="a bias for each"):
        AutoInit(Data(output_prior=[1, 2]), seed=1).apply(residual(), image())


def test_what_the_user_chose_is_scaled_if_it_has_a_gain_and_else_left():
    model, batch = residual(), image()
    base = Table(
        {layers.Dense: "autoinit>orthogonal", "gelu": "zeros", "silu": keras.initializers.RandomNormal(0, 0.3)}
    )
    plan = AutoInit(Data(base=base), seed=1, exclude="stem").apply(model, batch)
    assert plan["dense/kernel"].new.name == "autoinit>orthogonal"
    assert plan["stem/kernel"].reason == "Excluded by 'stem'."
    assert "zeros has no gain" in plan["depthwise0/kernel"].reason
    assert probed(model, batch)["dense"] == pytest.approx(1, abs=TOLERANCE)


def test_one_embedding_read_forward_and_a_layer_called_in_a_chain():
    words = keras.Input((10,), dtype="int32")
    embed, again = layers.Embedding(40, 8, mask_zero=True, name="embedding"), layers.Dense(8, "relu", name="again")
    model = keras.Model(words, layers.LSTM(4)(again(again(embed(words)))))
    plan = AutoInit("data", seed=1).apply(model, tokens())
    first = ops.convert_to_numpy(embed(tokens()))
    made = first @ values([again.kernel])[0]
    assert [first.std(), made.std()] == pytest.approx([1, 1], abs=TOLERANCE)
    assert plan["again/kernel"].output_std == 1


def test_without_data_the_error_says_what_to_do():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    with pytest.raises(DataError, match="apply\\(model, x\\)"):
        AutoInit("data").apply(model)
    model.compile("sgd", "mse")
    with pytest.raises(DataError, match="as a callback it does not see the data"):
        model.fit(np.ones((4, 3)), np.ones(4), callbacks=[AutoInit("data")], verbose=0)
    with pytest.raises(SelectionError, match="'data', 'table'"):
        AutoInit("dta")


def test_options_are_checked():
    for options in ({"samples": 0}, {"samples": 1.5}, {"output_prior": [0.5, -0.5]}):
        with pytest.raises(DataError, match="Expected"):
            Data(**options)


def test_a_generator_is_noted():
    model = keras.Sequential([keras.Input((12, 12, 3)), layers.Flatten(), layers.Dense(4)])
    plan = AutoInit(Data(samples=8), seed=1).plan(model, (image() for _ in range(3)))
    assert "`peek` keeps them" in plan.notes[0]
    assert "on 8 samples" in plan.notes[1]


def test_portable_recipes_and_files(tmp_path):
    model, batch = residual(), image()
    AutoInit("data", seed=1, portable=True).apply(model, batch)
    config = model.to_json()
    assert "autoinit" not in config
    assert keras.models.model_from_json(config).layers[2].moving_mean.shape == (16,)


GAINS = """
import json, sys
sys.path.insert(0, "tests")
import keras
from models import everything, samples
from keras_autoinit import AutoInit
plan = AutoInit("data", seed=3).plan(everything(), samples()[0])
gains = {row.path: row.new.config["gain"] for row in plan if "gain" in row.new.config}
print("GAINS " + json.dumps(gains))
"""


def gains_on(backend):
    root = pathlib.Path(__file__).parent.parent
    # JAX mostly compiles here, small programs once each: quickly, then.
    quick = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    environment = {**os.environ, **quick, "KERAS_BACKEND": backend, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", GAINS]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.partition("GAINS ")[2])


@pytest.mark.slow
def test_every_backend_measures_the_same_gains():
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    first, *others = map(gains_on, backends)
    assert len(first) > 15
    for other in others:
        assert other == pytest.approx(first, rel=1e-4)


class Hidden(layers.Layer):
    """Cannot be called on symbols, as it asks for numbers; what it holds is met as it runs."""

    def __init__(self, loop=False, fails=False, **kwargs):
        super().__init__(**kwargs)
        self.loop, self.fails = loop, fails
        self.first, self.norm = layers.Dense(16, "relu", name="first"), layers.BatchNormalization(name="norm")
        self.second, self.unused = layers.Dense(8, name="second"), layers.Dense(8, name="unused")

    def build(self, shape):
        self.first.build(shape)
        self.norm.build((*shape[:-1], 16))
        self.second.build((*shape[:-1], 16))
        self.unused.build(shape)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 8)

    def call(self, x):
        if float(ops.sum(ops.abs(x))) < 0 or self.fails:
            raise RuntimeError("in the middle")
        if self.loop:
            # A loop that the backend traces, or runs as it is.
            x = ops.squeeze(ops.vectorized_map(self.first, ops.expand_dims(x, 1)), 1)
            return self.second(self.norm(x))
        return self.second(self.norm(self.first(x)))


def hidden(**options):
    return keras.Sequential([keras.Input((12, 12, 3)), layers.Flatten(), Hidden(name="hidden", **options)])


@pytest.mark.parametrize("loop", [False, True])
def test_layers_inside_one_that_cannot_be_looked_into_are_met_as_it_runs(loop):
    model, batch = hidden(loop=loop), image(32)
    held = [(layer, set(vars(layer))) for layer in model._flatten_layers()]
    plan = AutoInit("data", seed=1).apply(model, batch)
    assert all(set(vars(layer)) == before for layer, before in held)
    inner = model.get_layer("hidden")
    expected = ops.convert_to_numpy(model(batch, training=True))
    assert expected.std() == pytest.approx(1, abs=TOLERANCE)
    if not loop:
        flat = batch.reshape(32, -1)
        assert (flat @ values([inner.first.kernel])[0]).std() == pytest.approx(1, abs=TOLERANCE)
        made = np.maximum(flat @ values([inner.first.kernel])[0], 0)
        assert "does not call it" in plan["hidden/unused/kernel"].reason
        np.testing.assert_allclose(values([inner.norm.moving_mean])[0] / 0.01, made.mean(0) / 0.01, rtol=1e-1, atol=10)


def test_an_error_inside_one_that_cannot_be_looked_into_leaves_no_trace():
    model, batch = hidden(fails=True), image(8)
    before = values(model.variables)
    held = [(layer, set(vars(layer))) for layer in model._flatten_layers()]
    with pytest.raises(RuntimeError, match="in the middle"):
        AutoInit("data").apply(model, batch)
    assert all(map(np.array_equal, before, values(model.variables)))
    assert all(set(vars(layer)) == names for layer, names in held)


def test_with_more_than_fits_fewer_samples_are_used(monkeypatch):
    model, batch = residual(), image(16)
    monkeypatch.setattr("keras_autoinit.by_data.MEMORY", 1 << 18)
    plan = AutoInit("data", seed=1).plan(model, batch)
    assert "samples were used: what passes between layers takes" in plan.notes[0]
    number = int(plan.notes[0].split()[0])
    assert 1 < number < 16
    # What was stated holds on those.
    AutoInit("data", seed=1).apply(model, plan=plan)
    assert probed(model, batch[:number])["head"] == pytest.approx(1, abs=TOLERANCE)


def test_a_recurrent_layer_inside_one_that_cannot_be_looked_into_is_one_layer():
    class Reader(Hidden):
        def build(self, shape):
            self.lstm = layers.LSTM(8, name="lstm")
            self.lstm.build(shape)

        def compute_output_shape(self, shape):
            return (shape[0], 8)

        def call(self, x):
            return self.lstm(x * float(ops.max(x)))

    model, batch = keras.Sequential([keras.Input((12, 36)), Reader(name="reader")]), image().reshape(16, 12, 36)
    AutoInit("data", seed=1).apply(model, batch)
    kernel = ops.convert_to_numpy(model.layers[0].lstm.cell.kernel)
    assert (batch * batch.max() @ kernel).std() == pytest.approx(1, abs=TOLERANCE)
