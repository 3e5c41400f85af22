"""Random orders that stay the same in every version of NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def random_order(count: int, entropy: Sequence[int]) -> Int[np.ndarray, " N"]:
    """The numbers below `count` in an order that `entropy`, numbers from 0, decides.

    It sorts raw Philox bits: NumPy keeps that stream the same, and no other.
    """
    bits = np.random.Philox(np.random.SeedSequence(entropy))
    return np.argsort(bits.random_raw(count), kind="stable")
