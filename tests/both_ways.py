"""What is predicted at every call of a model, beside what is measured there: signals, and gradients that come back."""

from dataclasses import dataclass

import keras
import numpy as np

from keras_autoinit.gradients import forward
from keras_autoinit.graphs import read
from keras_autoinit.prediction import Given, follow


@dataclass(frozen=True)
class Met:
    """One call: predicted and measured second moments; `None` for a gradient that does not come so far."""

    name: str
    signal: float
    made: float
    gradient: float | None
    back: float | None

    @property
    def off(self):
        """What the prediction of the signal is off by, as a factor less one."""
        return self.made / self.signal - 1

    @property
    def off_back(self):
        """The same of the gradient."""
        return self.back / self.gradient - 1


def square_of(tensor):
    return float(np.mean(keras.ops.convert_to_numpy(tensor).astype(np.float64) ** 2))


def at_every_call(model, batch, source):
    """Returns what is predicted and measured at every call, in order."""
    graph, made, back = read(model, batch, runnable=True), {}, {}
    passed = forward(graph, batch, lambda call, outputs: made.update(zip(call.outputs, outputs)))
    ends = [source.normal(size=tuple(one.shape)).astype("float32") for one in passed.outputs]
    passed.back(ends, lambda call, gradients: back.update(zip(call.outputs, gradients)))
    found, rows = follow(graph, Given()), []
    for call in graph.calls:
        number = call.outputs[0]
        gradient, measured = found.gradients.get(number), back.get(number)
        rows.append(
            Met(
                call.name,
                found.signals[number].second_moment,
                square_of(made[number]),
                None if gradient is None else gradient.second_moment,
                None if measured is None else square_of(measured),
            )
        )
    return rows


def named(rows, name):
    """Returns the rows of one operation."""
    return [row for row in rows if row.name == name]
