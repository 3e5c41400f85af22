"""Decoded text to what the metrics compare. Evaluation uses them where TensorFlow is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INVALID = -1


def label_id(
    text: str, *, label_classes: Sequence[str], example: dict[str, Any] | None = None, is_target: bool = False
) -> int:
    """Number of the class that the text names, letter for letter; -1 for any other text."""
    return label_classes.index(text) if text in label_classes else INVALID
