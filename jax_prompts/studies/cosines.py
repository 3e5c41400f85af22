"""Cosines between vectors in float64, and groups of what is alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float


def unit_rows(x_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Rows of length 1, in float64; a row of zeros stays."""
    x_ND = np.asarray(x_ND, np.float64)
    norm_N = np.linalg.norm(x_ND, axis=-1, keepdims=True)
    return x_ND / np.where(norm_N == 0, 1.0, norm_N)


def cosines(a_MD: Float[np.ndarray, "M D"], b_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "M N"]:
    """The cosine of every row of one with every row of the other; 0 with a row of zeros."""
    return np.clip(unit_rows(a_MD) @ unit_rows(b_ND).T, -1.0, 1.0)


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
