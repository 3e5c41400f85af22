"""What every checkpoint reader returns: T5X parameter path -> a function that reads that one array."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

ArraySource = dict[str, Callable[[], np.ndarray]]


def lazy(read: Callable[[Any], np.ndarray], argument: Any) -> Callable[[], np.ndarray]:
    """`read(argument)`, put off until it is wanted, so that arrays pass through memory one at a time."""
    return functools.partial(read, argument)
