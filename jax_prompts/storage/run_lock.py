"""One run at a time in a folder: a lock on its file `run.lock`, which says whose it is.

The system takes the lock (`flock`) from a process that ends, however it ends. Not every network file system shares
such locks between hosts, and some have none; so the holder also renews the file's time, and who cannot know from the
lock alone that a holder is gone waits for such a sign of life, which needs no clocks that agree.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from jax_prompts.display import log
from jax_prompts.errors import RunError
from jax_prompts.storage.directories import directory_for
from jax_prompts.storage.file_lock import lock

NAME = "run.lock"
_RENEWAL_SECONDS = 20.0
_SILENCE_SECONDS = 90.0  # network file systems show others' files after up to a minute
_POLL_SECONDS = 1.0


class BusyError(RunError):
    """Another process holds the lock."""


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a folder, made where it is missing, while the block runs.

    Raises:
      BusyError: another process holds it; the message says which, where and since when.
      OSError: the folder cannot be made, or written into.
    """
    with directory_for(folder):
        file = folder / NAME
        descriptor = _taken(file)
        ended = threading.Event()
        renewal = threading.Thread(target=_renew, args=(descriptor, ended), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            ended.set()
            renewal.join()
            with contextlib.suppress(OSError):
                if _is_open_as(descriptor, file):
                    file.unlink()
            os.close(descriptor)


def _taken(file: pathlib.Path) -> int:
    """The open, locked file, with this process in it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked, holder = lock(descriptor), _holder(descriptor)
            if locked is False:
                raise BusyError(busy(file.parent, holder))
            known_here = locked and holder.get("host") in (None, socket.gethostname())
            if not known_here and _shows_life(file, holder):
                raise BusyError(f"{busy(file.parent, holder)}; if that process is no more, remove {file}")
            if _is_open_as(descriptor, file):  # else its holder has removed it meanwhile
                begun = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
                now = {"host": socket.gethostname(), "process": os.getpid(), "begun": begun}
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(now).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(descriptor: int) -> dict[str, Any]:
    """What the holder wrote of itself; empty where that is not there (yet)."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def busy(folder: pathlib.Path | str, holder: dict[str, Any]) -> str:
    """What to say of a MODEL_DIR that another process holds, of which this much is known."""
    who = "process {process} on {host}, begun {begun}".format_map(
        {"process": "unknown", "host": "this host or another", "begun": "just now"} | holder
    )
    return (
        f"MODEL_DIR {folder} is in use by another run ({who}): wait for its end, or choose another MODEL_DIR"
    )


def _shows_life(file: pathlib.Path, holder: dict[str, Any]) -> bool:
    """Whether the file's time is renewed within a while; one that goes was its holder's to remove."""
    log(
        f"MODEL_DIR {file.parent} was in use by process {holder.get('process', 'unknown')} on "
        f"{holder.get('host', 'an unknown host')}: waiting up to {_SILENCE_SECONDS:.0f} s for a sign that it still is"
    )
    late = time.monotonic() + _SILENCE_SECONDS
    with contextlib.suppress(FileNotFoundError):
        before = _time(file)
        while time.monotonic() < late:
            time.sleep(_POLL_SECONDS)
            if _time(file) != before:
                return True
    return False


def _time(file: pathlib.Path) -> int:
    with open(file, "rb") as opened:  # on NFS opening is what asks the server
        return os.fstat(opened.fileno()).st_mtime_ns


def _renew(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(_RENEWAL_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _is_open_as(descriptor: int, file: pathlib.Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
