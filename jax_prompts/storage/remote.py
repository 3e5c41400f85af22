"""Requests to remote file systems: those of a command that asks once, and those of a run, which has more patience.

A command without a network ends within 30 seconds. A run (`patiently`) goes through a bucket that throttles, fails now
and then or is out of reach for minutes: what it asks for may be asked for twice.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec

from jax_prompts.display import log
from jax_prompts.errors import first_line, system_reason

TIMEOUT_SECONDS = 25.0
PATIENCE_SECONDS = 900.0
_LONGEST_PAUSE = 30.0  # seconds between two attempts
_EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", None), "gcs": ("gcsfs", None)}
_NETWORK = ("aiohttp", "asyncio", "botocore", "requests", "urllib3")  # whose own errors are of the connection
Answer = TypeVar("Answer")


def is_remote(path: str) -> bool:
    """Whether a path is a URL, and not of this machine."""
    return "://" in path and not path.startswith("file://")


def ask_file_system(url: str, ask: Callable[[fsspec.AbstractFileSystem, str], Answer]) -> Answer:
    """Answer of `ask(file system of the URL, path there)`.

    Raises:
      OSError: whatever that file system's library raises; FileNotFoundError only where the other side says so.
        TimeoutError as `within_limit`.
    """
    return within_limit(lambda: _asked(url, ask))


def patiently(url: str, ask: Callable[[fsspec.AbstractFileSystem, str], Answer]) -> Answer:
    """`ask_file_system` of a run: what fails and may pass is asked again, with growing pauses, up to 15 minutes.

    Libraries' own time limits hold, and nothing goes on in the background that could write later.

    Raises:
      OSError: as `ask_file_system`.
    """
    late, attempt = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        try:
            return _asked(url, ask)
        except OSError as error:
            if not may_pass(error) or time.monotonic() > late:
                raise
            if attempt == 0:
                log(
                    f"{url}: {system_reason(error)}; trying again for up to {PATIENCE_SECONDS / 60:.0f} minutes"
                )
        time.sleep(min(_LONGEST_PAUSE, 2.0**attempt) * random.uniform(0.5, 1.0))
        attempt += 1


def may_pass(error: OSError) -> bool:
    """Whether an error is of the network or of a server that has too much to do, and not of what was asked."""
    return isinstance(error, TimeoutError | ConnectionError) or error.errno in (errno.EIO, errno.EBUSY)


def _asked(url: str, ask: Callable[[fsspec.AbstractFileSystem, str], Answer]) -> Answer:
    for name in ("gcsfs", "google.auth"):  # they remark on every retry, and every place without credentials
        logging.getLogger(name).setLevel(logging.CRITICAL)
    web = _web_protocols(url)
    options = {protocol: {"client_kwargs": {"raise_for_status": _refuse_failures}} for protocol in web}
    try:
        return _answer(ask, *fsspec.core.url_to_fs(url, **options))
    except ImportError as error:
        raise _missing(url, error) from error
    except Exception as error:
        # To fsspec's web client whatever fails is a file that is not there.
        known = error.__cause__ if web and isinstance(error, FileNotFoundError) else None
        raise _as_os_error(known or error) from error


def _missing(url: str, error: ImportError) -> OSError:
    """What to install for a kind of URL."""
    scheme = url.partition("://")[0]
    package, extra = _EXTRAS.get(scheme, (None, None))
    how = f"in the checkout, pip install -e '.[{extra}]'" if extra else "install it"
    reason = f"{scheme}:// needs {package}, which is not installed: {how}" if package else first_line(error)
    return OSError(errno.ENOPKG, reason)


def _answer(ask: Callable[[Any, str], Answer], fs: fsspec.AbstractFileSystem, path: str) -> Answer:
    fs.invalidate_cache()  # others write there: what was listed before may be another
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
    """The error itself, or the reason of a library's own: `status` is that of aiohttp's, `code` of gcsfs's."""
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)
    if status in (404, 410):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if isinstance(status, int):
        reason = f"http {status} {getattr(error, 'message', '')}".strip() if status else type(error).__name__
        passes = status in (0, 408, 429) or status >= 500
        return OSError(errno.EIO if passes else errno.EINVAL, reason)
    if isinstance(error, OSError):
        heading, _, reason = str(error).partition("\n")
        if heading.startswith("Forbidden"):  # gcsfs's, which names an address of Google's before the reason
            return PermissionError(errno.EACCES, f"http 403 Forbidden {first_line(OSError(reason))}".strip())
        if isinstance(error, FileNotFoundError) and error.errno is None:
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return error
    if isinstance(error, NotImplementedError):
        return OSError(errno.ENOTSUP, "what lies at such an address cannot be changed from here")
    network = type(error).__module__.partition(".")[0] in _NETWORK
    return OSError(errno.EIO if network else errno.EINVAL, first_line(error))


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
