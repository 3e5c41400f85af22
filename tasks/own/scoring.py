"""Postprocessors and metrics that `OwnTask.metrics` can name, by what they compare."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

from tasks.errors import TaskError
from tasks.metrics.answers import normalized_match, squad
from tasks.metrics.correlations import pearson, spearman
from tasks.metrics.generation import bleu, chrf, exact_match, rouge
from tasks.metrics.labels import accuracy, f1_with_invalid, matthews, mean_multiclass_f1
from tasks.text import postprocessors

Metric = Callable[..., dict[str, float]]


def _by_name(*found: Metric) -> dict[str, Metric]:
    return {metric.__name__: metric for metric in found}


CLASSES = _by_name(accuracy, f1_with_invalid, mean_multiclass_f1, matthews)
GENERATION: dict[str, Metric] = {
    **_by_name(exact_match),
    **{kind: functools.partial(rouge, kind=kind) for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum")},
    **_by_name(bleu, chrf),
}
ANSWERS = _by_name(squad) | GENERATION
NUMBERS = _by_name(pearson, spearman)
TEXTS = _by_name(accuracy, normalized_match) | GENERATION


def scoring(
    names: Sequence[str], labels: Sequence[str], several_answers: bool
) -> tuple[Callable | None, list[Metric]]:
    """Postprocessor of targets and predictions (None: they are compared as texts), and the metrics.

    Targets are classes where there are `labels`, lists where there are `several_answers`, else numbers or texts,
    as the metrics ask.

    Raises:
      TaskError: no metric, an unknown one, one that compares something else, or two that report the same number's name.
    """
    known = CLASSES | ANSWERS | NUMBERS | TEXTS
    if not names:
        raise TaskError(
            f"OwnTask.metrics is empty: set it to one of {', '.join(known)}, or to several, as ('accuracy',)"
        )
    for name in names:
        if name not in known:
            raise TaskError(f"OwnTask.metrics: {name} is unknown; use {' or '.join(known)}")
    if labels:
        what, fit = "classes (OwnTask.labels is set)", CLASSES
        postprocess: Callable | None = functools.partial(postprocessors.label_id, label_classes=tuple(labels))
    elif several_answers:
        what, fit, postprocess = "lists of answers (OwnTask.answers is set)", ANSWERS, postprocessors.answers
    elif NUMBERS.keys() & set(names):
        what, fit, postprocess = "numbers", NUMBERS, postprocessors.score
    else:
        what, fit, postprocess = "texts (OwnTask.labels and answers are not set)", TEXTS, None
    for name in names:
        if name not in fit:
            raise TaskError(f"OwnTask.metrics: {name} does not compare {what}; use {' or '.join(fit)}")
    if "f1_with_invalid" in names and len(labels) != 2:
        raise TaskError(
            f"OwnTask.metrics: f1_with_invalid is of two classes, and OwnTask.labels has {len(labels)}: use "
            "mean_multiclass_f1"
        )
    if {"exact_match", "normalized_match"} <= {*names}:
        raise TaskError(
            "OwnTask.metrics: exact_match and normalized_match both report `exact_match`; leave one out"
        )
    return postprocess, [_with_classes(known[name], len(labels)) for name in names]


def _with_classes(metric: Metric, num_classes: int) -> Metric:
    """The metric with its `num_classes` set, where it has one."""
    if "num_classes" in inspect.signature(metric).parameters:
        return functools.partial(metric, num_classes=num_classes)
    return metric
