"""Checks that settings have the types that their dataclasses declare; gin binds anything to anything."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union

from jax_prompts.config import OwnTask
from jax_prompts.prompts import Initializer, Method
from jax_prompts.sweep import Variant
from jax_prompts.tuned import TunedLeaves

_INT32 = 1 << 31  # what counters and token ids fit into
_NAMES = {
    "Method": Method,
    "Initializer": Initializer,
    "TunedLeaves": TunedLeaves,
    "Variant": Variant,
}  # runs.py imports them for type checkers only
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text (in quotes of its own where it reads as a number)",
    types.NoneType: "None",
    tuple: "a tuple such as ('first', 'second')",
    Method: "a prompt method such as @Residual()",
    TunedLeaves: "leaves inside the model such as @LoRA()",
    Initializer: "an initialiser such as @SampledVocabulary()",
}
_EXAMPLES: dict[str, Any] = {  # of fields that are dictionaries or tuples of numbers
    "labels": {"0": "negative", "1": "positive"},
    "budget": {"steps": 3600},
    "partitions": {"fsdp": -1},
    "profile_steps": (10, 15),
    "prompt_files": {"super_glue_rte_v102": ("first", "second")},
    "sweep": {"LEARNING_RATE": (0.1, 0.3)},
    "task_feature_lengths": {"inputs": 512, "targets": 16},
    "verbalizer": {"True": "yes", "False": "no"},
}


def type_errors(settings: Any) -> Iterator[tuple[str, Any, str]]:
    """`(Class.field, value, what it should be)` for each wrong field of a dataclass and of those in it."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    yield from field_errors(type(settings), values)
    hints = typing.get_type_hints(type(settings), localns=_NAMES)
    for name, value in values.items():
        if _fits(value, hints[name]) and (
            dataclasses.is_dataclass(hints[name]) or isinstance(value, OwnTask)
        ):
            yield from type_errors(value)


def field_errors(made: type, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """`(Class.field, value, what it should be)` for each wrong value of fields of a class that may not be made yet."""
    hints = typing.get_type_hints(made, localns=_NAMES)
    for name, value in values.items():
        if _fits(value, hint := hints[name]):
            continue
        wanted = _words(hint, name)
        if _is_number(value, int) and abs(value) >= _INT32 and _fits(0, hint):
            wanted += f" below {_INT32:,}"
        elif isinstance(value, float) and not math.isfinite(value) and _fits(0, hint):
            wanted += " that is finite"
        yield f"{made.__name__}.{name}", value, wanted


def _fits(value: Any, hint: Any) -> bool:
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Any:
        return True
    if kind in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind is dict:
        return isinstance(value, dict) and all(
            _fits(key, parts[0]) and _fits(item, parts[1]) for key, item in value.items()
        )
    if kind is tuple:
        return isinstance(value, tuple | list) and all(_fits(item, parts[0]) for item in value)
    if kind is str:
        return isinstance(value, str) and bool(value)
    if kind is int:
        return _is_number(value, int) and abs(value) < _INT32
    if kind is float:
        return _is_number(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _words(hint: Any, field: str) -> str:
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return " or ".join(_words(part, field) for part in parts)
    if kind is Literal:
        return " or ".join(map(repr, parts))
    if kind is tuple and parts[:1] == (TunedLeaves,):
        return "a tuple such as (@LoRA(), @IA3())"
    if kind is tuple and parts[:1] == (int,):
        return f"a tuple such as {_EXAMPLES.get(field, (64, 128))}"
    if kind is dict:
        return f"a dictionary such as {_EXAMPLES.get(field, {'NAME': 'value'})}"
    return _WORDS.get(kind, f"@{kind.__name__}()")
