"""Real data beside the checkout where there are any, and a small vocabulary."""

from __future__ import annotations

import io
import os
import pathlib

import pytest
import sentencepiece
import seqio

SHARED = pathlib.Path(os.environ.get("JAX_PROMPTS_SHARED", pathlib.Path(__file__).parents[3] / "shared"))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real data and goldens that are not redistributed."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED} (JAX_PROMPTS_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> seqio.SentencePieceVocabulary:
    """A vocabulary of single characters and a few words, with 100 sentinels."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over a lazy dog 0123456789"] * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("vocabulary") / "small.model"
    path.write_bytes(model.getvalue())
    return seqio.SentencePieceVocabulary(str(path), extra_ids=100)
