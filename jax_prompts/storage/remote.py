"""Requests to remote file systems, with patience, but so that a command without a network ends within 30 seconds."""

from __future__ import annotations

import errno
import logging
import os
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
      OSError: whatever that file system's library raises; FileNotFoundError only where the other side says so.
        TimeoutError as `within_limit`.
    """
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it remarks on every retry
    web = _web_protocols(url)
    options = {protocol: {"client_kwargs": {"raise_for_status": _refuse_failures}} for protocol in web}
    try:
        return within_limit(lambda: _answer(ask, *fsspec.core.url_to_fs(url, **options)))
    except Exception as error:
        # To fsspec's web client whatever fails is a file that is not there.
        known = error.__cause__ if web and isinstance(error, FileNotFoundError) else None
        raise _as_os_error(known or error) from error


def _answer(ask: Callable[[Any, str], Answer], fs: fsspec.AbstractFileSystem, path: str) -> Answer:
    try:
        return ask(fs, path)
    except FileNotFoundError as error:
        # A cache in front of a server asks whether a file exists, and hears no whatever fails: `info` says what does.
        if error.__cause__ is None and (behind := getattr(fs, "fs", None)) is not None:
            behind.info(path)
        raise


def _web_protocols(url: str) -> set[str]:
    """`http` or `https`, where a URL is of that kind, or one of those that it is chained of is."""
    return {part.partition("://")[0] for part in url.split("::") if part.startswith(("http://", "https://"))}


async def _refuse_failures(response: Any) -> None:
    """Raises aiohttp's error for an answer that is none: aiohttp itself takes a redirection to nowhere for one."""
    response.raise_for_status()
    if response.status >= 300:
        raise OSError(errno.EIO, f"http {response.status} {response.reason}, to nowhere")


def _as_os_error(error: BaseException) -> OSError:
    """The error itself, or the reason of a library's own; `status` is that of aiohttp's."""
    status = getattr(error, "status", None)
    if status in (404, 410):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if isinstance(status, int):
        reason = f"http {status} {getattr(error, 'message', '')}".strip() if status else type(error).__name__
        return OSError(errno.EIO, reason)
    if isinstance(error, NotImplementedError):
        return OSError(errno.ENOTSUP, "what lies at such an address cannot be changed from here")
    return error if isinstance(error, OSError) else OSError(errno.EIO, first_line(error))


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
