"""Keeps compiled programs between starts, by JAX's persistent compilation cache in the user's cache folder.

JAX's key of a program is of its code, its options, the devices and the versions of the compiler, so that a program is
taken again only where it would be made the same.
"""

from __future__ import annotations

import importlib.metadata
import os
import re

from jax_prompts.display import log
from jax_prompts.errors import system_reason
from jax_prompts.storage.directories import check_possible, make_directory
from jax_prompts.storage.home import local_root

_OWN = "JAX_COMPILATION_CACHE_DIR"  # who sets it has a cache of their own, or (empty) none
_MOST_BYTES = 2 << 30  # those that were used longest ago go first
_WORTH_SECONDS = 0.5  # of compiling
_DAMAGED = re.compile(r"Error (reading|writing) persistent compilation cache entry")


def keep_programs() -> None:
    """Has JAX, before it is imported, keep what it compiles; goes on without where nothing can be written."""
    if _OWN in os.environ:
        return
    directory = local_root() / "compiled" / f"jax-{importlib.metadata.version('jax')}"
    try:
        check_possible(directory)
        make_directory(directory)
    except OSError as error:
        log(f"compiled programs are not kept: {directory} cannot be written ({system_reason(error)})")
        return
    os.environ[_OWN] = str(directory)
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_MOST_BYTES))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(_WORTH_SECONDS))


def warning_of(message: Warning | str) -> str | None:
    """JAX's warnings of this cache in one line that says what to do; None for any other."""
    if not _DAMAGED.match(str(message)):
        return None
    directory = os.environ.get(_OWN)
    return f"a compiled program in {directory} cannot be used, and is made again: remove that directory to keep it"
