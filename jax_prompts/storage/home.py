"""Paths as a user writes them."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from jax_prompts.errors import ConfigError


def with_home(path: Any) -> str:
    """A path or URL as text, the home directory in place of `~`.

    Raises:
      ConfigError: it is no path, or in the home directory of a user who is unknown.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text or not _encodes(text):
        raise ConfigError(f"{path!r} is no path: give a str or a pathlib.Path")
    found = os.path.expanduser(text)
    if found.startswith("~"):
        user = found.split("/")[0]
        raise ConfigError(
            f"{text} is in the home of a user who is not known here: ./{user} is a file of this name"
        )
    return found


def local_path(path: str, name: str) -> pathlib.Path:
    """A path on this machine, which a user knows as `name`. Raises ConfigError for a URL."""
    if "://" in path:
        raise ConfigError(
            f"{name} {path} is no directory or file of this machine: mount it, and give the path"
        )
    return pathlib.Path(path)


def local_root() -> pathlib.Path:
    """Where what can be made again is kept on this machine, such as token caches: `$JAX_PROMPTS_CACHE`, else
    `~/.cache/jax_prompts`. Raises ConfigError for a URL."""
    return local_path(
        with_home(os.environ.get("JAX_PROMPTS_CACHE") or "~/.cache/jax_prompts"), "JAX_PROMPTS_CACHE"
    )


def _encodes(text: str) -> bool:
    """Whether a file system can have it as a name, which half a surrogate pair is not."""
    try:
        return bool(os.fsencode(text))
    except UnicodeEncodeError:
        return False


def expand_fields(settings: Any, *names: str) -> None:
    """Puts the home directory into the paths of a frozen dataclass; what is no text is left to the check of types."""
    for name in names:
        if isinstance(value := getattr(settings, name), str) and value:
            object.__setattr__(settings, name, with_home(value))
