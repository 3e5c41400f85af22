"""Directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator

from jax_prompts.errors import RunError, system_reason

_DAY = 24 * 3600  # seconds


@contextlib.contextmanager
def staged(place: pathlib.Path, usable: Callable[[], bool]) -> Iterator[pathlib.Path]:
    """A fresh directory that becomes `place` if all goes well, and is removed if not.

    Args:
      place: where a cache belongs.
      usable: whether there is one by now, made by another process.

    Raises:
      RunError: the disk is full, or may not be written.
    """
    temporary = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place.parent)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
        yield temporary
        temporary.chmod(0o755)
        if not usable():  # else another process was faster: keep its work, which may be in use
            if place.exists():
                old = pathlib.Path(tempfile.mkdtemp(prefix=".old-", dir=place.parent))
                place.rename(old / place.name)
                shutil.rmtree(old, ignore_errors=True)
            try:
                temporary.rename(place)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster just now
                    raise
    except OSError as error:
        raise RunError(
            f"token cache {place} cannot be written ({system_reason(error)}): free space, or set CACHE_DIR"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _sweep(folder: pathlib.Path) -> None:
    """Removes what killed processes left; a file that is still being written has changed within a day."""
    for left in [*folder.glob(".making-*"), *folder.glob(".old-*")]:
        with contextlib.suppress(OSError):  # another process sweeps too
            if max(path.stat().st_mtime for path in [left, *left.rglob("*")]) < time.time() - _DAY:
                shutil.rmtree(left, ignore_errors=True)
