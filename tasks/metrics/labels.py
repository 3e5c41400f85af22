"""Metrics of class labels, from 0 to 100. Evaluation uses them where TensorFlow is not installed."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, matthews_corrcoef


def accuracy(targets: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """Share of equal pairs."""
    # Not by arrays: those of texts have all elements as wide as the longest.
    equal = [target == said for target, said in zip(targets, predictions, strict=True)]
    return {"accuracy": 100 * float(np.mean(equal))}


def f1_with_invalid(targets: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """F1 of class 1 of two; a prediction that is neither class counts as the wrong one.

    Targets that are hidden, and below 0, do not count; where all are, the F1 is NaN.
    """
    gold, said = np.asarray(targets), np.asarray(predictions)
    gold, said = gold[gold >= 0], said[gold >= 0]
    if not len(gold):
        return {"f1": float("nan")}
    said = np.where((said == 0) | (said == 1), said, 1 - gold)
    return {"f1": 100 * float(f1_score(gold, said, zero_division=0))}


def mean_multiclass_f1(
    targets: Sequence[int], predictions: Sequence[int], *, num_classes: int
) -> dict[str, float]:
    """Unweighted mean of the F1 of each class; a class that occurs nowhere scores 0 and still counts."""
    score = f1_score(targets, predictions, labels=range(num_classes), average="macro", zero_division=0)
    return {f"mean_{num_classes}class_f1": 100 * float(score)}


def matthews(targets: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """Matthews correlation; an invalid prediction is one more class. Constant predictions score 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single label
        return {"matthews_corrcoef": 100 * float(matthews_corrcoef(targets, predictions))}


def grouped_f1(targets: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any]]) -> dict[str, float]:
    """`f1_with_invalid` over all answers, whatever question they belong to (MultiRC's F1a)."""
    return f1_with_invalid(_values(targets), _values(predictions))


def grouped_accuracy(
    targets: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Accuracy over all answers under the name that F1 with micro averages has: of single labels it is the same."""
    return {"micro_f1": accuracy(_values(targets), _values(predictions))["accuracy"]}


def grouped_exact_match(
    targets: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Share of groups (MultiRC's questions) with every answer right."""
    right: dict[Any, list[bool]] = collections.defaultdict(list)
    for target, prediction in zip(targets, predictions, strict=True):
        right[target["group"]].append(target["value"] == prediction["value"])
    return {"exact_match": 100 * float(np.mean([all(group) for group in right.values()]))}


def _values(rows: Sequence[dict[str, Any]]) -> list[int]:
    return [row["value"] for row in rows]
