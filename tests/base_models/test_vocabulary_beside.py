"""The vocabulary beside a model: which file, how many sentinels, which ids; and all of it in the native form."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest
from tokenizers import AddedToken, BertWordPieceTokenizer, Tokenizer, models, pre_tokenizers

from jax_prompts.base_models import build
from jax_prompts.base_models.build import make_vocabulary
from jax_prompts.base_models.convert import convert_model
from jax_prompts.base_models.open import open_model
from jax_prompts.config import BaseModel
from jax_prompts.errors import RunError

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "é", "e", "cafe"]


def copied(name: str, folder: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(GOLDENS / name, folder, ignore=shutil.ignore_patterns("golden*", "README*"))


def vocabulary_of(folder: pathlib.Path):
    return make_vocabulary(BaseModel(size=None, checkpoint=str(folder), vocabulary=None))


def unigram(pieces: int) -> Tokenizer:
    names = ["<pad>", "</s>", "<unk>", "▁", "a", *(f"word{i}" for i in range(5, pieces))]
    made = Tokenizer(models.Unigram([(name, -1.0 * (i > 2)) for i, name in enumerate(names)], unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens([AddedToken(name, normalized=False) for name in names[:3]])
    return made


def test_convert_keeps_added_tokens(tmp_path: pathlib.Path) -> None:
    source = copied("t5_v1_1_hf", tmp_path / "source")
    made = unigram(90)
    made.add_tokens(["<ORG>"])
    made.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": {"91": {"content": "<LOC>"}}})
    )
    described = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(
        json.dumps({**described, "tokenizer_class": "PreTrainedTokenizerFast"})
    )
    done = convert_model(str(source), str(tmp_path / "own"))
    assert done["tokenizer_class"] == "PreTrainedTokenizerFast"
    for folder in (source, tmp_path / "own"):
        assert vocabulary_of(folder).encode("a <ORG> <LOC>")[-1] == 91
        assert vocabulary_of(folder).fingerprint == done["vocabulary"]["fingerprint"]


def test_a_row_for_each_piece_means_no_sentinels(tmp_path: pathlib.Path, train_vocabulary) -> None:
    from sentencepiece import sentencepiece_model_pb2

    source = copied("t5_v1_1_hf", tmp_path / "source")
    model = sentencepiece_model_pb2.ModelProto.FromString(
        pathlib.Path(train_vocabulary("the quick brown fox")).read_bytes()
    )
    while len(model.pieces) < 96:
        model.pieces.add(piece=f"word{len(model.pieces)}", score=-9.0)
    (source / "spiece.model").write_bytes(model.SerializeToString())
    convert_model(str(source), str(tmp_path / "own"))
    assert vocabulary_of(source).size == vocabulary_of(tmp_path / "own").size == 96


def test_a_tokenizer_json_that_differs_is_used_and_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(build, "log", said.append)
    source = copied("bert_hf", tmp_path / "source")
    (source / "vocab.txt").write_text("\n".join(PIECES))
    same = BertWordPieceTokenizer(str(source / "vocab.txt"), lowercase=True)
    same.save(str(source / "tokenizer.json"))
    assert vocabulary_of(source).encode("É") == [6]
    assert not said
    other = BertWordPieceTokenizer(str(source / "vocab.txt"), lowercase=True, strip_accents=False)
    other.save(str(source / "tokenizer.json"))
    assert vocabulary_of(source).encode("É") == [5]
    assert len(said) == 1
    assert "tokenizer.json is used" in said[0]


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("name", ["pad_token_id", "eos_token_id", "decoder_start_token_id"])
def test_other_token_ids_are_refused(tmp_path: pathlib.Path, file: str, name: str) -> None:
    source = copied("t5_v1_1_hf", tmp_path / "source")
    content = json.loads((source / "config.json").read_text()) if file == "config.json" else {}
    (source / file).write_text(json.dumps({**content, name: 7}))
    with pytest.raises(RunError, match=f"{file} has {name} 7"):
        open_model(str(source))
