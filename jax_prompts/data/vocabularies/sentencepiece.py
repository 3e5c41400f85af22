"""SentencePiece vocabularies with T5's sentinels, without TensorFlow.

Ids are those of `seqio.SentencePieceVocabulary`, so text tokenised here and text tokenised by a SeqIO task
can be mixed.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import SupportsInt

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from jax_prompts.assets import resolve_asset
from jax_prompts.data.vocabularies.unigram import sentencepiece_model
from jax_prompts.data.vocabularies.vocabulary_file import read_content
from jax_prompts.errors import RunError, first_line

PAD_ID = 0  # fixed by T5's models: padding is masked by value
EOS_ID = 1
SENTINELS = 100  # T5's number of <extra_id_i>; its models do not hold them, its embedding tables do


class Vocabulary:
    """Pieces of a SentencePiece model, then `extra_ids` sentinels in descending order.

    `<extra_id_0>` is the last id (32,099 in T5's 32,100), as span corruption counts them. A text that
    spells a sentinel at the start of a word encodes to its id and decodes back.

    Attributes:
      size: number of ids, sentinels included; a model's embedding may have more rows than that.
      fingerprint: 16 hex digits of the pieces, in whichever file, and the number of sentinels.
      model_bytes: as SentencePiece's own file, without sentinels.
      extra_ids: number of sentinels added to it.
      begin_ids: what stands in front of every text: nothing.
    """

    pad_id, eos_id = PAD_ID, EOS_ID
    begin_ids = ()

    def __init__(self, path: str, extra_ids: int | None = None) -> None:
        """Reads a SentencePiece model.

        Args:
          path: a SentencePiece model or a Unigram `tokenizer.json`: local file, `gs://` path (or any other that
            fsspec reads), or `asset:NAME` for the vocabulary of an embedded model.
          extra_ids: sentinels to add; None adds 100, or none to a model that holds `<extra_id_0>` itself.

        Raises:
          RunError: the file cannot be read, or is not a SentencePiece model.
        """
        if path.startswith("asset:"):
            path = f"{resolve_asset(path)}/vocabulary.model"
        self.model_bytes = read_content(path)
        try:
            if path.endswith(".json"):
                self.model_bytes = sentencepiece_model(self.model_bytes.decode())
            model = sentencepiece_model_pb2.ModelProto.FromString(self.model_bytes)  # type: ignore[attr-defined]
            if extra_ids is None:
                own = any(piece.piece.lstrip("▁") == "<extra_id_0>" for piece in model.pieces)
                extra_ids = 0 if own else SENTINELS
            for i in reversed(range(extra_ids)):
                kind = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED  # type: ignore[attr-defined]
                model.pieces.add(piece=f"▁<extra_id_{i}>", score=0.0, type=kind)
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
        except Exception as error:  # protobuf's DecodeError and SentencePiece's RuntimeError share no base
            reason = first_line(error)
            raise RunError(
                f"{path} is not a SentencePiece model ({reason}): set VOCABULARY to a sentencepiece.model"
            ) from error
        self.extra_ids = extra_ids
        self.size = self._processor.get_piece_size()
        self.unk_id = self._processor.unk_id()

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.extra_ids}".encode())
        for number in range(self.size):
            piece, score = self._processor.id_to_piece(number), self._processor.get_score(number)
            digest.update(f"\n{piece}\t{score:.6g}".encode())
        return digest.hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without end of sentence; what UTF-8 cannot hold (lone surrogates) reads as `?`."""
        return self._processor.encode_as_ids(text.encode(errors="replace").decode())

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        plain = [text.encode(errors="replace").decode() for text in texts]
        return self._processor.encode_as_ids(plain, num_threads=os.cpu_count() or 1)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Text up to the first end of sentence, without padding; ids past the vocabulary read as unknown."""
        kept = []
        for token in map(int, ids):
            if token == EOS_ID:
                break
            if token != PAD_ID:
                kept.append(token if token < self.size else self.unk_id)
        return self._processor.decode_ids(kept)
