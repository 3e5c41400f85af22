"""Paths of prompt files from what a setting says: paths, URLs and patterns of paths."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.storage import files as storage
from jax_prompts.storage.home import with_home


def prompt_paths(setting: str, patterns: Sequence[str]) -> list[str]:
    """Paths and URLs of prompt files; a path that is no file may be a pattern, such as `runs/*/prompt.safetensors`.

    Args:
      setting: what names them.
      patterns: as it does.

    Raises:
      ConfigError: a pattern of which there is no file, or a file that is named twice.
      RunError: a bucket that a pattern names cannot be listed.
    """
    files: list[str] = []
    for pattern in patterns:
        place = with_home(pattern)
        remote = "://" in place  # where ? begins what is asked for, and is no pattern
        if os.path.exists(place) or (remote and "*" not in place):
            files.append(place)
            continue
        if not (found := _matching(setting, place) if remote else sorted(glob.glob(place))):
            raise ConfigError(f"{setting} {pattern} names no file: name prompt files")
        files += found
    for file in files:
        if files.count(file) > 1:
            raise ConfigError(f"{setting} names {file} twice: leave one out")
    return files


def _matching(setting: str, pattern: str) -> list[str]:
    try:
        return storage.matching(pattern)
    except OSError as error:
        raise RunError(f"{setting} {pattern} cannot be listed: {system_reason(error)}") from error
