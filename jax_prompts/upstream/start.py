"""Where a prompt starts inside T5X: an initialiser sees the base model in its checkpoint, before T5X has read it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_prompts.base_models.open import open_model
from jax_prompts.errors import ConfigError
from jax_prompts.prompts import Base, FromFile, FromFiles, Initializer, Uniform
from jax_prompts.prompts.layers import TableInit

_OF_NO_MODEL = (Uniform, FromFile, FromFiles)


@dataclasses.dataclass(frozen=True)
class Start:
    """A start of prompt tables that depends on nothing but these settings.

    Attributes:
      initializer: of the project; None: methods start as their papers say, from T5X's random seed.
      checkpoint: the base model, as `open_model` takes it.
      vocabulary: SeqIO's, for initialisers that encode text.
      seed: of the initialiser.
    """

    initializer: Initializer | None
    checkpoint: str | None = None
    vocabulary: Any = None
    seed: int = 0

    def table_init(self, embed_dim: int) -> TableInit | None:
        """What fills a table; it is computed while T5X traces its model, so that no embedding is compiled into that.

        Raises:
          ConfigError: an initialiser that needs a base model or vocabulary which is not there, or does not fit it.
          RunError: the base model cannot be read.
        """
        if self.initializer is None:
            return None
        if not isinstance(self.initializer, Initializer):
            raise ConfigError(
                f"INITIALIZER is {self.initializer!r}: set it to an initialiser, such as @SampledVocabulary(), or None"
            )
        start = self.initializer.table_init(self._base(embed_dim))

        def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Float[Array, "P D"]:
            with jax.ensure_compile_time_eval():
                return start(jax.random.key(self.seed), tuple(shape), dtype)

        return init

    def _base(self, embed_dim: int) -> Base:
        if isinstance(self.initializer, _OF_NO_MODEL):
            return Base(jnp.zeros((0, embed_dim)))
        if self.checkpoint is None:
            name = type(self.initializer).__name__
            raise ConfigError(
                f"{name} starts a prompt from the base model's embeddings: set INITIAL_CHECKPOINT_PATH, or "
                "INITIALIZER = None"
            )
        embedding_VD = _embedding(self.checkpoint)
        if embedding_VD.shape[1] != embed_dim:
            raise ConfigError(
                f"{self.checkpoint} has embeddings of width {embedding_VD.shape[1]} and the model {embed_dim}: name "
                "the model's own checkpoint, or add the checkpoint's model as gin file"
            )
        vocabulary = None if self.vocabulary is None else _Vocabulary(self.vocabulary)
        return Base(jnp.asarray(embedding_VD), vocabulary)


@functools.cache
def _embedding(checkpoint: str) -> Float[np.ndarray, "V D"]:
    return np.asarray(open_model(checkpoint).arrays["token_embedder/embedding"][...], np.float32)


class _Vocabulary:
    """SeqIO's vocabulary as initialisers know one."""

    def __init__(self, vocabulary: Any) -> None:
        self.size = vocabulary.vocab_size
        self.encode = vocabulary.encode
