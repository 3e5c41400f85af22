"""Settings of runs as their config.gin spells them: references followed, and what differs between runs.

Settings are text by name, macros (`PROMPT_LENGTH`) and fields (`Optimizer.name`), as `RunFiles.settings` gives them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jax_prompts.model_dir import PLACEMENT, WATCHING

Settings = Mapping[str, str]

SEEDS = ("RANDOM_SEED", "Training.seed", "SUBSET_SEED", "Data.subset_seed")
_MEMBERS = ("MEMBERS", "Training.members", "SWEEP", "TrainRun.sweep")  # how many prompts share one directory
_PLACES = (
    "MODEL_DIR", "TrainRun.model_dir", "DATA_DIR", "Data.data_dir", "CACHE_DIR", "Data.cache_dir", "Data.tfds_data_dir",
    *PLACEMENT, *WATCHING,
)  # fmt: skip
# Possessive, so that a quote that nothing closes costs no second look.
_TEXT_OR_MACRO = re.compile(r"'(?:[^'\\]|\\.)*+'|\"(?:[^\"\\]|\\.)*+\"|%([A-Za-z_]\w*)")
_DEPTH = 20  # of macros that stand for macros
_LONGEST = 10_000  # characters of a value, above which references in it stay as they are


def resolved(settings: Settings) -> dict[str, str]:
    """The settings with the value of a macro wherever one refers to it; a macro without a value stays as it is."""
    return {name: _resolve(settings, text) if "%" in text else text for name, text in settings.items()}


def with_own(settings: Settings, own: Mapping[str, Any]) -> dict[str, str]:
    """A run's settings with those that a member of its sweep has of its own, plain JSON values."""
    return {**settings, **{name: _spelled(value) for name, value in own.items()}}


def value_of(settings: Settings, name: str) -> Any:
    """The Python value of a setting; None where there is none, or it is no literal."""
    try:
        return ast.literal_eval(_resolve(settings, settings.get(name, "None")))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def differing(runs: Sequence[Settings]) -> list[str]:
    """Names of the settings in which runs differ, macros first, both in the order of config.gin.

    A setting that some runs have not, such as a field of another method, differs where those that have it differ:
    which method a run has is a setting of its own. A field that only hands on what a macro says is left out, as are
    directories, and what only says how many members a run has.
    """
    values: dict[str, list[str | None]] = {}
    for number, settings in enumerate(runs):
        for name, text in resolved(settings).items():
            if name not in values:
                values[name] = [None] * len(runs)
            values[name][number] = text
    names = [
        name
        for name, texts in values.items()
        if name not in (*_PLACES, *_MEMBERS) and len({*texts} - {None}) > 1
    ]
    macros = [name for name in names if "." not in name]

    def handed_on(name: str) -> bool:
        bound = {settings.get(name) for settings in runs}
        return any(
            f"%{macro}" in bound
            and all(a is None or a == b for a, b in zip(values[name], values[macro], strict=True))
            for macro in macros
        )

    return [*macros, *(name for name in names if "." in name and not handed_on(name))]


def without_seeds(settings: Settings) -> frozenset[tuple[str, str]]:
    """What runs that differ in their seeds alone have in common: a key."""
    left_out = {*SEEDS, *_PLACES, *_MEMBERS}
    return frozenset((name, text) for name, text in resolved(settings).items() if name not in left_out)


def short_names(paths: Iterable[str]) -> list[str]:
    """The part of each path that differs: without the directories that all begin and end with.

    Args:
      paths: all different.
    """
    parts = [path.strip("/").split("/") for path in paths]
    shortest = min(map(len, parts), default=0)

    def common(step: int) -> int:
        """How many parts all paths have in common, from the beginning (1) or the end (-1)."""
        count = 0
        while count < shortest - 1 and len({path[::step][count] for path in parts}) == 1:
            count += 1
        return count

    first = common(1)
    last = 0 if len(parts) == 1 else min(common(-1), shortest - 1 - first)
    return ["/".join(path[first : len(path) - last]) for path in parts]


def _resolve(settings: Settings, text: str) -> str:
    def value(found: re.Match[str]) -> str:
        return found[0] if found[1] is None else settings.get(found[1], found[0])

    for _ in range(_DEPTH):
        if len(text) > _LONGEST:
            break
        if (after := _TEXT_OR_MACRO.sub(value, text)) == text:
            break
        text = after
    return text


def _spelled(value: Any) -> str:
    """As config.gin spells it; text that refers to something, such as `@Uniform()`, as it is."""
    return value if isinstance(value, str) and value[:1] in ("@", "%") else repr(value)
