"""Token caches in a bucket: filled by one process, read by every host from a copy on its own disk.

    CACHE_DIR/TASK-SPLIT-KEY/3f9c21ab04de/tokens.arrow    a filling's files, in a folder that only it writes
    CACHE_DIR/TASK-SPLIT-KEY/whole.json                   that folder's name, and the size and SHA-256 of its files

A cache is there once `whole.json` is, which is written last. What is stopped before leaves a folder that nobody
reads; of two who fill at once the last one stays, whole. A copy holds `whole.json`, too, and gives way where the
bucket has another one.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from jax_prompts.data.cache_key import digest
from jax_prompts.display import log
from jax_prompts.errors import RunError, system_reason
from jax_prompts.storage import buckets
from jax_prompts.storage.directories import atomic_directory
from jax_prompts.storage.remote import is_remote

_WHOLE = "whole.json"
_MAX_BYTES = 1 << 20


def bring(place: pathlib.Path, cache_dir: str | None) -> bool:
    """Makes a directory the copy of the cache that a bucket has, of the same name; False where the bucket has none.

    Args:
      place: the directory, on this machine.
      cache_dir: CACHE_DIR; where it is no bucket, nothing is done, and what is on this machine counts.

    Raises:
      RunError: the bucket cannot be read, or a file in it is not what its filling wrote; the disk cannot be written.
    """
    if cache_dir is None or not is_remote(cache_dir):
        return True
    url = _url(place, cache_dir)
    try:
        there = _read(f"{url}/{_WHOLE}")
        if there is not None and _here(place) != there:
            size = sum(facts["bytes"] for facts in there["files"].values())
            log(f"copying {url} ({size / 1e6:,.1f} MB) to {place}")
            with atomic_directory(place, lambda: _here(place) == there) as temporary:
                for name, facts in there["files"].items():
                    _copy(f"{url}/{there['folder']}/{name}", temporary / name, facts)
                (temporary / _WHOLE).write_text(json.dumps(there))
    except OSError as error:
        raise RunError(
            f"token cache {url} cannot be copied to {place} ({system_reason(error)}): run the command again, or set "
            "CACHE_DIR to another place"
        ) from error
    return there is not None


@contextlib.contextmanager
def new_cache(
    place: pathlib.Path, usable: Callable[[], bool], cache_dir: str | None
) -> Iterator[pathlib.Path]:
    """`atomic_directory` for a cache, which is taken to CACHE_DIR before it takes its name here, if that is a bucket.

    Raises:
      RunError: the disk or the bucket cannot be written.
    """
    remote = cache_dir is not None and is_remote(cache_dir)
    try:
        with atomic_directory(place, (lambda: False) if remote else usable) as temporary:
            yield temporary
            if cache_dir is not None and remote:
                _publish(temporary, _url(place, cache_dir), cache_dir)
    except OSError as error:
        raise RunError(
            f"token cache {place} cannot be written ({system_reason(error)}): free space, or set CACHE_DIR"
        ) from error


def _publish(made: pathlib.Path, url: str, cache_dir: str) -> None:
    folder = uuid.uuid4().hex[:12]
    whole = {"folder": folder, "files": {path.name: digest(path) for path in sorted(made.iterdir())}}
    (made / _WHOLE).write_text(json.dumps(whole))
    try:
        for name in whole["files"]:
            buckets.upload(made / name, f"{url}/{folder}/{name}")
        buckets.upload(made / _WHOLE, f"{url}/{_WHOLE}")
    except FileNotFoundError as error:
        raise RunError(f"CACHE_DIR {cache_dir} cannot be written: there is no such bucket") from error
    except OSError as error:
        raise RunError(f"CACHE_DIR {cache_dir} cannot be written: {system_reason(error)}") from error


def _url(place: pathlib.Path, cache_dir: str) -> str:
    return f"{cache_dir.rstrip('/')}/{place.name}"


def _here(place: pathlib.Path) -> Any:
    try:
        return _loads((place / _WHOLE).read_bytes())
    except OSError:
        return None


def _read(url: str) -> Any:
    """What a bucket's `whole.json` holds; None where there is none, or nothing that one holds."""
    try:
        return _loads(buckets.content(url, _MAX_BYTES))
    except FileNotFoundError:
        return None


def _loads(content: bytes) -> Any:
    try:
        whole = json.loads(content)
        named = all(pathlib.Path(name).name == name for name in (whole["folder"], *whole["files"]))
        sized = all(isinstance(facts["bytes"], int) for facts in whole["files"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return whole if named and sized else None


def _copy(url: str, file: pathlib.Path, facts: dict[str, Any]) -> None:
    buckets.download(url, file, buckets.Stored(facts["bytes"], ""))
    if digest(file) != facts:
        raise RunError(
            f"{url} is damaged: remove {url.rpartition('/')[0].rpartition('/')[0]}, which is made again"
        )
