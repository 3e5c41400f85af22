"""A base model's embedding and vocabulary, without the rest of its weights."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jax_prompts.base_models.build import make_config, make_vocabulary
from jax_prompts.base_models.fingerprint import checkpoint_fingerprint
from jax_prompts.base_models.open import Checkpoint, open_model
from jax_prompts.config import BaseModel
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError, RunError

EMBEDDING = "token_embedder/embedding"
MARK = "▁"  # SentencePiece's of a space before a piece
_SPECIAL = re.compile(r"<[^<>]*>|\[(?:unused\d+|PAD|UNK|CLS|SEP|MASK)\]")


@dataclasses.dataclass(frozen=True)
class BaseVocabulary:
    """The rows of a base model's embedding, and the pieces that they are of.

    Attributes:
      vocabulary: of V pieces.
      pieces: by id.
      embedding_VD: float32; rows beyond the vocabulary are left out.
      checkpoint: the model, whose weights are read when they are wanted.
      prompt_width: numbers of a virtual token by prompt kind.
    """

    vocabulary: Vocabulary | WordPiece
    pieces: list[str]
    embedding_VD: Float[np.ndarray, "V D"]
    checkpoint: Checkpoint
    prompt_width: Any

    @functools.cached_property
    def ordinary_V(self) -> Bool[np.ndarray, " V"]:
        """Pieces of text: no padding, end of sentence, unknown, no sentinels and others in angle brackets."""
        special = {self.vocabulary.pad_id, self.vocabulary.eos_id, self.vocabulary.unk_id}
        return np.array(
            [
                number not in special and not _SPECIAL.fullmatch(piece.lstrip(MARK))
                for number, piece in enumerate(self.pieces)
            ]
        )

    def fits(self) -> dict[str, Any]:
        """What `check_fits` compares prompts with; each weight is looked at once, and none is kept."""
        return {
            "prompt_width": self.prompt_width,
            "model_fingerprint": checkpoint_fingerprint(self.checkpoint),
            "tokenizer_fingerprint": self.vocabulary.fingerprint,
        }


def open_vocabulary(base: BaseModel) -> BaseVocabulary:
    """Reads embedding and vocabulary of a base model.

    Raises:
      ConfigError: no checkpoint, or one that has no such vocabulary.
      RunError: something cannot be read.
    """
    if base.checkpoint is None:
        raise ConfigError(
            "INITIAL_CHECKPOINT_PATH is None, and random weights have no words: set it to the base model"
        )
    vocabulary, found = make_vocabulary(base), open_model(base.checkpoint)
    arrays = found.arrays
    if EMBEDDING not in arrays:
        raise RunError(f"{base.checkpoint} holds no {EMBEDDING}: use a whole model")
    embedding_VD = np.asarray(arrays[EMBEDDING][...])[: vocabulary.size].astype(np.float32)
    if not np.isfinite(embedding_VD).all():
        raise RunError(f"{base.checkpoint}: {EMBEDDING} holds numbers that are not finite: use other weights")
    pieces = [vocabulary.id_to_piece(number) for number in range(vocabulary.size)]
    return BaseVocabulary(vocabulary, pieces, embedding_VD, found, make_config(base).prompt_width)
