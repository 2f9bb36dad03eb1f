"""What a user has built by hand must be read as well as what Keras has built.

For each weight of each model of `special_models`: its role, what it feeds, and the scheme, worked out from the model's
definition and the table of recommendations.
"""

import functools

import keras
import numpy as np
import pytest
from special_models import MODELS, Experts, experts
from zoo_table import NO_ROW, left_over, matrices, rows_of

from keras_autoinit import AutoInit, Axes, Slot, register_slots

# The scheme of a weight that is left alone.
KEPT = None
# What a weight feeds where nobody can see it.
UNSEEN = None

HE, XAVIER, LECUN, ORTHOGONAL = "he_normal", "xavier_normal", "lecun_normal", "orthogonal"
# With the slope that `keras.activations.leaky_relu` assumes, which goes without saying.
LEAKY = "leaky_relu"

EXPECTED = {
    "standardized": {
        "first/kernel": ("kernel", "batch_normalization -> relu", HE),
        "second/kernel": ("kernel", "gelu", LECUN),
        "head/kernel": ("kernel", "output", XAVIER),
    },
    # What the layer does inside is not seen, what follows it is: but which of its two kernels comes last, nobody knows.
    "raw": {
        "before/kernel": ("kernel", "raw", XAVIER),
        "raw/kernel": ("kernel", "relu", HE),
        "raw/mix/kernel": ("kernel", UNSEEN, XAVIER),
        "head/kernel": ("kernel", "output", XAVIER),
    },
    "two_towers": {
        "encoder/hidden/kernel": ("kernel", "relu", HE),
        "encoder/code/kernel": ("kernel", "subtract -> dense", XAVIER),
        "head/kernel": ("kernel", "sigmoid", XAVIER),
    },
    "translator": {
        "source_words/embeddings": ("embeddings", "bidirectional", LECUN),
        "reader/forward_lstm/lstm_cell/kernel": ("input", "tanh", XAVIER),
        "reader/forward_lstm/lstm_cell/recurrent_kernel": ("recurrent", "tanh", ORTHOGONAL),
        "reader/backward_lstm/lstm_cell/kernel": ("input", "tanh", XAVIER),
        "reader/backward_lstm/lstm_cell/recurrent_kernel": ("recurrent", "tanh", ORTHOGONAL),
        "target_words/embeddings": ("embeddings", "gru", LECUN),
        "writer/gru_cell/kernel": ("input", "tanh", XAVIER),
        "writer/gru_cell/recurrent_kernel": ("recurrent", "tanh", ORTHOGONAL),
        # Keras gives a GRU two biases, one for each kernel.
        "writer/gru_cell/bias": ("bias", UNSEEN, KEPT),
        "mix/kernel": ("kernel", "tanh", XAVIER),
        "words/kernel": ("kernel", "softmax", XAVIER),
    },
    "unet": {
        "down/kernel": ("kernel", "relu", HE),
        "bottom/kernel": ("kernel", "batch_normalization -> relu", HE),
        "up/kernel": ("kernel", "concatenate -> conv2d", XAVIER),
        "merge/kernel": ("kernel", "relu", HE),
        "mask/kernel": ("kernel", "sigmoid", XAVIER),
    },
    "generator": {
        "project/kernel": ("kernel", f"batch_normalization -> {LEAKY}", HE),
        "grow/kernel": ("kernel", f"batch_normalization -> {LEAKY}", HE),
        "paint/kernel": ("kernel", "tanh", XAVIER),
    },
    "diffusion": {
        "time1/kernel": ("kernel", "silu", HE),
        # The activation stands inside the block.
        "time2/kernel": ("kernel", "silu", HE),
        "block/conv1/kernel": ("kernel", "add -> group_normalization -> silu", HE),
        "block/time/kernel": ("kernel", "get_item -> add -> group_normalization -> silu", HE),
        # And for these outside of it.
        "block/conv2/kernel": ("kernel", "add -> group_normalization -> silu", HE),
        "block/skip/kernel": ("kernel", "add -> group_normalization -> silu", HE),
        "noise/kernel": ("kernel", "output", XAVIER),
    },
    "experts": {
        # The block reads it through two kernels, and the sum goes on to the head.
        "before/kernel": ("kernel", "relu", HE),
        "experts/router/kernel": ("kernel", "softmax", XAVIER),
        # Their equations say which axes are summed over. `keras.ops.gelu` approximates.
        "experts/up": ("kernel", "gelu(approximate=1)", LECUN),
        "experts/down": ("kernel", "add -> dense", XAVIER),
        "head/kernel": ("kernel", "output", XAVIER),
    },
    "held": {
        "block0/kernel": ("kernel", "relu", HE),
        "block1/kernel": ("kernel", "relu", HE),
        "block2/kernel": ("kernel", "relu", HE),
        "deep0/kernel": ("kernel", "dense", XAVIER),
        "deep1/kernel": ("kernel", "tanh", XAVIER),
        "size/kernel": ("kernel", "output", XAVIER),
        "kind/kernel": ("kernel", "output", XAVIER),
    },
    "wide": {
        "words/embeddings": ("embeddings", "mean -> concatenate -> dense", LECUN),
        "numbers/kernel": ("kernel", "tanh", XAVIER),
        "head/kernel": ("kernel", "softmax", XAVIER),
    },
    "dictionary": {
        "convolution/kernel": ("kernel", "relu", HE),
        "embedding/embeddings": ("embeddings", "flatten -> concatenate -> dense", LECUN),
        "a/kernel": ("kernel", "softmax", XAVIER),
        "b/kernel": ("kernel", "output", XAVIER),
    },
    "gates": {
        "stem/kernel": ("kernel", "relu", HE),
        "weigh/squeeze/kernel": ("kernel", "relu", HE),
        "weigh/excite/kernel": ("kernel", "sigmoid", XAVIER),
        "before/kernel": ("kernel", "gelu", LECUN),
        "feed/gate/kernel": ("kernel", "silu", HE),
        # Multiplied by the gate, and not bent.
        "feed/up/kernel": ("kernel", "multiply", XAVIER),
        # Added to the stream, which the next layer reads.
        "feed/down/kernel": ("kernel", "add -> dense", XAVIER),
        "halves/kernel": ("kernel", "split -> sigmoid", XAVIER),
        # z * sigmoid(z) is a SiLU, however it is written.
        "own/kernel": ("kernel", "silu", HE),
        "head/kernel": ("kernel", "output", XAVIER),
    },
}

# A relative gain of sqrt(2 / (1 + 0.2 ** 2)) / sqrt(2), to the six digits that recipes keep.
LEAKY_GAIN = 1 / np.sqrt(1 + 0.2**2)


# JAX compiles a draw for each shape of kernel, a minute of it for all these models, and what is read is the same: by
# default only what depends on the backend.
SLOW = set() if keras.config.backend() != "jax" else set(MODELS) - {"experts", "held", "raw"}


def named(name, *rest, **options):
    return pytest.param(name, *rest, marks=pytest.mark.slow if name in SLOW else (), **options)


@pytest.fixture(scope="module", params=[named(name) for name in MODELS])
def case(request):
    model = MODELS[request.param]()
    before = trace(model)
    return request.param, model, AutoInit(seed=0).plan(model), before


def trace(model):
    layers = model._flatten_layers()
    return [(one.name, len(one._inbound_nodes), len(one._outbound_nodes)) for one in layers], len(model.variables)


def test_it_has_these_rows(case):
    name, _, plan, _ = case
    assert {row.path for row in plan} == set(EXPECTED[name])


@pytest.mark.parametrize(
    ("name", "path", "wanted"),
    [named(name, path, row, id=f"{name}-{path}") for name, rows in EXPECTED.items() for path, row in rows.items()],
)
def test_a_row_says_this(name, path, wanted):
    row = plan_of(name)[path]
    feeds = UNSEEN if wanted[1] is UNSEEN else row.feeds
    assert (row.role, feeds, row.new.name.removeprefix("autoinit>") if row.changed else KEPT) == wanted


@functools.cache
def plan_of(name):
    return AutoInit(seed=0).plan(MODELS[name]())


def test_every_matrix_has_a_row(case):
    _, model, plan, _ = case
    rows = rows_of(model, plan)
    assert [path for path, why in left(model, rows) if why == NO_ROW] == []


def left(model, rows):
    found = [left_over(variable, rows.get(id(variable), [])) for variable in matrices(model)]
    return [pair for pair in found if pair is not None]


def test_what_is_left_says_how_to_tell(case):
    _, model, plan, _ = case
    assert all("register_slots" in why for _, why in left(model, rows_of(model, plan)))


def test_planning_leaves_no_trace(case):
    _, model, _, before = case
    assert trace(model) == before


def test_it_computes_after_the_draw(case):
    name, _, _, _ = case
    model = MODELS[name]()
    old = [np.array(keras.ops.convert_to_numpy(variable)) for variable in matrices(model)]
    plan = AutoInit(seed=0).apply(model)
    rows = rows_of(model, plan)
    for variable, before in zip(matrices(model), old, strict=True):
        drawn = any(row.changed for row in rows.get(id(variable), []))
        assert (not np.array_equal(keras.ops.convert_to_numpy(variable), before)) == drawn
    for output in keras.tree.flatten(model(batch(name, model), training=False)):
        assert np.isfinite(keras.ops.convert_to_numpy(output)).all()


def batch(name, model):
    """A batch of two for a model."""
    source = np.random.default_rng(0)
    if name == "held":
        return source.normal(size=(2, 8)).astype("float32")
    if name == "wide":
        return {"words": source.integers(0, 8, (2, 4)), "numbers": source.normal(size=(2, 3)).astype("float32")}
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(lambda tensor: sample(tensor, source), inputs)


def sample(tensor, source):
    shape = (2, *tensor.shape[1:])
    return source.integers(0, 8, shape) if "int" in tensor.dtype else source.normal(size=shape).astype("float32")


# --- What the table of rows cannot say ---


def test_what_is_opaque_has_a_note():
    plan = plan_of("raw")
    assert any("'raw'" in note and "not seen" in note for note in plan.notes)


def test_only_what_is_opaque_has_a_note(case):
    name, _, plan, _ = case
    assert name == "raw" or not [note for note in plan.notes if "not seen" in note]


def test_a_leaky_relu_behind_a_normalization_brings_its_slope():
    plan = plan_of("generator")
    for path in ("project/kernel", "grow/kernel"):
        assert plan[path].new.config["gain"] == pytest.approx(LEAKY_GAIN, rel=1e-6)


def test_a_transposed_convolution_counts_the_taps_that_reach_a_pixel():
    plan = plan_of("generator")
    # 4 x 4 taps on 16 channels, of which a stride of two by two leaves a quarter.
    assert plan["grow/kernel"].fan_in == 4 * 4 * 16 / 4


def test_a_standardized_convolution_is_still_a_convolution():
    assert plan_of("standardized")["second/kernel"].fan_in == 3 * 3 * 8


def test_a_shared_encoder_is_decided_once():
    model = MODELS["two_towers"]()
    assert len(AutoInit(seed=0).plan(model)) == 3
    AutoInit(seed=0).apply(model)
    sides = np.random.default_rng(0).normal(size=(2, 8)).astype("float32")
    # Both towers are one: equal inputs differ by nothing, and the head's bias is zero.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model([sides, sides])), 0.5)


class KnownExperts(Experts):
    """The same, and the package is told."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.up_initializer = self.down_initializer = keras.initializers.get("glorot_uniform")


@register_slots(KnownExperts)
def known_experts(layer):
    # One matrix for each expert: the first axis is neither summed over nor made.
    axes = Axes((1,), (2,))
    return (
        Slot("kernel", "up", "up_initializer", axes, keras.activations.gelu),
        Slot("kernel", "down", "down_initializer", axes),
    )


def test_experts_are_decided_once_the_package_is_told():
    plan = AutoInit(seed=0).plan(experts(KnownExperts))
    assert (plan["experts/up"].fan_in, plan["experts/down"].fan_in) == (8, 16)
    assert plan["experts/up"].feeds == "gelu"
    assert all(plan[path].changed for path in ("experts/up", "experts/down"))


def test_each_expert_gets_matrices_of_its_own():
    model = experts(KnownExperts)
    AutoInit(seed=0).apply(model)
    up = keras.ops.convert_to_numpy(model.get_layer("experts").up)
    # A standard deviation measured on 8 x 16 numbers is off by a sixteenth: five times that is far out.
    gain = 1.5335304
    np.testing.assert_allclose(up.std(axis=(1, 2)), gain / np.sqrt(8), rtol=5 / np.sqrt(2 * 8 * 16))
    assert len({expert.tobytes() for expert in up}) == len(up)
