"""`SignalMonitor`: the statistics of `diagnose` while a model is trained."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_autoinit.errors import DataError
from keras_autoinit.findings import Finding
from keras_autoinit.judgement import judged
from keras_autoinit.measurement import Measurer
from keras_autoinit.readings import Reading
from keras_autoinit.reports import Report

# What a step of the history holds of each layer, and what TensorBoard shows.
MEASURES = (
    "mean",
    "std",
    "second_moment",
    "dead",
    "saturated",
    "cosine",
    "gradient",
    "weight_gradient",
    "update_ratio",
)


class SignalMonitor(keras.callbacks.Callback):
    """Measures signals and gradients every so many steps of `fit`, on one batch of its own.

    When to use: to see at which step, and in which layer, a training goes wrong. Each look is a
    pass forward and back over `samples`, operation by operation; `benchmarks/diagnosis.py` prints
    what that adds to a training.

    Args:
        x: a few samples to look at, always the same; as for `diagnose`.
        y: their labels; without them a random gradient is sent back.
        every: how many steps from one look to the next, a count.
        samples: how many samples to use, a count.
        layers: names or paths of the layers to keep; a spread of 32 of them when not given.
        log_dir: where to write for TensorBoard: a folder, or the `keras.callbacks.TensorBoard` of the
            same `fit`, whose folder is then used. Needs TensorFlow, whatever the backend.
        stop: whether a finding of severity `error` ends the training.

    Attributes:
        history: one dictionary for each look: `step`, `findings`, and the numbers of each layer.
        reports: the last report, by which `print(monitor.reports[-1])` says what is wrong.

    Raises:
        DataError: `every` or `samples` is no count.

    Example:
        >>> import numpy as np
        >>> x, y = np.ones((32, 4), "float32"), np.ones((32, 1), "float32")
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="line")])
        >>> model.compile("sgd", "mse")
        >>> monitor = SignalMonitor(x, y, every=2)
        >>> _ = model.fit(x, y, batch_size=8, epochs=1, callbacks=[monitor], verbose=0)
        >>> [look["step"] for look in monitor.history]
        [0, 2, 4]
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        every: int = 50,
        samples: int = 16,
        layers: Sequence[str] | None = None,
        log_dir: Any = None,
        stop: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("every", every), ("samples", samples)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise DataError(f"Expected `{name}` to be an integer of 1 or more. Received: {value!r}.")
        self.every, self.samples, self.stop = every, samples, stop
        self.layers = None if layers is None else tuple(layers)
        folder = getattr(log_dir, "log_dir", log_dir)
        self.log_dir = None if folder is None else Path(folder)
        self.history: list[dict[str, Any]] = []
        self.reports: list[Report] = []
        self.seconds = 0.0
        self._x, self._y, self._step = x, y, 0
        self._measurer: Any = None
        self._writer: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Looks at the start, before the first step."""
        self._measurer = Measurer(self.model, self._x, self._y, self.samples)
        self._writer = self._opened()
        self._look()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks again, every so many steps."""
        self._step += 1
        if self._step % self.every == 0:
            self._look()

    def on_train_end(self, logs: Any = None) -> None:
        """Lets go of the file and the batch."""
        self._measurer = None
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def series(self, layer: str, measure: str = "second_moment") -> tuple[list[int], list[float | None]]:
        """Returns the steps, and one measure of one layer at each, to be drawn.

        Args:
            layer: its path.
            measure: one of `MEASURES`.
        """
        looks = [look for look in self.history if layer in look["layers"]]
        return [look["step"] for look in looks], [look["layers"][layer].get(measure) for look in looks]

    def _look(self) -> None:
        start = time.perf_counter()
        measurer = self._measurer
        # On JAX the weights of a training are elsewhere until a callback asks for its model, as this does.
        _ = self.model
        signals = measurer.measure(predict=False, brief=bool(self.history))
        report = Report(signals, judged(signals))
        self.reports[:] = [report]
        rows = self._chosen(report.signals.rows)
        self.history.append(
            {
                "step": self._step,
                "findings": report.findings,
                "layers": {row.path: {name: getattr(row, name) for name in MEASURES} for row in rows},
            }
        )
        self._write(rows)
        self.seconds += time.perf_counter() - start
        self._stop_on(report.findings)

    def _chosen(self, rows: Sequence[Reading]) -> list[Reading]:
        if self.layers is not None:
            return [row for row in rows if row.path in self.layers or row.path.rsplit("/", 1)[-1] in self.layers]
        # From the first to the last, evenly.
        step = max(1, -(-len(rows) // 32))
        return [row for index, row in enumerate(rows) if index % step == 0 or index == len(rows) - 1]

    def _stop_on(self, findings: Sequence[Finding]) -> None:
        errors = [finding for finding in findings if finding.severity == "error"]
        if self.stop and errors:
            self.model.stop_training = True
            told = "; ".join(map(str, errors[:3]))
            warnings.warn(f"SignalMonitor stopped the training at step {self._step}. {told}", stacklevel=2)

    def _opened(self) -> Any:
        """Returns a TensorBoard writer, `None` where there is no folder for it."""
        if self.log_dir is None:
            return None
        try:
            summaries = importlib.import_module("tensorflow").summary
        except ImportError:
            warnings.warn("SignalMonitor writes nothing for TensorBoard: TensorFlow is not installed.", stacklevel=2)
            return None
        return summaries.create_file_writer(str(self.log_dir / "signals"))

    def _write(self, rows: Sequence[Reading]) -> None:
        if self._writer is None:
            return
        tensorflow = importlib.import_module("tensorflow")
        # What `tf.summary.scalar` writes, which itself needs TensorBoard to be installed.
        metadata = tensorflow.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"}, data_class=1)
        with self._writer.as_default():
            for row in rows:
                for name in MEASURES:
                    value = getattr(row, name)
                    if value is not None:
                        tensor = tensorflow.constant(value, "float32")
                        tensorflow.summary.write(f"{name}/{row.path}", tensor, self._step, metadata)
        self._writer.flush()
