"""Requests to remote file systems, with patience, but so that a command without a network ends within 30 seconds."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec

from jax_prompts.errors import first_line

TIMEOUT_SECONDS = 25.0
Answer = TypeVar("Answer")


def ask_file_system(url: str, ask: Callable[[fsspec.AbstractFileSystem, str], Answer]) -> Answer:
    """Answer of `ask(file system of the URL, path there)`.

    Raises:
      OSError: whatever that file system's library raises. TimeoutError as `within_limit`.
    """
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it remarks on every retry
    try:
        return within_limit(lambda: ask(*fsspec.core.url_to_fs(url)))
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, first_line(error)) from error


def within_limit(ask: Callable[[], Answer]) -> Answer:
    """Answer of `ask`, or the error that it raises.

    Raises:
      TimeoutError: it has done neither after `TIMEOUT_SECONDS`.
    """
    result: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            result.append((True, ask()))
        except Exception as error:  # whatever a remote file system's library raises
            result.append((False, error))

    # A thread of its own: these libraries retry for minutes, and a daemon does not hold up the exit.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    if not result:
        raise TimeoutError(f"no answer in {TIMEOUT_SECONDS:.0f} s")
    answered, found = result[0]
    if not answered:
        raise found
    return found
