"""Reads files of vocabularies, here or at a URL."""

from __future__ import annotations

from jax_prompts.assets import resolve_asset
from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.storage import files

VOCABULARIES = (
    "vocabulary.model",
    "spiece.model",
    "sentencepiece.model",
    "tokenizer.model",
    "vocab.txt",
    "tokenizer.json",
)
BYTES = "bytes"  # in place of a file: ByT5's vocabulary
MAX_BYTES = 1 << 28  # the largest known, of a multilingual tokenizer.json, has some 20 MB


def vocabulary_path(path: str) -> str:
    """A path or URL as it is; `asset:NAME` is the vocabulary of an embedded model."""
    return f"{resolve_asset(path)}/vocabulary.model" if path.startswith("asset:") else path


def read_content(path: str) -> bytes:
    """Content of a file of at most `MAX_BYTES`.

    Args:
      path: a path, or a URL that fsspec understands.

    Raises:
      ConfigError: there is no such file.
      RunError: it cannot be read, or a remote one has not arrived in time (`storage/remote.py`).
    """
    mend = "a local copy of it" if "://" in path else "a file that exists"
    try:
        return files.read(path, MAX_BYTES)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        reason = f"{path} cannot be read ({system_reason(error)}): set VOCABULARY to {mend}"
        raise (ConfigError if absent else RunError)(reason) from error


def lines_of(text: str) -> list[str]:
    r"""The lines of a text, which end at \n or \r\n alone: a piece may be any other line end of Unicode."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]
