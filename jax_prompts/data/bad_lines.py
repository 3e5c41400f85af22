"""What becomes of a line that cannot be used: it stops the reading, or is left out and listed (SKIP_BAD_LINES)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jax_prompts.errors import ConfigError

SHOWN = 10  # lines listed; the rest is counted

# TensorFlow calls readers from threads of its own, which see a global and no context variable.
_skipped: dict[str, None] | None = None


class BadLine(ConfigError):
    """One line of a data file; the message names file, line and reason."""


@contextlib.contextmanager
def skipping(skip: bool) -> Iterator[dict[str, None]]:
    """Inside, `tolerated` leaves bad lines out (where `skip`) and collects their messages, in order."""
    global _skipped
    before, found = _skipped, dict[str, None]()
    _skipped = found if skip else None
    try:
        yield found
    finally:
        _skipped = before


@contextlib.contextmanager
def tolerated() -> Iterator[None]:
    """Around the reading of one line: goes on after a BadLine where bad lines are skipped."""
    try:
        yield
    except BadLine as error:
        if _skipped is None:
            raise
        _skipped[str(error)] = None  # a file that is read twice counts once
