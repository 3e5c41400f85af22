"""JSON that every reader takes: what is written has null for a number that is not finite, what is read has no such."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from jax_prompts.errors import hide_secrets


def dumps(value: Any, **options: Any) -> str:
    """`json.dumps` without its NaN and Infinity, which are no JSON."""
    return json.dumps(_each(value, _finite), allow_nan=False, **options)


def report(value: Any) -> str:
    """What a command prints on stdout: `dumps`, without the secrets of URLs."""
    return dumps(_each(value, lambda part: hide_secrets(part) if isinstance(part, str) else part))


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _each(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_each(part, change) for part in value]
    return change(value)


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
    return None if isinstance(value, float) and not math.isfinite(value) else value
