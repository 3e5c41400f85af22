"""Metrics over a whole split, from 0 to 100. Evaluation uses them where TensorFlow is not installed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import f1_score


def accuracy(targets: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """Share of equal pairs."""
    return {"accuracy": 100 * float(np.mean(np.asarray(targets) == np.asarray(predictions)))}


def mean_multiclass_f1(
    targets: Sequence[int], predictions: Sequence[int], *, num_classes: int
) -> dict[str, float]:
    """Unweighted mean of the F1 of each class; a class that occurs nowhere scores 0 and still counts."""
    score = f1_score(targets, predictions, labels=range(num_classes), average="macro", zero_division=0)
    return {f"mean_{num_classes}class_f1": 100 * float(score)}
