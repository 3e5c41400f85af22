"""Files that people met, with the ids that `tokenizers` and SentencePiece give."""

from __future__ import annotations

import json
import pathlib

import pytest

from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import RunError


@pytest.fixture
def cases(shared: pathlib.Path) -> pathlib.Path:
    if not (shared / "cases").is_dir():
        pytest.skip(f"no reported cases at {shared / 'cases'}")
    return shared / "cases"


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        (WordPiece, "wordpiece_line_separator/vocab.txt"),
        (WordPiece, "wordpiece_truncation/tokenizer.json"),
        (WordPiece, "bert_strip_accents/vocab.txt"),
        (Vocabulary, "unigram_normalizer/tokenizer.json"),
        (Vocabulary, "added_tokens/tokenizer.json"),
        (Vocabulary, "sentinels_first/tokenizer.json"),
    ],
)
def test_ids(cases: pathlib.Path, kind: type, file: str) -> None:
    vocabulary = kind(str(cases / file))
    for text, found in json.loads((cases / "expected.json").read_text())[file.partition("/")[0]].items():
        ids = found[0] if isinstance(found[0], list) else found  # beside their pieces
        assert vocabulary.encode(text) == ids
        assert vocabulary.encode_all([text]) == [ids]


def test_a_model_with_other_special_ids_is_refused(cases: pathlib.Path) -> None:
    with pytest.raises(RunError, match="has pad -1 and end of sentence 2, and T5 has 0 and 1"):
        Vocabulary(str(cases / "sentencepiece_default_ids/spiece.model"))
