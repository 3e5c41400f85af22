"""Copies on this machine of folders in buckets, brought up to date by what has changed there."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Mapping

from jax_prompts.display import log
from jax_prompts.errors import RunError, system_reason
from jax_prompts.storage import buckets, files

_MAX_BYTES = 1 << 28  # of the table of versions, some 100 bytes a file


def listed(url: str, what: str) -> dict[str, buckets.Stored]:
    """The files of a folder in a bucket; none where there is no such folder.

    Args:
      url: its URL.
      what: what an error calls it.

    Raises:
      RunError: it cannot be read.
    """
    try:
        return buckets.stored(url)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"{what} cannot be read: {system_reason(error)}") from error


def update(url: str, found: Mapping[str, buckets.Stored], folder: pathlib.Path) -> None:
    """Makes a folder the copy of one in a bucket.

    Args:
      url: of the bucket's.
      found: what of it is wanted, as `buckets.stored` lists it.
      folder: on this machine; a table of versions lies beside it.

    Raises:
      ConfigError, RunError: a file cannot be read or written.
    """
    here = versions(folder)
    new = {name: there for name, there in found.items() if not _is_here(folder / name, there, here.get(name))}
    if new:
        size = sum(there.size for there in new.values())
        log(f"copying {len(new)} files ({size / 1e6:,.1f} MB) of {url} to {folder}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.write_errors(folder))
        for name in here.keys() - found.keys():
            (folder / name).unlink(missing_ok=True)
        for name, there in new.items():
            _copy(f"{url.rstrip('/')}/{name}", folder / name, there)
        if new or here.keys() != found.keys():
            table = {name: there.version for name, there in found.items()}
            files.write(_table(folder), json.dumps(table))


def versions(folder: pathlib.Path) -> dict[str, str]:
    """Of the copy of a bucket: path of each file in it, and its version there; empty of any other folder."""
    try:
        found = json.loads(files.read(_table(folder), _MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_here(file: pathlib.Path, there: buckets.Stored, version: str | None) -> bool:
    return version == there.version and file.is_file() and file.stat().st_size == there.size


def _copy(url: str, file: pathlib.Path, there: buckets.Stored) -> None:
    try:
        buckets.download(url, file, there)
    except OSError as error:
        raise RunError(f"{url} cannot be copied to {file}: {system_reason(error)}") from error


def _table(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f"{folder.name}.json")
