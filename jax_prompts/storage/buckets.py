"""Folders in buckets: what they hold, and their objects copied to this machine and from it.

An object is written whole or not at all; a folder is not, so that who writes one ends with the object that says it is
whole. All is asked with patience (`remote.patiently`).
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import functools
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import fsspec

from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError, printable
from jax_prompts.storage.files import TooLargeError, atomic_file
from jax_prompts.storage.remote import patiently

_PART = 1 << 25  # bytes asked for at once
_ATTEMPTS = 25  # after pauses of 1, 2, 4 ... and then 32 seconds


@dataclasses.dataclass(frozen=True)
class Stored:
    """An object as a bucket lists it.

    Attributes:
      size: in bytes.
      version: another one whenever its content is written.
      md5: of its content, where the bucket says it.
    """

    size: int
    version: str
    md5: bytes | None = None


def be_patient() -> None:
    """Has gcsfs try each request for some ten minutes in this process, also those of libraries that use it.

    Orbax saves in the background, where nothing can be asked again once gcsfs has given up after half a minute.
    """
    import gcsfs
    from gcsfs.retry import retry_request

    class Patient(gcsfs.GCSFileSystem):
        _request = retry_request(retries=_ATTEMPTS)(gcsfs.GCSFileSystem._request.__wrapped__)

    for name in ("gs", "gcs"):
        fsspec.register_implementation(name, Patient, clobber=True)


def stored(folder: str) -> dict[str, Stored]:
    """All objects below a folder's URL, by their path in it; none where there is no such folder.

    Left out, with a warning, is what no path in a folder can name, such as `//x` or `../x`, which a copy would write
    elsewhere.

    Raises:
      OSError: it cannot be listed.
    """

    def find(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Stored]:
        root = path.rstrip("/") + "/"
        found = fs.find(root, detail=True)
        return {
            name.removeprefix(root): _stored(facts)
            for name, facts in sorted(found.items())
            if facts["type"] == "file" and name.startswith(root) and not name.endswith("/")
        }

    found = patiently(folder, find)
    for name in [name for name in found if not _is_path(name)]:
        del found[name]
        _warn_left_out(folder, name)
    return found


def _is_path(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/")) and "\0" not in name


@functools.cache  # once for each
def _warn_left_out(folder: str, name: str) -> None:
    log(f"warning: {printable(name)} below {folder} is left out: no file can have that name")


def _stored(facts: dict[str, Any]) -> Stored:
    known = (facts.get(name) for name in ("generation", "ETag", "etag", "created"))
    version = next((str(value).strip('"') for value in known if value), "")
    md5 = facts.get("md5Hash")
    return Stored(int(facts["size"]), version, base64.b64decode(md5) if md5 else None)


def facts(url: str) -> Stored:
    """What a bucket says of one object.

    Raises:
      FileNotFoundError: there is none.
      OSError: it cannot be asked.
    """
    return patiently(url, lambda fs, path: _stored(fs.info(path)))


def content(url: str, limit: int) -> bytes:
    """An object of at most `limit` bytes.

    Raises:
      FileNotFoundError: there is none.
      OSError: it cannot be read, or is larger.
    """

    def ask(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
        if (size := int(fs.info(path)["size"])) > limit:
            raise TooLargeError(size, limit)
        return fs.cat_file(path)

    return patiently(url, ask)


def download(url: str, place: pathlib.Path, known: Stored) -> None:
    """Copies an object that `stored` has listed to this machine, whole or not at all.

    Raises:
      FileNotFoundError: it is gone.
      OSError: it was written meanwhile, or does not arrive as it is stored; the disk cannot be written.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with atomic_file(place) as temporary, temporary.open("wb") as file:
        for start in range(0, known.size, _PART):
            part = _part(url, start, min(start + _PART, known.size))
            digest.update(part)
            file.write(part)
        if known.md5 not in (None, digest.digest()):
            raise OSError(errno.ESTALE, f"{url} was written while it was read")
        file.flush()


def _part(url: str, start: int, end: int) -> bytes:
    def ask(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
        part = fs.cat_file(path, start=start, end=end)
        if len(part) != end - start:  # a connection that ended in the middle
            raise ConnectionError(errno.EIO, f"{len(part)} bytes of {end - start} arrived")
        return part

    return patiently(url, ask)


def upload(place: pathlib.Path, url: str) -> None:
    """Copies a file of this machine to an object, whole or not at all.

    Raises:
      FileNotFoundError: there is no such bucket.
      OSError: it cannot be written.
    """

    def put(fs: fsspec.AbstractFileSystem, path: str) -> None:
        if place.stat().st_size <= _PART:
            fs.pipe_file(path, place.read_bytes())  # what a writer in the background appends comes next time
        else:
            fs.put_file(str(place), path)

    patiently(url, put)


def put(url: str, content: bytes, *, replace: bool = True) -> None:
    """Writes an object, whole or not at all.

    Raises:
      FileExistsError: without `replace`, there is one.
      FileNotFoundError: there is no such bucket.
      OSError: it cannot be written.
    """
    mode = "overwrite" if replace else "create"
    patiently(url, lambda fs, path: fs.pipe_file(path, content, mode=mode))


def remove(url: str) -> None:
    """Removes an object, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        patiently(url, lambda fs, path: fs.rm_file(path))


@contextlib.contextmanager
def named(copy: pathlib.Path, url: str) -> Iterator[None]:
    """Errors inside the block name what lies at `url`, which a user knows, in the place of its copy."""
    try:
        yield
    except (ConfigError, RunError) as error:
        raise type(error)(str(error).replace(str(copy), url.rstrip("/"))) from error
