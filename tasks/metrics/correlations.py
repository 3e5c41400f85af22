"""Correlations of numbers, times 100. Evaluation uses them where TensorFlow is not installed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import scipy.stats


def pearson(targets: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Pearson correlation; NaN where one side is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a constant side
        return {"pearson_corrcoef": 100 * float(scipy.stats.pearsonr(targets, predictions)[0])}


def spearman(targets: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Spearman rank correlation; NaN where one side is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a constant side
        return {"spearman_corrcoef": 100 * float(scipy.stats.spearmanr(targets, predictions)[0])}
