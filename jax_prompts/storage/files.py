"""Files by path or URL: read up to a limit, written whole or not at all.

A URL is whatever fsspec opens: `file://`, `gs://`, `s3://` (with s3fs), `memory://`. All that goes wrong is an OSError.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from jax_prompts.errors import first_line
from jax_prompts.storage.remote import within_limit

Answer = TypeVar("Answer")


class TooLargeError(OSError):
    """A file over the limit; `size` in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(errno.EFBIG, f"it has {size} bytes, over {limit}")
        self.size = size


def read(path: str, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes; a larger one costs no memory.

    Raises:
      FileNotFoundError, IsADirectoryError (also for pipes and devices), TooLargeError, TimeoutError, OSError.
    """
    if (local := _local(path)) is None:
        return _remote(path, lambda fs, place: _read_open(fs.open(place, "rb"), limit))
    if not stat.S_ISREG(local.stat().st_mode):
        raise IsADirectoryError(errno.EISDIR, "not a file")
    return _read_open(open(local, "rb"), limit)


def _read_open(opened: Any, limit: int) -> bytes:
    with opened as file:
        size = getattr(file, "size", None)  # of fsspec's, where it is known beforehand
        if isinstance(file, io.BufferedReader):
            size = os.fstat(file.fileno()).st_size
        if size is not None and size > limit:
            raise TooLargeError(size, limit)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise TooLargeError(len(content), limit)
    return content


def write(path: str, content: bytes, *, replace: bool) -> None:
    """Writes a file whole or not at all; of several writers the last one stays, or without `replace` the first.

    Raises:
      FileExistsError: without `replace`, where there is one.
      OSError, TimeoutError.
    """
    if (local := _local(path)) is None:
        mode = "overwrite" if replace else "create"
        return _remote(path, lambda fs, place: fs.pipe_file(place, content, mode=mode))
    temporary = local.with_name(f".{local.name}.{uuid.uuid4().hex}.tmp")
    local.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, local)
        else:
            os.link(temporary, local)  # refuses as open(..., "x") does, but appears with its content
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: str) -> None:
    """Raises FileNotFoundError, OSError or TimeoutError."""
    if (local := _local(path)) is None:
        return _remote(path, lambda fs, place: fs.rm_file(place))
    local.unlink()


def listing(folder: str) -> set[str]:
    """Names of the files in a folder.

    Raises:
      FileNotFoundError: no such folder; a remote one without files is none.
      OSError, TimeoutError.
    """
    if (local := _local(folder)) is None:
        return _remote(folder, _list)
    return {entry.name for entry in os.scandir(local) if entry.is_file()}


def _list(fs: fsspec.AbstractFileSystem, place: str) -> set[str]:
    fs.invalidate_cache()  # others write there
    found = fs.ls(place, detail=True)
    return {row["name"].rpartition("/")[2] for row in found if row["type"] == "file"} - {""}


def _local(path: str) -> Path | None:
    """A path on this machine; None for a remote one."""
    if "://" not in path or path.startswith("file://"):
        return Path(path.removeprefix("file://"))
    return None


def _remote(path: str, ask: Callable[[fsspec.AbstractFileSystem, str], Answer]) -> Answer:
    """What a remote file system answers; whatever its library raises becomes an OSError."""
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it remarks on every retry
    try:
        return within_limit(lambda: ask(*fsspec.core.url_to_fs(path)))
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, first_line(error)) from error
