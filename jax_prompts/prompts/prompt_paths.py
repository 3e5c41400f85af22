"""Paths of prompt files from what a setting says: paths, URLs and patterns of paths."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from jax_prompts.errors import ConfigError
from jax_prompts.storage.home import with_home


def prompt_paths(setting: str, patterns: Sequence[str]) -> list[str]:
    """Paths and URLs of prompt files; a path that is no file may be a pattern, such as `runs/*/prompt.safetensors`.

    Args:
      setting: what names them.
      patterns: as it does.

    Raises:
      ConfigError: a pattern of which there is no file, or a file that is named twice.
    """
    files: list[str] = []
    for pattern in patterns:
        place = with_home(pattern)
        if "://" in place or os.path.exists(place):
            files.append(place)
            continue
        if not (found := sorted(glob.glob(place))):
            raise ConfigError(f"{setting} {pattern} names no file: name prompt files")
        files += found
    for file in files:
        if files.count(file) > 1:
            raise ConfigError(f"{setting} names {file} twice: leave one out")
    return files
