"""ByT5's vocabulary: the bytes of UTF-8, without a file (Xue et al. 2022, "ByT5: Towards a Token-Free Future with
Pre-trained Byte-to-Byte Models").

Ids are those of `seqio.ByteVocabulary` and, of sentinels and added tokens, of transformers' ByT5Tokenizer.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import AddedToken

from jax_prompts.data.vocabularies.tokenizer_config import ADDED, SETTINGS, TokenizerConfig
from jax_prompts.data.vocabularies.vocabulary_file import BYTES
from jax_prompts.errors import RunError

CLASS = "ByT5Tokenizer"
SPECIAL = ("<pad>", "</s>", "<unk>")  # the first ids; spaces round them in a text belong to them
SENTINELS = 125  # up to 384 ids
SETTINGS_OF_BYTES = json.dumps({"tokenizer_class": CLASS, "extra_ids": SENTINELS}).encode()
UNK_ID = 2
# What marks the first, second ... masked span in ByT5's pre-training: the last bytes, which no UTF-8 text holds.
SPAN_MARKS = range(258, 247, -1)
_FIRST, _BYTES = len(SPECIAL), 256


def is_bytes(path: str) -> bool:
    """Whether a VOCABULARY is of bytes: `bytes`, or a tokenizer_config.json, which says what is added to them."""
    return path == BYTES or ("://" not in path and pathlib.Path(path).name == SETTINGS)


class ByteProcessor:
    """Bytes with the methods of a SentencePieceProcessor that a vocabulary uses.

    Args:
      tokens: all that are no bytes, by id, as `byte_tokens` has them; texts that spell one encode to its id.
    """

    def __init__(self, tokens: Mapping[int, AddedToken]) -> None:
        self._tokens = {number: token.content for number, token in tokens.items()}
        self._added = {token.content: (number, token) for number, token in tokens.items()}
        longest_first = sorted(self._added, key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        letters = (chr(byte) if 32 <= byte < 127 else f"0x{byte:02X}" for byte in range(_BYTES))
        pieces = dict(enumerate(letters, _FIRST)) | self._tokens
        self._pieces = [pieces[number] for number in range(len(pieces))]
        self._ids = {piece: number for number, piece in pieces.items()}

    def get_piece_size(self) -> int:
        """One more than the highest id."""
        return len(self._pieces)

    def unk_id(self) -> int:
        return UNK_ID

    def piece_to_id(self, piece: str) -> int:
        return self._ids.get(piece, UNK_ID)

    def id_to_piece(self, number: int) -> str:
        """A token, a letter of ASCII, or another byte as `0xE2`."""
        return self._pieces[number]

    def encode_as_ids(self, texts: str | list[str], num_threads: int = 0) -> Any:
        """Ids of a text, or of each text of a list."""
        return self._encode(texts) if isinstance(texts, str) else [self._encode(text) for text in texts]

    def _encode(self, text: str) -> list[int]:
        parts = self._pattern.split(text)  # texts and tokens by turns
        for i in range(1, len(parts), 2):
            _, token = self._added[parts[i]]
            if token.lstrip:
                parts[i - 1] = parts[i - 1].rstrip()
            if token.rstrip:
                parts[i + 1] = parts[i + 1].lstrip()
        ids: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self._added[part][0])
            else:
                ids += (np.frombuffer(part.encode(), np.uint8).astype(np.int32) + _FIRST).tolist()
        return ids

    def decode_ids(self, ids: list[int]) -> str:
        """The text of bytes and tokens; bytes that are no UTF-8 are left out."""
        texts, waiting = [], bytearray()
        for number in ids:
            if number in self._tokens:
                texts += [waiting.decode(errors="ignore"), self._tokens[number]]
                waiting.clear()
            elif _FIRST <= number < _FIRST + _BYTES:
                waiting.append(number - _FIRST)
        return "".join([*texts, waiting.decode(errors="ignore")])


def byte_tokens(path: str, config: TokenizerConfig, extra_ids: int | None) -> dict[int, AddedToken]:
    """The tokens that are no bytes, by id.

    Args:
      path: `bytes`, or a tokenizer_config.json.
      config: what lies there.
      extra_ids: number of sentinels where none are listed; None: as it says, else ByT5Tokenizer's.

    Raises:
      RunError: it is no ByT5's, or gives tokens other ids than those that follow the bytes.
    """
    if path != BYTES and config.tokenizer_class() != CLASS:
        raise RunError(f"{path} names no {CLASS}: set VOCABULARY to the file that the model was trained with")
    config.check((CLASS,), {"split_special_tokens": False, "do_lower_case": False})
    tokens = {number: AddedToken(token, lstrip=True, rstrip=True) for number, token in enumerate(SPECIAL)}
    for number, token in config.added.items():
        if number >= _FIRST:
            tokens[number] = token
        elif token.content != SPECIAL[number]:
            raise config.error(f"{token.content!r} has the id of {SPECIAL[number]}", SETTINGS, ADDED)
    extra_ids = config.extra_ids(SENTINELS) if extra_ids is None else extra_ids
    known = {token.content for token in tokens.values()}
    for name in dict.fromkeys(config.unnamed or [f"<extra_id_{i}>" for i in range(extra_ids)]):
        if name not in known:
            tokens[max(_FIRST + _BYTES - 1, *tokens) + 1] = AddedToken(name)
    for expected, number in enumerate(sorted(tokens)[_FIRST:], _FIRST + _BYTES):
        if number != expected or not tokens[number].content or tokens[number].single_word:
            raise config.error(
                f"{tokens[number].content!r} with id {number} cannot follow the bytes", SETTINGS, ADDED
            )
    return tokens
