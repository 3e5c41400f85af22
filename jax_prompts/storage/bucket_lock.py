"""One run at a time in a folder of a bucket: an object `run.lock` that says whose it is, renewed while it lives.

A bucket has no locks that end with a process, and no renames, but writes that hold only where an object is still of
the version that was read (of a missing one: is still missing). So the first to write the object has the lock, renews
it every 20 seconds over its own version, and knows from a renewal that fails that another has taken it. Who finds a
lock waits for such a renewal, which needs no clocks that agree, and takes over, by the same kind of write, where none
comes for 90 seconds; at once where the holder was a process of this machine that is no more.
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
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import psutil

from jax_prompts.display import log
from jax_prompts.errors import RunError, system_reason
from jax_prompts.storage.remote import ask_file_system, patiently
from jax_prompts.storage.run_lock import NAME, BusyError, busy

_RENEWAL_SECONDS = 20.0
SILENCE_SECONDS = 90.0
_POLL_SECONDS = 2.0
_ABSENT = "0"  # the version of an object that is not there
_Ask = Callable[[str, Callable[[fsspec.AbstractFileSystem, str], Any]], Any]


@contextlib.contextmanager
def held(folder: str, silent: str | None = None) -> Iterator[Callable[[], None]]:
    """Holds the lock of a `gs://` folder while the block runs.

    Args:
      folder: its URL.
      silent: the `look` of a lock that is known not to have been renewed for long enough, which is not waited for.

    Yields:
      Function that raises RunError where the lock was lost. Where it was not renewed for a while it renews it first,
      however long that takes.

    Raises:
      BusyError: another process holds it; the message says which, where and since when.
      OSError: there is no such bucket, or no right to write into it, or no network to it.
    """
    lock = _Lock(f"{folder.rstrip('/')}/{NAME}", folder)
    lock.take(silent)
    ended = threading.Event()
    renewal = threading.Thread(target=lock.keep, args=(ended,), daemon=True)
    renewal.start()
    try:
        yield lock.check
    finally:
        ended.set()
        renewal.join()
        lock.release()


def look(folder: str) -> str | None:
    """The version of a lock that a process may hold; None where there is none, or its process was of this machine and
    is no more. Raises OSError."""
    version, holder = _read(f"{folder.rstrip('/')}/{NAME}")
    return None if version == _ABSENT or _is_gone(holder) else version


class _Lock:
    def __init__(self, url: str, folder: str) -> None:
        self._url, self._folder = url, folder
        self._version, self._renewed, self._beat = _ABSENT, 0.0, 0
        self._lost: str | None = None
        self._writing = threading.Lock()
        begun = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        self._holder = {**_process_here(), "begun": begun, "run": uuid.uuid4().hex}

    def take(self, silent: str | None) -> None:
        version, holder = _read(self._url)
        if version not in (_ABSENT, silent) and not _is_gone(holder):
            self._wait(version, holder)
        try:
            self._write(version, ask_file_system)
        except FileExistsError as error:
            raise BusyError(busy(self._folder, _read(self._url)[1])) from error

    def _wait(self, version: str, holder: dict[str, Any]) -> None:
        """Returns where nobody writes the lock for a while, or it goes; raises BusyError where somebody does."""
        log(
            f"MODEL_DIR {self._folder} was in use by process {holder.get('process', 'unknown')} on "
            f"{holder.get('host', 'an unknown host')}: waiting up to {SILENCE_SECONDS:.0f} s for a sign "
            "that it still is"
        )
        late = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < late:
            time.sleep(_POLL_SECONDS)
            now, holder = _read(self._url)
            if now != version:
                raise BusyError(busy(self._folder, holder))

    def _write(self, version: str, ask: _Ask) -> None:
        """Writes the lock over one of a version; FileExistsError where it is of another."""
        self._beat += 1
        content = json.dumps({**self._holder, "beat": self._beat}).encode()
        try:
            self._version = ask(self._url, lambda fs, path: _put(fs, path, content, version))
        except FileExistsError:
            # A library that sent it twice, the first answer being lost, or later than waited for, has met its own.
            now, holder = _read(self._url)
            if holder.get("run") != self._holder["run"]:
                raise
            self._version = now
        self._renewed = time.monotonic()

    def keep(self, ended: threading.Event) -> None:
        """Renews the lock until `ended`, or until another has it."""
        while self._lost is None and not ended.wait(_RENEWAL_SECONDS):
            with contextlib.suppress(OSError):  # the next time, or `check`, may succeed
                self._renew(ask_file_system)

    def _renew(self, ask: _Ask) -> None:
        with self._writing:
            if self._lost is not None:
                return
            try:
                self._write(self._version, ask)
            except FileExistsError:
                self._lost = busy(self._folder, _read(self._url)[1])

    def check(self) -> None:
        """Raises RunError where another has the lock, or nobody knows for as long as a run is waited for."""
        if self._lost is None and time.monotonic() - self._renewed > SILENCE_SECONDS / 2:
            try:
                self._renew(patiently)
            except OSError as error:
                raise RunError(
                    f"{self._url} could not be renewed ({system_reason(error)}): start again once the bucket can be "
                    "reached, which goes on from the last checkpoint"
                ) from error
        if self._lost is not None:
            raise RunError(f"the run was out of reach for too long, and {self._lost}")

    def release(self) -> None:
        """Removes the lock, if it is still this run's."""
        if self._lost is None:
            with contextlib.suppress(OSError):
                ask_file_system(self._url, lambda fs, path: _delete(fs, path, self._version))


def _read(url: str) -> tuple[str, dict[str, Any]]:
    """Version and content of a lock; of one that is not there `_ABSENT` and nothing."""

    def ask(fs: Any, path: str) -> tuple[str, bytes]:
        version = str(fs.info(path)["generation"])
        return version, fs.cat_file(path)

    try:
        version, content = ask_file_system(url, ask)
    except FileNotFoundError:
        return _ABSENT, {}
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    return version, found if isinstance(found, dict) else {}


def _put(fs: Any, path: str, content: bytes, version: str) -> str:
    """Writes an object over one of this version; the version that it has then."""
    bucket, _, key = path.partition("/")
    address = fs.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o"
    about = {"uploadType": "media", "name": key, "ifGenerationMatch": version}
    return str(fs.call("POST", address, bucket, data=content, json_out=True, **about)["generation"])


def _delete(fs: Any, path: str, version: str) -> None:
    fs.call("DELETE", "b/{}/o/{}", *path.split("/", 1), ifGenerationMatch=version)


def _process_here() -> dict[str, Any]:
    """This process, so that others on this machine can tell whether it is still there."""
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": psutil.Process().create_time(),
        "machine": _machine(),
    }


def _machine() -> str | None:
    """What processes that see each other's numbers have in common, and no others; None where nothing tells."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is no more."""
    if holder.get("machine") is None or holder["machine"] != _machine():
        return False
    try:
        return psutil.Process(holder["process"]).create_time() != holder["started"]
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
