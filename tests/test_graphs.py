"""Reading must see every layer once, in order, write nested models out flat, and change nothing."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from keras_autoinit import ModelTypeError
from keras_autoinit.graphs import activation_of, passes, read, snake_case


def names(graph):
    return [call.name for call in graph.calls]


def test_a_functional_model_is_read_in_order():
    inputs = keras.Input((8,))
    x = layers.Dense(4, name="a")(inputs)
    outputs = layers.Add()([layers.ReLU()(x), layers.Dense(4, name="b")(inputs)])
    graph = read(keras.Model(inputs, outputs))
    assert names(graph).index("dense") < names(graph).index("re_lu") < names(graph).index("add")
    assert [place.path for place in graph.places if place.slots] == ["a", "b"]
    assert graph.calls[-1].outputs[0] in graph.outputs


def test_operations_are_calls_too():
    inputs = keras.Input((8,))
    outputs = keras.ops.relu(inputs) + 1.0
    assert names(read(keras.Model(inputs, outputs))) == ["relu", "add"]


MADE_OVER_AGAIN = {
    "pooling": (lambda: layers.AveragePooling2D(3, 1, "same"), True),
    "activation": (lambda: layers.Activation("swish"), True),
    "operation": (lambda: lambda x: keras.ops.mean(x, axis=1), True),
    "weights": (lambda: layers.Conv2D(3, 1), False),
    "chance": (lambda: layers.Dropout(0.5), False),
}


@pytest.mark.parametrize("name", MADE_OVER_AGAIN)
def test_what_is_made_over_again_is_known_to_be_the_same(name):
    """Where neither a weight nor chance has a part in it, and what is made of both is the same, too."""
    make, same = MADE_OVER_AGAIN[name]
    inputs = keras.Input((8, 8, 3))
    graph = read(keras.Model(inputs, layers.Add()([layers.ReLU()(make()(inputs)) for _ in range(2)])))
    one, other = graph.calls[-1].inputs
    assert graph.firsts.get(other) == (one if same else None)
    assert one not in graph.firsts


def test_what_cannot_say_how_it_was_made_is_not_taken_for_the_same():
    """As an activation that is an object of somebody's own, which Keras cannot write down."""
    inputs = keras.Input((8,))
    function = functools.partial(keras.ops.leaky_relu, negative_slope=0.1)
    parts = [layers.Activation(function)(inputs) for _ in range(2)]
    assert read(keras.Model(inputs, layers.Add()(parts))).firsts == {}


def test_what_is_told_something_else_makes_something_else():
    inputs = keras.Input((8, 8, 3))
    parts = [layers.AveragePooling2D(side, 1, "same")(inputs) for side in (2, 3)]
    assert read(keras.Model(inputs, layers.Add()(parts))).firsts == {}


def test_nested_models_are_written_out():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="in"), layers.ReLU()], name="inner")
    inputs = keras.Input((8,))
    middle = keras.Model(inputs, inner(inputs), name="middle")
    outer_inputs = keras.Input((8,))
    outer = keras.Model(outer_inputs, layers.Dense(2, name="out")(middle(outer_inputs)))
    graph = read(outer)
    assert names(graph) == ["dense", "re_lu", "dense"]
    assert [place.path for place in graph.places if place.slots] == ["middle/inner/in", "out"]
    (relu,) = [call for call in graph.calls if call.name == "re_lu"]
    assert graph.readers(relu.outputs[0])[0].operation is outer.get_layer("out")


def test_a_shared_layer_is_one_place_and_two_calls():
    shared = layers.Dense(8, name="shared")
    inputs = keras.Input((8,))
    graph = read(keras.Model(inputs, shared(layers.ReLU()(shared(inputs)))))
    assert [place.path for place in graph.places if place.slots] == ["shared"]
    assert len(graph.calls_of(shared)) == 2


def test_a_shared_model_is_written_out_at_each_call():
    encoder = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="code")], name="encoder")
    left, right = keras.Input((8,)), keras.Input((8,))
    graph = read(keras.Model([left, right], layers.Subtract()([encoder(left), encoder(right)])))
    assert len(graph.calls_of(encoder.get_layer("code"))) == 2
    first, second = graph.calls_of(encoder.get_layer("code"))
    assert first.inputs != second.inputs
    assert set(graph.calls[-1].inputs) == {first.outputs[0], second.outputs[0]}


def test_an_unbuilt_sequential_is_a_chain():
    graph = read(keras.Sequential([layers.Dense(4), layers.ReLU(), layers.Dense(2)]))
    assert names(graph) == ["dense", "re_lu", "dense"]


def test_several_inputs_and_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    joined = layers.Concatenate()([a, b])
    model = keras.Model({"a": a, "b": b}, [layers.Dense(1)(joined), layers.Dense(2)(joined)])
    assert len(read(model).outputs) == 2


class Own(keras.Model):
    """Layers in a list and a dictionary, an operation, a dropout and a loss, and a layer nobody would see."""

    def __init__(self):
        super().__init__(name="own")
        self.several = [layers.Dense(4, name="first"), layers.Dense(4, name="second")]
        self.named = {"last": layers.Dense(2, name="last")}
        self.drop = layers.Dropout(0.5)

    def call(self, x, training=None):
        for layer in self.several:
            x = keras.ops.relu(layer(x))
        self.add_loss(keras.ops.mean(x) * 0.0)
        return self.named["last"](self.drop(x, training=training))


def test_a_subclassed_model_that_was_never_called_is_opaque_but_its_layers_are_places():
    graph = read(Own())
    assert [part.path for part in graph.opaque] == ["own"]
    assert sorted(place.path for place in graph.places if place.slots) == ["first", "last", "second"]


@pytest.mark.parametrize("inputs", [np.zeros((3, 8), "float32"), keras.Input((8,)), None])
def test_a_subclassed_model_is_looked_into(inputs):
    model = Own()
    if inputs is None:
        model(np.zeros((3, 8), "float32"))
    graph = read(model, inputs)
    assert names(graph)[:4] == ["dense", "relu", "dense", "relu"]
    assert names(graph)[-2:] == ["dropout", "dense"]
    assert graph.opaque == ()
    assert graph.specs[graph.outputs[0]].shape == (2 if isinstance(inputs, keras.KerasTensor) else 3, 2)
    assert [call.within for call in graph.calls] == [model] * len(graph.calls)


class Block(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense, self.norm = layers.Dense(8, name="dense"), layers.LayerNormalization(name="norm")

    def call(self, x, scale=None):
        y = self.dense(self.norm(x))
        return x + (y if scale is None else y * scale)


def test_composites_are_looked_into_at_any_depth():
    class Outer(layers.Layer):
        def __init__(self):
            super().__init__(name="outer")
            self.block, self.again = Block(name="block"), Block(name="again")

        def call(self, x):
            return self.again(self.block(x), scale=keras.ops.sigmoid(x))

    inputs = keras.Input((None, 8))
    graph = read(keras.Model(inputs, layers.ReLU()(Outer()(inputs))))
    expected = "layer_normalization dense add layer_normalization dense multiply add re_lu"
    assert [name for name in names(graph) if name != "sigmoid"] == expected.split()
    assert [place.path for place in graph.places if place.slots] == ["outer/block/dense", "outer/again/dense"]


def test_a_lambda_and_attention_are_looked_into():
    inputs = keras.Input((5, 8))
    x = layers.Lambda(lambda x: keras.ops.gelu(x))(inputs)
    graph = read(keras.Model(inputs, layers.MultiHeadAttention(2, 4)(x, x)))
    assert names(graph)[0] == "gelu"
    assert names(graph).count("einsum_dense") == 4
    assert {"softmax", "dot_product_attention"}.intersection(names(graph))


def test_what_refuses_symbols_stays_one_call_with_the_reason():
    class Raw(layers.Layer):
        def __init__(self):
            super().__init__(name="raw")
            self.dense = layers.Dense(4, name="dense")

        def call(self, x):
            return self.dense(x) if isinstance(keras.ops.convert_to_numpy(x), np.ndarray) else x

        def compute_output_shape(self, shape):
            return (*shape[:-1], 4)

    raw = Raw()
    raw.dense.build((None, 8))
    inputs = keras.Input((8,))
    graph = read(keras.Model(inputs, layers.ReLU()(raw(inputs))))
    assert names(graph) == ["raw", "re_lu"]
    ((path, reason),) = [(part.path, part.reason) for part in graph.opaque]
    assert path == "raw"
    assert reason
    assert [place.path for place in graph.places if place.slots] == ["raw/dense"]


def test_a_variable_may_stand_before_a_symbol():
    class Scaled(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

        def call(self, x):
            return self.scale * x + self.scale

    inputs = keras.Input((8,))
    graph = read(keras.Model(inputs, Scaled()(inputs)))
    assert names(graph) == ["multiply", "add"]
    assert graph.opaque == ()


def test_a_shared_encoder_at_two_sizes_has_the_shapes_of_each():
    encoder = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, 2), layers.GlobalMaxPooling2D()])
    small, large = keras.Input((9, 9, 3)), keras.Input((17, 17, 3))
    graph = read(keras.Model([small, large], layers.Add()([encoder(small), encoder(large)])))
    shapes = [graph.specs[call.outputs[0]].shape for call in graph.calls if call.name == "conv2d"]
    assert shapes == [(2, 4, 4, 4), (2, 8, 8, 4)]


def test_dictionaries_and_several_arguments():
    class Pair(keras.Model):
        def __init__(self):
            super().__init__(name="pair")
            self.dense = layers.Dense(4, name="dense")

        def call(self, inputs):
            return {"sum": self.dense(inputs["a"]) + self.dense(inputs["b"])}

    model = Pair()
    graph = read(model, {"a": keras.Input((3,)), "b": keras.Input((3,))})
    assert names(graph) == ["dense", "dense", "add"]
    inner = read(keras.Model([a := keras.Input((3,)), b := keras.Input((3,))], model({"b": b, "a": a})))
    assert len(inner.calls) == 3
    first, second, _ = inner.calls
    assert (first.inputs, second.inputs) == ((inner.inputs[0],), (inner.inputs[1],))


def state_of(model):
    """Everything on the layers that a call may leave a trace on."""
    everything = [model, *(place.layer for place in read(model).places)]
    kept = [{name: value for name, value in vars(layer).items() if "tracker" not in name} for layer in everything]
    return [{k: list(v) if isinstance(v, (list, set)) else v for k, v in one.items()} for one in kept]


def test_looking_into_a_model_leaves_no_trace():
    model = Own()
    model(np.zeros((3, 8), "float32"))
    seeds = [keras.ops.convert_to_numpy(variable).tolist() for variable in model.non_trainable_variables]
    before, losses = state_of(model), len(model.losses)
    name = keras.ops.relu(keras.Input((2,)))._keras_history.operation.name
    read(model)
    after = keras.ops.relu(keras.Input((2,)))._keras_history.operation.name
    assert int(after.rpartition("_")[2]) == int(name.rpartition("_")[2] if "_" in name else 0) + 1
    assert [one.keys() for one in state_of(model)] == [one.keys() for one in before]
    for one, other in zip(before, state_of(model)):
        assert all(one[key] is other[key] or one[key] == other[key] for key in one)
    assert len(model.losses) == losses
    assert [keras.ops.convert_to_numpy(v).tolist() for v in model.non_trainable_variables] == seeds


def test_layers_of_one_name_in_one_container_have_paths_of_their_own():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(4, name="same"), layers.Dense(4, name="same")

    assert [place.path for place in read(Two()).places] == ["same", "same#2"]


def test_keys_do_not_depend_on_what_was_made_before():
    def build():
        return keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4, name="named"), layers.Dense(4)])

    first, second = read(build()), read(build())
    assert [p.path for p in first.places] != [p.path for p in second.places]
    assert [p.key for p in first.places] == [p.key for p in second.places] == ["Dense:0", "named", "Dense:1"]


def test_frozen_is_inherited():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="in")], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(4, name="out")])
    inner.trainable = False
    assert {place.path: place.frozen for place in read(model).places if place.slots} == {"inner/in": True, "out": False}


def test_reading_leaves_the_model_as_it_was():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3))
    config, nodes = model.get_config(), [len(layer._inbound_nodes) for layer in model.layers]
    read(model)
    assert model.get_config() == config
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes


@pytest.mark.parametrize("thing", [None, "model", keras.layers.Dense(3)])
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(ModelTypeError, match=r"Expected a keras\.Model"):
        read(thing)


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (keras.ops.relu, "relu"),
        (keras.ops.gelu, "gelu(approximate=1)"),
        (keras.ops.tanh, "tanh"),
        (keras.ops.exp, "exponential"),
        (lambda x: keras.ops.leaky_relu(x, 0.3), "leaky_relu(negative_slope=0.3)"),
        (lambda x: keras.ops.softmax(x), "softmax"),
        (keras.activations.silu, "silu"),
        (lambda x: keras.activations.relu(x, negative_slope=0.1), "leaky_relu(negative_slope=0.1)"),
        (layers.PReLU(), "leaky_relu(negative_slope=0)"),
        (layers.Activation("swish"), "silu"),
        (layers.ReLU(6.0), "relu6"),
    ],
)
def test_activations_are_known_as_layers_and_as_operations(operation, name):
    inputs = keras.Input((4,))
    (call,) = read(keras.Model(inputs, operation(inputs))).calls
    assert str(activation_of(call)) == name


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (lambda x: x + x, True),
        (lambda x: x * 2.0, True),
        (lambda x: x * x, False),
        (lambda x: keras.ops.reshape(x, (-1, 2, 2)), True),
        (layers.BatchNormalization(), True),
        (layers.Dropout(0.1), True),
        (layers.Dense(3), False),
        (keras.ops.square, False),
    ],
)
def test_what_hands_a_signal_on(operation, expected):
    inputs = keras.Input((4,))
    (call,) = read(keras.Model(inputs, operation(inputs))).calls
    assert passes(call) is expected


@pytest.mark.parametrize(
    ("name", "snake"),
    [("Conv2DTranspose", "conv2d_transpose"), ("ReLU", "re_lu"), ("LSTM", "lstm"), ("Dense", "dense")],
)
def test_class_names_become_keras_names(name, snake):
    assert snake_case(name) == snake
    assert getattr(keras.layers, name)(
        **({"units": 1} if name in ("LSTM", "Dense") else {})
        or ({"filters": 1, "kernel_size": 1} if "Conv" in name else {})
    ).name.startswith(snake)


def test_an_inner_model_is_given_inputs_of_its_rank_as_keras_does():
    column = keras.Input((1,))
    inner = keras.Model(column, keras.layers.Dense(3, name="dense")(column))
    outer = keras.Input((), name="outer")
    graph = read(keras.Model(outer, inner(outer)), np.ones(5, "float32"))
    assert [[graph.specs[number].shape for number in call.outputs] for call in graph.calls] == [[(5, 1)], [(5, 3)]]


def test_shapes_have_the_size_of_the_batch_that_is_given():
    x = keras.Input((4, 6))
    model = keras.Model(x, keras.layers.MultiHeadAttention(2, 3)(x, x))
    for number in (2, 5):
        graph = read(model, np.ones((number, 4, 6), "float32"))
        assert {graph.specs[tensor].shape[0] for call in graph.calls for tensor in call.outputs} == {number}


def test_layers_of_an_application_that_only_compute_are_looked_into():
    """Those that hold weights, or do something else in training, are left whole."""
    scaled = pytest.importorskip("keras.src.applications.inception_resnet_v2").CustomScaleLayer(0.2)
    whole = pytest.importorskip("keras.src.applications.convnext").LayerScale(0.1, 4)
    inputs = keras.Input((4,))
    graph = read(keras.Model(inputs, scaled([inputs, whole(inputs)])))
    assert [type(call.operation).__name__ for call in graph.calls] == ["LayerScale", "Multiply", "Add"]
