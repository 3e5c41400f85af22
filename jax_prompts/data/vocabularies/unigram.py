"""Unigram vocabularies as Hugging Face's `tokenizers` reads them, and those that SentencePiece reads alike.

A T5's `tokenizer.json` describes its SentencePiece model, normally with nothing more: SentencePiece itself then gives
the ids, so that either file makes the same vocabulary. Any other is run as it describes itself.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from jax_prompts.data.vocabularies.panics import panics_as, unusable

UNK_ID = 2  # of T5's own vocabularies
_SPECIAL = ("<pad>", "</s>", "<unk>")
_MATCHING = (
    "lstrip",
    "rstrip",
    "normalized",
    "single_word",
)  # flags of how an added token is found in a text
_SPACE = "▁"
_WORDS = {"type": "WhitespaceSplit"}
_SINGLE_SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}


class UnigramProcessor:
    """A tokenizer with the methods of a SentencePieceProcessor that a vocabulary uses."""

    def __init__(self, tokenizer: Tokenizer, unk_id: int) -> None:
        self._tokenizer = tokenizer
        self._size, self._unk_id = max(tokenizer.get_vocab().values()) + 1, unk_id

    def get_piece_size(self) -> int:
        """One more than the highest id."""
        return self._size

    def unk_id(self) -> int:
        return self._unk_id

    def piece_to_id(self, piece: str) -> int:
        found = self._tokenizer.token_to_id(piece)
        return self._unk_id if found is None else found

    def id_to_piece(self, number: int) -> str:
        return self._tokenizer.id_to_token(number) or ""

    @panics_as(unusable)
    def encode_as_ids(self, texts: str | list[str], num_threads: int = 0) -> Any:
        """Ids of a text, or of each text of a list, then on all cores."""
        if isinstance(texts, str):
            return self._tokenizer.encode(texts, add_special_tokens=False).ids
        return [found.ids for found in self._tokenizer.encode_batch(texts, add_special_tokens=False)]

    @panics_as(unusable)
    def decode_ids(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)


def tokenizer_of(content: str) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, but that it neither cuts nor pads: a run does so by its own lengths.

    Raises:
      Exception: what `tokenizers` raises of a file that is none.
    """
    with panics_as(ValueError):
        tokenizer = Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_tokenizer(content: str) -> tuple[Tokenizer, int]:
    """A Unigram `tokenizer.json` as it describes itself, but that it neither cuts nor pads, and its unknown id.

    Raises:
      ValueError, LookupError, TypeError: it is none.
    """
    model = json.loads(content)["model"]
    if model.get("type", "Unigram") != "Unigram":
        raise ValueError(f"a tokenizer of type {model.get('type')}, and T5's is Unigram")
    if model.get("unk_id") is None:
        raise ValueError("a tokenizer without unk_id")
    return tokenizer_of(content), model["unk_id"]


def sentencepiece_model(content: str) -> tuple[bytes, int] | None:
    """The SentencePiece model that a tokenizer.json was made from, without sentinels, and the number of those.

    None where SentencePiece would read texts otherwise: other steps than its own, tokens that were added, sentinels
    elsewhere than behind all pieces.

    Raises:
      ValueError, LookupError, TypeError: it is no Unigram tokenizer.
    """
    described = json.loads(content)
    model, added = described["model"], described.get("added_tokens") or []
    tokens = {number: piece for number, (piece, _) in enumerate(model["vocab"])}
    tokens |= {token["id"]: token["content"] for token in added}
    sentinels = 0
    while tokens.get(len(tokens) - 1 - sentinels) == f"<extra_id_{sentinels}>":
        sentinels += 1
    pieces = model["vocab"][: len(tokens) - sentinels]
    charsmap = _charsmap(described.get("normalizer"))
    if charsmap is None or not _is_sentencepiece(described.get("pre_tokenizer")):
        return None
    if (
        not _is_metaspace(described.get("decoder"))
        or model.get("byte_fallback")
        or model.get("unk_id") != UNK_ID
    ):
        return None
    if len(pieces) != len(tokens) - sentinels or not _are_t5s(pieces, added):
        return None
    return _serialized(pieces, charsmap), sentinels


def _are_t5s(pieces: Sequence[Sequence[Any]], added: list[dict[str, Any]]) -> bool:
    """Whether pieces and scores begin as T5's and hold no sentinel, and only sentinels and T5's first were added."""
    names = [piece for piece, _ in pieces]
    return (
        names[:3] == list(_SPECIAL)
        and not any(name.startswith("<extra_id_") for name in names)
        and all(token["id"] < 3 or token["id"] >= len(pieces) for token in added)
        and not any(token.get(flag) for token in added for flag in _MATCHING)
    )


def _serialized(pieces: Sequence[Sequence[Any]], charsmap: bytes) -> bytes:
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    kinds = proto.SentencePiece
    for number, (piece, score) in enumerate(pieces):
        kind = kinds.CONTROL if piece in ("<pad>", "</s>", "<s>") else kinds.NORMAL
        proto.pieces.add(piece=piece, score=score, type=kinds.UNKNOWN if number == UNK_ID else kind)
    spec = proto.trainer_spec
    spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 0, 1, UNK_ID, -1
    proto.normalizer_spec.precompiled_charsmap = charsmap
    return proto.SerializeToString(deterministic=True)


def of_sentencepiece(proto: Any, sentinels: int) -> Tokenizer:
    """The tokenizer of a SentencePiece model and its sentinels, to which tokens can be added.

    Raises:
      ValueError: it is no Unigram model, or cuts texts as `tokenizers` cannot.
    """
    if proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
        raise ValueError("tokens can be added to Unigram models alone")
    spaces = proto.normalizer_spec
    plain = spaces.add_dummy_prefix and spaces.remove_extra_whitespaces and spaces.escape_whitespaces
    if not plain or proto.trainer_spec.treat_whitespace_as_suffix:
        raise ValueError("tokens can be added to models alone that begin words with one space")
    if any(piece.type == piece.USER_DEFINED for piece in proto.pieces):
        raise ValueError("tokens cannot be added to a model with pieces that its user defined")
    names = [f"<extra_id_{i}>" for i in reversed(range(sentinels))]
    vocabulary = [(piece.piece, piece.score) for piece in proto.pieces] + [(name, 0.0) for name in names]
    unk_id = next(i for i, piece in enumerate(proto.pieces) if piece.type == piece.UNKNOWN)
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id, proto.trainer_spec.byte_fallback))
    if proto.normalizer_spec.precompiled_charsmap:
        tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    control = [piece.piece for piece in proto.pieces if piece.type in (piece.CONTROL, piece.UNKNOWN)]
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=False, special=True) for name in control + names]
    )
    return tokenizer


def _charsmap(normalizer: dict[str, Any] | None) -> bytes | None:
    """SentencePiece's own normalizer, None where there is another."""
    steps = [normalizer] if normalizer else []
    if normalizer and normalizer["type"] == "Sequence":
        steps = normalizer["normalizers"]
    if (
        len(steps) not in (1, 2)
        or steps[0]["type"] != "Precompiled"
        or steps[1:] not in ([], [_SINGLE_SPACES])
    ):
        return None
    return base64.b64decode(steps[0]["precompiled_charsmap"])


def _is_sentencepiece(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether texts are cut as SentencePiece cuts them: into words that begin with a space."""
    steps = [pre_tokenizer] if pre_tokenizer else []
    if pre_tokenizer and pre_tokenizer["type"] == "Sequence":
        steps = pre_tokenizer["pretokenizers"]
    return bool(steps) and steps[:-1] in ([], [_WORDS]) and _is_metaspace(steps[-1])


def _is_metaspace(step: dict[str, Any] | None) -> bool:
    if not step or step["type"] != "Metaspace" or step.get("replacement") != _SPACE:
        return False
    return step.get("add_prefix_space", True) is True and step.get("prepend_scheme", "always") == "always"
