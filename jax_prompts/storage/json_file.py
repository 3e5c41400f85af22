"""Reads files of JSON: descriptions of models and tokenizers."""

from __future__ import annotations

import pathlib
from typing import Any

from jax_prompts.errors import RunError, first_line
from jax_prompts.storage import files, json_text

MAX_BYTES = 1 << 26  # a settings file has some 20 kB, with thousands of added tokens a few MB


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """The object of a file of at most `MAX_BYTES`, with or without a byte order mark.

    Raises:
      RunError: the file cannot be read, or is no JSON as `json_text.loads` takes it.
    """
    try:
        found = json_text.loads(files.read(path, MAX_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} cannot be read: it is no JSON object")
    return found
