"""Writes JSON as every reader takes it: a number that is not finite (a correlation with constant answers) is null."""

from __future__ import annotations

import json
import math
from typing import Any


def dumps(value: Any, **options: Any) -> str:
    """`json.dumps` without its NaN and Infinity, which are no JSON."""
    return json.dumps(_finite(value), allow_nan=False, **options)


def loads(text: str) -> Any:
    """`json.loads` that takes no key twice and no number that is not finite.

    Raises:
      ValueError, RecursionError: the text is no such JSON.
    """
    return json.loads(text, object_pairs_hook=_object, parse_constant=_number, parse_float=_number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return row


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
