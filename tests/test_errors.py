"""Errors told in one line."""

import errno

import pytest

from jax_prompts.errors import first_line, system_reason


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
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left", "file"), "No space left"),
        (OSError("no route\nto it"), "no route"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_the_system_says(error, reason):
    assert system_reason(error) == reason
