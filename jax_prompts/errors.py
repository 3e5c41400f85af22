"""Errors that end a command in one line, a warning that does not, and helpers for their messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A setting that cannot work; its message says which one and what to do. Exit status 2."""


class RunError(RuntimeError):
    """Something outside the settings failed; its message is one line. Exit status 1."""


class Preempted(RuntimeError):
    """The run was told to stop and has saved; running it again resumes. Exit status 75."""


class SettingWarning(UserWarning):
    """A setting that works, but hardly as meant."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty; its type's name where there is none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def system_reason(error: OSError) -> str:
    """What the system says, without number and path; the first line of the message where it says nothing."""
    return error.strerror or first_line(error)


def nearest(name: str, names: Iterable[str]) -> str:
    """The names most like `name`, whatever its case, for an error message; all of them when they are few."""
    by_lower = {known.lower(): known for known in sorted(names)}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)
    if not found:
        few = len(by_lower) <= 6
        found = list(by_lower) if few else difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.0)
    return " or ".join(by_lower[lower] for lower in found)
