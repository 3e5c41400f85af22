"""Checks of what a caller of the Python interface gives: other types than are meant are errors of one line."""

from __future__ import annotations

import collections
import collections.abc
import numbers
import reprlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_prompts.errors import ConfigError
from jax_prompts.field_types import type_errors


def strings(values: Any, what: str) -> list[str]:
    """A list of the strings; anything that has an order is taken.

    Raises:
      ConfigError: no strings, or text that is no Unicode.
    """
    unordered = str | bytes | collections.abc.Mapping | collections.abc.Set
    try:
        found: list[Any] = [None] if isinstance(values, unordered) else list(values)
    except TypeError:  # NumPy's arrays of no axes have __iter__, too
        found = [None]
    if not all(isinstance(value, str) for value in found):
        raise ConfigError(f"{what} are no list of strings: give one, even for a single text")
    for number, text in enumerate(found):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{what}[{number}] holds half a surrogate pair: correct it") from error
    return found


def different(values: Sequence[str], what: str) -> None:
    """Raises ConfigError for a string that is there twice."""
    for value, count in collections.Counter(values).items():
        if count > 1:
            raise ConfigError(f"{what} hold {reprlib.repr(value)} {count} times: leave it there once")


def whole_number(value: Any, name: str, least: int) -> int:
    """The number as Python's own. Raises ConfigError for another type, or less than `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {reprlib.repr(value)}: set it to a whole number of at least {least}")
    return int(value)


def typed(settings: Any, kind: type, name: str) -> None:
    """Raises ConfigError unless this is a dataclass of this kind whose fields have the types that it declares."""
    if not isinstance(settings, kind):
        raise ConfigError(f"{name} is {reprlib.repr(settings)}: give a {kind.__name__}(...)")
    for field, value, wanted in type_errors(settings):
        raise ConfigError(f"{field} is {reprlib.repr(value)}: set it to {wanted}")


def matrix(array: Any, name: str) -> np.ndarray:
    """A prompt's numbers as float32 [P, D]. Raises ConfigError for anything else, and for what is not finite."""
    try:
        array_PD = np.asarray(array)
        array_PD = array_PD.astype(np.float32, casting="unsafe" if array_PD.dtype == object else "same_kind")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{name} is no array of numbers: a prompt is [P, D]") from error
    if array_PD.ndim != 2:
        raise ConfigError(f"{name} has shape {array_PD.shape}: a prompt is [P, D]")
    if not np.isfinite(array_PD).all():
        raise ConfigError(f"{name} holds values that are not finite: use another prompt")
    return array_PD


def leaves(values: Any, name: str) -> None:
    """Raises ConfigError unless these are arrays of finite numbers by path."""
    if not isinstance(values, collections.abc.Mapping) or not all(isinstance(path, str) for path in values):
        raise ConfigError(f"{name} has leaves {reprlib.repr(values)}: give arrays by path, or {{}}")
    for path, leaf in values.items():
        if not isinstance(leaf, np.ndarray | jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ConfigError(f"{name} has {path} {reprlib.repr(leaf)}: give an array of floats")
        with np.errstate(over="ignore"):
            numbers = np.asarray(leaf).astype(np.float32)
        if not np.isfinite(numbers).all():
            raise ConfigError(f"{name} has {path} that is not finite: use another prompt")


def random_key(seed: Any) -> jax.Array:
    """JAX's key of a seed. Raises ConfigError for what is none."""
    seed = whole_number(seed, "seed", 0)
    if seed >= 1 << 63:
        raise ConfigError(f"seed is {reprlib.repr(seed)}: set it below 2**63")
    return jax.random.key(seed)
