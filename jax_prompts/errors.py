"""Errors that end a command in one line, a warning that does not, and helpers for their messages."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

MOST_NAMES = 10  # in one message
_USER = (  # hf://NAME@REVISION names no user
    r"\b([a-zA-Z][\w+.-]*:/{1,2})(?:(?<!\bhf://)[^/\s'\"]*@|[^/\s:@'\"]+:(?!\d*/)[^\s'\"@]*@)"
)
_TOKEN = (
    r"\b(Bearer\s+(?=[\w.~+/-]{8})|hf_(?=[^\W_]{30}))[\w.~+/-]+=*"  # of a header, of the Hugging Face hub
)
_QUERY = r"\b([a-zA-Z][\w+.-]*:/{1,2}[^\s'\"?#]*[?#])(?=[\w%])[^\s'\"]*[^\s'\",.:;)]"

_PATH = (
    r"(?<=\bwith url: )/[^\s'\"]*"  # as urllib3 names what it asked for: who asks may stand anywhere in it
)


def hide_secrets(text: str) -> str:
    """A text in which no URL shows who asks (`user:password@`) nor what it asks with (`?token=...`), and no token."""
    for pattern, kept in ((_TOKEN, r"\1***"), (_USER, r"\1***@"), (_QUERY, r"\1***"), (_PATH, "/***")):
        text = re.sub(pattern, kept, text)
    return text


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's or JAX's says that memory is too small."""
    return isinstance(error, MemoryError) or str(error).startswith("RESOURCE_EXHAUSTED")


class _Told(Exception):
    """What a reader sees, without the secrets of the URLs in it."""

    def __init__(self, message: object = "") -> None:
        super().__init__(hide_secrets(str(message)))


class ConfigError(_Told, ValueError):
    """A setting that cannot work; its message says which one and what to do. Exit status 2."""


class RunError(_Told, RuntimeError):
    """Something outside the settings failed; its message is one line. Exit status 1."""


class Preempted(RuntimeError):
    """The run was told to stop and has saved; running it again resumes. Exit status 75.

    `together`: whether all of several processes stop at once, so that none has to be told by another.
    """

    def __init__(self, reason: str, *, together: bool = False) -> None:
        super().__init__(reason)
        self.together = together


class SettingWarning(_Told, UserWarning):
    """A setting that works, but hardly as meant."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty; its type's name where there is none."""
    lines = (line.strip() for line in str(error).split("\n"))
    return next(filter(None, lines), type(error).__name__)


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: control and format characters, line ends too, as escapes.

    No URL in it shows its secrets.
    """
    text = hide_secrets(text)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else _escape(char) for char in text
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def system_reason(error: OSError) -> str:
    """What the system says, without number and path; the first line of the message where it says nothing."""
    return error.strerror or first_line(error)


def nearest(name: str, names: Iterable[str]) -> str:
    """The names that hold `name`, else those most like it, whatever its case; all of them when they are few."""
    by_lower = {known.lower(): known for known in sorted(names)}
    found = [lower for lower in by_lower if len(name) >= 3 and name.lower() in lower][:MOST_NAMES]
    found = found or difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)
    if not found:
        few = len(by_lower) <= 6
        found = list(by_lower) if few else difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.0)
    return " or ".join(by_lower[lower] for lower in found)
