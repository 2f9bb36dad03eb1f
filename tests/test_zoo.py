"""Nothing may be skipped in silence, whatever a Keras user has built.

Every model of the zoo is planned, drawn, run, saved, loaded and cloned. What cannot be decided must be named in the
table in docs/zoo.md, which `pytest -m slow tests/test_zoo.py --regenerate` rewrites: with `-k` a part of it, without
`-n` because the tests share the file.
"""

import gc
import itertools
import json
import zipfile
import zlib
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import zoo_table
from specimens import Specimen
from zoo import APPLICATIONS, HUB, ZOO

from keras_autoinit import AutoInit, Plan

# Which share of the zoo's weights is to be decided: the issue's own number.
DECIDED = 0.98

# The same float32 sums, in another order at worst: a relative rounding error of 6e-8 a term, over thousands of terms.
TOLERANCE = 1e-4

# Small models whose file is compared byte for byte.
FILES = ["MobileNetV3Small", "BertBackbone", "GPT2Backbone", "ViTBackbone", "WhisperBackbone"]

_OWN_CLASS = "Keras Hub: a layer's configuration is not what its constructor takes."
_ORDER = "Keras Hub: a copy made from the nodes alone holds its layers in another order, or lacks those off the path."

# What `keras.models.clone_model` cannot copy, with or without us; `from_config` can.
NOT_CLONED = {
    "BASNetBackbone": _ORDER,
    "BartBackbone": _ORDER,
    "DFineBackbone": _ORDER,
    "DeiTBackbone": _OWN_CLASS,
    "ESM2Backbone": _ORDER,
    "FluxBackbone": _OWN_CLASS,
    "GPTNeoXBackbone": _OWN_CLASS,
    "Llama3Backbone": _OWN_CLASS,
    "LlamaBackbone": _OWN_CLASS,
    "MMDiT": _ORDER,
    "MiTBackbone": _OWN_CLASS,
    "MoonshineBackbone": _ORDER,
    "Qwen3Backbone": _OWN_CLASS,
    "RWKV7Backbone": _ORDER,
    "SAMBackbone": _ORDER,
    "SegFormerBackbone": _OWN_CLASS,
    "StableDiffusion3Backbone": _OWN_CLASS,
    "SwinTransformerBackbone": _OWN_CLASS,
    "T5Gemma2Backbone": _ORDER,
    "T5GemmaBackbone": _ORDER,
    "VAEBackbone": _OWN_CLASS,
    "ViTBackbone": _OWN_CLASS,
    "ViTDetBackbone": _ORDER,
    "WhisperBackbone": _ORDER,
    "XLNetBackbone": _ORDER,
}


# What a layer writes into its bias when it is built looks like training; it is left out when that is judged.
SET_WHEN_BUILT = {"DFineBackbone": "*sampling_offsets*"}

# One of each family of `keras.applications` is drawn, run, saved and cloned; its siblings hold the same blocks, more or
# wider ones, and are planned only: with them all, this would take an hour.
RUN = {
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
    *(specimen.name for specimen in HUB),
}


@dataclass(frozen=True, repr=False)
class Case:
    """A model that has been planned."""

    specimen: Specimen
    model: keras.Model
    line: zoo_table.Line
    plan: Plan
    before: dict
    after: dict


@dataclass(frozen=True, repr=False)
class Drawn(Case):
    """A model whose plan has been carried out, and what it puts out then."""

    inputs: object
    outputs: list


# One process handles all of a model's tests: `conftest.py` sees to it.
@pytest.fixture(scope="module", params=list(ZOO))
def case(request):
    # Automatic names, such as conv2d_3, count from here.
    keras.utils.clear_session()
    specimen = ZOO[request.param]
    model = specimen.build()
    before = state(model)
    line, plan = zoo_table.measure(specimen, model)
    after = state(model)
    yield Case(specimen, model, line, plan, before, after)
    # The largest are gigabytes.
    del model, plan
    gc.collect()


@pytest.fixture(scope="module")
def drawn(case):
    if case.line.model not in RUN:
        pytest.skip("A sibling of the same blocks is run.")
    AutoInit(exclude=SET_WHEN_BUILT.get(case.line.model)).apply(case.model, plan=case.plan)
    inputs = case.specimen.inputs(case.model)
    return Drawn(**vars(case), inputs=inputs, outputs=outputs_of(case.model, inputs))


def state(model):
    """All that planning must leave alone."""
    return {
        "config": model.to_json(),
        "nodes": [(name, len(one._inbound_nodes), len(one._outbound_nodes)) for name, one in operations(model)],
        "variables": [(variable.path, checksum(variable)) for variable in model.variables],
        "seeds": [(variable.path, checksum(variable)) for variable in seeds(model)],
        "losses": len(model.losses),
    }


def operations(model):
    """Every layer and every operation of a model and of those inside it, by name."""
    layers = model._flatten_layers()
    inner = [layer.operations for layer in model._flatten_layers() if hasattr(layer, "operations")]
    return [(one.name, one) for one in itertools.chain(layers, *inner)]


def seeds(model):
    return [generator.state for layer in model._flatten_layers() for generator in layer._seed_generators]


def checksum(variable):
    return zlib.crc32(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())


def outputs_of(model, inputs):
    return [np.asarray(keras.ops.convert_to_numpy(each)) for each in keras.tree.flatten(model(inputs, training=False))]


def assert_equal_outputs(copy, case):
    for ours, theirs in zip(case.outputs, outputs_of(copy, case.inputs), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=TOLERANCE, atol=TOLERANCE * max(1, np.abs(ours).max()))


@pytest.mark.slow
def test_planning_leaves_no_trace(case):
    for what in case.before:
        assert case.after[what] == case.before[what], f"{what} of {case.line.model} changed."


@pytest.mark.slow
def test_every_matrix_has_a_row(case):
    assert [path for path, reason in case.line.left if reason == zoo_table.NO_ROW] == []


# Its output has no length along some axes: the images of its specimen are too small.
EMPTY = {"VAEBackbone"}


@pytest.mark.slow
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_theory_plans_it(case):
    if case.line.model not in RUN:
        pytest.skip("A sibling of the same blocks is planned.")
    plan = AutoInit("theory", seed=0).plan(case.model)
    assert [row.path for row in plan] == [row.path for row in case.plan]
    assert case.line.model in EMPTY or not [note for note in plan.notes if "failed" in note]


@pytest.mark.slow
def test_the_table_tells_the_truth(case, regenerate):
    lines = zoo_table.load()
    if regenerate:
        zoo_table.write([*(line for line in lines.values() if line.model != case.line.model), case.line])
    elif zoo_table.made_with() != zoo_table.versions():
        pytest.skip(f"The table was made with {zoo_table.made_with()}, and here is {zoo_table.versions()}.")
    assert zoo_table.load()[case.line.model].facts == case.line.facts


@pytest.mark.slow
def test_outputs_are_finite(drawn):
    for output in drawn.outputs:
        assert np.isfinite(output).all()


@pytest.mark.slow
def test_it_saves_and_loads(drawn, tmp_path):
    drawn.model.save(tmp_path / "model.keras")
    assert_equal_outputs(keras.saving.load_model(tmp_path / "model.keras"), drawn)


@pytest.mark.slow
def test_it_clones(drawn):
    if drawn.line.model in NOT_CLONED:
        with pytest.raises(Exception):  # noqa: B017, PT011
            cloned(drawn.specimen.build())
        copy = type(drawn.model).from_config(drawn.model.get_config())
        copy.set_weights(drawn.model.get_weights())
    else:
        copy = cloned(drawn.model)
    assert_equal_outputs(copy, drawn)


def cloned(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES if name in ZOO])
def test_the_file_is_the_same_to_the_byte(name, tmp_path):
    model = ZOO[name].build()
    first = members(model, tmp_path / "first.keras")
    assert members(model, tmp_path / "second.keras") == first, "Keras itself saves it otherwise the second time."
    AutoInit(seed=0).plan(model)
    assert members(model, tmp_path / "planned.keras") == first


def members(model, path):
    """What a saved file holds, but for the date in it."""
    model.save(path)
    with zipfile.ZipFile(path) as file:
        held = {name: file.read(name) for name in file.namelist()}
    metadata = json.loads(held.pop("metadata.json"))
    return held | {"metadata": metadata["keras_version"]}


# --- The table as a whole; quick ---


def test_the_zoo_is_large_enough():
    assert {"ConvNeXtXLarge", "MobileNetV3Small", "NASNetLarge", "VGG16", "Xception"} <= {
        specimen.name for specimen in APPLICATIONS
    }
    pytest.importorskip("keras_hub")
    assert len(HUB) >= 30
    assert {"text", "image", "audio", "diffusion"} <= {specimen.family for specimen in HUB}


def test_the_table_has_every_model():
    pytest.importorskip("keras_hub")
    assert set(zoo_table.load()) == set(ZOO)


def test_nearly_all_weights_are_decided_and_the_rest_are_named():
    lines = zoo_table.load().values()
    assert sum(line.decided for line in lines) >= DECIDED * sum(line.weights for line in lines)
    assert all(reason.endswith((".", ")")) for line in lines for _, reason in line.left)
