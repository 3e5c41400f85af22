"""WordPiece vocabularies against `tokenizers`' own BERT tokenizer, and bad files."""

import pathlib

import pytest
from tokenizers import BertWordPieceTokenizer

from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError, RunError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "the", "cafe", ",", "é"]


@pytest.fixture
def vocab_txt(tmp_path: pathlib.Path) -> str:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return str(tmp_path / "vocab.txt")


@pytest.mark.parametrize(
    "text", ["Unaffable, the CAFÉ", "the zebra", "", "the[SEP]unable", "a\u200bthe\n the"]
)
def test_ids_are_those_of_the_library(vocab_txt: str, text: str):
    theirs = BertWordPieceTokenizer(vocab_txt, lowercase=True)
    ours = WordPiece(vocab_txt)
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode_all([text, "the"]) == [ours.encode(text), [8]]


def test_special_tokens_and_text(vocab_txt: str):
    vocabulary = WordPiece(vocab_txt)
    assert (vocabulary.begin_ids, vocabulary.eos_id, vocabulary.mask_id, vocabulary.size) == ((2,), 3, 4, 12)
    assert vocabulary.encode("unaffable [SEP] the") == [5, 6, 7, 3, 8]
    assert vocabulary.decode([2, 5, 6, 7, 10, 8, 3, 0, 0]) == "unaffable, the"
    assert vocabulary.decode([8, -1, 99]) == "the"  # what no piece has is unknown, and [UNK] is no text


def test_a_capital_among_the_pieces_means_cased(tmp_path: pathlib.Path, vocab_txt: str):
    (tmp_path / "cased.txt").write_text("\n".join([*PIECES, "The"]) + "\n")
    cased = WordPiece(str(tmp_path / "cased.txt"))
    assert cased.encode("The the") == [12, 8]
    assert cased.fingerprint != WordPiece(vocab_txt).fingerprint


def test_tokenizer_json_is_the_same_vocabulary(tmp_path: pathlib.Path, vocab_txt: str):
    BertWordPieceTokenizer(vocab_txt).save(str(tmp_path / "tokenizer.json"))
    from_json = WordPiece(str(tmp_path / "tokenizer.json"))
    assert from_json.encode("Unaffable the") == WordPiece(vocab_txt).encode("Unaffable the")
    assert from_json.begin_ids == (2,)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("vocab.txt", b"\xff\xfe\x00", "is no WordPiece vocabulary"),
        ("vocab.txt", "\n".join(PIECES[:3]).encode(), r"no \[SEP\], \[MASK\]"),
        ("vocab.txt", "\n".join(["x", *PIECES]).encode(), r"\[PAD\] at another id"),
        ("tokenizer.json", b'{"version": 1}', "is no WordPiece vocabulary"),
    ],
)
def test_bad_files(tmp_path: pathlib.Path, name: str, content: bytes, reason: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError, match=reason):
        WordPiece(str(tmp_path / name))
    with pytest.raises(ConfigError, match="set VOCABULARY"):
        WordPiece(str(tmp_path / "absent.txt"))
