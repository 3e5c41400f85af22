"""Errors told in one line."""

import errno

import pytest

from jax_prompts.errors import first_line, printable, system_reason


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  \n one \ntwo"), "one"),
        (ValueError("\n"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError(errno.ENOSPC, "No space left", "file"), f"[Errno {errno.ENOSPC}] No space left: 'file'"),
    ],
)
def test_the_first_line_that_says_something(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ordinary, grün, 日本　語, 🙂, no\u00a0break", "ordinary, grün, 日本　語, 🙂, no\u00a0break"),
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("\x9b31m \x7f \x00", r"\x9b31m \x7f \x00"),
        ("one\r\ntwo\tthree\u2028four", r"one\r\ntwo\tthree\u2028four"),
        ("file\u202egpj.exe", r"file\u202egpj.exe"),
        ("\udc80", r"\udc80"),
    ],
)
def test_a_terminal_does_not_obey_what_is_printable(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left", "file"), "No space left"),
        (OSError("no route\nto it"), "no route"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_the_system_says(error, reason):
    assert system_reason(error) == reason
