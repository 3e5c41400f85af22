"""Metrics of answers that are text, from 0 to 100. Evaluation uses them where TensorFlow is not installed."""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Lower case without ASCII punctuation, articles and surplus white space (Rajpurkar et al. 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def squad(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 over words of normalised texts, each the best over the right answers."""
    pairs = [
        ([normalized(answer) for answer in answers], normalized(said))
        for answers, said in zip(targets, predictions, strict=True)
    ]
    return {
        "em": 100 * float(np.mean([said in answers for answers, said in pairs])),
        "f1": 100 * float(np.mean([_best_f1(answers, said) for answers, said in pairs])),
    }


def squad_by_group(
    targets: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """`squad` over the first pair of each group (ReCoRD has a pair for each answer of a query)."""
    first: dict[Any, int] = {}
    for number, target in enumerate(targets):
        first.setdefault(tuple(target["group"]), number)
    return squad(
        [targets[number]["value"] for number in first.values()],
        [predictions[number]["value"] for number in first.values()],
    )


def squad_of_best(
    targets: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """`squad` over the pair with the highest score of each group, the first among equals.

    ReCoRD's metrics (Wang et al. 2019) where a query has a pair for each entity that may be its answer.
    """
    best: dict[Any, int] = {}
    for number, target in enumerate(targets):
        group = tuple(target["group"])
        if group not in best or predictions[number]["score"] > predictions[best[group]]["score"]:
            best[group] = number
    return squad(
        [targets[number]["value"] for number in best.values()],
        [predictions[number]["value"] for number in best.values()],
    )


def normalized_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Share of pairs that are equal when normalised."""
    pairs = zip(targets, predictions, strict=True)
    return {
        "exact_match": 100
        * float(np.mean([normalized(target) == normalized(said) for target, said in pairs]))
    }


def _best_f1(answers: Sequence[str], said: str) -> float:
    return max((_word_f1(answer, said) for answer in answers), default=0.0)


def _word_f1(answer: str, said: str) -> float:
    words, said_words = answer.split(), said.split()
    common = sum((collections.Counter(words) & collections.Counter(said_words)).values())
    # 2PR / (P + R) with P and R of these counts; texts without words have none in common.
    return 2 * common / (len(words) + len(said_words)) if common else 0.0
