"""The class that a user must know: what it promises on real models, as a method and as a callback."""

import functools
import random
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit import (
    AutoInit,
    ModelTypeError,
    Plan,
    PlanError,
    SelectionError,
    Table,
    TrainedModelError,
    TrainedModelWarning,
)

APPLICATIONS = {
    "ResNet50": (64, 64, 3),
    "MobileNetV2": (64, 64, 3),
    "EfficientNetB0": (64, 64, 3),
    "ConvNeXtTiny": (64, 64, 3),
    "VGG16": (32, 32, 3),
    "Xception": (71, 71, 3),
}


def kernels(model):
    return {w.path: keras.ops.convert_to_numpy(w) for w in model.trainable_weights if len(w.shape) >= 2}


def small():
    return keras.Sequential([keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(2)])


def data(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(32, 8)).astype("float32"), random.normal(size=(32, 2)).astype("float32")


def compiled(model):
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_real_models_change_every_kernel_repeat_their_draw_and_load_again(name, tmp_path):
    include_top = name != "VGG16"
    application = getattr(keras.applications, name)
    build = functools.partial(application, weights=None, input_shape=APPLICATIONS[name], include_top=include_top)
    model = build()
    before = kernels(model)
    plan = AutoInit(seed=3).apply(model)
    after = kernels(model)
    assert len(plan.changes) == len(before)
    # Of millions of float32 numbers a few meet by chance; a kernel left alone would be equal throughout.
    assert [path for path in before if (before[path] == after[path]).mean() > 1e-3] == []
    again = build()
    AutoInit(seed=3).apply(again)
    assert all((a == b).all() for a, b in zip(after.values(), kernels(again).values()))
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(2, *APPLICATIONS[name])).astype("float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


def test_a_plan_changes_nothing():
    model = small()
    before, config = kernels(model), model.get_config()
    AutoInit().plan(model)
    assert model.get_config() == config
    assert all((kernels(model)[path] == value).all() for path, value in before.items())


def test_apply_returns_the_plan_that_plan_would_make():
    model = small()
    assert AutoInit(seed=1).plan(model) == AutoInit(seed=1).apply(model)


def test_without_a_seed_each_apply_draws_afresh_and_records_the_seed():
    model = small()
    first = AutoInit().apply(model)
    weights = kernels(model)
    second = AutoInit().apply(model)
    assert first.seed != second.seed
    AutoInit(seed=first.seed).apply(model)
    assert all((kernels(model)[path] == value).all() for path, value in weights.items())


def test_no_global_random_state_is_read_or_written():
    model = small()
    random.seed(1)
    np.random.seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist()
    AutoInit().apply(model)
    AutoInit(Table({"relu": "autoinit>he_uniform"})).apply(model)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_inserting_a_named_layer_leaves_the_other_draws_alone():
    def build(*more):
        return keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu"), *more, layers.Dense(8, "relu")])

    plain, longer = build(), build(layers.Dense(8, name="inserted"))
    AutoInit(seed=1).apply(plain)
    AutoInit(seed=1).apply(longer)
    for a, b in ((0, 0), (1, 2)):
        x, y = (keras.ops.convert_to_numpy(model.layers[i].kernel) for model, i in ((plain, a), (longer, b)))
        np.testing.assert_array_equal(x, y)


def test_a_plan_is_carried_out_later_with_its_own_seed():
    model = small()
    plan = Plan.from_json(AutoInit(seed=5).plan(model).to_json())
    AutoInit(seed=99).apply(model, plan=plan)
    expected = kernels(model)
    AutoInit(seed=5).apply(model)
    assert all((kernels(model)[path] == value).all() for path, value in expected.items())


def test_what_is_no_plan_is_refused():
    with pytest.raises(PlanError, match="Expected `plan` to be a Plan"):
        AutoInit().apply(small(), plan="table")


def test_notes_say_what_is_not_built_yet():
    plan = AutoInit().plan(keras.Sequential([layers.Dense(4), layers.Dense(2)]))
    assert plan.notes == ("2 weights are not built yet: they are drawn when their layers are.",)


def test_notes_name_the_layers_whose_weights_cannot_be_known_yet():
    class Own(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 2))

    model = keras.Sequential([layers.LSTM(4), layers.BatchNormalization(), layers.ReLU(), Own(name="own")])
    (_, note) = AutoInit().plan(model).notes
    assert note.startswith("'own' is not built")


@pytest.mark.parametrize("method", ["tabel", 3, None])
def test_an_unknown_method_is_named(method):
    with pytest.raises(SelectionError, match=r"Expected `method` to be one of 'data', 'table', 'theory'.*Received"):
        AutoInit(method)


def test_no_model_is_refused():
    with pytest.raises(ModelTypeError):
        AutoInit().apply(layers.Dense(2))


def test_a_compiled_model_stays_compiled_and_trains():
    model = compiled(small())
    AutoInit(seed=1).apply(model)
    assert model.compiled
    losses = model.fit(*data(), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_the_callback_applies_once_at_the_first_fit():
    model, twin = compiled(keras.Sequential([layers.Dense(16, "relu"), layers.Dense(2)])), small()
    start = AutoInit(seed=1)
    seen = []
    keep = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append(kernels(model)))
    model.fit(*data(), epochs=1, verbose=0, callbacks=[start, keep])
    AutoInit(seed=1).apply(twin)
    assert all((a == b).all() for a, b in zip(seen[0].values(), kernels(twin).values()))
    assert len(start.last_plan.changes) == 2
    trained = kernels(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainedModelWarning)
        model.fit(*data(), epochs=1, verbose=0, callbacks=[start, keep])
    assert all((seen[1][path] == trained[path]).all() for path in trained)


def test_the_weights_that_the_callback_sets_are_those_that_training_uses():
    """On JAX the training state is taken from the variables after the callback has run."""
    model = small()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(*data(), verbose=0, callbacks=[AutoInit(Table({"relu": "autoinit>zeros", "linear": "autoinit>zeros"}))])
    assert all((value == 0).all() for value in kernels(model).values())


def test_the_callback_leaves_a_trained_model_alone_and_says_so():
    model = compiled(small())
    model.fit(*data(), verbose=0)
    before = kernels(model)
    seen = []
    keep = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append(kernels(model)))
    with pytest.warns(TrainedModelWarning, match=r"AutoInit left the model alone.*optimizer"):
        model.fit(*data(), verbose=0, callbacks=[AutoInit(), keep])
    assert all((seen[0][path] == before[path]).all() for path in before)


def test_apply_refuses_a_trained_model_and_overwrites_when_told():
    model = compiled(small())
    model.fit(*data(), verbose=0)
    with pytest.raises(TrainedModelError, match=r"optimizer.*Pass overwrite=True"):
        AutoInit().apply(model)
    before = kernels(model)
    AutoInit(overwrite=True).apply(model)
    assert int(model.optimizer.iterations) == 0
    assert all((kernels(model)[path] != value).any() for path, value in before.items())


def pretrained():
    """A trained body, as it comes from a file: convolution, normalization, and no optimizer."""
    body = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.BatchNormalization()], name="body")
    body.layers[1].moving_mean.assign(np.ones(8))
    body.layers[0].bias.assign(np.ones(8))
    return body


@pytest.mark.parametrize("option", ["frozen", "excluded"])
def test_a_new_head_on_a_pretrained_body_is_no_obstacle(option):
    body = pretrained()
    body.trainable = option != "frozen"
    model = keras.Sequential([keras.Input((8,)), body, layers.Dense(2, name="head")])
    before = kernels(model)
    plan = AutoInit(seed=1, exclude="body" if option == "excluded" else None).apply(model)
    assert [row.path for row in plan.changes] == ["head/kernel"]
    assert [path for path, value in kernels(model).items() if path in before and (before[path] != value).any()] == [
        model.get_layer("head").kernel.path
    ]
    assert (keras.ops.convert_to_numpy(body.layers[1].moving_mean) == 1).all()


def test_a_pretrained_body_that_would_be_overwritten_is_one():
    model = keras.Sequential([keras.Input((8,)), pretrained(), layers.Dense(2)])
    with pytest.raises(TrainedModelError, match="body/"):
        AutoInit().apply(model)


def test_overwriting_puts_back_what_starts_from_a_constant():
    model = keras.Sequential([keras.Input((8,)), pretrained(), layers.Dense(2)])
    AutoInit(overwrite=True).apply(model)
    body = model.get_layer("body")
    assert (keras.ops.convert_to_numpy(body.layers[1].moving_mean) == 0).all()
    assert (keras.ops.convert_to_numpy(body.layers[0].bias) == 0).all()
    AutoInit().apply(model)


def test_a_portable_plan_says_what_keeps_the_file_from_loading_anywhere():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2, kernel_initializer="autoinit>he", trainable=False)])
    assert AutoInit(portable=True).plan(model).notes == (
        "1 weights that are kept name schemes of this package: the saved file will need it.",
    )
