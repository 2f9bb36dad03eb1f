"""A progress bar on work that takes long, and none on other work."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Literal

import keras

Verbose = Literal["auto", 0, 1]
# Seconds of work after which a person wants to know how far it is.
LONG = 2.0


class Progress:
    """Counts steps; says nothing until the work turns out to be long.

    Args:
        steps: how many there are.
        verbose: `"auto"`: a bar after two seconds, where somebody looks on: on a terminal or in a
            notebook; 1: from the beginning; 0: none.

    Example:
        >>> progress = Progress(3)
        >>> for _ in range(3):
        ...     progress.step()
    """

    def __init__(self, steps: int, verbose: Verbose = "auto") -> None:
        self._steps, self._done, self._start = steps, 0, time.monotonic()
        self._waits = {"auto": LONG if _is_watched() else math.inf, 0: math.inf, 1: 0.0}[verbose]
        self._bar: Any = None

    def step(self) -> None:
        """Counts one step that is done."""
        self._done += 1
        if self._bar is None and time.monotonic() - self._start >= self._waits:
            self._bar = keras.utils.Progbar(self._steps, unit_name="call")
        if self._bar is not None:
            self._bar.update(self._done)


def _is_watched() -> bool:
    return sys.stdout.isatty() or "ipykernel" in sys.modules
