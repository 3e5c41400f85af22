"""Prompts as every reader of another system returns them, and checks of files that nobody vouches for."""

from __future__ import annotations

import pathlib
import stat
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.formats.arrays import LazyArray
from jax_prompts.prompts import PromptMetadata
from jax_prompts.prompts.prompt_file import MAX_BYTES

Leaves = dict[str, np.ndarray]
NO_PROMPT = np.zeros((0, 0), np.float32)


class ImportedPrompt(NamedTuple):
    """A prompt of another system, or leaves inside the model.

    Attributes:
      prompt_PD: float32; `NO_PROMPT` of leaves alone.
      metadata: what is known of where it came from.
      unused: what was stored beside it and has no effect, in words.
      left_out: what was tuned with it and has no place here, in words.
      leaves: what was tuned inside the model, by path, as it reads them.
    """

    prompt_PD: Float[np.ndarray, "P D"]
    metadata: PromptMetadata
    unused: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    leaves: Mapping[str, np.ndarray] = MappingProxyType({})


def check_file(path: pathlib.Path, limit: int = MAX_BYTES) -> None:
    """Raises ConfigError unless there is an ordinary file, RunError if it has more than `limit` bytes."""
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({system_reason(error)}): check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not an ordinary file: check the path")
    if status.st_size > limit:
        raise RunError(f"{path} has {status.st_size} bytes, over {limit}: this is no prompt")


def as_prompt(path: pathlib.Path, array: np.ndarray) -> Float[np.ndarray, "P D"]:
    """The array in float32.

    Raises:
      RunError: it is no prompt [P, D] of finite numbers.
    """
    if array.ndim != 2 or 0 in array.shape or not jnp.issubdtype(array.dtype, jnp.floating):
        raise RunError(f"{path} holds {array.dtype} {list(array.shape)}, not a prompt [P, D] of floats")
    return as_finite(path, array)


def as_leaf(folder: pathlib.Path, name: str, array: LazyArray | np.ndarray, axes: int) -> np.ndarray:
    """The numbers of a tensor of an adapter, in float32.

    Raises:
      RunError: it has another number of axes, is empty, or holds what is no finite number.
    """
    if len(array.shape) != axes or 0 in array.shape or not jnp.issubdtype(array.dtype, jnp.floating):
        raise RunError(f"{folder}: {name} is {array.dtype} {list(array.shape)}, no adapter's numbers")
    return as_finite(folder, array[...])


def add_leaf(folder: pathlib.Path, leaves: Leaves, path: str, leaf: np.ndarray) -> None:
    """Adds a leaf. Raises RunError where another tensor stands for it already: two adapters lie in one file, or names
    have PEFT's prefix and have not."""
    if path in leaves:
        raise RunError(f"{folder} holds two tensors of {path}: use another adapter")
    leaves[path] = leaf


def as_finite(path: pathlib.Path, array: np.ndarray) -> Float[np.ndarray, "..."]:
    """The array in float32.

    Raises:
      RunError: a number that is not finite.
    """
    numbers = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(numbers).all():
        raise RunError(f"{path} holds values that are not finite: use another prompt")
    return numbers
