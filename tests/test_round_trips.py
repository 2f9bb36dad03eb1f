"""A start that is lost on the way to a file is no start.

What `AutoInit` leaves on a model, weights and initializers, must survive every way in which Keras
writes a model down and reads it again, in this process and in one that has yet to import the package.
Where the package is never imported, a file that names its schemes must fail aloud, and one written
with `portable=True` must load.
"""

import copy
import json
import math
import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from models import everything, initializers, mlp, regression, samples, values, weights

from keras_autoinit import AutoInit

BACKEND = keras.config.backend()

# The same float32 sums, possibly in another order: outputs are softmax values below one, made of sums of
# fewer than 200 terms in each of a dozen layers, so rounding (6e-8 a term) stays below 1e-5 with room.
TOLERANCE = 1e-5

PORTABLE = {"schemes": False, "portable": True}
INPUTS = samples()[0]


@pytest.fixture(scope="module")
def models():
    """One model as the package leaves it, and one that needs no package."""
    made = {kind: everything() for kind in PORTABLE}
    for kind, model in made.items():
        AutoInit(seed=1, portable=PORTABLE[kind]).apply(model)
    return made


@pytest.fixture(scope="module", params=PORTABLE)
def model(request, models):
    return models[request.param]


# For what only a model with schemes on its layers can show.
schemes_only = pytest.mark.parametrize("model", ["schemes"], indirect=True)


def outputs_of(model):
    return keras.ops.convert_to_numpy(model(INPUTS, training=False))


def through_keras(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def through_h5(model, folder):
    model.save(folder / "model.h5")
    return keras.saving.load_model(folder / "model.h5")


def through_json(model, folder):
    return with_weights_of(model, keras.models.model_from_json(model.to_json()))


def through_config(model, folder):
    return with_weights_of(model, type(model).from_config(model.get_config()))


def through_clone(model, folder):
    return with_weights_of(model, keras.models.clone_model(model))


def through_deepcopy(model, folder):
    return copy.deepcopy(model)


def through_pickle(model, folder):
    return pickle.loads(pickle.dumps(model))


def with_weights_of(model, other):
    other.set_weights(model.get_weights())
    return other


WAYS = [
    through_keras,
    through_h5,
    through_json,
    through_config,
    through_clone,
    through_deepcopy,
    through_pickle,
]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.__name__.removeprefix("through_"))
def copied(request, model, tmp_path_factory):
    return request.param(model, tmp_path_factory.mktemp("file"))


def test_the_copy_gives_equal_outputs(copied, model):
    np.testing.assert_allclose(outputs_of(copied), outputs_of(model), atol=TOLERANCE)


def test_the_copy_has_equal_weights(copied, model):
    assert all(map(np.array_equal, values(model.weights), values(copied.weights)))


def test_the_copy_has_equal_initializers(copied, model):
    assert own_initializers(copied) == own_initializers(model)


def own_initializers(model):
    """The initializers as plain data, but for the projections of attention layers: they have one for four."""
    found = {path: keras.initializers.serialize(each) for path, each in initializers(model).items()}
    return {path: each for path, each in found.items() if "attention" not in path}


@schemes_only
def test_the_copy_has_attention_layers_of_equal_schemes(copied, model):
    assert attention_schemes(copied) == attention_schemes(model)


def attention_schemes(model):
    """The kinds of initializer that the projections of attention layers have: their seeds may differ."""
    return {path: type(each).__name__ for path, each in initializers(model).items() if "attention" in path}


def test_saved_weights_load_into_a_model_that_was_drawn_otherwise(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    other = everything()
    AutoInit(seed=2).apply(other)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(outputs_of(other), outputs_of(model), atol=TOLERANCE)


def test_the_draw_of_a_clone_has_the_spread_of_the_original():
    model = everything()
    AutoInit(seed=1).apply(model)
    spreads = {path: float(np.std(value)) for path, value in zip(weights(model), values(weights(model).values()))}
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    clone = weights(keras.models.clone_model(model))
    # Two draws of n numbers, neither of longer tails than a normal: each spread is known to
    # 1 / sqrt(2 n) of itself, their difference to 1 / sqrt(n). Five of those.
    wrong = {
        path: (spreads[path], float(np.std(value)))
        for path, value in zip(clone, values(clone.values()))
        if abs(np.std(value) / spreads[path] - 1) > 5 / math.sqrt(value.size)
    }
    assert not wrong


def test_a_clone_has_no_two_equal_kernels():
    model = everything()
    AutoInit(seed=1).apply(model)
    drawn = values(weights(keras.models.clone_model(model)).values())
    assert len({value.tobytes() for value in drawn}) == len(drawn)


def test_only_a_portable_model_names_nothing_of_the_package(models):
    assert "autoinit" in models["schemes"].to_json()
    assert "autoinit" not in models["portable"].to_json()


# A process of its own: reads every file of some folders, and tells what came of it and whether it imported the package.
READER = """
import json, pickle, sys
if sys.argv[1] == "import":
    import keras_autoinit
import keras
import numpy as np

def text(name):
    with open(folder + "/" + name) as file:
        return file.read()

def from_pickle():
    with open(folder + "/model.pickle", "rb") as file:
        return pickle.load(file)

def with_weights(model):
    model.load_weights(folder + "/model.weights.h5")
    return model

ways = {
    "keras": lambda: keras.saving.load_model(folder + "/model.keras"),
    "h5": lambda: keras.saving.load_model(folder + "/model.h5"),
    "json": lambda: with_weights(keras.models.model_from_json(text("model.json"))),
    "config": lambda: with_weights(keras.Model.from_config(json.loads(text("config.json")))),
    "pickle": from_pickle,
}

def tell(way):
    try:
        model = way()
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    inputs = list(np.load(folder + "/inputs.npz").values())
    outputs = keras.ops.convert_to_numpy(model(inputs, training=False))
    return {"outputs": outputs.tolist(), "config": model.to_json()}

for folder in sys.argv[2:]:
    told = {name: tell(way) for name, way in ways.items()}
    told["imported"] = "keras_autoinit" in sys.modules
    with open(folder + "/told by " + sys.argv[1], "w") as file:
        json.dump(told, file)
"""


def run(script, *arguments):
    """Runs a script in a process of its own."""
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def told(models, tmp_path_factory):
    """What other processes told of the models' files: `"import"` imports the package first."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in models}
    for kind, model in models.items():
        write_every_form(model, folders[kind])
    run(READER, "import", folders["schemes"])
    run(READER, "no import", *folders.values())
    return {
        (kind, how): json.loads((folders[kind] / f"told by {how}").read_text())
        for kind, how in [("schemes", "import"), ("schemes", "no import"), ("portable", "no import")]
    }


def write_every_form(model, folder):
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "model.weights.h5")
    (folder / "model.json").write_text(model.to_json())
    (folder / "config.json").write_text(json.dumps(model.get_config()))
    (folder / "model.pickle").write_bytes(pickle.dumps(model))
    np.savez(folder / "inputs.npz", *INPUTS)


FORMS = ["keras", "h5", "json", "config", "pickle"]
LOADING = [("schemes", "import"), ("portable", "no import")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kind", "how"), LOADING)
def test_a_new_process_computes_equal_outputs(kind, how, form, told, models):
    assert "error" not in told[kind, how][form], told[kind, how][form]
    np.testing.assert_allclose(told[kind, how][form]["outputs"], outputs_of(models[kind]), atol=TOLERANCE)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kind", "how"), LOADING)
def test_a_new_process_has_equal_initializers(kind, how, form, told, models):
    # All of the configuration but how the model was built and compiled.
    assert json.loads(told[kind, how][form]["config"])["config"] == json.loads(models[kind].to_json())["config"]


@pytest.mark.parametrize("form", FORMS)
def test_without_the_package_a_file_of_schemes_fails_aloud(form, told):
    # Keras raises a TypeError for every form, and says what it could not make.
    error = told["schemes", "no import"][form]
    assert error["error"] == "TypeError"
    assert "autoinit>" in error["message"]


def test_the_other_processes_imported_the_package_only_when_told_to(told):
    assert {how: each["imported"] for (_, how), each in told.items()} == {"import": True, "no import": False}


# TensorFlow alone: no Keras model, no package, only the graph.
SERVER = """
import sys
import numpy as np
import tensorflow as tf
folder = sys.argv[1]
model = tf.saved_model.load(folder)
outputs = model.serve(list(np.load(folder + "/inputs.npz").values()))
assert "keras_autoinit" not in sys.modules
np.save(folder + "/outputs.npy", outputs.numpy())
"""


@pytest.mark.skipif(BACKEND == "torch", reason="a SavedModel is written from TensorFlow and JAX")
def test_an_exported_model_runs_on_tensorflow_alone(models, tmp_path):
    pytest.importorskip("tensorflow")
    models["schemes"].export(tmp_path, verbose=False)
    np.savez(tmp_path / "inputs.npz", *INPUTS)
    run(SERVER, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), outputs_of(models["schemes"]), atol=TOLERANCE)


@pytest.fixture
def compiled():
    model = mlp(8, 8, 1)
    model.compile("adam", "mse", jit_compile=False)
    return model


def test_a_model_stays_compiled(compiled):
    optimizer = compiled.optimizer
    AutoInit(seed=1).apply(compiled)
    assert compiled.compiled
    assert compiled.optimizer is optimizer


def test_a_fitted_model_resumes_from_its_file(compiled, tmp_path):
    # Not from an HDF5 file: Keras does not resume from its own.
    AutoInit(seed=1).apply(compiled)
    fit(compiled)
    loaded = through_keras(compiled, tmp_path)
    assert int(loaded.optimizer.iterations) == int(compiled.optimizer.iterations) == 4
    # The same four steps on the same numbers; 1e-5 is a hundred roundings of float32.
    assert fit(loaded) == pytest.approx(fit(compiled), rel=1e-5)


def test_an_optimizer_survives_with_a_nested_model(tmp_path):
    model = everything()
    model.compile("adam", "sparse_categorical_crossentropy")
    AutoInit(seed=1).apply(model)
    model.optimizer.build(model.trainable_variables)
    for number, variable in enumerate(model.optimizer.variables):
        variable.assign(np.full(variable.shape, number))
    loaded = through_keras(model, tmp_path)
    assert all(map(np.array_equal, values(loaded.optimizer.variables), values(model.optimizer.variables)))


def fit(model):
    """Fits for four steps, and returns the loss."""
    return model.fit(*regression(), batch_size=4, shuffle=False, verbose=0).history["loss"]
