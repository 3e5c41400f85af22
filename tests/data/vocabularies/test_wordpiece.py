"""WordPiece vocabularies against `tokenizers`' own BERT tokenizer, and bad files."""

import json
import pathlib

import pytest
from tokenizers import AddedToken, BertWordPieceTokenizer

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


def beside(folder: pathlib.Path, **settings: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_lines_end_at_newlines_alone(tmp_path: pathlib.Path):
    pieces = [*PIECES[:5], "\u2028", "\u0085", "\x0c", "word"]
    for end in ("\n", "\r\n"):
        (tmp_path / "vocab.txt").write_bytes(end.join(pieces).encode())
        assert WordPiece(str(tmp_path / "vocab.txt")).encode("word") == [8]


def test_stored_truncation_and_padding_are_switched_off(tmp_path: pathlib.Path, vocab_txt: str):
    theirs = BertWordPieceTokenizer(vocab_txt)
    theirs.enable_truncation(4)
    theirs.enable_padding(length=4)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = WordPiece(str(tmp_path / "tokenizer.json"))
    assert ours.encode("the") == [8]
    assert ours.encode_all(["the " * 9]) == [[8] * 9]


@pytest.mark.parametrize("as_json", [False, True])
def test_tokenizer_config_is_obeyed(tmp_path: pathlib.Path, vocab_txt: str, as_json: bool):
    path = vocab_txt
    if as_json:
        path = str(tmp_path / "tokenizer.json")
        BertWordPieceTokenizer(vocab_txt, lowercase=True).save(path)
    alone = WordPiece(path)
    assert alone.encode("É") == [1]  # an accent is stripped, and "e" is no piece
    beside(tmp_path, do_lower_case=True, strip_accents=False, tokenizer_class="BertTokenizer")
    accented = WordPiece(path)
    assert accented.encode("É") == [11]
    assert accented.fingerprint != alone.fingerprint
    beside(tmp_path, do_lower_case=False)
    assert WordPiece(path).encode("The the") == [1, 8]
    beside(tmp_path, do_lower_case=True, model_max_length=512)
    assert WordPiece(path).fingerprint == alone.fingerprint


def test_added_tokens_and_other_names(tmp_path: pathlib.Path, vocab_txt: str):
    (tmp_path / "added_tokens.json").write_text('{"<org>": 12}')
    beside(tmp_path, added_tokens_decoder={"13": {"content": "<loc>", "special": True}})
    vocabulary = WordPiece(vocab_txt)
    assert vocabulary.encode("the <org> <loc>the") == [8, 12, 13, 8]
    assert vocabulary.size == 14
    (tmp_path / "special_tokens_map.json").write_text('{"sep_token": {"content": "[MASK]"}}')
    assert WordPiece(vocab_txt).eos_id == 4
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": "<org>"}')
    assert WordPiece(vocab_txt).mask_id == 12


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "BertJapaneseTokenizer"),
        ("config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "BertJapaneseTokenizer"),
        ("tokenizer_config.json", {"do_lower_case": "no"}, "do_lower_case is 'no'"),
        ("tokenizer_config.json", {"do_basic_tokenize": False}, "do_basic_tokenize"),
        ("tokenizer_config.json", {"never_split": ["x"]}, "never_split"),
        ("added_tokens.json", {"<org>": 20}, "said to have id 20, and it has 12"),
        ("special_tokens_map.json", {"additional_special_tokens": ["<org>"]}, "'<org>' is not in"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_file(
    tmp_path: pathlib.Path, vocab_txt: str, file: str, content: dict, reason: str
):
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(RunError, match=reason) as caught:
        WordPiece(vocab_txt)
    assert f"{file}: " in str(caught.value)


def test_a_post_processor_of_another_model_is_refused(tmp_path: pathlib.Path, vocab_txt: str):
    BertWordPieceTokenizer(vocab_txt).save(str(tmp_path / "tokenizer.json"))
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    described["post_processor"] = {"type": "BertProcessing", "sep": ["the", 8], "cls": ["[CLS]", 2]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(RunError, match=r"puts \[2, 8\] around texts"):
        WordPiece(str(tmp_path / "tokenizer.json"))


def test_tokens_added_to_a_tokenizer_json(tmp_path: pathlib.Path, vocab_txt: str):
    theirs = BertWordPieceTokenizer(vocab_txt)
    theirs.add_tokens([AddedToken("<org>")])
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert WordPiece(str(tmp_path / "tokenizer.json")).encode("<org>") == [12]
