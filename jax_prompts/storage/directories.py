"""Directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator

from jax_prompts.errors import ConfigError
from jax_prompts.storage.temporary import final_name, sync, temporary_path

_DAY = 24 * 3600  # seconds


@contextlib.contextmanager
def atomic_directory(
    target: pathlib.Path, usable: Callable[[], bool] | None = None
) -> Iterator[pathlib.Path]:
    """A directory to write into, which takes the name `target` when the block ends; if that fails, nothing is left.

    Args:
      target: where it belongs.
      usable: whether there is one by then, made by another process, that may stay: otherwise it gives way. None: there
        must be none.

    Raises:
      ConfigError: without `usable`, where `target` is a file, or a directory that holds something.
      OSError: it cannot be written.
    """
    if usable is None:
        check_new(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    temporary = temporary_path(target)
    try:
        temporary.mkdir()
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            sync(path)
        if usable is None:
            temporary.rename(target)
        elif not usable():
            _replace(target, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def directory_for(folder: pathlib.Path) -> Iterator[None]:
    """Makes a directory, and its parents, for what the block writes; those that stay empty go again.

    Raises:
      OSError: it cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


def check_new(target: pathlib.Path) -> None:
    """Raises ConfigError for a file, or a directory that holds something."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"{target} exists: choose another one, or remove it")


def _replace(target: pathlib.Path, temporary: pathlib.Path) -> None:
    """Puts one directory in the place of another, unless a third has come there meanwhile."""
    old = temporary_path(target)
    old.mkdir()
    with contextlib.suppress(FileNotFoundError):
        target.rename(old / target.name)
    shutil.rmtree(old, ignore_errors=True)
    try:
        temporary.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _sweep(folder: pathlib.Path) -> None:
    """Removes what killed processes left; a directory that is still being written has changed within a day."""
    with contextlib.suppress(OSError):
        for left in [path for path in folder.iterdir() if final_name(path.name) and path.is_dir()]:
            with contextlib.suppress(OSError):  # another process sweeps too
                if max(path.stat().st_mtime for path in [left, *left.rglob("*")]) < time.time() - _DAY:
                    shutil.rmtree(left, ignore_errors=True)
