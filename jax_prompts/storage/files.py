"""Files by path or URL: read up to a limit, written whole or not at all.

A URL is whatever fsspec opens: `file://`, `gs://`, `s3://` (with s3fs), `memory://`. All that goes wrong is an OSError;
what is no path at all is a ConfigError.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.storage.directories import make_directory
from jax_prompts.storage.home import with_home
from jax_prompts.storage.remote import ask_file_system, is_remote
from jax_prompts.storage.temporary import sync, temporary_path

PathOrUrl = str | os.PathLike[str]


class TooLargeError(OSError):
    """A file over the limit; `size` in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(errno.EFBIG, f"it has {size} bytes, over {limit}")
        self.size = size


def read(path: PathOrUrl, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes; a larger one costs no memory.

    Raises:
      FileNotFoundError, IsADirectoryError (also for pipes and devices), TooLargeError, TimeoutError, OSError.
    """
    if isinstance(place := place_of(path), str):
        return ask_file_system(place, lambda fs, file: _read_open(fs.open(file, "rb"), limit))
    if not stat.S_ISREG(place.stat().st_mode):
        raise IsADirectoryError(errno.EISDIR, "not a file")
    return _read_open(open(place, "rb"), limit)


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


def write(path: PathOrUrl, content: bytes | str, *, replace: bool = True) -> None:
    """Writes a file whole or not at all; of several writers the last one stays, or without `replace` the first.

    Args:
      path: its directory is made where it is missing; a device or a pipe is written as it is.
      content: a text is written as UTF-8.
      replace: whether a file that is there gives way.

    Raises:
      FileExistsError: without `replace`, where there is one.
      OSError, TimeoutError.
    """
    content = content.encode() if isinstance(content, str) else content
    if isinstance(place := place_of(path), str):
        mode = "overwrite" if replace else "create"
        try:
            return ask_file_system(place, lambda fs, file: fs.pipe_file(file, content, mode=mode))
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such bucket") from error
    if place.exists() and not place.is_file() and not place.is_dir():
        place.write_bytes(content)
        return
    with atomic_file(place, replace=replace) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A temporary path for a file, which takes the name `path` when the block ends; if that fails, nothing is left.

    Args, Raises: as `write`, which is for what fits into memory.
    """
    temporary = temporary_path(path)
    make_directory(path.parent)
    try:
        yield temporary
        sync(temporary)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # refuses as open(..., "x") does, but appears with its content
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def write_errors(path: PathOrUrl) -> Iterator[None]:
    """Turns an OSError inside the block into an error which says that `path` could not be written, and why.

    Raises:
      ConfigError: something else lies where one of its directories belongs.
      RunError: any other OSError.
    """
    try:
        yield
    except NotADirectoryError as error:
        raise ConfigError(
            f"{path} could not be written ({system_reason(error)}): choose a place in a directory"
        ) from error
    except OSError as error:
        raise RunError(f"{path} could not be written: {system_reason(error)}") from error


def remove(path: PathOrUrl) -> None:
    """Removes a file. Raises FileNotFoundError, OSError or TimeoutError."""
    if isinstance(place := place_of(path), str):
        return ask_file_system(place, lambda fs, file: fs.rm_file(file))
    place.unlink()


def listing(folder: PathOrUrl) -> set[str]:
    """Names of the files in a folder.

    Raises:
      FileNotFoundError: no such folder; a remote one without files is none.
      OSError, TimeoutError.
    """
    if isinstance(place := place_of(folder), str):
        return ask_file_system(place, _list)
    return {entry.name for entry in os.scandir(place) if _is_file(entry)}


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself, for one
        return False


def _list(fs: fsspec.AbstractFileSystem, folder: str) -> set[str]:
    found = fs.ls(folder, detail=True)
    return {row["name"].rpartition("/")[2] for row in found if row["type"] == "file"} - {""}


def matching(pattern: str) -> list[str]:
    """URLs of the remote files that a URL with `*` in its path stands for, in order.

    Raises:
      OSError, TimeoutError.
    """

    def find(fs: fsspec.AbstractFileSystem, path: str) -> list[str]:
        scheme = pattern.partition("://")[0]
        return sorted(f"{scheme}://{fs._strip_protocol(name).lstrip('/')}" for name in fs.glob(path))

    return ask_file_system(pattern, find)


def age(path: PathOrUrl) -> float:
    """Seconds since a file was written, by the clock of this machine.

    Raises:
      OSError (also where a remote file system does not say it), TimeoutError.
    """
    if isinstance(place := place_of(path), str):
        return time.time() - ask_file_system(place, lambda fs, file: fs.modified(file).timestamp())
    return time.time() - place.stat().st_mtime


def place_of(path: PathOrUrl) -> Path | str:
    """A path on this machine, or the URL of a remote one."""
    path = with_home(path)
    return path if is_remote(path) else Path(path.removeprefix("file://"))
