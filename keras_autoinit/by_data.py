"""From a graph and data to decisions: the scale of every weight is measured, in one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_autoinit.by_table import Table
from keras_autoinit.duplicates import drawn_apart
from keras_autoinit.errors import DataError
from keras_autoinit.execution import executed, peak_elements
from keras_autoinit.graphs import Graph, Place, read
from keras_autoinit.inputs import as_taken
from keras_autoinit.plans import Decision
from keras_autoinit.progress import Progress, Verbose
from keras_autoinit.recipes import Recipe
from keras_autoinit.runs import Run, rescaled
from keras_autoinit.samples import first_samples, is_once_only, samples_in
from keras_autoinit.selection import Selection
from keras_autoinit.variables import Variable

# What the tensors between the layers may take, in bytes: with more samples than fit, fewer are used.
MEMORY = 1 << 30
# Enough for float32.
DIGITS = 9


@dataclass(frozen=True)
class Data:
    """Sets each scale by what the layer does to real samples: unit spread after every weighted layer.

    When to use: where samples are at hand, above all where they are far from Gaussian or the model
    holds what no theory covers. `AutoInit("data").apply(model, x)`; costs one to three forward
    passes.

    Formula: in the order of the signal, each weight is drawn, the layer computed, and weight and
    output divided by the output's standard deviation over the batch, all numbers together, before
    the layer's own activation (Mishkin and Matas 2016, arXiv 1511.06422, in one pass, as the output
    is linear in the weight).

    Args:
        samples: how many samples to use, a count; fewer if what passes between the layers would
            take more than a gigabyte, which a note of the plan then says.
        center: also set the bias of dense and convolution layers so that each unit has mean zero.
        calibrate: set the moving averages of batch normalizations to the statistics of the batch.
        output_prior: frequencies of the classes: the bias of the last layer becomes their logarithm
            (or the log odds of one class, if there is one unit).
        base: the method that chooses each weight's scheme, of which the scale is then set; the
            table when not given.
        verbose: a progress bar: `"auto"` on work of more than two seconds, on a terminal or in a
            notebook; 1 always, 0 never.

    Raises:
        DataError: `samples` is no count, `output_prior` holds no frequencies, or `verbose` is none of these.

    Example:
        >>> Data(samples=64).samples
        64
    """

    samples: int = 256
    center: bool = False
    calibrate: bool = True
    output_prior: tuple[float, ...] | None = None
    base: Any = dataclasses.field(default_factory=Table)
    verbose: Verbose = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 1:
            raise DataError(f"Expected `samples` to be an integer of 1 or more. Received: {self.samples!r}.")
        if self.verbose not in ("auto", 0, 1):
            raise DataError(f"Expected `verbose` to be 'auto', 0 or 1. Received: {self.verbose!r}.")
        if self.output_prior is not None:
            object.__setattr__(self, "output_prior", _frequencies(self.output_prior))

    def look_at(self, model: keras.Model, data: Any) -> tuple[Graph, Any, list[str]]:
        """Takes the first samples, and reads the model with them; changes nothing.

        Returns:
            The graph, the batch that it was read with, and notes for the plan.

        Raises:
            DataError: there are no data, or they hold no sample.
            ModelTypeError: it is no Keras model.
        """
        if data is None:
            raise DataError(
                "Expected samples, which this method measures on. Received none: call "
                "`AutoInit('data').apply(model, x)` before `fit`; as a callback it does not see the data."
            )
        batch = as_taken(model, first_samples(data, self.samples))
        number, notes = samples_in(batch), []
        if is_once_only(data):
            notes.append(
                f"{number} samples were taken from an iterator that gives each only once: `peek` keeps them for `fit`."
            )
        graph = read(model, batch, runnable=True)
        taken = 4 * peak_elements(graph)
        if taken > MEMORY and number > 1:
            fewer = max(1, int(number * MEMORY / taken))
            notes.append(
                f"{fewer} samples were used: what passes between layers takes {taken / number:.3g} bytes each."
            )
            batch = tree.map_structure(lambda array: array[:fewer], batch)
            graph = read(model, batch, runnable=True)
        return graph, batch, notes

    def read(self, model: Any, inputs: Any) -> Graph:
        """Returns the model as it is read when scales are at hand: the samples are not needed."""
        return read(model)

    def decided(
        self, model: Any, inputs: Any, selection: Selection, seed: int
    ) -> tuple[Graph, tuple[Decision, ...], tuple[str, ...]]:
        """Returns the model as it was read, one decision per weight, and notes on the whole."""
        graph, batch, seen = self.look_at(model, inputs)
        selection.check(graph.places)
        rows, told = self.decide(graph, selection, batch, seed)
        return graph, rows, (*seen, *told)

    def decide(
        self, graph: Graph, selection: Selection, batch: Any, seed: int
    ) -> tuple[tuple[Decision, ...], list[str]]:
        """Returns one decision per weight, and notes; runs the graph once and changes nothing."""
        rows = drawn_apart(self.base.decide(graph, selection), graph.places)
        # A base that makes nothing of residual branches is followed in that.
        shares = getattr(self.base, "residual", "balanced") == "balanced"
        run = Run(graph, rows, selection, seed, self.center, self.calibrate, shares)
        progress = Progress(len(graph.calls), self.verbose)
        run.see(graph.inputs, tree.flatten(batch))
        for call, outputs in executed(graph, batch, run.compute, run.groups):
            run.see(call.outputs, outputs)
            progress.step()
        biases = {**run.biases, **self._prior(graph, run.places)}
        set_ = [*_average_rows(run.averages), *_bias_rows(biases)]
        notes = [f"Scales were measured on {samples_in(batch)} samples: batch statistics as in training, dropout off."]
        if run.averages:
            notes.append(
                f"The moving averages of {len(run.averages)} batch normalizations are set to what the samples gave."
            )
        # Biases of several axes have a row of their own, which is kept otherwise.
        given = {row.path for row in set_}
        return (*(_measured_row(graph, run, row) for row in rows if row.path not in given), *set_), notes

    def _prior(self, graph: Graph, places: tuple[Place, ...]) -> dict[str, tuple[Place, np.ndarray]]:
        """Returns the bias of the last layer, by its place's path, where frequencies are given."""
        if self.output_prior is None:
            return {}
        frequencies = np.asarray(self.output_prior)
        start = np.log(frequencies) if len(frequencies) > 2 else np.log(frequencies[-1:] / (1 - frequencies[-1:]))
        by_layer = {id(place.layer): place for place in places}
        for call in reversed(graph.calls):
            place = by_layer.get(id(call.operation))
            bias = getattr(call.operation, "bias", None)
            if place is not None and isinstance(bias, Variable):
                start = np.log(frequencies) if tuple(bias.shape) == frequencies.shape else start
                if tuple(bias.shape) == start.shape:
                    return {place.path: (place, start)}
                break
        raise DataError(
            "Expected the model's last layer to have a bias for each of the frequencies in `output_prior`, or a single "
            f"unit for two. Received {len(frequencies)} frequencies."
        )


def _measured_row(graph: Graph, run: Run, row: Decision) -> Decision:
    """Returns a decision with the scale that has been measured, or with why there is none."""
    if not row.changed:
        return row
    measured = run.measured.get(row.path)
    if row.role == "unknown":
        return dataclasses.replace(row, reason=f"{row.reason} No scale was measured: no use of it was seen.")
    if measured is None and row.path in run.unseen:
        reason = "Left as it is: no use of it was seen, and what it does, if anything, went into the measured scales."
        return dataclasses.replace(row, new=row.old, reason=reason)
    if measured is None:
        why = "it is not built" if row.shape is None else "nothing on the way of the samples uses it"
        return dataclasses.replace(row, reason=f"{row.reason} No scale was measured: {why}.", output_std=None)
    new = rescaled(row, measured.factor) if measured.scaled else row.new
    # What a base has predicted of gradients holds for its own scales.
    return dataclasses.replace(
        row,
        new=new or row.new,
        reason=f"{row.reason} {measured.reason}",
        output_std=measured.output_std,
        gradient_factor=None,
    )


def _average_rows(averages: Mapping[str, tuple[Place, Any, Any]]) -> Iterator[Decision]:
    for place, mean, variance in averages.values():
        reason = "Set to the statistics of the samples, so that inference starts where training does."
        yield _constant_row(place, "moving_mean", mean, reason)
        yield _constant_row(place, "moving_variance", variance, reason)


def _bias_rows(biases: Mapping[str, tuple[Place, Any]]) -> Iterator[Decision]:
    for place, values in biases.values():
        yield _constant_row(place, "bias", values, "Set by the samples: each unit's mean, or the classes' frequencies.")


def _constant_row(place: Place, weight: str, values: Any, reason: str) -> Decision:
    shape = tuple(np.shape(values))
    new = Recipe("autoinit>constant", {"value": [float(f"{value:.{DIGITS}g}") for value in np.ravel(values)]})
    old = Recipe.of(getattr(place.layer, f"{weight}_initializer"))
    return Decision(f"{place.path}/{weight}", weight, shape, None, None, "", old, new, reason)


def _frequencies(given: Any) -> tuple[float, ...]:
    """Returns frequencies that sum to one."""
    values = np.atleast_1d(np.asarray(given, np.float64))
    if values.shape == (1,):
        values = np.array([1 - values[0], values[0]])
    if values.ndim != 1 or not (values > 0).all():
        raise DataError(f"Expected `output_prior` to hold a positive frequency for each class. Received: {given!r}.")
    return tuple(float(value) for value in values / values.sum())
