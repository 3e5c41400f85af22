"""Reads the macros of gin_configs/defaults.gin without gin: defaults, meanings and the fields they set."""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

GIN_CONFIGS = pathlib.Path(__file__).parents[2] / "gin_configs"  # in a checkout and when installed
DEFAULTS = GIN_CONFIGS / "defaults.gin"

_SECTION = re.compile(r"# (.+)")
_MACRO = re.compile(r"([A-Z][A-Z0-9_]*) = (.+?)(?:\s+# (.+))?")
_FIELD = re.compile(r"(\w+\.\w+) = %([A-Z][A-Z0-9_]*)")


class Macro(NamedTuple):
    """One macro.

    Attributes:
      name: as the command line takes it, `--gin.NAME=VALUE`.
      section: the heading that it stands under.
      default: as gin writes it; None where there is none and a file or flag has to set it.
      meaning: what it does and in which unit; empty where its line has no comment.
      fields: `Class.field` of `config.py` or `runs.py` that take their value from it.
    """

    name: str
    section: str
    default: str | None
    meaning: str
    fields: tuple[str, ...]


def read_macros() -> list[Macro]:
    """Every macro, in the order of the file."""
    fields = _fields()
    macros, section = [], ""
    for line in DEFAULTS.read_text().splitlines():
        if found := _SECTION.fullmatch(line):
            section = found[1]
        elif found := _MACRO.fullmatch(line):
            name, value, meaning = found.groups()
            default = None if value == "%gin.REQUIRED" else value
            macros.append(Macro(name, section, default, meaning or "", fields.get(name, ())))
    return macros


def help_text() -> str:
    """All macros by section, for a terminal: default, meaning and fields of each."""
    lines, section = [], None
    for macro in read_macros():
        if macro.section != section:
            section = macro.section
            lines += ["", section, ""]
        lines.append(
            f"  {macro.name} " + ("has no default" if macro.default is None else f"= {macro.default}")
        )
        lines.append(f"      {macro.meaning}")
        if macro.fields:
            lines.append(f"      sets {', '.join(macro.fields)}")
    return "\n".join(lines[1:])


def _fields() -> dict[str, tuple[str, ...]]:
    """By macro the fields it is bound to, by defaults.gin or a run."""
    fields: dict[str, list[str]] = {}
    for file in (DEFAULTS, *sorted((GIN_CONFIGS / "runs").glob("*.gin"))):
        for line in file.read_text().splitlines():
            if (found := _FIELD.fullmatch(line)) and found[1] not in fields.setdefault(found[2], []):
                fields[found[2]].append(found[1])
    return {name: tuple(bound) for name, bound in fields.items()}
