"""Numbers that no model can compute with, found where weights are read and named with their array."""

from __future__ import annotations

import os

import jax.numpy as jnp
import numpy as np

from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import ArraySource

_AT_ONCE = 1 << 16  # numbers; they stay in the processor's cache


def check_finite(
    path: str | os.PathLike[str], name: str, numbers: np.ndarray, dtype: np.dtype | None = None
) -> None:
    """Raises RunError with the name, where an array of floats holds a number that is not finite in `dtype`."""
    limit = float(jnp.finfo(numbers.dtype if dtype is None else dtype).max)
    if _largest(numbers) <= limit:
        return
    bad = np.argwhere(~(np.abs(numbers.astype(np.float64)) <= limit))
    first = tuple(map(int, bad[0]))
    raise RunError(
        f"{path}: {name} holds {len(bad):,} of {numbers.size:,} numbers that are not finite"
        f"{'' if dtype is None else f' in {dtype}'}, {numbers[first]} at {list(first)} first: "
        "use weights saved in float32 or bfloat16"
    )


def check_all_finite(path: str | os.PathLike[str], arrays: ArraySource) -> None:
    """Raises RunError with the name of the first array of floats that holds a number that is not finite."""
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.floating):
            check_finite(path, name, array[...])


def _largest(numbers: np.ndarray) -> float:
    """The largest magnitude; infinity or NaN where there is one.

    The bits of floats without their sign sort as the floats do, with infinity and then NaN above all: one pass, and
    for halves several times faster than comparing numbers.
    """
    bits = numbers.view(f"u{numbers.dtype.itemsize}")
    without_sign = bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    top = bits.dtype.type(0)
    if bits.size:
        for part in np.nditer(bits, ["external_loop", "buffered"], order="K", buffersize=_AT_ONCE):
            top = max(top, np.max(part & without_sign))
    return float(np.array(top).view(numbers.dtype))
