"""Building apart: nothing of what Keras, Python and NumPy keep for the whole program is moved.

Keras keeps its name counters, its global seed and its scopes per thread, so what is built in a
thread of its own leaves those of the caller alone. Python's and NumPy's random states belong to
the process: they are lent out and put back.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import keras
import numpy as np

Result = TypeVar("Result")


def apart(work: Callable[[], Result]) -> Result:
    """Does work in a new thread, whose Keras state is dropped with it, and returns its result."""
    policy = keras.config.dtype_policy()

    def start() -> Result:
        keras.config.set_dtype_policy(policy)
        # A configuration that is read here was written in this process: a lambda in it is the user's own.
        keras.config.enable_unsafe_deserialization()
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(start).result()


def without_values() -> keras.StatelessScope:
    """Returns a scope in which variables take no memory; to read one's value draws it.

    For work done apart only: Keras lists such variables, and would fill them at the next chance.
    """
    return keras.StatelessScope(initialize_variables=False)


@contextlib.contextmanager
def lent_chance(seed: int) -> Iterator[None]:
    """Lets everything that has no seed of its own draw one from `seed`.

    Keras makes up the seed of an initializer without one by asking Python's generator, so this is
    the only way to decide the draws of weights whose initializers are made while a layer is built.
    """
    python, arrays = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed & 0xFFFF_FFFF)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
