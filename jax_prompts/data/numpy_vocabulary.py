"""Vocabularies for SeqIO's tasks whose TensorFlow form calls their Python one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from jax_prompts.data.vocabularies.byte_level import SPAN_MARKS
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary


class NumPyVocabulary(seqio.Vocabulary):
    """What they share."""

    def encode_rows(self, texts: list[str]) -> list[list[int]]:
        """`encode` of each text."""
        return [self._encode(text) for text in texts]

    def _encode_tf(self, text: tf.Tensor) -> tf.Tensor:
        def encode(text: bytes) -> Any:
            return np.asarray(self._encode(text.decode()), np.int32)

        return tf.ensure_shape(tf.numpy_function(encode, [text], tf.int32, stateful=False), [None])

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError("caches are decoded without TensorFlow")


class TokenizerVocabulary(NumPyVocabulary):
    """A T5's vocabulary that SentencePiece cannot read, or of bytes.

    Attributes:
      tokenizer: what it wraps.
    """

    def __init__(self, tokenizer: Vocabulary) -> None:
        self.tokenizer = tokenizer
        super().__init__(extra_ids=0)

    eos_id = property(lambda self: self.tokenizer.eos_id)
    unk_id = property(lambda self: self.tokenizer.unk_id)
    bos_id = property(lambda self: None)
    _base_vocab_size = property(lambda self: self.tokenizer.size)
    # Ids of masked spans in ByT5's pre-training; empty of what is not of bytes.
    span_marks = property(lambda self: SPAN_MARKS if self.tokenizer.reads_bytes else ())

    def encode_rows(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer.encode_all(texts)

    encode_all = encode_rows  # of texts that are joined to segments

    def _encode(self, s: str) -> list[int]:
        return self.tokenizer.encode(s)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)
