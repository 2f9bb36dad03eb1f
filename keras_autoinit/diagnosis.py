"""`diagnose`: what is wrong with a network before it is trained, where, and what to do about it."""

from __future__ import annotations

from typing import Any

import keras

from keras_autoinit.judgement import judged
from keras_autoinit.measurement import SAMPLES, measure
from keras_autoinit.reports import Report


def diagnose(
    model: keras.Model, x: Any = None, y: Any = None, loss: Any = None, *, samples: int = SAMPLES, predict: bool = True
) -> Report:
    """Measures what the signals and gradients of a model do, and says what is wrong with them.

    When to use: when a network does not learn, or before a long training. Changes nothing; takes
    about the time and the memory of a training step.

    Assumption: batch statistics as in training, dropout off. One fault hides others: cure what is
    listed, then look again.

    Args:
        model: any Keras model that is built, or that `x` builds.
        x: samples: an array, a structure of arrays, a data set or an iterator of batches. When not
            given they are drawn from the model's input specification: unit normal, or token ids.
        y: labels. Without them a random unit gradient is sent back from the output.
        loss: what is to be minimized; the compiled model's when not given.
        samples: how many samples to use, a count.
        predict: whether to say beside each number what theory predicts, which takes about as long
            as a forward pass.

    Returns:
        A `Report`.

    Raises:
        ModelTypeError: `model` is no Keras model.
        DataError: the data do not fit the model, or there is no loss for the labels.

    Example:
        >>> model = keras.Sequential(
        ...     [keras.Input((8,)), keras.layers.Dense(4, "relu", bias_initializer=keras.initializers.Constant(-10.0)),
        ...      keras.layers.Dense(1)]
        ... )
        >>> [finding.kind for finding in diagnose(model)]
        ['dead_units']
    """
    signals = measure(model, x, y, loss, samples, predict)
    return Report(signals, judged(signals))
