"""Postprocessors: decoded text as the metrics compare it. Evaluation uses them where TensorFlow is not installed.

Each is called as `postprocess(text, example=..., is_target=...)`; `example` holds the task's own fields, and where a
classifier answers (a BERT) `label_log_probabilities`, `{label: nats}`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

INVALID = -1
DETERMINERS = frozenset(
    "a an few her his each every many much my our some that the their these this those which whose your".split()
)


def label_id(
    text: str, *, label_classes: Sequence[str], example: dict[str, Any] | None = None, is_target: bool = False
) -> int:
    """Number of the class that the text names, letter for letter; -1 for any other text."""
    return label_classes.index(text) if text in label_classes else INVALID


def translated_label_id(
    text: str,
    *,
    old: str,
    new: str,
    label_classes: Sequence[str],
    example: dict[str, Any] | None = None,
    is_target: bool = False,
) -> int:
    """`label_id` of an answer in the words of another task: `old` is replaced by `new` wherever it stands."""
    return label_id(text.replace(old, new), label_classes=label_classes)


def multirc(
    text: str, *, label_classes: Sequence[str], example: dict[str, Any], is_target: bool = False
) -> dict[str, Any]:
    """The class as `value`; of a target also its question as `group`."""
    value = {"value": label_id(text, label_classes=label_classes)}
    return {**value, "group": example["idx/question"]} if is_target else value


def score(text: str, *, example: dict[str, Any] | None = None, is_target: bool = False) -> float:
    """The number that the text spells; -1 where it spells none, or one that is not finite."""
    number = finite_number(text)
    return float(INVALID) if number is None else number


def finite_number(text: str) -> float | None:
    """The number that the text spells; None where it spells none, or one that is not finite."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def answers(text: str, *, example: dict[str, Any], is_target: bool = False) -> str | list[str]:
    """The text; of a target all answers that count as right."""
    return list(example["answers"]) if is_target else text


def record(text: str, *, example: dict[str, Any], is_target: bool = False) -> dict[str, Any]:
    """The text as `value`; of a target all right answers, and its passage and query as `group`."""
    if not is_target:
        return {"value": text}
    return {"value": list(example["answers"]), "group": (example["idx/passage"], example["idx/query"])}


def record_candidate(
    text: str, *, label_classes: Sequence[str], example: dict[str, Any], is_target: bool = False
) -> dict[str, Any]:
    """The pair's entity as `value`, and as `score` how right it is; of a target as `record`.

    The score is the log-probability of "right", the second class. Where there are no probabilities, an entity that
    is called right is above those that are not.
    """
    if is_target:
        return record(text, example=example, is_target=True)
    right = label_classes[1]
    log_p = example.get("label_log_probabilities", {right: float(text == right)})
    return {"value": example["entity"], "score": log_p[right]}


def referent(text: str, *, example: dict[str, Any], is_target: bool = False) -> int:
    """Whether the text names the same as the example's noun phrase: 1 or 0, -1 if it names nothing.

    T5's rule (Raffel et al. 2020): without determiners, the words of one are among those of the other, and both or
    neither have an apostrophe. Of a target its label.
    """
    if is_target:
        return int(example["label"])
    said, phrase = _without_determiners(text), _without_determiners(example["targets_pretokenized"])
    if not said:
        return INVALID
    if ("'" in said) != ("'" in phrase):
        return 0
    said_words, phrase_words = set(said.split(" ")), set(phrase.split(" "))
    return int(said_words <= phrase_words or phrase_words <= said_words)


def _without_determiners(text: str) -> str:
    return " ".join(word for word in text.strip().lower().split(" ") if word not in DETERMINERS)
