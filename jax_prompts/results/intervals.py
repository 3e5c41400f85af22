"""95 % intervals of a share of examples and of a mean over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

Interval = tuple[float, float]
CONFIDENCE = 0.95


def wilson(right: int, examples: int) -> Interval:
    """Wilson's (1927) interval of a share, 0 to 1.

    Args:
      right: how many of the examples count.
      examples: how many there are, at least one.
    """
    from scipy.stats import binomtest

    low, high = binomtest(right, examples).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def student(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean that values are drawn around; None of fewer than two."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    mean, error = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return mean - half, mean + half
