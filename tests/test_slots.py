"""Axes are the library's claim to right fans: each layer's must be counted as its own output sums."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit import AutoInit, Axes, Recipe, SchemeError, Slot, register_slots
from keras_autoinit.recommendations import KEPT
from keras_autoinit.slots import einsum_axes, slots_of

# Layer, input shape, and per weight: role, fan-in, fan-out counted by hand.
CASES = [
    (layers.Dense(5), (None, 7), [("kernel", 7, 5)]),
    (layers.Conv1D(6, 3), (None, 9, 4), [("kernel", 12, 18)]),
    (layers.Conv2D(6, (3, 2)), (None, 9, 9, 4), [("kernel", 24, 36)]),
    (layers.Conv2D(6, 3, groups=2), (None, 9, 9, 4), [("kernel", 18, 27)]),
    (layers.Conv3D(6, 2), (None, 5, 5, 5, 4), [("kernel", 32, 48)]),
    (layers.Conv1DTranspose(6, 4, strides=2), (None, 9, 4), [("kernel", 8, 24)]),
    (layers.Conv2DTranspose(6, 3), (None, 9, 9, 4), [("kernel", 36, 54)]),
    (layers.Conv2DTranspose(6, 4, strides=2), (None, 9, 9, 4), [("kernel", 16, 96)]),
    (layers.Conv2DTranspose(6, 3, strides=(2, 1)), (None, 9, 9, 4), [("kernel", 18, 54)]),
    (layers.Conv3DTranspose(6, 2, strides=2), (None, 3, 3, 3, 4), [("kernel", 4, 48)]),
    (layers.DepthwiseConv1D(3, depth_multiplier=2), (None, 9, 4), [("depthwise", 3, 6)]),
    (layers.DepthwiseConv2D(3), (None, 9, 9, 4), [("depthwise", 9, 9)]),
    (layers.DepthwiseConv2D(3, depth_multiplier=3), (None, 9, 9, 4), [("depthwise", 9, 27)]),
    (layers.SeparableConv1D(6, 3), (None, 9, 4), [("depthwise", 3, 3), ("pointwise", 4, 6)]),
    (layers.SeparableConv2D(6, 3, depth_multiplier=3), (None, 9, 9, 4), [("depthwise", 9, 27), ("pointwise", 12, 6)]),
    (layers.EinsumDense("abc,cde->abde", (None, 3, 5)), (None, 9, 4), [("kernel", 4, 15)]),
    (layers.EinsumDense("abcd,cde->abe", (None, 5)), (None, 9, 4, 3), [("kernel", 12, 5)]),
    (layers.EinsumDense("btd,ndh->btnh", (None, 2, 3)), (None, 9, 4), [("kernel", 4, 6)]),
    (layers.EinsumDense("...x,xy->...y", 5), (None, 9, 4), [("kernel", 4, 5)]),
    (layers.EinsumDense("ebd,edh->ebh", (None, 5)), (3, 9, 4), [("kernel", 4, 5)]),
    (layers.Embedding(11, 4), (None, 3), [("embeddings", 1, 4)]),
    (layers.SimpleRNNCell(5), (None, 4), [("input", 4, 5), ("recurrent", 5, 5)]),
    (layers.GRUCell(5), (None, 4), [("input", 4, 5), ("recurrent", 5, 5)]),
    (layers.LSTMCell(5), (None, 4), [("input", 4, 5), ("recurrent", 5, 5)]),
    (layers.ConvLSTM1D(5, 3).cell, (None, 8, 4), [("input", 12, 15), ("recurrent", 15, 15)]),
    (layers.ConvLSTM2D(5, (3, 2)).cell, (None, 8, 8, 4), [("input", 24, 30), ("recurrent", 30, 30)]),
    (layers.ConvLSTM3D(5, 2, strides=2).cell, (None, 4, 4, 4, 4), [("input", 32, 40), ("recurrent", 40, 40)]),
]
# Younger Keras versions have more layers than the oldest that is supported.
if hasattr(layers, "ReversibleEmbedding"):
    CASES += [
        (layers.ReversibleEmbedding(11, 4), (None, 3), [("tied", 4, 11)]),
        (
            layers.ReversibleEmbedding(11, 4, tie_weights=False),
            (None, 3),
            [("embeddings", 1, 4), ("reverse", 4, 11)],
        ),
    ]


def described(case):
    layer, shape, _ = case
    return f"{type(layer).__name__}-{shape}"


@pytest.mark.parametrize(("layer", "shape", "expected"), CASES, ids=map(described, CASES))
def test_fans(layer, shape, expected):
    layer.build(shape)
    # A GRU's bias has two axes.
    slots = [slot for slot in slots_of(layer) if slot.role != "bias"]
    assert [(slot.role, *slot.axes.fans(slot.variable(layer).shape)) for slot in slots] == expected


@pytest.mark.parametrize(("layer", "shape", "expected"), CASES, ids=map(described, CASES))
def test_slots_are_known_before_the_layer_is_built(layer, shape, expected):
    # The convolutional recurrent cells leave their rank out.
    rank = {"rank": layer.rank} if type(layer).__name__ == "ConvLSTMCell" else {}
    fresh = type(layer).from_config({**layer.get_config(), **rank})
    assert [slot.role for slot in slots_of(fresh)] == [role for role, _, _ in expected]
    assert all(slot.variable(fresh) is None for slot in slots_of(fresh))


def test_every_argument_named_by_a_slot_exists():
    for layer, _, _ in CASES:
        for slot in slots_of(layer):
            assert isinstance(slot.initializer(layer), keras.Initializer)


def test_a_subclass_is_served_as_its_base():
    class Mine(layers.Conv2D):
        pass

    assert slots_of(Mine(3, 3))[0].axes == Axes((0, 1, 2), (0, 1, 3))


@pytest.mark.parametrize("equation", ["ab,bc", "abc->ac", ""])
def test_a_bad_equation_is_named(equation):
    with pytest.raises(SchemeError, match="Expected an equation"):
        einsum_axes(equation)


class Generic(layers.Layer):
    def __init__(self):
        super().__init__()
        self.projection_initializer = keras.initializers.get("glorot_uniform")
        self.bias_initializer = keras.initializers.get("zeros")

    def build(self, shape):
        self.projection = self.add_weight(shape=(shape[-1], 3), initializer=self.projection_initializer)
        self.bias = self.add_weight(shape=(3,), initializer=self.bias_initializer)


def test_an_unknown_layer_has_its_generic_slots():
    layer = Generic()
    layer.build((None, 4))
    (slot,) = slots_of(layer)
    assert (slot.role, slot.axes.fans((4, 3))) == ("projection", (4, 3))


@keras.saving.register_keras_serializable("tests", "OwnCell")
class OwnCell(layers.Layer):
    """A recurrent cell of three gates that nobody registered."""

    def __init__(self, units=5, **options):
        super().__init__(**options)
        self.units = self.state_size = units
        self.kernel_initializer = keras.initializers.get("glorot_uniform")
        self.recurrent_initializer = keras.initializers.get("orthogonal")

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3 * self.units), initializer=self.kernel_initializer)
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, 3 * self.units), initializer=self.recurrent_initializer
        )

    def call(self, inputs, states):
        gates = inputs @ self.kernel + states[0] @ self.recurrent_kernel
        return gates[:, : self.units], [keras.ops.tanh(gates[:, : self.units])]


def test_the_kernels_of_an_unregistered_recurrent_cell_are_counted_gate_by_gate():
    layer = OwnCell()
    layer.build((None, 4))
    found = [(slot.role, *slot.axes.fans(slot.variable(layer).shape)) for slot in slots_of(layer)]
    assert found == [("input", 4, 5), ("recurrent", 5, 5)]


def test_a_model_with_a_cell_of_ones_own_gets_gates_that_are_orthogonal():
    model = keras.Sequential([keras.Input((6, 4)), layers.RNN(OwnCell(8, name="cell"), name="rnn")])
    plan = AutoInit(seed=1).apply(model)
    assert plan["rnn/cell/recurrent_kernel"].new.config["blocks"] == 3
    assert plan["rnn/cell/kernel"].fan_out == 8


class Bare(layers.Layer):
    """Keeps no initializer for any of its weights."""

    def build(self, shape):
        self.kernels = [self.add_weight(shape=(shape[-1], 3), name="same", initializer="he_normal") for _ in range(2)]
        self.by_name = {"zero": self.add_weight(shape=(4, 3), initializer="zeros")}
        self.position_embeddings = self.add_weight(shape=(1, 6, 4), initializer="random_normal")
        self.cls_token = self.add_weight(shape=(1, 1, 4), initializer="zeros")
        self.gamma = self.add_weight(shape=(2, 4), initializer="ones")
        self.patch_embedding = self.add_weight(shape=(12, 4))
        self.unlearned = self.add_weight(shape=(4, 4), trainable=False)
        self.flat = self.add_weight(shape=(4,))


def bare():
    layer = Bare()
    layer.build((None, 4))
    return layer


def test_weights_by_bare_add_weight_have_slots():
    layer = bare()
    assert [(slot.role, slot.weight, slot.argument) for slot in slots_of(layer)] == [
        ("unknown", "kernels.0", None),
        ("unknown", "kernels.1", None),
        ("unknown", "by_name.zero", None),
        ("positions", "position_embeddings", None),
        ("token", "cls_token", None),
        ("scale", "gamma", None),
        ("unknown", "patch_embedding", None),
    ]


def test_a_slot_finds_its_variable_however_the_layer_holds_it():
    layer = bare()
    found = {slot.weight: slot.variable(layer) for slot in slots_of(layer)}
    assert found["kernels.0"] is layer.kernels[0]
    assert found["kernels.1"] is layer.kernels[1]
    assert found["by_name.zero"] is layer.by_name["zero"]


def test_a_slot_without_an_argument_says_what_its_values_look_like():
    layer = bare()
    layer.kernels[1].assign(np.full((4, 3), 0.5))
    recipes = {slot.weight: slot.recipe(layer) for slot in slots_of(layer)}
    assert recipes["by_name.zero"] == Recipe("Zeros")
    assert recipes["gamma"] == Recipe("Ones")
    assert recipes["kernels.1"] == Recipe("Constant", {"value": 0.5})
    assert recipes["kernels.0"].name == "unknown"
    assert recipes["kernels.0"].config["std"] == pytest.approx(np.std(layer.kernels[0]), rel=5e-3)


def test_a_frozen_layer_has_the_slots_that_it_had():
    layer = layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de")
    layer.build((None, 3, 4))
    before = slots_of(layer)
    layer.trainable = False
    assert [slot.role for slot in before] == ["kernel", "bias"]
    assert slots_of(layer) == before


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (lambda: layers.LayerNormalization(axis=(1, 2)), (None, 3, 4), ["bias", "scale"]),
        (lambda: layers.LayerNormalization(), (None, 3, 4), []),
        (lambda: layers.GroupNormalization(2), (None, 3, 4), []),
        (lambda: layers.BatchNormalization(), (None, 3, 4), []),
        (lambda: layers.PReLU(), (None, 3, 4), ["slope"]),
        (lambda: layers.PReLU(), (None, 4), []),
        (lambda: layers.PReLU(shared_axes=[1]), (None, 3, 4), ["slope"]),
        (lambda: layers.SpectralNormalization(layers.Dense(3)), (None, 4), []),
        (lambda: layers.GRUCell(3), (None, 4), ["bias", "input", "recurrent"]),
    ],
)
def test_what_is_no_kernel_is_said_to_be_kept(make, shape, expected):
    layer = make()
    layer.build(shape)
    assert sorted(slot.role for slot in slots_of(layer)) == expected
    assert {"bias", "scale", "slope"} <= set(KEPT)


@pytest.mark.skipif(not hasattr(layers, "STFTSpectrogram"), reason="an older Keras has no spectrograms")
def test_a_learned_fourier_transform_starts_as_one():
    layer = layers.STFTSpectrogram(frame_length=16, frame_step=8)
    layer.build((None, 64, 1))
    assert [slot.role for slot in slots_of(layer)] == ["fourier", "fourier"]


@pytest.mark.parametrize("make", [lambda: layers.Attention(use_scale=True), lambda: layers.AdditiveAttention()])
def test_the_scales_of_attention_are_no_rows(make):
    layer = make()
    layer.build([(None, 3, 4), (None, 3, 4)])
    assert slots_of(layer) == ()


def test_a_weight_of_a_subclass_is_not_lost():
    class Scaled(layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.extra = self.add_weight(shape=(2, 2))

    layer = Scaled(3)
    layer.build((None, 4))
    assert [slot.weight for slot in slots_of(layer)] == ["kernel", "extra"]


class OneArgument(layers.Layer):
    """As the position embeddings of Keras Hub: one weight, one `initializer`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.initializer = keras.initializers.get("glorot_uniform")

    def build(self, shape):
        self.position_embeddings = self.add_weight(shape=tuple(shape[1:]), initializer=self.initializer)


def test_the_only_initializer_is_that_of_the_only_weight():
    layer = OneArgument()
    layer.build((None, 6, 4))
    assert slots_of(layer) == (
        Slot("positions", "position_embeddings", "initializer", Axes((), (1,)), activated=False),
    )


def test_an_initializer_that_is_a_constant_is_no_kernels():
    class Low(layers.Layer):
        def __init__(self):
            super().__init__()
            self.down_initializer = keras.initializers.get("glorot_uniform")
            self.up_initializer = keras.initializers.get("zeros")

        def build(self, shape):
            self.down = self.add_weight(shape=(shape[-1], 3), initializer=self.down_initializer)
            self.up = self.add_weight(shape=(3, 4), initializer=self.up_initializer)

    layer = Low()
    layer.build((None, 4))
    assert [slot.role for slot in slots_of(layer)] == ["down", "constant"]


def test_register_slots_teaches_a_custom_layer():
    class Registered(Generic):
        pass

    @register_slots(Registered)
    def registered(layer):
        return (Slot("kernel", "projection", "projection_initializer", Axes((1,), (0,))),)

    layer = Registered()
    layer.build((None, 4))
    (slot,) = slots_of(layer)
    assert slot.axes.fans((4, 3)) == (3, 4)


ADAPTED = {
    "dense": lambda: layers.Dense(4),
    "einsum": lambda: layers.EinsumDense("ab,bc->ac", (4,)),
    "convolution": lambda: layers.Conv1D(4, 3),
    "embedding": lambda: layers.Embedding(8, 4),
}


def adapted(kind):
    layer = ADAPTED[kind]()
    layer.build((None, 6, 4) if kind == "convolution" else (None, 4))
    layer.enable_lora(2)
    return layer


@pytest.mark.parametrize("kind", ADAPTED)
def test_a_lora_kernel_is_no_plain_variable_and_its_factors_are_named(kind):
    layer = adapted(kind)
    slot, *factors = slots_of(layer)
    assert slot.variable(layer) is None
    name = "embeddings" if kind == "embedding" else "kernel"
    assert [(each.role, each.weight) for each in factors] == [
        ("adapter", f"lora_{name}_a"),
        ("adapter", f"lora_{name}_b"),
    ]


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("kind", ["dense", "einsum", "embedding"])
def test_a_quantized_kernel_is_no_plain_variable(kind, mode):
    layer = ADAPTED[kind]()
    layer.build((None, 4))
    try:
        layer.quantize(mode)
    except ValueError:
        pytest.skip(f"Keras {keras.version()} does not know {mode}.")
    (slot,) = slots_of(layer)
    assert slot.variable(layer) is None


PREPROCESSING = {
    "normalization": (lambda: layers.Normalization(), (3,)),
    "discretization": (lambda: layers.Discretization([0.0, 1.0]), (3,)),
    "category_encoding": (lambda: layers.CategoryEncoding(4), (3,)),
    "hashing": (lambda: layers.Hashing(4), (3,)),
    "flip": (lambda: layers.RandomFlip(), (8, 8, 3)),
    "rotation": (lambda: layers.RandomRotation(0.1), (8, 8, 3)),
    "contrast": (lambda: layers.RandomContrast(0.1), (8, 8, 3)),
    "rescaling": (lambda: layers.Rescaling(0.5), (8, 8, 3)),
    "resizing": (lambda: layers.Resizing(4, 4), (8, 8, 3)),
}


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("name", PREPROCESSING)
def test_preprocessing_layers_have_nothing_to_do(name, built):
    make, shape = PREPROCESSING[name]
    if not built and name == "discretization" and layers.Discretization.build is not layers.Layer.build:
        pytest.skip(f"In Keras {keras.version()} it looks as if it made weights, and a note says so.")
    model = keras.Sequential([*([keras.Input(shape)] if built else []), make()])
    plan = AutoInit().plan(model)
    assert (len(plan), plan.notes) == (0, ())


def test_look_ups_of_text_have_nothing_to_do():
    pytest.importorskip("tensorflow")
    for layer in (layers.StringLookup(vocabulary=["a", "b"]), layers.TextVectorization(vocabulary=["a", "b"])):
        assert slots_of(layer) == ()


def test_fans_of_a_real_transposed_convolution_are_what_its_output_sums():
    """Counts, with ones everywhere, how many products reach an output: on average the fan-in."""
    layer = layers.Conv2DTranspose(1, 3, strides=2, use_bias=False, kernel_initializer="ones")
    output = np.asarray(keras.ops.convert_to_numpy(layer(np.ones((1, 40, 40, 4), "float32"))))
    (slot,) = slots_of(layer)
    assert output[0, 20:60, 20:60].mean() == pytest.approx(slot.axes.fans(layer.kernel.shape)[0])
