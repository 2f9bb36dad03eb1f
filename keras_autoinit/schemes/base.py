"""What every scheme shares: its registered names, its printed form, its seed and its tensor."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np

from keras_autoinit.activations import activation
from keras_autoinit.draws import Seed
from keras_autoinit.errors import SchemeError
from keras_autoinit.fans import Axes, checked_axes, default_axes
from keras_autoinit.recipes import Recipe

PACKAGE = "autoinit"

# Every name and alias, without the package: what `keras_autoinit.schemes` lists.
REGISTRY: dict[str, type[Scheme]] = {}

AnyScheme = TypeVar("AnyScheme", bound="type[Scheme]")


def register(*names: str) -> Callable[[AnyScheme], AnyScheme]:
    """Registers a scheme under `autoinit>` and its first name; the others are aliases."""

    def decorate(scheme: AnyScheme) -> AnyScheme:
        keras.saving.register_keras_serializable(package=PACKAGE, name=names[0])(scheme)
        for name in names:
            keras.saving.get_custom_objects()[f"{PACKAGE}>{name}"] = scheme
            REGISTRY[name] = scheme
        scheme.names = names
        return scheme

    return decorate


class Scheme(keras.initializers.Initializer):
    """An initializer of this package: prints itself, compares by configuration, draws from `draws`."""

    names: ClassVar[tuple[str, ...]] = ()
    # Whether weights with the same `pair` draw from one seed, of which each takes a part.
    paired: ClassVar[bool] = False

    def draw(self, shape: tuple[int, ...], seed: Seed, **options: Any) -> np.ndarray:
        """Returns the values as a NumPy array; the options are those of `draws.fill`."""
        raise NotImplementedError

    def __call__(self, shape: Sequence[int], dtype: Any = None, layout: Any = None) -> Any:
        """Returns a tensor of the current backend.

        Args:
            shape: shape of the tensor.
            dtype: its dtype; Keras's default float type when not given.
            layout: a `keras.distribution.TensorLayout` or a backend's own; each device then asks
                for its own part of the values.
        """
        shape = tuple(int(length) for length in shape)
        dtype = keras.backend.standardize_dtype(dtype)
        if layout is not None and keras.config.backend() == "jax":
            return _placed(
                functools.partial(self.draw, shape, self._seed_words(), dtype=wide(dtype)), shape, dtype, layout
            )
        return keras.ops.convert_to_tensor(self.array(shape, dtype), dtype=dtype)

    def array(self, shape: tuple[int, ...], dtype: str, threads: int | None = None) -> np.ndarray:
        """Returns the values as a NumPy array, not yet of `dtype` where that is a half precision."""
        return self.draw(shape, self._seed_words(), dtype=wide(dtype), threads=threads)

    def _seed_words(self) -> Seed:
        """Returns what seeds this call: the integer, or the next state of a `SeedGenerator`."""
        seed = getattr(self, "seed", 0)
        if isinstance(seed, keras.random.SeedGenerator):
            return tuple(int(word) for word in keras.ops.convert_to_numpy(seed.next()))
        return int(seed)

    @property
    def recipe(self) -> Recipe:
        """The scheme as plain data."""
        return Recipe.of(self)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.recipe.config.items())
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.recipe == self.recipe

    def __hash__(self) -> int:
        return hash(self.recipe)


def wide(dtype: str) -> Any:
    """Returns the precision in which values of this dtype are computed."""
    return np.float64 if dtype == "float64" else np.float32


class AxesScheme(Scheme, keras.initializers.VarianceScaling):
    """A scheme that must know which axes are inputs and which are outputs.

    It derives from Keras's `VarianceScaling` because `EinsumDense`, and with it every attention
    layer, hands its axes to such an initializer only.
    """

    def __init__(
        self,
        gain: float | str = 1.0,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        fan_divisor: float = 1.0,
        blocks: int = 1,
        seed: Any = None,
    ) -> None:
        keras.initializers.VarianceScaling.__init__(self, seed=checked_seed(seed))
        self.gain = checked_gain(gain)
        self.input_axes = checked_axes(input_axes, "input_axes")
        self.output_axes = checked_axes(output_axes, "output_axes")
        if (self.input_axes is None) != (self.output_axes is None):
            raise SchemeError(
                "Expected `input_axes` and `output_axes` together, or neither. "
                f"Received: input_axes={input_axes}, output_axes={output_axes}."
            )
        self.fan_divisor = positive("fan_divisor", fan_divisor)
        self.blocks = count("blocks", blocks)

    def axes(self, shape: Sequence[int]) -> Axes:
        """Returns the axes for this shape: those given, or those that Keras assumes."""
        default = default_axes(len(shape))
        inputs = default.inputs if self.input_axes is None else self.input_axes
        outputs = default.outputs if self.output_axes is None else self.output_axes
        if any(not -len(shape) <= axis < len(shape) for axis in (*inputs, *outputs)):
            raise SchemeError(
                f"Expected a weight that has the axes {inputs} and {outputs}. Received the shape {tuple(shape)}: "
                "leave `input_axes` and `output_axes` out, or give axes that it has."
            )
        inputs, outputs = (tuple(axis % len(shape) for axis in some) for some in (inputs, outputs))
        if len(set(inputs)) < len(inputs) or len(set(outputs)) < len(outputs):
            raise SchemeError(f"Expected each axis once. Received: input_axes={inputs}, output_axes={outputs}.")
        if outputs and shape[outputs[-1]] % self.blocks:
            raise SchemeError(
                f"Expected the last of the output axes to hold {self.blocks} blocks of equal size. Received the shape "
                f"{tuple(shape)} with the output axes {outputs}."
            )
        return Axes(inputs, outputs, self.blocks, self.fan_divisor)

    @property
    def gain_value(self) -> float:
        """The gain as a number."""
        return activation(self.gain).gain if isinstance(self.gain, str) else self.gain

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> AxesScheme:
        """Makes a scheme; a seed for one that takes none is dropped: `EinsumDense` hands on its own."""
        kind: Any = cls
        return cls(**{key: value for key, value in config.items() if key != "seed" or key in arguments_of(kind)})

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal scheme."""
        return {
            "gain": self.gain,
            "input_axes": None if self.input_axes is None else list(self.input_axes),
            "output_axes": None if self.output_axes is None else list(self.output_axes),
            "fan_divisor": self.fan_divisor,
            "blocks": self.blocks,
            "seed": keras.saving.serialize_keras_object(self._init_seed),
        }


def checked_seed(seed: Any) -> Any:
    """Returns what Keras takes as a seed, or raises `SchemeError`."""
    if isinstance(seed, np.integer):
        return int(seed)
    if seed is None or isinstance(seed, (int, dict, keras.random.SeedGenerator)):
        return seed
    raise SchemeError(f"Expected `seed` to be None, an integer or a keras.random.SeedGenerator. Received: {seed!r}.")


def checked_gain(gain: float | str) -> float | str:
    """Returns the gain, or raises `SchemeError` or `ActivationError`."""
    if isinstance(gain, str):
        # Asked for now so that a misspelt name, or an activation without a gain, fails here.
        _ = activation(gain).gain
        return gain
    if isinstance(gain, bool) or not isinstance(gain, (int, float, np.floating, np.integer)):
        raise SchemeError(f"Expected `gain` to be a number or the name of an activation. Received: {gain!r}.")
    if not math.isfinite(gain) or gain < 0:
        raise SchemeError(f"Expected `gain` to be finite and not negative. Received: {gain!r}.")
    return float(gain)


def number(name: str, value: Any) -> float:
    """Returns a finite number, or raises `SchemeError`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise SchemeError(f"Expected `{name}` to be a number. Received: {value!r}.")
    if not math.isfinite(value):
        raise SchemeError(f"Expected `{name}` to be finite. Received: {value!r}.")
    return float(value)


def positive(name: str, value: Any) -> float:
    """Returns a finite number above zero, or raises `SchemeError`."""
    if number(name, value) <= 0:
        raise SchemeError(f"Expected `{name}` to be positive. Received: {value!r}.")
    return float(value)


def count(name: str, value: Any) -> int:
    """Returns an integer of one or more, or raises `SchemeError`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise SchemeError(f"Expected `{name}` to be an integer of 1 or more. Received: {value!r}.")
    return int(value)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Returns one of the allowed words, or raises `SchemeError`."""
    if value not in allowed:
        listed = ", ".join(repr(word) for word in sorted(allowed))
        raise SchemeError(f"Expected `{name}` to be one of {listed}. Received: {value!r}.")
    return str(value)


def unseeded(initializer: keras.Initializer) -> keras.Initializer:
    """Makes an initializer's configuration name no seed, so that each copy of it draws its own.

    Giving Keras `seed=None` would read the global random state.
    """
    if getattr(initializer, "_init_seed", None) is not None:
        initializer._init_seed = None
    return initializer


def _placed(draw: Callable[..., np.ndarray], shape: tuple[int, ...], dtype: str, layout: Any) -> Any:
    """Returns a JAX array of which every device makes its own part."""
    import jax

    layout = getattr(layout, "backend_layout", layout)
    if isinstance(layout.mesh, jax.sharding.AbstractMesh):
        layout = jax.sharding.NamedSharding(jax.sharding.get_mesh(), layout.spec)

    def part(index: Any) -> np.ndarray:
        return np.asarray(draw(part=index)).astype(jax.numpy.dtype(dtype))

    return jax.make_array_from_callback(shape, layout, part)


def kind_of(recipe: Recipe) -> Any:
    """Returns the class that a recipe names, or `None` if nobody registered it."""
    own = REGISTRY.get(recipe.name.removeprefix(f"{PACKAGE}>")) if recipe.name.startswith(f"{PACKAGE}>") else None
    found = own or keras.saving.get_registered_object(recipe.name) or getattr(keras.initializers, recipe.name, None)
    return found if isinstance(found, type) else None


@functools.cache
def arguments_of(kind: Any) -> frozenset[str]:
    """Returns the names of a class's arguments."""
    return frozenset(inspect.signature(kind).parameters)


def with_axes(recipe: Recipe, axes: Axes | None) -> Recipe:
    """Returns a recipe with the axes of a weight's role, as far as its scheme takes them.

    What the recipe says itself stands.
    """
    kind = kind_of(recipe)
    if axes is None or kind is None:
        return recipe
    accepted = arguments_of(kind)
    config = axes.config()
    if "groups" in accepted and "blocks" in config:
        config["groups"] = config.pop("blocks")
    return Recipe(recipe.name, {**{key: value for key, value in config.items() if key in accepted}, **recipe.config})


def seed_key(recipe: Recipe, own: str) -> str:
    """Returns what a weight's seed is derived from: its own key, or the name of the pair that it belongs to."""
    return str(recipe.config.get("pair") or own) if getattr(kind_of(recipe), "paired", False) else own


def make(recipe: Recipe, seed: int | None = None) -> keras.Initializer:
    """Returns a fresh initializer.

    Args:
        recipe: what to make.
        seed: used where the scheme takes a seed and the recipe names none.

    Raises:
        SchemeError: nobody registered the recipe's name, or its configuration does not fit.
    """
    config = recipe.config
    kind = kind_of(recipe)
    if seed is not None and config.get("seed") is None and kind and "seed" in arguments_of(kind):
        # Keras's own initializers take 32 bits.
        config["seed"] = seed if issubclass(kind, Scheme) else seed & 0x7FFF_FFFF
    own = kind is not None and issubclass(kind, Scheme)
    try:
        # Keras's way to an object by its name takes as long as drawing a small weight.
        return (
            kind.from_config(config) if own else keras.initializers.get({"class_name": recipe.name, "config": config})
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, SchemeError):
            raise
        near = difflib.get_close_matches(recipe.name, [f"{PACKAGE}>{name}" for name in REGISTRY], 3)
        hint = f" Did you mean {' or '.join(near)}?" if near and kind is None else f" {error}"
        raise SchemeError(f"Expected an initializer that Keras can make. Received: {recipe}.{hint}") from error
