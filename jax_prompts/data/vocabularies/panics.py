"""Panics of the Rust in `tokenizers`, which are no Exception, as errors of Python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from jax_prompts.errors import RunError, first_line


@contextlib.contextmanager
def panics_as(error_of: Callable[[str], Exception]) -> Iterator[None]:
    """Raises `error_of(reason)` in place of a panic inside the block, or the function that it decorates."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a class that cannot be imported
            raise
        raise error_of(first_line(error)) from error


def unusable(reason: str) -> RunError:
    """A vocabulary that was read, and fails at a text."""
    return RunError(f"the tokenizer fails at a text ({reason}): set VOCABULARY to another file")
