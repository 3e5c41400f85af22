"""Writes JSON as every reader takes it: a number that is not finite (a correlation with constant answers) is null."""

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


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
