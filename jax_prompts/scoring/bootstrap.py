"""95 % intervals of metrics by the percentile bootstrap (Efron & Tibshirani 1993, chapter 13)."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PERCENTILES = (2.5, 97.5)


def intervals(
    compute: Callable[[list[Any], list[Any]], dict[str, float]],
    targets: Sequence[Any],
    predictions: Sequence[Any],
    resamples: int,
    seed: int = 0,
) -> dict[str, list[float | None]]:
    """`[low, high]` of every metric over `resamples` draws of the examples with replacement.

    Examples whose targets have the same `group` (MultiRC's questions, ReCoRD's queries) are drawn together,
    and a group drawn twice counts as two. A bound is None where a metric has no value on some draws, as a
    correlation with constants.

    Args:
      compute: all metrics of (targets, predictions).
      targets, predictions: postprocessed, one an example.
      resamples: number of draws.
      seed: the same seed gives the same intervals.
    """
    members: dict[Any, list[int]] = collections.defaultdict(list)
    for index, target in enumerate(targets):
        members[target["group"] if _grouped(target) else index].append(index)
    groups = list(members.values())
    draw, found = np.random.default_rng(seed), collections.defaultdict(list)
    for _ in range(resamples):
        chosen = draw.integers(len(groups), size=len(groups))
        rows = [(number, index) for number, group in enumerate(chosen) for index in groups[group]]
        drawn = [
            {**targets[index], "group": (number,)} if _grouped(targets[index]) else targets[index]
            for number, index in rows
        ]
        for name, value in compute(drawn, [predictions[index] for _, index in rows]).items():
            found[name].append(value)
    bounds = {name: np.percentile(values, PERCENTILES).tolist() for name, values in found.items()}
    return {name: [x if math.isfinite(x) else None for x in both] for name, both in bounds.items()}


def _grouped(target: Any) -> bool:
    return isinstance(target, dict) and "group" in target
