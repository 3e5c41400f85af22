"""ByT5 among base models: its vocabulary is no file, is kept by `t5x convert`, and is told from SentencePiece's."""

import dataclasses
import json
import pathlib
import shutil

import jax
import pytest

from jax_prompts.base_models.build import make_vocabulary, read_vocabulary
from jax_prompts.base_models.convert import convert_model
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.weights import load_weights, save_model
from jax_prompts.cli.inspection import describe
from jax_prompts.config import BaseModel
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import in_memory
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.models.sizes import SIZES, UMT5_ROWS
from jax_prompts.models.t5 import T5, T5Config

CONFIG = T5Config(384, 16, 2, 2, 1, 8, 24, ("gelu", "linear"), logits_via_embedding=False)
NAMED = {"tokenizer_class": "ByT5Tokenizer"}
BYTES = Vocabulary("bytes").fingerprint
BERT = pathlib.Path(__file__).parents[1] / "goldens" / "bert_hf"


@pytest.fixture(scope="module")
def weights():
    return load_weights(BaseModel(None, None, ""), T5(CONFIG))[0]


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory):
    """Of T5X, without a word on its vocabulary."""
    path = tmp_path_factory.mktemp("t5x") / "checkpoint_5"
    flat = {
        jax.tree_util.keystr(key, simple=True, separator="/"): in_memory(jax.device_get(array))
        for key, array in jax.tree_util.tree_leaves_with_path(weights)
    }
    write_checkpoint(path, flat, 5)
    return path


def vocabulary_of(path, vocabulary=None):
    return make_vocabulary(BaseModel(size=None, checkpoint=str(path), vocabulary=vocabulary))


def native(weights, path, config=None, **files):
    """A model of the project with more in its config.json, and these JSON files beside it."""
    path.mkdir()
    save_model(path, weights, CONFIG, config or {})
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("files", [{"tokenizer_config": NAMED}, {"config": NAMED}])
def test_the_tokenizers_name_stands_for_a_file(weights, tmp_path, files):
    path = native(weights, tmp_path / "model", **files)
    vocabulary = vocabulary_of(path)
    assert (vocabulary.fingerprint, vocabulary.size) == (BYTES, 384)
    assert vocabulary.encode("é") == [198, 172]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_convert_keeps_it(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="no vocabulary lies beside"):
        vocabulary_of(checkpoint)
    assert vocabulary_of(checkpoint, "bytes").fingerprint == BYTES
    for name in ("one", "two"):
        done = convert_model(str(checkpoint), str(tmp_path / name), "bytes")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert done["vocabulary"] == {"file": "tokenizer_config.json", "fingerprint": BYTES}
    again = convert_model(str(tmp_path / "one"), str(tmp_path / "again"))
    assert again["vocabulary"] == done["vocabulary"]
    assert again["fingerprint"] == done["fingerprint"]
    for name in ("one", "again"):
        assert vocabulary_of(tmp_path / name).fingerprint == BYTES
        assert describe(str(tmp_path / name))["vocabulary"]["fingerprint"] == BYTES


def test_convert_and_inspect_obey_added_tokens(weights, tmp_path):
    from safetensors.numpy import load_file, save_file

    source = tmp_path / "source"
    source.mkdir()
    umt5 = pathlib.Path(__file__).parents[1] / "goldens" / "umt5_hf"
    shutil.copy(umt5 / "config.json", source)
    arrays = load_file(umt5 / "model.safetensors")
    wide = {"shared.weight", "lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    rows = {name: array.repeat(9, axis=0)[:400] for name, array in arrays.items() if name in wide}
    save_file(arrays | rows, source / "model.safetensors")
    described = json.loads((source / "config.json").read_text()) | NAMED | {"vocab_size": 400}
    (source / "config.json").write_text(json.dumps(described))
    settings = NAMED | {"additional_special_tokens": ["<extra_id_0>", "<ORG>"]}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    seen = describe(str(source))
    assert (seen["vocabulary"]["ids"], seen["vocabulary"]["obeyed"]) == (261, ["tokenizer_config.json"])
    done = convert_model(str(source), str(tmp_path / "own"))
    assert done["tokenizer_class"] == "ByT5Tokenizer"
    for folder in (source, tmp_path / "own"):
        assert vocabulary_of(folder).encode("<ORG>") == [260]
        assert vocabulary_of(folder).fingerprint == done["vocabulary"]["fingerprint"] != BYTES


def test_a_file_called_as_the_working_directorys_is_not_taken_for_its(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "tokenizer_config.json").write_text("{")
    (tmp_path / "bytes").write_text("")
    monkeypatch.chdir(tmp_path)
    assert vocabulary_of(checkpoint, "bytes").fingerprint == BYTES
    assert (
        convert_model(str(checkpoint), str(tmp_path / "own"), "bytes")["vocabulary"]["fingerprint"] == BYTES
    )


def test_rows_for_bytes_alone_mean_no_sentinels():
    for rows, size in ((384, 384), (259, 259), (512, 384)):
        assert read_vocabulary("bytes", dataclasses.replace(CONFIG, vocab_size=rows)).size == size
    with pytest.raises(ConfigError, match="bytes has 384 ids and the model 300 embedding rows"):
        read_vocabulary("bytes", dataclasses.replace(CONFIG, vocab_size=300))


@pytest.mark.parametrize("size", ["t5_1_1_small", "umt5_small", "micro"])
def test_bytes_for_a_model_of_pieces_are_refused(size):
    rows = SIZES[size].vocab_size
    with pytest.raises(
        ConfigError, match=f"VOCABULARY is bytes, 384 ids of a ByT5's bytes, and the model has {rows} "
    ):
        read_vocabulary("bytes", SIZES[size])


def test_pieces_for_a_model_of_bytes_are_refused(weights, tmp_path, train_vocabulary):
    path = native(weights, tmp_path / "model", config=NAMED)
    with pytest.raises(ConfigError, match=r"asset:micro has 4096 ids and the model 384 embedding rows"):
        vocabulary_of(path, "asset:micro")
    few = train_vocabulary("the quick brown fox")
    with pytest.raises(
        RunError, match=rf"tokenizer_class ByT5Tokenizer, and VOCABULARY is {few}: set VOCABULARY to 'bytes'"
    ):
        vocabulary_of(path, few)
    other = native(weights, tmp_path / "other", config={"tokenizer_class": "T5Tokenizer"})
    with pytest.raises(
        RunError, match="tokenizer_class T5Tokenizer, and VOCABULARY is bytes: set VOCABULARY"
    ):
        vocabulary_of(other, "bytes")
    with pytest.raises(RunError, match="tokenizer_class T5Tokenizer, and VOCABULARY is bytes"):
        convert_model(str(other), str(tmp_path / "own"), "bytes")
    recorded = {"vocabulary": {"file": "vocabulary.model", "fingerprint": "0" * 16}}
    with pytest.raises(ConfigError, match=f"bytes is vocabulary {BYTES} and .* was converted with 0000"):
        vocabulary_of(native(weights, tmp_path / "third", config=recorded), "bytes")


def test_a_bert_has_no_bytes():
    with pytest.raises(
        ConfigError, match=r"VOCABULARY is bytes, a ByT5's bytes: set it to the BERT's vocab\.txt"
    ):
        vocabulary_of(BERT, "bytes")


def test_a_tokenizer_config_beside_pieces_is_no_vocabulary(weights, tmp_path):
    path = native(weights, tmp_path / "model", tokenizer_config={"tokenizer_class": "T5Tokenizer"})
    assert open_model(str(path)).vocabulary is None
    (path / "tokenizer_config.json").write_text("{")
    with pytest.raises(RunError, match=r"tokenizer_config\.json"):
        open_model(str(path))


def test_a_umt5_has_300_sentinels_where_no_file_says(tmp_path, train_vocabulary):
    few = train_vocabulary("the quick brown fox")
    pieces = Vocabulary(few, extra_ids=0).size
    for rows, sentinels in ((UMT5_ROWS, 300), (32128, 100)):
        vocabulary = read_vocabulary(few, dataclasses.replace(CONFIG, vocab_size=rows))
        assert (vocabulary.size, vocabulary.extra_ids) == (pieces + sentinels, sentinels)
    shutil.copy(few, tmp_path / "spiece.model")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 7}))
    said = read_vocabulary(str(tmp_path / "spiece.model"), dataclasses.replace(CONFIG, vocab_size=UMT5_ROWS))
    assert said.extra_ids == 7
