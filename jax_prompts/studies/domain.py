"""Words typical of texts: pieces that are much more frequent there than elsewhere (Lester et al. 2021, section 7)."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from jax_prompts import records
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.storage import json_text

TIMES = 4.0  # as frequent as elsewhere
LEAST = 5  # times in the texts
_AT_ONCE = 10_000  # texts


def read_texts(file: str, fields: Collection[str] = ()) -> list[str]:
    """The lines of a text file; of `.jsonl` texts of each object.

    Args:
      file: its path.
      fields: of objects, those that count; none: all. Labels are texts, too.

    Raises:
      ConfigError: no such file, or one without texts.
      RunError: it cannot be read.
    """
    try:
        content = records.read_file(pathlib.Path(file)).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{file} does not exist: name a file of texts, one a line") from error
    lines = [line for line in content.split("\n") if line.strip()]
    if file.endswith(".jsonl"):
        lines = [text for number, line in enumerate(lines, 1) for text in _texts(file, number, line, fields)]
    if not lines:
        raise ConfigError(f"{file} holds no text: name a file of texts, one a line")
    return lines


def _texts(file: str, number: int, line: str, fields: Collection[str]) -> Iterator[str]:
    try:
        value = json_text.loads(line)
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{file} line {number} is not JSON: correct it, or name a file of plain lines"
        ) from error
    if fields and isinstance(value, dict):
        value = {name: part for name, part in value.items() if name in fields}
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part


def counts(texts: list[str], vocabulary: Vocabulary | WordPiece) -> Int[np.ndarray, " V"]:
    """How often each piece is in the texts."""
    total_V = np.zeros(vocabulary.size, np.int64)
    for start in range(0, len(texts), _AT_ONCE):
        ids = [number for text in vocabulary.encode_all(texts[start : start + _AT_ONCE]) for number in text]
        total_V += np.bincount(np.asarray(ids, np.int64), minlength=len(total_V))
    return total_V


def unigram(vocabulary: Vocabulary | WordPiece) -> Float[np.ndarray, " V"]:
    """The share of each piece in general text, by a SentencePiece unigram model's scores.

    Raises:
      ConfigError: the vocabulary has none.
    """
    scores = [
        vocabulary.log_probability(number) if isinstance(vocabulary, Vocabulary) else None
        for number in range(vocabulary.size)
    ]
    if None in scores:
        raise ConfigError("the vocabulary has no frequencies of pieces: add --background=FILE, general text")
    share_V = np.exp(np.array(scores, np.float64))
    share_V[np.array(scores) == 0.0] = 0.0  # of special tokens and sentinels, which have no score
    return share_V / share_V.sum()


def typical(counts_V: Int[np.ndarray, " V"], elsewhere_V: Float[np.ndarray, " V"]) -> Bool[np.ndarray, " V"]:
    """Pieces that are in the texts five times at least, and four times as often as elsewhere.

    Args:
      counts_V: in the texts.
      elsewhere_V: counts or shares in general text; a piece that is not there counts half of the rarest.
    """
    positive = elsewhere_V[elsewhere_V > 0]
    floor = positive.min() / 2 if len(positive) else 1.0
    share_V = np.maximum(elsewhere_V, floor) / np.maximum(elsewhere_V, floor).sum()
    return (counts_V >= LEAST) & (counts_V / max(counts_V.sum(), 1) >= TIMES * share_V)
