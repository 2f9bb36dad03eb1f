"""Which layers are meant: `include` and `exclude` as names, patterns, classes or predicates."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras

from keras_autoinit.errors import SelectionError
from keras_autoinit.graphs import Place

Selector = str | type | Callable[[keras.Layer], bool]


@dataclass(frozen=True)
class Selection:
    """What a method may touch.

    Attributes:
        include: only layers that one of these selects; every layer when empty.
        exclude: no layer that one of these selects.
    """

    include: tuple[Selector, ...] = ()
    exclude: tuple[Selector, ...] = ()

    @classmethod
    def of(cls, include: Any, exclude: Any) -> Selection:
        """Makes a selection of what the user gave: one selector, several, or none."""
        return cls(_selectors(include, "include"), _selectors(exclude, "exclude"))

    def reason_to_keep(self, place: Place) -> str | None:
        """Returns why a place is not to be touched, or `None` if it may be."""
        if self.include and not any(matches(selector, place) for selector in self.include):
            return "Not among the layers to include."
        for selector in self.exclude:
            if matches(selector, place):
                return f"Excluded by {describe(selector)}."
        return None

    def check(self, places: Iterable[Place]) -> None:
        """Raises `SelectionError` for a selector that selects nothing: it may be misspelt."""
        places = list(places)
        for selector in (*self.include, *self.exclude):
            if not any(matches(selector, place) for place in places):
                raise SelectionError(
                    f"Expected {describe(selector)} to select a layer of the model. It selects none of: "
                    f"{', '.join(place.path for place in places[:20])}{', ...' if len(places) > 20 else ''}."
                )


def matches(selector: Selector, place: Place) -> bool:
    """Whether a selector selects a place, or a container that it stands in by path."""
    if isinstance(selector, str):
        steps = place.path.split("/")
        paths = ["/".join(steps[: length + 1]) for length in range(len(steps))]
        return any(fnmatch.fnmatchcase(name, selector) for name in (*paths, place.layer.name))
    if isinstance(selector, type):
        return isinstance(place.layer, selector)
    return bool(selector(place.layer))


def describe(selector: Selector) -> str:
    """Returns a selector as a reader would name it."""
    return repr(selector) if isinstance(selector, str) else getattr(selector, "__name__", repr(selector))


def _selectors(given: Any, name: str) -> tuple[Selector, ...]:
    if given is None:
        return ()
    several = given if isinstance(given, (list, tuple, set, frozenset)) else (given,)
    for selector in several:
        if not isinstance(selector, (str, type)) and not callable(selector):
            raise SelectionError(
                f"Expected `{name}` to hold layer names, glob patterns, layer classes or predicates on a layer. "
                f"Received: {selector!r}."
            )
    return tuple(several)
