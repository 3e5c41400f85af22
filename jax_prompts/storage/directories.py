"""Directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
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
    make_directory(target.parent)
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
        make_directory(folder)
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


def make_directory(folder: pathlib.Path) -> None:
    """Makes a directory, and its parents, where they are missing.

    Raises:
      OSError: it cannot be made; NotADirectoryError, which says what is in the way, where something else lies there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        there = _nearest(folder)
        if os.path.isdir(there):  # by now
            raise
        raise NotADirectoryError(errno.ENOTDIR, f"{there} is {instead_of_directory(there)}") from error


def check_possible(folder: pathlib.Path, *, writable: bool = True) -> None:
    """Looks whether a directory can be made, and written into; makes nothing.

    Args:
      folder: where.
      writable: whether one that is there already must let itself be written into.

    Raises:
      OSError: it cannot: something else lies there or above, a name is too long, permissions.
    """
    there = _nearest(folder)
    name = "it" if there == folder else str(there)
    if not os.path.isdir(there):
        raise NotADirectoryError(errno.ENOTDIR, f"{name} is {instead_of_directory(there)}")
    missing = folder.parts[len(there.parts) :] if there != pathlib.Path(".") else folder.parts
    if any(len(os.fsencode(name)) > os.pathconf(there, "PC_NAME_MAX") for name in missing):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if (missing or writable) and not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{name} cannot be written")


def _nearest(folder: pathlib.Path) -> pathlib.Path:
    """The path itself or, where nothing is there, the nearest above it where something is."""
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), pathlib.Path("."))


def instead_of_directory(path: pathlib.Path) -> str:
    """What lies where a directory is wanted."""
    return "a file" if path.exists() else "a link that leads nowhere"


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
