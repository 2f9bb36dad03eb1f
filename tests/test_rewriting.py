"""A plan is carried out on the user's own model: all of it, or nothing.

Half a rewriting would be worse than none, and a lost model cannot be drawn back: so what is refused, and
what fails halfway, must leave every bit as it was. What succeeds must be what the plan says, the same each
time, and leave a model that goes on training.
"""

import copy
import dataclasses
import math
import random

import keras
import numpy as np
import pytest
from keras import layers
from models import KINDS, everything, initializers, mlp, regression, values, weights

from keras_autoinit import (
    AutoInit,
    Axes,
    Plan,
    PlanError,
    Recipe,
    SchemeError,
    Slot,
    Table,
    TrainedModelError,
    register_slots,
)
from keras_autoinit.graphs import read
from keras_autoinit.training import signs_of_training
from keras_autoinit.variables import Variable


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(1)


def trained(optimizer="adam", eagerly=True):
    """A model of two hidden layers after two epochs of two steps."""
    model = mlp(8, 6, 1)
    model.compile(optimizer, "mse", run_eagerly=eagerly, jit_compile=False)
    fit(model, epochs=2)
    return model


def fit(model, epochs=1):
    return model.fit(*regression(), batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def kernels(model):
    return values(weights(model).values())


def equal(some, others):
    return len(some) == len(others) and all(map(np.array_equal, some, others))


# --- A plan that does not fit ---


def renamed(plan, index, **fields):
    rows = list(plan)
    rows[index] = dataclasses.replace(rows[index], **fields)
    return dataclasses.replace(plan, decisions=tuple(rows))


def test_a_plan_with_a_weight_that_the_model_lacks_is_refused():
    model = mlp(8, 6, 1)
    plan = renamed(renamed(AutoInit().plan(model), 2, path="later/kernel"), 1, path="missing/kernel")
    with pytest.raises(PlanError, match=r"'missing/kernel', which the model lacks.* Make a new plan from this model"):
        AutoInit().apply(model, plan=plan)


def test_a_plan_of_other_shapes_is_refused():
    plan = AutoInit().plan(mlp(8, 5, 2))
    with pytest.raises(PlanError, match=r"'dense1/kernel' has the shape \(8, 5\).*\(8, 6\)\. Make a new plan"):
        AutoInit().apply(mlp(8, 6, 1), plan=plan)


def test_a_plan_that_does_not_fit_changes_nothing():
    model = mlp(8, 6, 1)
    before, held = values(model.weights), initializers(model)
    with pytest.raises(PlanError):
        AutoInit().apply(model, plan=renamed(AutoInit().plan(model), 2, path="missing/kernel"))
    assert equal(values(model.weights), before)
    assert all(initializers(model)[path] is each for path, each in held.items())


def test_a_row_that_changes_nothing_must_fit_too():
    model = mlp(8, 6, 1)
    plan = AutoInit().plan(model)
    with pytest.raises(PlanError, match="missing/kernel"):
        AutoInit().apply(model, plan=renamed(plan, 0, path="missing/kernel", new=plan.decisions[0].old))


def test_a_plan_that_misses_weights_leaves_them_alone():
    model = mlp(8, 6, 1)
    before = kernels(model)
    plan = AutoInit().plan(model)
    AutoInit().apply(model, plan=dataclasses.replace(plan, decisions=plan.decisions[1:]))
    assert [np.array_equal(*pair) for pair in zip(before, kernels(model))] == [True, False, False]


def test_a_plan_of_a_model_not_yet_built_fits_it_once_built():
    model = keras.Sequential([layers.Dense(8, "relu", name="a"), layers.Dense(1, name="b")])
    plan = AutoInit(seed=1).plan(model)
    model.build((None, 4))
    AutoInit().apply(model, plan=plan)
    assert equal(kernels(model), [redrawn(model, path) for path in weights(model)])


def test_a_plan_from_json_is_carried_out_as_itself():
    one, other = everything(), everything()
    plan = AutoInit(seed=1, portable=True).plan(one)
    AutoInit().apply(one, plan=plan)
    AutoInit().apply(other, plan=Plan.from_json(plan.to_json()))
    assert equal(kernels(one), kernels(other))
    assert one.to_json() == other.to_json()


@pytest.mark.parametrize("plan", ["table", 1, []])
def test_what_is_no_plan_is_refused(plan):
    with pytest.raises(PlanError, match="Expected `plan` to be a Plan"):
        AutoInit().apply(mlp(1), plan=plan)


# --- A trained model ---


def test_a_trained_model_is_refused_with_its_layers_named():
    with pytest.raises(TrainedModelError, match=r"optimizer, dense0, dense1, dense2.*overwrite=True") as caught:
        AutoInit().apply(trained())
    assert caught.value.layers == ("optimizer", "dense0", "dense1", "dense2")


def test_a_refusal_of_a_large_model_names_ten_layers():
    model = mlp(*[2] * 14)
    for layer in model.layers:
        layer.bias.assign([1.0, 1.0])
    with pytest.raises(TrainedModelError, match="dense9 and 4 more"):
        AutoInit().apply(model)


def test_a_refused_model_is_as_it_was():
    model = trained()
    before, steps, held = values(model.weights), values(model.optimizer.variables), initializers(model)
    with pytest.raises(TrainedModelError):
        AutoInit().apply(model)
    assert equal(values(model.weights), before)
    assert equal(values(model.optimizer.variables), steps)
    assert all(initializers(model)[path] is each for path, each in held.items())


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A user's schedule: not registered, without a configuration."""

    def __call__(self, step):
        return 0.01 * keras.ops.minimum(1.0, (keras.ops.cast(step, "float32") + 1) / 4)


class ConfiguredWarmup(Warmup):
    """A user's schedule with a configuration, which only its own program can read."""

    def get_config(self):
        return {}


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    # Its slots do not start at zero.
    "adagrad": lambda: keras.optimizers.Adagrad(0.01, initial_accumulator_value=0.3),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)),
    "own_schedule": lambda: keras.optimizers.Adam(Warmup()),
    "own_configured_schedule": lambda: keras.optimizers.Adam(ConfiguredWarmup()),
    "function": lambda: keras.optimizers.Adam(lambda: 0.01),
    "average": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    "loss_scale_own_schedule": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(Warmup())),
}


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request):
    return OPTIMIZERS[request.param]


def test_overwriting_puts_the_optimizer_back_to_its_start(optimizer):
    model = trained(optimizer())
    AutoInit(seed=1, overwrite=True).apply(model)
    fresh = optimizer()
    fresh.build(model.trainable_variables)
    assert int(model.optimizer.iterations) == 0
    assert equal(values(model.optimizer.variables), values(fresh.variables))


@pytest.mark.parametrize(
    "optimizer", ["momentum", "schedule", "own_schedule", "average", "loss_scale_own_schedule"], indirect=True
)
def test_training_goes_on_after_overwriting_as_from_a_new_compile(optimizer):
    # Not eagerly: what was compiled once must see the new numbers.
    model = trained(optimizer(), eagerly=False)
    AutoInit(seed=1, overwrite=True).apply(model)
    twin = mlp(8, 6, 1)
    twin.set_weights(model.get_weights())
    twin.compile(optimizer(), "mse", run_eagerly=True)
    # The same four steps on the same numbers; 1e-5 is a hundred roundings of float32.
    assert fit(model, epochs=2) == pytest.approx(fit(twin, epochs=2), rel=1e-5)
    assert int(model.optimizer.iterations) == int(twin.optimizer.iterations) > 0


def test_overwriting_keeps_the_optimizer_and_its_learning_rate():
    model = trained(keras.optimizers.Adam(0.1))
    optimizer = model.optimizer
    optimizer.learning_rate = 0.025
    AutoInit(overwrite=True).apply(model)
    assert model.optimizer is optimizer
    assert float(optimizer.learning_rate) == np.float32(0.025)


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "loss_scale"], indirect=True)
@pytest.mark.parametrize(("then", "now"), [(True, False), (False, True)])
def test_overwriting_restarts_an_optimizer_of_other_layers_than_are_trainable_now(optimizer, then, now):
    model = mlp(8, 6, 1)
    model.layers[0].trainable = then
    model.compile(optimizer(), "mse", run_eagerly=True)
    fresh = optimizer()
    fresh.build(model.trainable_variables)
    fit(model)
    model.layers[0].trainable = now
    AutoInit(overwrite=True).apply(model)
    assert equal(values(model.optimizer.variables), values(fresh.variables))


def test_overwriting_draws_what_a_fresh_model_would_get():
    model, fresh = trained(), mlp(8, 6, 1)
    AutoInit(seed=1, overwrite=True).apply(model)
    AutoInit(seed=1).apply(fresh)
    assert equal(kernels(model), kernels(fresh))


def test_a_fresh_optimizer_is_left_alone():
    model = mlp(8, 1)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.optimizer.build(model.trainable_variables)
    slot = model.optimizer.variables[-1]
    slot.assign(np.ones(slot.shape))
    before = values(model.optimizer.variables)
    AutoInit().apply(model)
    assert equal(values(model.optimizer.variables), before)


# --- All or nothing ---


@pytest.fixture
def failing_assign(monkeypatch):
    """Makes the assignment of a given number fail, and tells how many there were."""

    def fail_at(number, error):
        assign, count = Variable.assign, [0]

        def counted(self, value):
            count[0] += 1
            if count[0] == number:
                raise error
            return assign(self, value)

        monkeypatch.setattr(Variable, "assign", counted)
        return count

    return fail_at


LAYERS = 12
# Of twelve kernels and an optimizer with two slots for each of 24 weights: the first and the tenth kernel, the
# last one, the optimizer's first variable, and one of its slots.
POINTS = [1, 10, LAYERS, LAYERS + 1, LAYERS + 20]


@pytest.fixture
def deep():
    """A trained model of twelve kernels."""
    model = mlp(*[5] * (LAYERS - 1), 1)
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    model.train_on_batch(*regression())
    return model


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("point", POINTS)
def test_an_error_on_the_way_leaves_every_bit_as_it_was(deep, failing_assign, point, error):
    before, steps, held = values(deep.weights), values(deep.optimizer.variables), initializers(deep)
    count = failing_assign(point, error)
    with pytest.raises(type(error)):
        AutoInit(overwrite=True).apply(deep)
    assert count[0] >= point
    assert equal(values(deep.weights), before)
    assert equal(values(deep.optimizer.variables), steps)
    assert all(initializers(deep)[path] is each for path, each in held.items())


def test_a_failed_rewriting_can_be_repeated(deep, failing_assign):
    failing_assign(10, RuntimeError("no memory"))
    with pytest.raises(RuntimeError):
        AutoInit(seed=1, overwrite=True).apply(deep)
    AutoInit(seed=1, overwrite=True).apply(deep)
    assert equal(kernels(deep), [redrawn(deep, path) for path in weights(deep)])


def test_a_scheme_that_does_not_fit_its_weight_leaves_every_bit_as_it_was():
    # Pairs of eight units do not divide the last kernel's five outputs: known only when it is drawn.
    model = mlp(8, 8, 8, 5)
    before, held = values(model.weights), initializers(model)
    plan = AutoInit().plan(model).replace("dense3/kernel", Recipe("autoinit>mirrored", {"pairs_out": 8}))
    with pytest.raises(SchemeError, match=r"\(8, 5\)"):
        AutoInit().apply(model, plan=plan)
    assert equal(values(model.weights), before)
    assert all(initializers(model)[path] is each for path, each in held.items())


def test_an_unbuilt_layer_gets_its_initializer_back():
    model = keras.Sequential([layers.Dense(8, name="a"), layers.Dense(8, name="b")])
    held = initializers(model)
    plan = AutoInit().plan(model).replace("b/kernel", Recipe("autoinit>missing"))
    with pytest.raises(SchemeError, match="autoinit>missing"):
        AutoInit().apply(model, plan=plan)
    assert all(initializers(model)[path] is each for path, each in held.items())


# --- What is drawn ---


def redrawn(model, path):
    """What a weight's initializer draws for it."""
    variable = weights(model)[path]
    return np.array(keras.ops.convert_to_numpy(initializers(model)[path](tuple(variable.shape), dtype=variable.dtype)))


def test_every_stored_initializer_draws_the_weight_again():
    model = everything()
    AutoInit(seed=1).apply(model)
    assert equal(kernels(model), [redrawn(model, path) for path in weights(model)])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16", "float64"])
def test_every_stored_initializer_draws_the_weight_again_in_any_precision(policy):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu", dtype=policy), layers.Dense(2, dtype=policy)])
    AutoInit(seed=1).apply(model)
    assert equal(kernels(model), [redrawn(model, path) for path in weights(model)])


def test_no_two_weights_are_drawn_alike():
    model = everything()
    AutoInit(seed=1).apply(model)
    assert len({kernel.tobytes() for kernel in kernels(model)}) == len(kernels(model))


def shared_instance():
    start = keras.initializers.HeNormal(seed=1)
    stack = [layers.Dense(6, "relu", kernel_initializer=start, name=f"dense{i}") for i in range(3)]
    return keras.Sequential([keras.Input((6,)), *stack])


def attention():
    inputs = keras.Input((5, 8))
    start = keras.initializers.HeNormal(seed=1)
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4, kernel_initializer=start, name="mha")(inputs, inputs))


@pytest.mark.parametrize("build", [shared_instance, attention])
def test_one_initializer_for_several_weights_ends_in_different_weights(build):
    model = build()
    before = kernels(model)
    assert np.array_equal(before[0], before[1])
    AutoInit(seed=1).apply(model)
    assert len({kernel.tobytes() for kernel in kernels(model)}) == len(before)


def test_no_two_weights_share_an_initializer():
    model = shared_instance()
    AutoInit(seed=1).apply(model)
    assert len(set(map(id, initializers(model).values()))) == 3


def test_one_seed_gives_one_model():
    one, other = everything(), everything()
    AutoInit(seed=1).apply(one)
    AutoInit(seed=1).apply(other)
    assert equal(kernels(one), kernels(other))


def test_another_seed_gives_another_model():
    one, other = everything(), everything()
    AutoInit(seed=1).apply(one)
    AutoInit(seed=2).apply(other)
    assert not any(map(np.array_equal, kernels(one), kernels(other)))


def automatic():
    """Layers without names, which Keras counts through the session."""
    return keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(6, "relu")),
            layers.RNN([layers.GRUCell(4), layers.GRUCell(4)]),
            keras.Sequential([layers.Dense(4, "relu"), layers.Dense(2)]),
        ]
    )


def test_one_seed_gives_one_model_whatever_keras_calls_its_layers():
    one, other = automatic(), automatic()
    AutoInit(seed=1).apply(one)
    AutoInit(seed=1).apply(other)
    assert equal(kernels(one), kernels(other))


def test_the_plan_records_the_seed_that_was_drawn():
    one, other = mlp(8, 1), mlp(8, 1)
    plan = AutoInit().apply(one)
    AutoInit(seed=plan.seed).apply(other)
    assert equal(kernels(one), kernels(other))


def test_no_global_seed_is_read():
    def after(seed):
        keras.utils.set_random_seed(seed)
        model = mlp(8, 1)
        AutoInit(seed=1).apply(model)
        return kernels(model)

    assert equal(after(1), after(2))


@pytest.mark.parametrize("build", [everything, lambda: keras.Sequential([layers.Dense(8), layers.LSTM(4)])])
def test_no_global_seed_is_written(build):
    model = build()
    python, numbers = random.getstate(), str(np.random.get_state())
    AutoInit(seed=1).apply(model)
    assert random.getstate() == python
    assert str(np.random.get_state()) == numbers


def test_only_the_weights_of_rows_change():
    model = everything()
    names = {id(variable) for variable in weights(model).values()}
    others = [variable for variable in model.weights if id(variable) not in names]
    before = values(others)
    AutoInit(seed=1).apply(model)
    assert len(others) > 10
    assert equal(values(others), before)


def test_frozen_layers_are_left_alone():
    model = everything()
    model.get_layer("picture").trainable = False
    before, held = values(model.get_layer("picture").weights), initializers(model)
    AutoInit(seed=1).apply(model)
    assert equal(values(model.get_layer("picture").weights), before)
    kept = {path for path, each in held.items() if initializers(model)[path] is each}
    assert kept == {path for path in held if path.startswith("picture/")}


# Xavier's, He's and LeCun's fans as the table assigns them are tested with the table: here, one scheme for all.
@pytest.mark.parametrize("kind", KINDS)
def test_an_unbuilt_model_draws_with_the_right_axes_when_it_is_built(kind):
    model = KINDS[kind].model(built=False)
    roles = ("kernel", "depthwise", "pointwise", "embeddings", "input", "recurrent")
    plan = AutoInit(Table(dict.fromkeys(roles, "autoinit>xavier_normal")), seed=1).apply(model)
    assert all(row.shape is None and row.changed for row in plan)
    model.build((None, *KINDS[kind].shape))
    for path, variable in weights(model).items():
        fan_in, fan_out = KINDS[kind].fans[path.rpartition("/")[2]]
        (array,) = values([variable])
        # The spread of n numbers is known to 1 / sqrt(2 n) of itself: five of those.
        assert np.std(array) == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=5 / math.sqrt(2 * array.size))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unbuilt_model_draws_what_a_built_one_gets(kind):
    later, now = KINDS[kind].model(built=False), KINDS[kind].model(built=True)
    AutoInit(seed=1).apply(later)
    AutoInit(seed=1).apply(now)
    later.build((None, *KINDS[kind].shape))
    assert equal(kernels(later), kernels(now))


# --- Initializers of others ---


@keras.saving.register_keras_serializable("theirs", "Halves")
class Halves(keras.initializers.Initializer):
    """A user's initializer that takes no seed."""

    def __init__(self, value=0.5):
        self.value = value

    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, self.value, dtype=dtype)

    def get_config(self):
        return {"value": self.value}


@keras.saving.register_keras_serializable("theirs", "Seeded")
class Seeded(keras.initializers.Initializer):
    """A user's initializer that takes a seed."""

    def __init__(self, seed=None):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        return keras.ops.cast(np.random.default_rng(self.seed).normal(size=shape), dtype)

    def get_config(self):
        return {"seed": self.seed}


class Unregistered(Halves):
    """A user's initializer that Keras cannot find by name."""


def quarters(shape, dtype=None):
    return keras.ops.full(shape, 0.25, dtype=dtype)


OTHERS = {
    "name": "he_uniform",
    "class": keras.initializers.HeUniform,
    "instance": keras.initializers.HeUniform(),
    "orthogonal": keras.initializers.Orthogonal(0.5),
    "seeded": Seeded(),
}


@pytest.mark.parametrize("override", OTHERS.values(), ids=OTHERS)
def test_another_initializer_gets_a_seed_for_each_weight(override):
    model = mlp(8, 8, 8, 1)
    AutoInit(Table({"relu": override}), seed=1).apply(model)
    assert not np.array_equal(*kernels(model)[1:3])
    assert equal(kernels(model), [redrawn(model, path) for path in weights(model)])


def test_a_stock_override_is_what_the_layer_holds():
    model = mlp(8, 1)
    AutoInit(Table({"relu": "he_uniform"})).apply(model)
    assert type(model.layers[0].kernel_initializer) is keras.initializers.HeUniform


@pytest.mark.parametrize(
    ("override", "value"), [(Halves(0.75), 0.75), (Halves, 0.5), ("theirs>Halves", 0.5)], ids=["given", "class", "name"]
)
def test_a_registered_initializer_fills_the_weight(override, value):
    model = mlp(8, 1)
    AutoInit(Table({"relu": override})).apply(model)
    assert set(kernels(model)[0].ravel()) == {value}
    assert type(model.layers[0].kernel_initializer) is Halves


@pytest.mark.parametrize("override", [Unregistered(), quarters, "misspelt"], ids=["instance", "function", "name"])
def test_an_initializer_that_keras_cannot_make_again_fails_aloud(override):
    model = mlp(8, 1)
    before = values(model.weights)
    with pytest.raises(SchemeError, match=r"Expected an initializer that Keras can make\. Received: (\w+>)?\w+\."):
        AutoInit(Table({"relu": override})).apply(model)
    assert equal(values(model.weights), before)


def test_a_layer_with_an_initializer_of_its_own_is_rewritten():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu", kernel_initializer=quarters)])
    plan = AutoInit(seed=1).apply(model)
    assert [row.old.name for row in plan] == ["quarters"]
    assert np.std(kernels(model)[0]) > 0


def test_rewriting_twice_is_rewriting_once():
    once, twice = everything(), everything()
    AutoInit(seed=2).apply(once)
    AutoInit(seed=1).apply(twice)
    AutoInit(seed=2).apply(twice)
    assert equal(kernels(once), kernels(twice))
    assert once.to_json() == twice.to_json()


def test_a_rewritten_model_shows_no_sign_of_training():
    model = everything()
    AutoInit(seed=1).apply(model)
    assert signs_of_training(getattr(model, "optimizer", None), read(model).places) == ()


ATTENTIONS = {
    "multi_head": lambda: layers.MultiHeadAttention(2, 4, value_dim=6, name="attend"),
    "group_query": lambda: layers.GroupQueryAttention(4, 4, 2, name="attend"),
    "gated_multi_head": lambda: layers.MultiHeadAttention(2, 4, use_gate=True, name="attend"),
    "gated_group_query": lambda: layers.GroupQueryAttention(4, 4, 2, use_gate=True, name="attend"),
}


def attending(kind):
    """A model of one attention layer."""
    inputs = keras.Input((5, 8))
    try:
        layer = ATTENTIONS[kind]()
    except (AttributeError, TypeError, ValueError):
        pytest.skip(f"Keras {keras.version()} has no {kind} attention.")
    return keras.Model(inputs, layer(inputs, inputs))


@pytest.mark.parametrize(("include", "expected"), [(None, "XavierNormal"), ("attend/query", "GlorotUniform")])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_an_attention_layer_tells_the_scheme_that_all_its_projections_have(kind, include, expected):
    model = attending(kind)
    AutoInit(seed=1, include=include).apply(model)
    config = model.get_layer("attend").get_config()["kernel_initializer"]
    assert config["class_name"] == expected
    assert config["config"]["seed"] is None


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_every_projection_has_the_spread_of_its_own_fans_and_a_draw_of_its_own(kind):
    model = attending(kind)
    plan = AutoInit(seed=1).apply(model)
    for path, variable in weights(model).items():
        (array,) = values([variable])
        expected = math.sqrt(2 / (plan[path].fan_in + plan[path].fan_out))
        assert np.std(array) == pytest.approx(expected, rel=5 / math.sqrt(2 * array.size))
    assert len({kernel.tobytes() for kernel in kernels(model)}) == len(kernels(model))


# --- Weights for which the layer keeps no initializer ---


@keras.saving.register_keras_serializable("tests", "Bare")
class Bare(layers.Layer):
    """Experts in a list and positions, all by `add_weight` alone."""

    def build(self, shape):
        self.experts = [self.add_weight(shape=(shape[-1], 24), name="expert") for _ in range(2)]
        self.positions = self.add_weight(shape=tuple(shape[1:]), initializer="zeros")

    def call(self, inputs):
        return (inputs + self.positions) @ (self.experts[0] + self.experts[1])


BARE = ["bare/experts.0", "bare/experts.1", "bare/positions"]
HE_FOR_UNKNOWN = Table({"unknown": "autoinit>he_normal"})


def bare():
    return keras.Sequential([keras.Input((16, 32)), Bare(name="bare")])


def test_a_weight_without_an_argument_is_drawn_and_the_layer_says_what_it_said():
    model = bare()
    config = model.get_config()
    plan = AutoInit(HE_FOR_UNKNOWN, seed=1).apply(model)
    assert [row.path for row in plan.changes] == BARE
    one, other, positions = kernels(model)
    assert not np.array_equal(one, other)
    for array, variance in ((one, 2 / 32), (other, 2 / 32), (positions, 1)):
        assert np.std(array) == pytest.approx(math.sqrt(variance), rel=5 / math.sqrt(2 * array.size))
    assert model.get_config() == config


@pytest.mark.parametrize("copied", ["deepcopy", "clone", "file"])
def test_a_weight_without_an_argument_is_found_in_a_copy(copied, tmp_path):
    model = bare()
    AutoInit(HE_FOR_UNKNOWN, seed=1).apply(model)
    if copied == "file":
        model.save(tmp_path / "model.keras")
    twin = {
        "deepcopy": lambda: copy.deepcopy(model),
        "clone": lambda: keras.models.clone_model(model),
        "file": lambda: keras.saving.load_model(tmp_path / "model.keras"),
    }[copied]()
    assert list(weights(twin)) == BARE
    if copied != "clone":
        assert equal(kernels(twin), kernels(model))
    AutoInit(HE_FOR_UNKNOWN, seed=1).apply(twin)
    assert equal(kernels(twin), kernels(model))


def test_what_nobody_decides_keeps_its_values():
    model = bare()
    before = kernels(model)
    AutoInit(seed=1).apply(model)
    assert [np.array_equal(*pair) for pair in zip(before, kernels(model))] == [True, True, False]


def test_a_row_chosen_by_hand_is_carried_out_on_it():
    model = bare()
    plan = AutoInit(seed=1).plan(model).replace("bare/experts.0", "autoinit>zeros")
    AutoInit().apply(model, plan=plan)
    layer = model.layers[0]
    assert [np.abs(array).max() == 0 for array in values([*layer.experts, layer.positions])] == [True, False, False]


class Registered(layers.Layer):
    """Has one weight, which its slots know before it is built."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], 3))

    def call(self, inputs):
        return inputs @ self.table


@register_slots(Registered)
def _registered(layer):
    return (Slot("kernel", "table", None, Axes((0,), (1,))),)


def test_an_unbuilt_weight_without_an_argument_waits_until_it_is_built():
    model = keras.Sequential([Registered(name="own")])
    row = AutoInit().plan(model)["own/table"]
    assert (row.changed, row.shape) == (False, None)
    assert row.reason.startswith("Not built, and its layer keeps no initializer")
    by_hand = AutoInit().plan(model).replace("own/table", "autoinit>he")
    with pytest.raises(PlanError, match="Expected 'own/table' to be built"):
        AutoInit().apply(model, plan=by_hand)
    model.build((None, 4))
    assert [row.path for row in AutoInit(seed=1).apply(model).changes] == ["own/table"]


def test_a_plan_of_a_built_model_fits_it_before_it_is_built():
    built, unbuilt = KINDS["gru"].model(built=True), KINDS["gru"].model(built=False)
    plan = AutoInit(seed=1).apply(built)
    unbuilt.layers[0].name, unbuilt.layers[0].cell.name = built.layers[0].name, built.layers[0].cell.name
    AutoInit().apply(unbuilt, plan=plan)
    unbuilt.build((None, *KINDS["gru"].shape))
    assert equal(kernels(unbuilt), kernels(built))


def test_one_initializer_for_two_tables_is_left_as_it_is():
    if not hasattr(layers, "ReversibleEmbedding"):
        pytest.skip(f"Keras {keras.version()} has no ReversibleEmbedding.")
    model = keras.Sequential([keras.Input((6,)), layers.ReversibleEmbedding(500, 32, tie_weights=False, name="table")])
    config = model.get_config()
    AutoInit(seed=1).apply(model)
    forth, back = kernels(model)
    for array, variance in ((forth, 1), (back, 2 / 532)):
        assert np.std(array) == pytest.approx(math.sqrt(variance), rel=5 / math.sqrt(2 * array.size))
    assert model.get_config() == config


@keras.saving.register_keras_serializable("tests", "Positions")
class Positions(layers.Layer):
    """One weight and one `initializer`, as the position embeddings of Keras Hub."""

    def __init__(self, initializer="glorot_uniform", **options):
        super().__init__(**options)
        self.initializer = keras.initializers.get(initializer)

    def build(self, shape):
        self.position_embeddings = self.add_weight(shape=tuple(shape[1:]), initializer=self.initializer)

    def call(self, inputs):
        return inputs + self.position_embeddings

    def get_config(self):
        return {**super().get_config(), "initializer": keras.initializers.serialize(self.initializer)}


def test_the_argument_of_positions_draws_them_again_in_a_clone():
    model = keras.Sequential([keras.Input((16, 32)), Positions(name="positions")])
    AutoInit(seed=1).apply(model)
    assert equal(kernels(keras.models.clone_model(model)), kernels(model))
    (array,) = kernels(model)
    assert np.std(array) == pytest.approx(1, rel=5 / math.sqrt(2 * array.size))


# --- Recurrent layers ---


@pytest.mark.parametrize("kind", ["lstm", "gru", "conv_lstm_1d", "conv_lstm_2d", "conv_lstm_3d"])
def test_recurrent_kernels_are_orthogonal_gate_by_gate(kind):
    model = KINDS[kind].model(built=True)
    AutoInit(seed=1).apply(model)
    (array,) = (values([each])[0] for path, each in weights(model).items() if path.endswith("recurrent_kernel"))
    filters, gates = array.shape[-2], array.shape[-1] // array.shape[-2]
    assert gates == (3 if kind == "gru" else 4)
    for gate in np.split(array.reshape(-1, array.shape[-1]), gates, axis=1):
        # Float32 sums of a few hundred products.
        assert gate.T @ gate == pytest.approx(np.eye(filters), abs=1e-5)


def test_cells_in_a_stack_are_drawn_each_with_its_own_fans():
    cells = [layers.LSTMCell(48, name="first"), layers.GRUCell(32, name="second")]
    model = keras.Sequential([keras.Input((5, 64)), layers.RNN(cells, name="rnn")])
    plan = AutoInit(seed=1).apply(model)
    fans = {row.path.split("/", 1)[1].split("/", 1)[1]: (row.fan_in, row.fan_out) for row in plan.changes}
    assert fans == {
        "first/kernel": (64, 48),
        "first/recurrent_kernel": (48, 48),
        "second/kernel": (48, 32),
        "second/recurrent_kernel": (32, 32),
    }


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.LSTM(3), (5, 4)),
        (lambda: layers.Bidirectional(layers.LSTM(3)), (5, 4)),
        (lambda: layers.ConvLSTM1D(3, 2), (2, 5, 4)),
        (lambda: layers.ConvLSTM2D(3, 2), (2, 4, 4, 4)),
    ],
    ids=["lstm", "bidirectional", "conv_lstm_1d", "conv_lstm_2d"],
)
@pytest.mark.parametrize("train", [False, True])
def test_the_forget_bias_stays_at_one(make, shape, train):
    model = keras.Sequential([keras.Input(shape), make(), layers.Flatten(), layers.Dense(1)])
    if train:
        model.compile("sgd", "mse", run_eagerly=True)
        model.train_on_batch(np.ones((2, *shape), "float32"), np.ones((2, 1), "float32"))
    AutoInit(seed=1, overwrite=train).apply(model)
    biases = [each for each in values(model.trainable_weights) if each.shape == (12,)]
    assert biases
    assert all(np.array_equal(bias, np.repeat([0, 1, 0, 0], 3)) for bias in biases)
