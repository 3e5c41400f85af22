"""WordPiece vocabularies of BERT, as Hugging Face ships them: `vocab.txt` or `tokenizer.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, SupportsInt

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from jax_prompts.data.vocabularies.panics import panics_as, unusable
from jax_prompts.data.vocabularies.sentencepiece import PAD_ID
from jax_prompts.data.vocabularies.tokenizer_config import (
    ANY_TOKENIZER_JSON,
    TokenizerConfig,
    read_tokenizer_config,
)
from jax_prompts.data.vocabularies.unigram import tokenizer_of
from jax_prompts.data.vocabularies.vocabulary_file import lines_of, read_content
from jax_prompts.errors import RunError, first_line

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")  # one tokenizer under three names
_FIXED = {"never_split": [], "split_special_tokens": False, "do_basic_tokenize": True}
_SWITCHES = {  # of tokenizer_config.json -> of BertNormalizer
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "clean_text": "clean_text",
}


class WordPiece:
    """Pieces of a WordPiece vocabulary, its special tokens among them; a text that spells one encodes to its id.

    Attributes:
      size: number of ids.
      fingerprint: 16 hex digits of the file, and of what lies beside it where that reads texts otherwise.
      begin_ids: [CLS], in front of every text; a prompt follows it.
      eos_id: [SEP], behind every text.
      mask_id: [MASK].
    """

    pad_id = PAD_ID

    @panics_as(unusable)
    def __init__(self, path: str) -> None:
        """Reads `vocab.txt` (a piece a line) or `tokenizer.json`, and what lies beside it (`tokenizer_config.py`).

        Where no tokenizer_config.json says so, a vocab.txt is lower-case unless a piece holds a capital.

        Raises:
          ConfigError: no such file.
          RunError: the file cannot be read, is neither, lacks a special token, or pads with another id than 0; what
            lies beside it cannot be obeyed.
        """
        content, config = read_content(path), read_tokenizer_config(path)
        is_json = path.endswith(".json")
        config.check((*_CLASSES, *(ANY_TOKENIZER_JSON if is_json else ())), _FIXED)
        special = {name: config.special.get(name, token) for name, token in SPECIAL.items()}
        try:
            text = content.decode("utf-8-sig")
            make = _described if is_json else _of_pieces
            self._tokenizer, changes = make(text, config, special)
        except RunError:
            raise
        except Exception as error:  # tokenizers raises plain Exception
            raise RunError(
                f"{path} is no WordPiece vocabulary ({first_line(error)}): set VOCABULARY to a vocab.txt "
                "or tokenizer.json"
            ) from error
        changes += config.add_to(self._tokenizer)
        ids = self._special_ids(path, special)
        self.begin_ids: tuple[int, ...] = (ids["cls_token"],)
        self.eos_id, self.unk_id, self.mask_id = ids["sep_token"], ids["unk_token"], ids["mask_token"]
        if (around := self._tokenizer.encode("").ids) not in ([], [*self.begin_ids, self.eos_id]):
            raise RunError(
                f"{path}: its post_processor puts {around} around texts, and BERT {special['cls_token']} and "
                f"{special['sep_token']}: set VOCABULARY to the vocabulary of a BERT"
            )
        self.size = max(self._tokenizer.get_vocab().values()) + 1
        self.fingerprint = hashlib.sha256(b"\n".join([content, *map(str.encode, changes)])).hexdigest()[:16]

    def _special_ids(self, path: str, special: Mapping[str, str]) -> dict[str, int]:
        """Ids of special tokens by the names of `SPECIAL`; raises RunError where one is missing or padding is not 0."""
        known = self._tokenizer.get_vocab(with_added_tokens=True)
        if missing := [token for token in special.values() if token not in known]:
            problem = f"no {', '.join(missing)}"
        elif known[special["pad_token"]] != PAD_ID:
            problem = f"{special['pad_token']} at another id than {PAD_ID}"
        else:
            return {name: known[token] for name, token in special.items()}
        raise RunError(f"{path} has {problem}: set VOCABULARY to the vocabulary of a BERT")

    def id_to_piece(self, number: int) -> str:
        """A piece; empty where a vocabulary skips an id."""
        return self._tokenizer.id_to_token(number) or ""

    @panics_as(unusable)
    def encode(self, text: str) -> list[int]:
        """Ids of a text, without [CLS] in front and [SEP] behind."""
        return self._tokenizer.encode(_plain(text), add_special_tokens=False).ids

    @panics_as(unusable)
    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """Ids of many texts."""
        found = self._tokenizer.encode_batch([_plain(text) for text in texts], add_special_tokens=False)
        return [each.ids for each in found]

    @panics_as(unusable)
    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Text without special tokens; ids outside the vocabulary read as unknown."""
        known = [token if 0 <= token < self.size else self.unk_id for token in map(int, ids)]
        return self._tokenizer.decode(known, skip_special_tokens=True)

    def reads_as(self, other: Any) -> bool:
        """Whether both make the same ids of every text."""
        mine, theirs = (json.loads(vocabulary._tokenizer.to_str()) for vocabulary in (self, other))
        parts = ("normalizer", "pre_tokenizer", "model")
        return self._tokenizer.get_vocab() == other._tokenizer.get_vocab() and all(
            mine[part] == theirs[part] for part in parts
        )


def _plain(text: str) -> str:
    """What UTF-8 cannot hold (lone surrogates) as `?`."""
    return text.encode(errors="replace").decode()


def _of_pieces(text: str, config: TokenizerConfig, special: Mapping[str, str]) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of a `vocab.txt`, as BERT's own, and what a tokenizer_config.json changes of it."""
    pieces = lines_of(text)
    words = [piece for piece in pieces if not (piece.startswith("[") and piece.endswith("]"))]
    lowercase = not any(piece != piece.lower() for piece in words)
    alone = {"lowercase": lowercase, "strip_accents": None, "handle_chinese_chars": True, "clean_text": True}
    switches, changes = _switched(alone, config)
    prefix = config.settings.get("wordpieces_prefix", "##")
    if prefix != "##":
        changes.append(f"wordpieces_prefix {prefix}")
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.WordPiece(
            vocabulary,
            unk_token=special["unk_token"],
            max_input_chars_per_word=100,
            continuing_subword_prefix=prefix,
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(**switches)  # type: ignore[arg-type]  # strip_accents may be None
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix)
    tokenizer.add_special_tokens([piece for piece in special.values() if piece in vocabulary])
    return tokenizer, changes


def _described(text: str, config: TokenizerConfig, special: Mapping[str, str]) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of a `tokenizer.json`, and what a tokenizer_config.json of BERT's own classes changes of it."""
    described, changes = json.loads(text), list[str]()
    normalizer = described.get("normalizer") or {}
    if normalizer.get("type") == "BertNormalizer" and config.tokenizer_class() not in ANY_TOKENIZER_JSON:
        switches, changes = _switched(normalizer, config)
        described["normalizer"] = {**normalizer, **switches}
    return tokenizer_of(json.dumps(described)), changes


def _switched(alone: Mapping[str, Any], config: TokenizerConfig) -> tuple[dict[str, bool | None], list[str]]:
    """Settings of BertNormalizer, and those that differ from what the vocabulary alone says."""
    switches = {ours: config.switch(theirs, alone.get(ours)) for theirs, ours in _SWITCHES.items()}
    return switches, [f"{name} {value}" for name, value in switches.items() if value != alone.get(name)]
