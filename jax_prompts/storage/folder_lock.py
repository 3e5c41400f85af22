"""A lock on a folder of this machine, which the system takes from a process that ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from jax_prompts.storage.directories import make_directory
from jax_prompts.storage.file_lock import lock
from jax_prompts.storage.files import PathOrUrl, place_of


@contextlib.contextmanager
def shared(folder: PathOrUrl) -> Iterator[None]:
    """Keeps `alone` from being true elsewhere while the block runs; makes the folder where it is missing.

    Raises:
      OSError: the folder cannot be made.
    """
    place = place_of(folder)
    if not isinstance(place, str):
        make_directory(place)
    with _locked(folder, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def alone(folder: PathOrUrl) -> Iterator[bool]:
    """Whether no process is inside `shared` of this folder; none enters it until the block ends.

    False also where that cannot be known: at a URL, and on file systems without such locks.
    """
    with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
        yield locked


@contextlib.contextmanager
def _locked(folder: PathOrUrl, how: int) -> Iterator[bool]:
    place = place_of(folder)
    if isinstance(place, str):
        yield False
        return
    descriptor = os.open(place, os.O_RDONLY)
    try:
        yield bool(lock(descriptor, how))
    finally:
        os.close(descriptor)
