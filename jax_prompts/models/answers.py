"""What a BERT answers with, tuned beside a prompt and kept in its file: leaves told by the first part of their path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

CLASSIFIER = "classifier"  # over the pooled [CLS]
VERBALIZER = "verbalizer"  # `[D, C]` and `[C]`, at [MASK] (`tuned/verbalizer.py`)
ANSWERS = (CLASSIFIER, VERBALIZER)  # a BERT's prompt has one of them, a T5's none
Leaf = TypeVar("Leaf")


def answer_of(leaves: Iterable[str]) -> str | None:
    """Which of `ANSWERS` is among leaves, by their paths; None: neither."""
    tops = {path.partition("/")[0] for path in leaves}
    return next((name for name in ANSWERS if name in tops), None)


def inside_model(leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The leaves, by their paths, that are no answer."""
    return {path: leaf for path, leaf in leaves.items() if path.partition("/")[0] not in ANSWERS}
