"""Baselines of scores: constant answers, and how constant the answers are."""

from __future__ import annotations

import collections
import math
from collections.abc import Hashable, Sequence
from typing import Any

from jax_prompts.display import log

_MANY = 20  # percent
Constant = Hashable  # a text, or a number where targets are numbers


def constant_answers(
    labels: Sequence[str] | None, texts: Sequence[str], targets: Sequence[Any]
) -> dict[str, Constant]:
    """The answers of the baselines: `majority`, and of a task with two classes `all_positive`.

    `majority` is the most frequent target, the first to occur among equals; `all_positive` the class with
    number 1. Answers are texts, except where a task without labels compares numbers (STS-B's scores, WSC's
    right or wrong): there they are numbers, as the metrics see them. Examples whose label is hidden do not
    count; without any other, there are no baselines.

    Args:
      labels: the task's labels, or None.
      texts: target texts.
      targets: the same after the task's postprocessor.
    """
    if labels is not None:
        known: list[Constant] = [text for text in texts if text in labels]
        two: tuple[Constant, ...] = tuple(labels)
    elif all(isinstance(target, int | float) for target in targets):
        known = [target for target in targets if target != -1]  # which is hidden
        two = (0, 1) if set(known) == {0, 1} else ()
    else:
        known, two = list(texts), ()
    if not known:
        return {}
    majority = collections.Counter(known).most_common(1)[0][0]
    return {"majority": majority, **({"all_positive": two[1]} if len(two) == 2 else {})}


def shares(texts: Sequence[str], labels: Sequence[str] | None, several_classes: bool) -> dict[str, Any]:
    """Shares of equal answers, in percent, and for a task with labels of answers that are none of them.

    `identical_predictions` is the share of the most frequent answer; `constant_predictor` says that all
    answers are the same although the targets are not.
    """
    ((_, most),) = collections.Counter(texts).most_common(1)
    found: dict[str, Any] = {"identical_predictions": 100 * most / len(texts)}
    if labels is not None:
        found["out_of_class_predictions"] = 100 * sum(text not in labels for text in texts) / len(texts)
    found["constant_predictor"] = several_classes and most == len(texts)
    return found


def unreadable(texts: Sequence[str]) -> int:
    """How many texts spell no finite number."""
    return sum(not _is_number(text) for text in texts)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def warn_of_answers(about_scores: dict[str, dict[str, Any]], who: str) -> None:
    """Logs lines for each task, and each way to answer it.

    Where all predictions are the same, many are no labels, or some should be numbers and are none.

    Args:
      about_scores: by task, as in summary.json.
      who: what was scored, for the line.
    """
    for task, context in about_scores.items():
        if "majority_baseline" not in context:
            log(
                f"warning: no target of {task} is public, so that {who}'s scores say nothing: t5x infer answers it"
            )
        for name, found in context.items():
            if name.endswith("unreadable_predictions") and found:
                log(
                    f"warning: {found} of {who}'s {context['examples']} answers to {task} are no numbers, "
                    "and count as wrong"
                )
            if name.endswith("out_of_class_predictions") and found >= _MANY:
                log(f"warning: {found:.0f} % of {who}'s answers to {task} are none of its labels")
            if name.endswith("constant_predictor") and found:
                way = name.rpartition("/")[0]
                baseline = ", ".join(
                    f"{key} {value}" for key, value in _rounded(context.get("majority_baseline"))
                )
                log(
                    f"warning: {who} gives all {context['examples']} examples of {task} the same answer"
                    f"{f' ({way})' if way else ''}: its scores are those of a constant predictor "
                    f"(majority class: {baseline or 'unknown'})"
                )


def _rounded(scores: dict[str, float | None] | None) -> list[tuple[str, str]]:
    return [
        (name, "undefined" if value is None else f"{value:.2f}") for name, value in (scores or {}).items()
    ]
