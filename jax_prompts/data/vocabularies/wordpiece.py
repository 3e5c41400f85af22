"""WordPiece vocabularies of BERT, as Hugging Face ships them: `vocab.txt` or `tokenizer.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import SupportsInt

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from jax_prompts.data.vocabularies.sentencepiece import PAD_ID
from jax_prompts.data.vocabularies.vocabulary_file import read_content
from jax_prompts.errors import RunError, first_line

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPiece:
    """Pieces of a WordPiece vocabulary, its special tokens among them; a text that spells one encodes to its id.

    Attributes:
      size: number of ids.
      fingerprint: 16 hex digits of the file.
      begin_ids: [CLS], in front of every text; a prompt follows it.
      eos_id: [SEP], behind every text.
      mask_id: [MASK].
    """

    pad_id = PAD_ID

    def __init__(self, path: str) -> None:
        """Reads `vocab.txt` (a piece a line, lower-case unless a piece holds a capital) or `tokenizer.json`.

        Raises:
          RunError: the file cannot be read, is neither, lacks a special token, or pads with another id than 0.
        """
        content = read_content(path)
        try:
            text = content.decode()
            self._tokenizer = Tokenizer.from_str(text) if path.endswith(".json") else _of_pieces(text)
        except Exception as error:  # tokenizers raises plain Exception
            raise RunError(
                f"{path} is no WordPiece vocabulary ({first_line(error)}): set VOCABULARY to a vocab.txt "
                "or tokenizer.json"
            ) from error
        pieces = self._tokenizer.get_vocab()
        ids = {piece: pieces[piece] for piece in SPECIAL if piece in pieces}
        missing = [piece for piece in SPECIAL if piece not in ids]
        if missing or ids["[PAD]"] != PAD_ID:
            problem = f"no {', '.join(missing)}" if missing else "[PAD] at another id than 0"
            raise RunError(f"{path} has {problem}: set VOCABULARY to the vocabulary of a BERT")
        self.begin_ids: tuple[int, ...] = (ids["[CLS]"],)
        self.eos_id, self.unk_id, self.mask_id = ids["[SEP]"], ids["[UNK]"], ids["[MASK]"]
        self.size = len(pieces)
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without [CLS] in front and [SEP] behind."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """Ids of many texts."""
        return [found.ids for found in self._tokenizer.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Text without special tokens; ids outside the vocabulary read as unknown."""
        known = [token if 0 <= token < self.size else self.unk_id for token in map(int, ids)]
        return self._tokenizer.decode(known, skip_special_tokens=True)


def _of_pieces(text: str) -> Tokenizer:
    """The tokenizer of a `vocab.txt`, as BERT's own."""
    pieces = text.splitlines()
    words = [piece for piece in pieces if not (piece.startswith("[") and piece.endswith("]"))]
    lowercase = not any(piece != piece.lower() for piece in words)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([piece for piece in SPECIAL if piece in vocabulary])
    return tokenizer
