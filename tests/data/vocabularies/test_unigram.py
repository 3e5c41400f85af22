"""Unigram tokenizers that SentencePiece cannot read, and what lies beside a T5's vocabulary."""

from __future__ import annotations

import base64
import json
import pathlib
import struct

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import RunError

SPECIAL = ["<pad>", "</s>", "<unk>"]
LETTERS = ["▁", *"abcdefghijklmnopqrstuvwxyz"]


def tokenizer(*sentinels: str) -> Tokenizer:
    """Of single letters, ids 3 on, or behind `sentinels`."""
    pieces = [(piece, 0.0) for piece in [*SPECIAL, *sentinels]] + [(piece, -2.0) for piece in LETTERS]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    made.decoder = decoders.Metaspace()
    made.add_special_tokens([AddedToken(name, normalized=False) for name in [*SPECIAL, *sentinels]])
    return made


def saved(folder: pathlib.Path, made: Tokenizer) -> str:
    made.save(str(folder / "tokenizer.json"))
    return str(folder / "tokenizer.json")


def test_normalizers_are_applied(tmp_path: pathlib.Path) -> None:
    made = tokenizer()
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    vocabulary = Vocabulary(saved(tmp_path, made))
    assert vocabulary.encode("ＡB") == [3, 4, 5]
    assert vocabulary.encode_all(["ＡB", "b"]) == [[3, 4, 5], [3, 5]]
    assert vocabulary.decode([0, 3, 4, 5, 1, 6]) == "ab"
    assert (vocabulary.size, vocabulary.unk_id, vocabulary.extra_ids) == (30, 2, 0)


@pytest.mark.parametrize("charsmap", ["!!!", "/////w=="])
def test_a_damaged_charsmap_is_one_line(tmp_path: pathlib.Path, charsmap: str) -> None:
    path = pathlib.Path(saved(tmp_path, tokenizer()))
    described = json.loads(path.read_text())
    described["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    path.write_text(json.dumps(described))
    with pytest.raises(RunError, match=r"tokenizer\.json is not a SentencePiece model \(Precompiled"):
        Vocabulary(str(path))


@pytest.mark.parametrize("units", [128, 1])
def test_a_panic_of_the_library_is_one_line(tmp_path: pathlib.Path, units: int, capfd) -> None:
    """A table that has no room for the bytes of some letters, or of any: Rust's panic is no Exception."""
    path = pathlib.Path(saved(tmp_path, tokenizer()))
    described = json.loads(path.read_text())
    table = struct.pack("<I", 4 * units) + bytes(4 * units) + b"x\0"
    charsmap = base64.b64encode(table).decode()
    steps = [{"type": "Precompiled", "precompiled_charsmap": charsmap}, {"type": "Lowercase"}]
    described["normalizer"] = {"type": "Sequence", "normalizers": steps}
    path.write_text(json.dumps(described))
    fails = pytest.raises(
        RunError, match=r"the tokenizer fails at a text \(index out of bounds.*set VOCABULARY"
    )
    if units == 1:
        with fails:
            Vocabulary(str(path))
        return
    vocabulary = Vocabulary(str(path))
    assert vocabulary.encode_all(["ab"]) == [[3, 4, 5]]
    for fail in (lambda: vocabulary.encode("é"), lambda: vocabulary.encode_all(["a", "é"])):
        with fails:
            fail()


def test_added_tokens_stay(tmp_path: pathlib.Path) -> None:
    made = tokenizer()
    made.add_tokens(["{", "<ORG>"])
    made.enable_truncation(2)
    made.enable_padding(length=2)
    vocabulary = Vocabulary(saved(tmp_path, made))
    assert vocabulary.encode("{ a <ORG> b") == [30, 3, 4, 31, 3, 5]
    assert vocabulary.encode("a") == [3, 4]


def test_sentinels_stand_where_they_stand(tmp_path: pathlib.Path) -> None:
    vocabulary = Vocabulary(saved(tmp_path, tokenizer("<extra_id_0>", "<extra_id_1>")))
    assert vocabulary.encode("a <extra_id_1>") == [5, 6, 4]
    assert vocabulary.size == 32


@pytest.fixture
def spiece(tmp_path: pathlib.Path, train_vocabulary) -> pathlib.Path:
    """A SentencePiece model in a folder of its own."""
    (tmp_path / "spiece.model").write_bytes(
        pathlib.Path(train_vocabulary("the quick brown fox")).read_bytes()
    )
    return tmp_path / "spiece.model"


def test_extra_ids_are_read(spiece: pathlib.Path) -> None:
    pieces = Vocabulary(str(spiece)).size - 100
    spiece.with_name("tokenizer_config.json").write_text(
        '{"extra_ids": 7, "tokenizer_class": "T5TokenizerFast"}'
    )
    assert Vocabulary(str(spiece)).size == pieces + 7
    assert Vocabulary(str(spiece), extra_ids=0).size == pieces


def test_tokens_added_to_a_sentencepiece_model(spiece: pathlib.Path) -> None:
    alone = Vocabulary(str(spiece))
    spiece.with_name("added_tokens.json").write_text(json.dumps({"<extra_id_0>": alone.size - 1}))
    assert Vocabulary(str(spiece)).fingerprint == alone.fingerprint
    spiece.with_name("added_tokens.json").write_text(json.dumps({"<ORG>": alone.size}))
    vocabulary = Vocabulary(str(spiece))
    fox = alone.encode("fox")
    assert vocabulary.encode("fox <ORG> fox") == [*fox, alone.size, *fox]
    assert vocabulary.encode("<extra_id_0>") == [alone.size - 1]
    assert vocabulary.fingerprint != alone.fingerprint
    assert vocabulary.model_bytes == b""


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "AlbertTokenizer"}, "AlbertTokenizer"),
        ("tokenizer_config.json", {"do_lower_case": True}, "do_lower_case"),
        ("tokenizer_config.json", {"add_prefix_space": False}, "add_prefix_space False"),
        ("tokenizer_config.json", {"extra_ids": -1}, "extra_ids -1"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"5": {"content": "x", "lstrip": 1}}},
            "flags of 5",
        ),
        ("special_tokens_map.json", {"pad_token": "<unk>"}, "pad_token <unk> has id 2"),
        ("special_tokens_map.json", {"additional_special_tokens": ["<ORG>"]}, "<ORG>"),
        ("tokenizer_config.json", {"pad_token": "<unk>"}, "pad_token <unk> has id 2"),
        ("tokenizer_config.json", {"extra_special_tokens": ["<ORG>"]}, "<ORG>"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": {"content": "<ORG>"}}}, "<ORG>"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5_0": {"content": "<ORG>"}}}, "'5_0' is no id"),
        ("tokenizer_config.json", {"tokenizer_class": 5}, "tokenizer_class 5"),
        ("config.json", {"tokenizer_class": "AlbertTokenizer"}, "AlbertTokenizer"),
        ("added_tokens.json", {"<ORG>": 5}, "<ORG>"),
        ("added_tokens.json", {"<ORG>": 5.5}, "5.5 is no id"),
        ("added_tokens.json", {"<ORG>": True}, "True is no id"),
        ("added_tokens.json", [], "no JSON object"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_file(
    spiece: pathlib.Path, file: str, content: object, reason: str
) -> None:
    spiece.with_name(file).write_text(json.dumps(content))
    with pytest.raises(RunError, match=reason) as caught:
        Vocabulary(str(spiece))
    assert file in str(caught.value)


def test_other_special_ids_are_refused(tmp_path: pathlib.Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox"] * 20),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(RunError, match="has pad -1 and end of sentence 2, and T5 has 0 and 1"):
        Vocabulary(str(tmp_path / "spiece.model"))


def test_a_post_processor_of_another_model_is_refused(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(saved(tmp_path, tokenizer()))
    described = json.loads(path.read_text())
    described["post_processor"] = {"type": "BertProcessing", "sep": ["</s>", 1], "cls": ["a", 4]}
    path.write_text(json.dumps(described))
    with pytest.raises(RunError, match=r"post_processor puts \[4, 1\] around texts"):
        Vocabulary(str(path))


def test_a_setting_that_the_file_carries_out_itself_is_obeyed(tmp_path: pathlib.Path) -> None:
    made = tokenizer()
    made.normalizer = normalizers.Lowercase()
    path = saved(tmp_path, made)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "add_prefix_space": false}')
    assert Vocabulary(path).encode("A") == [3, 4]


def changed(spiece: pathlib.Path, change) -> str:
    """The path of the model, changed, with one token added to it."""
    model = sentencepiece_model_pb2.ModelProto.FromString(spiece.read_bytes())
    change(model)
    spiece.write_bytes(model.SerializeToString())
    spiece.with_name("tokenizer_config.json").write_text('{"extra_ids": 0}')
    spiece.with_name("added_tokens.json").write_text(json.dumps({"<ORG>": len(model.pieces)}))
    return str(spiece)


def test_bytes_are_read_beside_added_tokens(spiece: pathlib.Path) -> None:
    def change(model) -> None:
        model.trainer_spec.byte_fallback = True
        for byte in range(256):
            model.pieces.add(piece=f"<0x{byte:02X}>", score=-9.0, type=model.SentencePiece.BYTE)

    path = changed(spiece, change)
    vocabulary = Vocabulary(path)
    spiece.with_name("added_tokens.json").unlink()
    alone = Vocabulary(path)
    assert alone.model_bytes
    assert not vocabulary.model_bytes
    for text in ("fox €", "the quick fox", "é"):
        assert vocabulary.encode(text) == alone.encode(text)
        assert vocabulary.decode(vocabulary.encode(text)) == text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda model: setattr(model.normalizer_spec, "add_dummy_prefix", False),
            "begin words with one space",
        ),
        (
            lambda model: setattr(model.trainer_spec, "treat_whitespace_as_suffix", True),
            "begin words with one",
        ),
        (
            lambda model: model.pieces.add(piece="fox!", type=model.SentencePiece.USER_DEFINED),
            "its user defined",
        ),
        (
            lambda model: setattr(model.trainer_spec, "model_type", model.trainer_spec.BPE),
            "Unigram models alone",
        ),
    ],
)
def test_tokens_added_to_another_kind_of_model_are_refused(spiece: pathlib.Path, change, reason: str) -> None:
    with pytest.raises(RunError, match=rf"added_tokens\.json: .*{reason}"):
        Vocabulary(changed(spiece, change))
