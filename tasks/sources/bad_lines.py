"""Leaves out and lists lines of data files that cannot be used, where SKIP_BAD_LINES is set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tasks.errors import BadLine

SHOWN = 10  # lines listed; the rest is counted

# TensorFlow calls readers from threads of its own, which see a global and no context variable.
_skipped: dict[str, None] | None = None


@contextlib.contextmanager
def skipping(skip: bool) -> Iterator[dict[str, None]]:
    """Collects the messages of bad lines, in order, which `tolerated` leaves out inside (where `skip`)."""
    global _skipped
    before, found = _skipped, dict[str, None]()
    _skipped = found if skip else None
    try:
        yield found
    finally:
        _skipped = before


def all_bad(file: str = "") -> str | None:
    """Why nothing is left of a file (of all files): its bad lines; None where none was left out."""
    found = [message for message in _skipped or () if message.startswith(file)]
    if not found:
        return None
    return (
        f"{len(found)} bad {'lines were' if len(found) > 1 else 'line was'} left out, the first: {found[0]}"
    )


@contextlib.contextmanager
def tolerated() -> Iterator[None]:
    """Goes on after the BadLine of a line that is read inside, where bad lines are skipped."""
    try:
        yield
    except BadLine as error:
        if _skipped is None:
            raise
        _skipped[str(error)] = None  # a file that is read twice counts once
