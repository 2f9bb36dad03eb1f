"""From a model and data to what its signals and gradients do: one run forward, one back, nothing changed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_autoinit.errors import AutoInitError, DataError, ModelTypeError
from keras_autoinit.execution import storing_nothing
from keras_autoinit.gradients import forward, is_float, pullback_of
from keras_autoinit.graphs import Call, Graph, read
from keras_autoinit.inputs import SEED, drawn_batch, given_batch, words_of
from keras_autoinit.measures import (
    BOUNDS,
    RECTIFIERS,
    array_of,
    dead_share,
    histogram_of,
    likeness,
    saturated_share,
    second_moment,
    sums,
)
from keras_autoinit.prediction import Given, follow
from keras_autoinit.readings import Reading, Signals, WeightReading
from keras_autoinit.samples import samples_in
from keras_autoinit.subjects import Subject, subjects_of
from keras_autoinit.training import signs_of_training
from keras_autoinit.weights import Gradients, weight_readings

# Samples that are used: as many as show how alike they stay, at the price of a small training step.
SAMPLES = 16


def measure(
    model: keras.Model, x: Any = None, y: Any = None, loss: Any = None, samples: int = SAMPLES, predict: bool = True
) -> Signals:
    """Measures what the signals and gradients of a model do; changes nothing.

    When to use: for the numbers alone. `diagnose` judges them.

    Args:
        model: a built Keras model, or any that `x` can build.
        x: samples: arrays, a data set or an iterator of batches. Drawn from the model's input
            specification when not given.
        y: labels. Without them a random unit gradient is sent back from the output.
        loss: what is to be minimized; the compiled model's when not given.
        samples: how many samples to use, a count.
        predict: whether to say beside each number what theory predicts.

    Raises:
        ModelTypeError: `model` is no Keras model.
        DataError: the data do not fit the model, or there is no loss for the labels.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "relu", name="hidden")])
        >>> signals = measure(model)
        >>> signals["hidden"].shape, signals["hidden"].activation
        ((16, 4), 'relu')
    """
    return Measurer(model, x, y, samples).measure(loss, predict)


class Measurer:
    """A model that has been read, and the batch that it is measured on, as often as one likes.

    Args:
        model: the model.
        x: samples, or `None`.
        y: labels, or `None`.
        samples: how many to use.

    Raises:
        ModelTypeError: `model` is no Keras model.
        DataError: there are no data, or they do not fit.
    """

    def __init__(self, model: Any, x: Any = None, y: Any = None, samples: int = SAMPLES) -> None:
        if not isinstance(model, keras.Model):
            raise ModelTypeError(f"Expected a keras.Model. Received: {model!r} of type {type(model).__name__}.")
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise DataError(f"Expected `samples` to be an integer of 1 or more. Received: {samples!r}.")
        if x is None and y is not None:
            raise DataError("Expected samples beside the labels: `diagnose(model, x, y)`. Received labels alone.")
        self.batch: Any = None
        self.labels: Any = None
        if x is None:
            self.batch = drawn_batch(model, samples)
        else:
            self.batch, self.labels = given_batch(model, x, y, samples)
        self.graph = read(model, self.batch, runnable=True)
        self.subjects = subjects_of(self.graph)
        self._model, self._drawn = model, x is None
        self._inputs = _input_numbers(self.graph, self.batch)

    def measure(self, loss: Any = None, predict: bool = True, brief: bool = False) -> Signals:
        """Runs forward and back, and returns the numbers.

        Args:
            loss: what is to be minimized; the compiled model's when not given.
            predict: whether to say beside each number what theory predicts.
            brief: leave out what costs time and changes little while a model is trained: histograms,
                and what is compared between weights.
        """
        run = _Run(self.subjects, self.batch, brief)
        passed = forward(self.graph, self.batch, run.see)
        cotangents = _cotangents(self._model, passed.outputs, self.labels, loss)
        run.see_end(passed.outputs, cotangents)
        found = passed.back(cotangents, run.see_gradient)
        optimizer = getattr(self._model, "optimizer", None)
        trained = brief or bool(signs_of_training(optimizer, self.graph.places))
        gradients = Gradients(found, optimizer, self.labels is not None)
        weights = weight_readings(self.graph, self.subjects, gradients, trained, brief)
        predicted, notes = _predicted(self.graph) if predict else ({}, ())
        return Signals(
            tuple(self._row(subject, run, weights, predicted) for subject in self.subjects),
            model=self._model.name,
            samples=samples_in(self.batch),
            data="drawn" if self._drawn else "given",
            labels="random" if self.labels is None else "given",
            trained=trained,
            notes=(*_notes(self.graph), *notes),
            **self._inputs,
        )

    def _row(
        self, subject: Subject, run: _Run, weights: dict[int, WeightReading], predicted: dict[int, dict[str, Any]]
    ) -> Reading:
        held = tuple(weights[id(each.variable)] for each in subject.weights if id(each.variable) in weights)
        row = run.rows[id(subject.call)]
        # Of a recurrent layer perhaps only the state is read, which is not what is measured.
        untaught = row.sensitivity == 0 and not any(weight.gradient for weight in held)
        aside = untaught and _leads_around(self.graph, subject.call)
        return dataclasses.replace(row, aside=aside, weights=held, **predicted.get(subject.call.outputs[0], {}))


class _Run:
    """Turns each tensor that passes into numbers, and lets go of it."""

    def __init__(self, subjects: list[Subject], batch: Any, brief: bool) -> None:
        self.rows: dict[int, Reading] = {}
        self._by_call = {id(subject.call): subject for subject in subjects}
        self._brief = brief
        self._samples = samples_in(batch)
        self._sizes: dict[int, float] = {}
        self._end = 0.0

    def see(self, call: Call, outputs: list[Any]) -> None:
        """Keeps the numbers of what a call has put out."""
        subject = self._by_call.get(id(call))
        if subject is None or not outputs or not is_float(outputs[0]):
            if subject is not None:
                self.rows[id(call)] = Reading(subject.path, call.name, subject.activation, subject.feeds)
            return
        array = array_of(outputs[0])
        self.rows[id(call)] = row = _reading(subject, array, self._samples, self._brief)
        self._sizes[id(call)] = math.sqrt(row.second_moment or 0.0)

    def see_end(self, outputs: list[Any], cotangents: list[Any]) -> None:
        """Keeps the sensitivity at the model's outputs, which the others are relative to."""
        pairs = [(array_of(one), array_of(other)) for one, other in zip(outputs, cotangents) if is_float(one)]
        self._end = sum(
            math.sqrt(second_moment(one)) * math.sqrt(second_moment(other) * other.size) for one, other in pairs
        )

    def see_gradient(self, call: Call, gradients: list[Any]) -> None:
        """Keeps the numbers of the gradient at what a call has put out."""
        if id(call) not in self._sizes:
            return
        # Where none arrives, a change changes nothing.
        array = np.zeros(1, np.float32) if gradients[0] is None else array_of(gradients[0])
        square = second_moment(array)
        size = math.sqrt(square * array.size) if math.isfinite(square) else math.inf
        sensitivity = self._sizes[id(call)] * size / self._end if self._end > 0 else None
        self.rows[id(call)] = dataclasses.replace(self.rows[id(call)], gradient=square, sensitivity=sensitivity)


def _reading(subject: Subject, array: np.ndarray, samples: int, brief: bool) -> Reading:
    mean, square = sums(array)
    finite = math.isfinite(mean) and math.isfinite(square)
    alike = likeness(array) if finite and array.ndim > 1 and len(array) == samples else None
    rank, cosine = alike or (None, None)
    met = subject.activation
    return Reading(
        subject.path,
        subject.call.name,
        met,
        subject.feeds,
        tuple(array.shape),
        finite,
        mean,
        std=math.sqrt(max(0.0, square - mean * mean)) if finite else math.nan,
        second_moment=square,
        dead=dead_share(array, _unit_axis(subject.call, array), RECTIFIERS[met])
        if met in RECTIFIERS and array.ndim > 1
        else None,
        saturated=saturated_share(array, BOUNDS[met]) if met in BOUNDS else None,
        effective_rank=rank,
        cosine=cosine,
        histogram=None if brief else histogram_of(array),
    )


def _unit_axis(call: Call, array: np.ndarray) -> int:
    """Returns the axis along which the units lie."""
    format_ = getattr(call.operation, "data_format", None) or keras.config.image_data_format()
    return 1 if format_ == "channels_first" and array.ndim >= 4 else -1


def _input_numbers(graph: Graph, batch: Any) -> dict[str, Any]:
    arrays = [
        array_of(array)
        for number, array in zip(graph.inputs, tree.flatten(batch))
        if is_float(array) and words_of(graph, number) is None
    ]
    if not arrays:
        return {}
    square = sum(second_moment(one) * one.size for one in arrays) / sum(one.size for one in arrays)
    alike = [found[1] for one in arrays if (found := likeness(one)) is not None]
    return {"input_second_moment": square, "input_cosine": min(alike, default=None)}


def _cotangents(model: Any, outputs: list[Any], labels: Any, loss: Any) -> list[Any]:
    """Returns the gradient at each of the model's outputs: that of the loss, or a random one."""
    if labels is None:
        source = np.random.default_rng(SEED)
        return [source.normal(size=tuple(one.shape)).astype("float32") if is_float(one) else None for one in outputs]
    targets, losses = _targets(model, labels, len(outputs)), _losses(model, loss, len(outputs))

    def total(given: list[Any]) -> list[Any]:
        terms = [ops.mean(one(ops.convert_to_tensor(y), made)) for one, y, made in zip(losses, targets, given) if one]
        whole = terms[0]
        for term in terms[1:]:
            whole = ops.add(whole, term)
        return [whole]

    try:
        with storing_nothing(differentiable=True):
            value, pullback = pullback_of(total, outputs)
            return pullback([ops.ones_like(value[0])])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Expected labels that fit the loss and the model's output. The loss failed: {error}"
        ) from error


def _targets(model: Any, labels: Any, number: int) -> list[Any]:
    names = getattr(model, "output_names", None)
    if isinstance(labels, dict) and names and set(names) == set(labels) and not isinstance(model.output, dict):
        labels = [labels[name] for name in names]
    found = list(tree.flatten(labels))
    if len(found) != number:
        raise DataError(f"Expected labels for each of the model's {number} outputs. Received {len(found)}.")
    return found


def _losses(model: Any, loss: Any, number: int) -> list[Any]:
    """Returns the loss at each output."""
    loss = getattr(model, "loss", None) if loss is None else loss
    names = getattr(model, "output_names", None)
    if isinstance(loss, dict) and names and not isinstance(model.output, dict):
        loss = [loss.get(name) for name in names]
    given = [loss[key] for key in sorted(loss)] if isinstance(loss, dict) else loss
    found = list(given) if isinstance(given, (list, tuple)) else [given] * number
    if len(found) != number or all(one is None for one in found):
        raise DataError(
            f"Expected a loss for the labels, as the argument `loss` or by `compile`. Received: {loss!r}, for "
            f"{number} output(s)."
        )
    try:
        return [None if one is None else keras.losses.get(one) for one in found]
    except ValueError as error:
        raise DataError(f"Expected a loss that Keras knows. Received: {loss!r}. {error}") from error


def _predicted(graph: Graph) -> tuple[dict[int, dict[str, Any]], tuple[str, ...]]:
    """Returns what theory says of each tensor, as fields of a reading, by number; and a note where it does not."""
    try:
        with np.errstate(all="ignore"):
            prediction = follow(graph, Given())
    except (AutoInitError, ArithmeticError) as error:
        return {}, (f"Nothing was predicted: {error}",)
    found: dict[int, dict[str, Any]] = {}
    for number, signal in prediction.signals.items():
        found[number] = {"predicted_second_moment": float(signal.second_moment)}
        if number in prediction.gradients:
            found[number]["predicted_gradient"] = float(prediction.gradients[number].second_moment)
    return found, ()


def _leads_around(graph: Graph, call: Call) -> bool:
    """Whether what comes in reaches the model's output by another way than through a call."""
    stack, seen = list(graph.outputs), {*graph.outputs, *call.outputs}
    while stack:
        tensor = stack.pop()
        maker = graph.maker(tensor)
        if tensor in graph.inputs:
            return True
        if maker is not None and tensor not in call.outputs:
            stack.extend(number for number in maker.inputs if number not in seen)
            seen.update(maker.inputs)
    return False


def _notes(graph: Graph) -> tuple[str, ...]:
    return tuple(
        f"Inside {one.path} nothing was seen, as it could not be called on symbols: {one.reason}"
        for one in graph.opaque
    )
