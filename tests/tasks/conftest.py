"""A small vocabulary, as SeqIO holds it."""

from __future__ import annotations

import pytest
import seqio


@pytest.fixture(scope="session")
def vocabulary(train_vocabulary) -> seqio.SentencePieceVocabulary:
    """A vocabulary of single characters and a few words, with 100 sentinels."""
    path = train_vocabulary("the quick brown fox jumps over a lazy dog 0123456789")
    return seqio.SentencePieceVocabulary(path, extra_ids=100)
