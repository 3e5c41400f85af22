"""Directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from jax_prompts.errors import ConfigError, RunError, system_reason


@contextlib.contextmanager
def whole_directory(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory to write into, which takes the name `target` once everything in it is on the disk.

    Raises:
      ConfigError: `target` is a file, or a directory that holds something.
      RunError: it cannot be written.
    """
    check_new(target)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        os.rename(temporary, target)
    except OSError as error:
        raise RunError(f"{target} could not be written: {system_reason(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(target: pathlib.Path) -> None:
    """Raises ConfigError for a file, or a directory that holds something."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"{target} exists: choose another one, or remove it")


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
