"""What gin files and flags have bound, before gin makes anything of it: macros, fields, what refers to what.

Functions are given gin's module: `gin_settings.py` alone imports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jax_prompts.errors import ConfigError, nearest


def macros_of(gin: Any) -> dict[str, Any]:
    """Every macro that is defined, with its value."""
    return {
        scope: values["value"]
        for (scope, selector), values in gin.config._CONFIG.items()
        if selector == "gin.macro"
    }


def bound_to(gin: Any, name: str) -> dict[str, Any]:
    """What is bound to the fields of a class."""
    found: dict[str, Any] = {}
    for (_, selector), values in gin.config._CONFIG.items():
        if selector.rpartition(".")[2] == name:
            found |= values
    return found


def references_in(value: Any) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a macro) of all that a bound value refers to."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from references_in(item)
    elif hasattr(value, "config_key"):
        scope, selector = value.config_key
        yield (scope, True) if selector == "gin.macro" else (selector.rpartition(".")[2], False)


def _macros_in(value: Any) -> set[str]:
    return {name for name, is_macro in references_in(value) if is_macro}


def _reached(macros: dict[str, Any], name: str) -> set[str]:
    """The macros that a macro's value takes in, and so on.

    Raises:
      ConfigError: it takes in itself.
    """
    reached: set[str] = set()
    waiting = _macros_in(macros.get(name))
    while waiting:
        reached |= waiting
        waiting = {further for macro in waiting for further in _macros_in(macros.get(macro))} - reached
    if name in reached:
        raise ConfigError(f"macro {name} stands for itself, by way of {', '.join(sorted(reached))}")
    return reached


def check_macros(gin: Any, documented: set[str]) -> None:
    """Raises ConfigError for a macro that nothing uses, which gin ignores, or nothing defines (gin fails late)."""
    macros = macros_of(gin)
    bound = [list(values.values()) for (_, of), values in gin.config._CONFIG.items() if of != "gin.macro"]
    used = _macros_in(bound)
    reached = {name: _reached(macros, name) for name in macros}
    used = used.union(*(reached.get(name, ()) for name in documented | used))
    defined = set(macros)
    for name in sorted(defined - used - documented):
        raise ConfigError(f"macro {name} is unknown; did you mean {nearest(name, documented | used)}?")
    for name in sorted(used - defined):
        likely = nearest(name, defined)
        raise ConfigError(f"macro {name} has no value; give --gin.{name}=VALUE, or did you mean {likely}?")


_EXAMPLES = {
    "MODEL_DIR": "--gin.MODEL_DIR=runs/first",
    "INFER_OUTPUT_DIR": "--gin.INFER_OUTPUT_DIR=runs/answers",
    "MODEL_SIZE": "--gin_file=gin_configs/models/micro.gin",
    "VOCABULARY": "--gin_file=gin_configs/models/micro.gin",
    "PROMPT": "--gin_file=gin_configs/prompts/residual.gin",
    "PROMPT_LENGTH": "--gin.PROMPT_LENGTH=100",
    "INITIALIZER": "--gin_file=gin_configs/prompts/residual.gin",
    "MIXTURE_OR_TASK_NAME": "--gin.MIXTURE_OR_TASK_NAME=super_glue_rte_v102",
    "TASK_FEATURE_LENGTHS": "--gin.TASK_FEATURE_LENGTHS=\"{'inputs': 512, 'targets': 16}\"",
    "LEARNING_RATE": "--gin_file=gin_configs/recipes/lester2021.gin",
    "TRAIN_STEPS": "--gin.TRAIN_STEPS=30000",
}


def check_set(gin: Any, kind: str) -> None:
    """Raises ConfigError when something that a run is made of still waits for its value."""
    macros, missing, seen = macros_of(gin), [], set()
    waiting = [list(bound_to(gin, kind).values())]
    while waiting:
        for name, is_macro in references_in(waiting.pop()):
            if name in seen:
                continue
            seen.add(name)
            if is_macro and repr(macros[name]) == "%gin.REQUIRED":
                missing.append(name)
            else:
                waiting.append(macros[name] if is_macro else list(bound_to(gin, name).values()))
    if missing:
        examples = {_EXAMPLES.get(name, f"--gin.{name}=VALUE") for name in missing}
        files_first = sorted(examples, key=lambda flag: (flag.startswith("--gin."), flag))
        raise ConfigError(f"{', '.join(sorted(missing))} not set; add for example {' '.join(files_first)}")


def setting_of(gin: Any, field: str) -> str:
    """The macro that a field takes its value from; the field itself when there is none."""
    name, _, part = field.partition(".")
    macros = [macro for macro, is_macro in references_in(bound_to(gin, name).get(part)) if is_macro]
    return macros[0] if macros else field
