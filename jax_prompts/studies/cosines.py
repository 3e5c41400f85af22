"""What matrices of cosines say: their mean, groups of what is alike, and how JSON shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float


def mean_off_diagonal(x_NN: Float[np.ndarray, "N N"]) -> float | None:
    """Mean over pairs of different rows; None where there is one row alone."""
    N = len(x_NN)
    return float((x_NN.sum() - np.trace(x_NN)) / (N * (N - 1))) if N > 1 else None


def groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Numbers from 0 to `count` - 1 that pairs join, directly or by way of others: groups of two and more, in order."""
    first = list(range(count))
    for a, b in pairs:
        low, high = sorted((first[a], first[b]))
        if low < high:
            first = [low if each == high else each for each in first]
    found: dict[int, list[int]] = {}
    for number, each in enumerate(first):
        found.setdefault(each, []).append(number)
    return [group for group in found.values() if len(group) > 1]


def rounded(values: Sequence[float] | np.ndarray) -> list:
    """Numbers, or rows of them, as JSON shows them: six decimals."""
    return np.round(np.asarray(values, np.float64), 6).tolist()
