"""What Keras's own layers and operations do to a signal, by their names."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import tree

from keras_autoinit.activations import Activation, activation, is_activation_layer, is_own, operation_activation
from keras_autoinit.graphs.records import Call, Graph, Ref


def activation_of(call: Call) -> Activation | None:
    """Returns the activation that a call applies, or `None` if it applies none."""
    operation = call.operation
    if is_activation_layer(operation):
        return activation(operation)
    return operation_activation(operation)


def passes(call: Call) -> bool:
    """Whether a call hands the signal on without bending it: an activation may follow."""
    if isinstance(call.operation, keras.Layer):
        return isinstance(call.operation, PASSING_LAYERS)
    if not is_own(call.operation):
        return False
    name, tensors = type(call.operation).__name__, len(call.inputs)
    # The product of two tensors is where queries meet keys: a softmax may follow.
    return name in _PASSING or (name in _SCALING and tensors == 1) or (name in _PRODUCTS and tensors > 1)


def adds(call: Call) -> bool:
    """Whether a call is an operation that adds what it is given."""
    return is_own(call.operation) and type(call.operation).__name__ in ("Add", "Subtract")


def is_elementwise(graph: Graph, call: Call) -> bool:
    """Whether a call is an operation that makes each number from those at the same place, and scalars."""
    if isinstance(call.operation, keras.Layer) or not is_own(call.operation) or len(call.outputs) != 1:
        return False
    if type(call.operation).__name__ not in _ELEMENTWISE and activation_of(call) is None:
        return False
    shapes = {graph.specs[tensor].shape for tensor in (*call.inputs, *call.outputs) if tensor in graph.specs}
    others = [value for value in tree.flatten((call.args, call.kwargs)) if not isinstance(value, Ref)]
    return len(shapes) == 1 and all(_is_scalar(value) for value in others)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, type(None))) or math.prod(getattr(value, "shape", (2,))) == 1


_PASSING = frozenset(
    """
    AdaptiveAveragePool AdaptiveMaxPool Add Average AveragePool BatchNorm BroadcastTo Cast Concatenate Copy
    DepthToSpace ExpandDims Flip GetItem Identity LayerNorm Max MaxPool Mean Moveaxis Negative Normalize Pad
    RMSNorm Ravel Repeat Reshape Resize Roll SpaceToDepth Split Squeeze Stack Subtract Swapaxes Tile Transpose
    """.split()
)
ATTENTION = tuple(
    getattr(keras.layers, name) for name in ("MultiHeadAttention", "GroupQueryAttention") if hasattr(keras.layers, name)
)

_ELEMENTWISE = frozenset(
    """
    Absolute Add Arctan Clip Cos Divide Erf Exp Expm1 Log Log1p Maximum Minimum Multiply Negative Power Reciprocal Rsqrt
    Sign Sin Sqrt Square Subtract Tanh TrueDivide
    """.split()
)
_SCALING = frozenset({"Divide", "Multiply", "TrueDivide"})
_PRODUCTS = frozenset({"Dot", "Einsum", "Matmul", "Tensordot"})

PASSING_LAYERS = tuple(
    getattr(keras.layers, name)
    for name in """
    ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AlphaDropout Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Concatenate Cropping1D Cropping2D Cropping3D Dropout Flatten
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization Identity LayerNormalization Masking
    MaxPooling1D MaxPooling2D MaxPooling3D Normalization Permute RMSNormalization RepeatVector Rescaling Reshape
    Resizing SpatialDropout1D SpatialDropout2D SpatialDropout3D Subtract UnitNormalization UpSampling1D UpSampling2D
    UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()
    # Younger Keras versions have more layers than the oldest that is supported.
    if hasattr(keras.layers, name)
)
