"""A weight that is not found is skipped in silence, and one found under another name in a copy is drawn otherwise."""

import copy

import keras
import pytest
from keras import layers

from keras_autoinit.variables import is_learned, own_variables, role_by_name


@keras.saving.register_keras_serializable("tests", "Holder")
class Holder(layers.Layer):
    """Holds variables in every way that Keras tracks, and layers beside them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = [layers.Dense(3), {"deep": layers.Dense(2)}]
        self.plain = layers.Dense(2)

    def build(self, shape):
        for layer in (self.inner[0], self.inner[1]["deep"], self.plain):
            layer.build(shape)
        self.kernel = self.add_weight(shape=(4, 2))
        self._hidden = self.add_weight(shape=(4, 3), name="anything")
        self.experts = [self.add_weight(shape=(4, width), name="same") for width in (5, 6)]
        self.tables = {"left": self.add_weight(shape=(4, 7)), "right": [self.add_weight(shape=(4, 8))]}
        # To these no attribute leads.
        self.add_weight(shape=(4, 9), name="same")
        self.add_weight(shape=(4, 10), name="same")
        self.add_weight(shape=(4, 11))
        self.again = self.kernel
        self.borrowed = self.plain.kernel
        self.counter = self.add_weight(shape=(4, 12), dtype="int32", initializer="zeros", trainable=False)


WIDTHS = {
    "kernel": 2,
    "_hidden": 3,
    "experts.0": 5,
    "experts.1": 6,
    "tables.left": 7,
    "tables.right.0": 8,
    "same": 9,
    "same#2": 10,
    "variable": 11,
}


def built(layer):
    layer.build((None, 4))
    return layer


def widths(layer):
    return {name: variable.shape[-1] for name, variable in own_variables(layer).items()}


def test_every_way_of_holding_a_variable_is_found_and_inner_layers_are_not():
    assert widths(built(Holder())) == WIDTHS


def test_names_are_the_same_in_every_layer_and_copy():
    layer = built(Holder())
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Activation("relu")])
    assert widths(built(Holder())) == widths(copy.deepcopy(layer)) == WIDTHS
    assert widths(built(Holder.from_config(layer.get_config()))) == WIDTHS
    assert all(own_variables(copy.deepcopy(each)).keys() == own_variables(each).keys() for each in model.layers)


def test_a_public_name_stands_for_the_attribute_behind_it():
    assert list(own_variables(built(layers.Dense(2)))) == ["kernel", "bias"]


def test_the_variables_of_a_wrapped_layer_are_not_the_wrappers():
    layer = built(layers.SpectralNormalization(layers.Dense(3)))
    assert list(own_variables(layer)) == ["vector_u"]


@pytest.mark.parametrize("make", [lambda: keras.Sequential([layers.Dense(2)]), lambda: layers.LSTM(2)])
def test_what_only_holds_layers_owns_nothing(make):
    layer = make()
    layer.build((None, 5, 4))
    assert own_variables(layer) == {}


def test_an_unbuilt_layer_owns_nothing_yet():
    assert own_variables(Holder()) == {}


def test_looking_leaves_automatic_names_alone():
    class Counted(layers.Layer):
        pass

    keras.utils.clear_session()
    own_variables(Counted())
    assert [layers.Layer().name, Counted().name] == ["layer", "counted_1"]


def test_a_frozen_layer_has_learned_weights_still():
    layer = built(layers.Dense(2))
    assert is_learned(layer, layer.kernel)
    layer.trainable = False
    assert is_learned(layer, layer.kernel)
    other = built(layers.SpectralNormalization(layers.Dense(3)))
    assert not is_learned(other, other.vector_u)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("position_embeddings", "positions"),
        ("pos_embed", "positions"),
        ("tables.positional", "positions"),
        ("position_embedding_table", "positions"),
        ("relative_position_bias_table", "bias"),
        ("rel_pos_h", None),
        ("pos_proj", None),
        ("rel_embeddings", "embeddings"),
        ("token_embeddings", "embeddings"),
        ("cls_token", "token"),
        ("token_mix", None),
        ("position_mixing", None),
        ("register_tokens", "token"),
        ("beta", "bias"),
        ("gate_up_proj_bias", "bias"),
        ("gamma", "scale"),
        ("per_expert_scale", "scale"),
        ("lora_kernel_a", "adapter"),
        ("kernel", None),
        ("experts.0", None),
        ("posterior", None),
    ],
)
def test_what_a_name_says(name, role):
    assert role_by_name(name) == role
