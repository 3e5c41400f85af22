"""Vocabularies of T5s, without TensorFlow: SentencePiece with sentinels, or ByT5's bytes.

Ids are those of `seqio.SentencePieceVocabulary`, so text tokenised here and text tokenised by a SeqIO task
can be mixed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, SupportsInt

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer

from jax_prompts.data.vocabularies.byte_level import SPAN_MARKS, ByteProcessor, byte_tokens, is_bytes
from jax_prompts.data.vocabularies.panics import panics_as, unusable
from jax_prompts.data.vocabularies.tokenizer_config import (
    ADDED,
    ANY_TOKENIZER_JSON,
    SETTINGS,
    SPECIAL,
    TokenizerConfig,
    read_tokenizer_config,
)
from jax_prompts.data.vocabularies.unigram import (
    UnigramProcessor,
    of_sentencepiece,
    read_tokenizer,
    sentencepiece_model,
)
from jax_prompts.data.vocabularies.vocabulary_file import BYTES, read_content, vocabulary_path
from jax_prompts.errors import RunError, first_line

PAD_ID = 0  # fixed by T5's models: padding is masked by value
EOS_ID = 1
SENTINEL = "<extra_id_0>"  # what targets of span corruption begin with
SENTINELS = 100  # T5's number of <extra_id_i>; its models do not hold them, its embedding tables do
_CLASSES = ("T5Tokenizer", "MT5Tokenizer")
_GEMMA = "GemmaTokenizer"  # of T5Gemma, a SentencePiece model, too
_FIXED = {"do_lower_case": False, "sp_model_kwargs": {}, "split_special_tokens": False}
_SENTINEL = re.compile(r"<extra_id_\d+>")


class Vocabulary:
    """Pieces of a SentencePiece model, then `extra_ids` sentinels in descending order; or a Unigram `tokenizer.json`;
    or ByT5's bytes, then its sentinels in ascending order (`byte_level.py`).

    `<extra_id_0>` is the last id (32,099 in T5's 32,100), as span corruption counts them. A text that
    spells a sentinel at the start of a word encodes to its id and decodes back. A tokenizer.json says itself which
    sentinels and other tokens there are, and where. What lies beside the file (`tokenizer_config.py`) is obeyed.

    Attributes:
      size: number of ids, sentinels included; a model's embedding may have more rows than that.
      fingerprint: 16 hex digits of the pieces, in whichever file, the number of sentinels, and `begin_ids` where there
        are some; of a file that SentencePiece cannot read, or with added tokens, of its bytes and those.
      model_bytes: as SentencePiece's own file, without sentinels; empty where it would read texts otherwise.
      extra_ids: number of sentinels added to it.
      begin_ids: what stands in front of every input: nothing, or a Gemma's <bos>; a prompt follows it.
      reads_bytes: whether it is ByT5's.
    """

    pad_id, eos_id = PAD_ID, EOS_ID
    begin_ids: tuple[int, ...] = ()

    @panics_as(unusable)
    def __init__(
        self,
        path: str,
        extra_ids: int | None = None,
        usual_extra_ids: int = SENTINELS,
        bos_id: int | None = None,
    ) -> None:
        """Reads a SentencePiece model.

        Args:
          path: a SentencePiece model or a Unigram `tokenizer.json`: local file, `gs://` path (or any other that
            fsspec reads), or `asset:NAME` for the vocabulary of an embedded model; `bytes` for ByT5's, or a
            ByT5Tokenizer's tokenizer_config.json.
          extra_ids: sentinels to add to a SentencePiece model or to bytes; None adds what its tokenizer_config.json
            says, else `usual_extra_ids`, to bytes 125, or none to a model that holds `<extra_id_0>` itself.
          usual_extra_ids: sentinels of a SentencePiece model of which nothing says how many.
          bos_id: Gemma's <bos>, which is in front of every input where tokenizer_config.json says `add_bos_token`.

        Raises:
          ConfigError: no such file.
          RunError: the file cannot be read, is not a SentencePiece model, or has pad or end of sentence at another
            id than T5; what lies beside it cannot be obeyed.
        """
        path = vocabulary_path(path)
        self.reads_bytes = is_bytes(path)
        content = b"" if self.reads_bytes else read_content(path)
        config = read_tokenizer_config(path)
        if bos_id is not None and config.switch("add_bos_token", False):
            self.begin_ids = (bos_id,)
        if extra_ids is not None:
            config = config.without(_SENTINEL)
        try:
            if self.reads_bytes:
                self._read_bytes(path, config, extra_ids)
            elif path.endswith(".json"):
                self._read_json(path, content.decode("utf-8-sig"), config, extra_ids)
            else:
                config.check((*_CLASSES, _GEMMA), {**_FIXED, "add_prefix_space": True})
                self._read_model(content, config, extra_ids, usual_extra_ids)
        except RunError:
            raise
        except Exception as error:  # protobuf's, SentencePiece's and tokenizers' errors share no base
            reason = first_line(error)
            raise RunError(
                f"{path} is not a SentencePiece model ({reason}): set VOCABULARY to a sentencepiece.model"
            ) from error
        self.size = self._processor.get_piece_size()
        self.unk_id = self._processor.unk_id()
        self._check_special(path, config)
        if bos_id is not None:
            self._check_bos(path, config.bos_token(), bos_id)

    def _read_json(self, path: str, content: str, config: TokenizerConfig, extra_ids: int | None) -> None:
        """A tokenizer.json, by SentencePiece where that reads it alike."""
        tokenizer, unk_id = read_tokenizer(content)
        lowercases = tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"
        config.check((*_CLASSES, *ANY_TOKENIZER_JSON), {**_FIXED, "do_lower_case": lowercases})
        if (around := tokenizer.encode("").ids) not in ([], [EOS_ID]):
            raise RunError(
                f"{path}: its post_processor puts {around} around texts, and T5's end in {EOS_ID}: "
                "set VOCABULARY to the one of a T5"
            )
        added = config.add_to(tokenizer)
        if not added and (found := sentencepiece_model(content)):
            self.model_bytes, sentinels = found
            self.extra_ids = sentinels if extra_ids is None else extra_ids
            self._processor = _processor(self.model_bytes, self.extra_ids)
        else:
            self._use(tokenizer, unk_id, content.encode(), added)

    def _read_bytes(self, path: str, config: TokenizerConfig, extra_ids: int | None) -> None:
        tokens = byte_tokens(path, config, extra_ids)
        self._processor, self.model_bytes = ByteProcessor(tokens), b""
        self.extra_ids = sum(_SENTINEL.fullmatch(token.content) is not None for token in tokens.values())
        added = [f"{i} {token.content} {token.lstrip} {token.rstrip}" for i, token in sorted(tokens.items())]
        self.fingerprint = hashlib.sha256("\n".join([BYTES, *added]).encode()).hexdigest()[:16]

    def _read_model(
        self, content: bytes, config: TokenizerConfig, extra_ids: int | None, usual_extra_ids: int
    ) -> None:
        """A SentencePiece model; with tokens that were added to it, as `tokenizers` reads it."""
        model = sentencepiece_model_pb2.ModelProto.FromString(content)  # type: ignore[attr-defined]
        if extra_ids is None:
            own = any(piece.piece.lstrip("▁") == "<extra_id_0>" for piece in model.pieces)
            extra_ids = 0 if own else config.extra_ids(usual_extra_ids)
        self._processor = _processor(content, extra_ids)
        self.model_bytes, self.extra_ids = content, extra_ids
        if any(self._id(token.content) != number for number, token in config.added.items()):
            try:
                tokenizer = of_sentencepiece(model, extra_ids)
            except ValueError as error:
                raise config.error(str(error), SETTINGS, ADDED) from error
            added = config.add_to(tokenizer)
            self._use(tokenizer, self._processor.unk_id(), content, [str(extra_ids), *added])

    def _use(self, tokenizer: Tokenizer, unk_id: int, content: bytes, added: list[str]) -> None:
        self._processor = UnigramProcessor(tokenizer, unk_id)
        self.model_bytes, self.extra_ids = b"", 0
        said = [*added, *self._begin()]
        self.fingerprint = hashlib.sha256(b"\n".join([content, *map(str.encode, said)])).hexdigest()[:16]

    def _begin(self) -> list[str]:
        """What a fingerprint has of `begin_ids`."""
        return [f"begin {number}" for number in self.begin_ids]

    def _check_special(self, path: str, config: TokenizerConfig) -> None:
        """Raises RunError unless padding, end of sentence and unknown have the ids that T5 and the file know."""
        wanted = {"pad_token": PAD_ID, "eos_token": EOS_ID, "unk_token": self.unk_id}
        for name, number in wanted.items():
            if name in config.special and self._id(config.special[name]) != number:
                token, found = config.special[name], self._id(config.special[name])
                raise config.error(
                    f"{name} {token} has id {found} in {path}, and T5's is {number}", SPECIAL, SETTINGS
                )
        for token in config.unnamed:
            if self._id(token) is None:
                raise config.error(f"the special token {token!r} is not in {path}", SETTINGS, SPECIAL)
        pad, eos = self._special_ids(config)
        if (pad, eos) != (PAD_ID, EOS_ID):
            raise RunError(
                f"{path} has pad {pad} and end of sentence {eos}, and T5 has {PAD_ID} and {EOS_ID}: "
                "set VOCABULARY to the one of a T5"
            )

    def _check_bos(self, path: str, named: str | None, bos_id: int) -> None:
        """Raises RunError unless Gemma's <bos>, or what its files call so, has this id."""
        token = named or "<bos>"
        if (found := self._id(token)) != bos_id:
            at = "has no" if found is None else f"has, at id {found},"
            raise RunError(
                f"{path} {at} {token}, with which a T5Gemma's answers begin, at id {bos_id}: set VOCABULARY to the "
                "tokenizer.model that the model was trained with"
            )

    def _special_ids(self, config: TokenizerConfig) -> tuple[int | None, int | None]:
        if not isinstance(self._processor, UnigramProcessor | ByteProcessor):
            pad = self._processor.pad_id()
            named = PAD_ID if pad < 0 and self._processor.id_to_piece(PAD_ID) == "<pad>" else pad
            return named, self._processor.eos_id()
        names = (config.special.get("pad_token", "<pad>"), config.special.get("eos_token", "</s>"))
        return self._id(names[0]), self._id(names[1])

    def _id(self, token: str) -> int | None:
        """A token's id, None where it has none; of a sentinel also with the space before it."""
        for piece in (token, f"▁{token}"):
            if self.id_to_piece(number := self._processor.piece_to_id(piece)) == piece:
                return number
        return None

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.extra_ids}".encode())
        for number in range(self.size):
            piece, score = self._processor.id_to_piece(number), self._processor.get_score(number)
            digest.update(f"\n{piece}\t{score:.6g}".encode())
        digest.update("".join(f"\n{line}" for line in self._begin()).encode())
        return digest.hexdigest()[:16]

    def reads_as(self, other: Any) -> bool:
        """Whether both make the same ids of every text."""
        return self.fingerprint == other.fingerprint

    def id_to_piece(self, number: int) -> str:
        return self._processor.id_to_piece(number)

    def log_probability(self, number: int) -> float | None:
        """How likely a piece is in the unigram model's text, in nats; None where the file is not SentencePiece's."""
        return self._processor.get_score(number) if self.model_bytes else None

    @property
    def first_sentinel(self) -> int | None:
        """The id that marks the first masked span in span corruption; None where there is none."""
        ids = SPAN_MARKS[:1] if self.reads_bytes else self.encode(SENTINEL)
        return ids[0] if len(ids) == 1 else None

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


def _processor(model_bytes: bytes, extra_ids: int) -> Any:
    """SentencePiece's processor of a model and sentinels behind its pieces."""
    model = sentencepiece_model_pb2.ModelProto.FromString(model_bytes)  # type: ignore[attr-defined]
    for i in reversed(range(extra_ids)):
        kind = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED  # type: ignore[attr-defined]
        model.pieces.add(piece=f"▁<extra_id_{i}>", score=0.0, type=kind)
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def behind_sentinel(text: str) -> str:
    """An answer without the sentinel in front of it, where targets have one (`Data.sentinel`)."""
    return text.removeprefix(SENTINEL).lstrip()
