"""DATA_DIR: the directory of official files, on this machine, or in a bucket, from where it is copied to be read."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from jax_prompts.config import Data
from jax_prompts.data.cache_key import digest
from jax_prompts.errors import ConfigError
from jax_prompts.storage import buckets, copies
from jax_prompts.storage.home import local_root
from jax_prompts.storage.remote import is_remote


@contextlib.contextmanager
def on_this_machine(data: Data) -> Iterator[Data]:
    """Settings whose DATA_DIR can be read as files; of one in a bucket all is copied here that is not here yet.

    Errors of the block name the bucket, not the copy.

    Raises:
      ConfigError, RunError: see `listed`; the copy cannot be written.
    """
    if data.data_dir is None or not is_remote(data.data_dir):
        yield data
        return
    folder = _copied(data.data_dir)
    with buckets.named(folder, data.data_dir):
        yield dataclasses.replace(data, data_dir=str(folder))


@contextlib.contextmanager
def unread(data: Data) -> Iterator[Data]:
    """Settings for what a task tells without its files: an empty directory in place of a DATA_DIR in a bucket."""
    if data.data_dir is None or not is_remote(data.data_dir):
        yield data
        return
    with tempfile.TemporaryDirectory() as empty:
        yield dataclasses.replace(data, data_dir=empty)


def check(data_dir: str | None) -> None:
    """Raises ConfigError where DATA_DIR is no directory, RunError where a bucket cannot be read."""
    if data_dir is not None and not is_remote(data_dir) and not pathlib.Path(data_dir).is_dir():
        raise ConfigError(f"DATA_DIR {data_dir} is not a directory: set it to where the official files are")
    if data_dir is not None and is_remote(data_dir):
        listed(data_dir)


def listed(data_dir: str) -> dict[str, buckets.Stored]:
    """The files of a DATA_DIR in a bucket.

    Raises:
      ConfigError: there are none.
      RunError: it cannot be read.
    """
    if not (found := copies.listed(data_dir, f"DATA_DIR {data_dir}")):
        raise ConfigError(f"DATA_DIR {data_dir} holds no files: set it to where the official files are")
    return found


def is_as_recorded(data_dir: str | None, recorded: Mapping[str, Any]) -> bool:
    """Whether the file `recorded["path"]` has these bytes; one in a bucket that has its version is not read."""
    if data_dir is not None and is_remote(data_dir):
        there = listed(data_dir).get(recorded["path"])
        if there is None or there.size != recorded["bytes"]:
            return False
        if recorded.get("version") == there.version:
            return True
        file = _copied(data_dir) / recorded["path"]
    else:
        file = pathlib.Path(data_dir or ".", recorded["path"])
    # The size first: it spares reading large files that cannot be equal.
    if not file.is_file() or file.stat().st_size != recorded["bytes"]:
        return False
    return digest(file) == {name: recorded[name] for name in ("bytes", "sha256")}


def _copied(url: str) -> pathlib.Path:
    """The copy of a folder in a bucket, as it is there now."""
    found = listed(url)
    folder = local_root() / "data" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]
    copies.update(url, found, folder)
    return folder
