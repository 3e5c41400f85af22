"""Whether two systems with answers to the same examples differ: McNemar's test, the bootstrap, Holm's correction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

DRAWS = 10_000  # of the bootstrap
_PERCENTILES = (2.5, 97.5)


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Attributes:
    b: examples that the first system alone has right.
    c: examples that the second alone has right.
    p: two-sided.
    """

    b: int
    c: int
    p: float


def mcnemar(first_N: Bool[np.ndarray, " N"], second_N: Bool[np.ndarray, " N"]) -> McNemar:
    """The exact test of McNemar (1947): of the examples that one alone has right, each has half as many by chance.

    Args:
      first_N, second_N: whether each system has each example right.
    """
    from scipy.stats import binomtest

    b, c = int((first_N & ~second_N).sum()), int((second_N & ~first_N).sum())
    return McNemar(b, c, float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Attributes:
    value: the mean over examples.
    low, high: its 95 % interval.
    p: two-sided.
    """

    value: float
    low: float
    high: float
    p: float


def bootstrap(differences_N: Float[np.ndarray, " N"], draws: int = DRAWS, seed: int = 0) -> Difference:
    """The mean of N differences by the paired percentile bootstrap (Efron & Tibshirani 1993, chapters 13 and 16).

    Examples are drawn with replacement. As many draws of a difference as it has examples are one multinomial draw of
    the values that differences have, so that the cost does not grow with N. p is twice the share of draws on the
    other side of zero, or on it, and at least 2 / (draws + 1).

    Args:
      differences_N: of each example, the second system's score less the first's; at least one.
      draws: number of resamples.
      seed: the same seed gives the same numbers.
    """
    count = len(differences_N)
    values_K, counts_K = np.unique(differences_N, return_counts=True)
    draws_RK = np.random.default_rng(seed).multinomial(count, counts_K / count, size=draws)
    means_R = draws_RK @ values_K / count
    low, high = np.percentile(means_R, _PERCENTILES)
    tail = min((means_R <= 1e-12).sum(), (means_R >= -1e-12).sum())
    p = min(1.0, 2.0 * (int(tail) + 1) / (draws + 1))
    return Difference(float(np.mean(differences_N)), float(low), float(high), p)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected for their number as Holm (1979) does."""
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, number in enumerate(sorted(range(len(ps)), key=lambda number: ps[number])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[number]))
        corrected[number] = largest
    return corrected
