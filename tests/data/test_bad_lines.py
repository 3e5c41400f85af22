"""Bad lines of official files: they stop a fill, or are left out and listed."""

from __future__ import annotations

import dataclasses
import json
import lzma
import pathlib

import pytest

pytest.importorskip("seqio")

from jax_prompts.config import Data
from jax_prompts.data.open import open_caches
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError
from tasks.errors import BadLine, TaskError
from tasks.sources.bad_lines import SHOWN, skipping, tolerated

GOOD = [{"premise": "p", "hypothesis": "h", "label": "neutral", "idx": idx} for idx in range(3)]


@pytest.fixture
def official(tmp_path: pathlib.Path) -> Data:
    (tmp_path / "CB").mkdir()
    return Data(
        task="super_glue_cb_v102",
        task_module="tasks.registry",
        task_feature_lengths={"inputs": 16, "targets": 8},
        batch_size=4,
        data_dir=str(tmp_path),
        cache_dir=str(tmp_path / "caches"),
    )


def test_bad_lines_of_json_are_left_out_and_listed(
    official: Data, small_vocabulary: Vocabulary, tmp_path: pathlib.Path, capsys
):
    bad = [
        b"{",
        b"[]",
        b'{"premise": "\xff"}',
        b'{"premise": 1}',
        json.dumps({**GOOD[0], "label": 1}).encode(),
    ]
    bad += [json.dumps(GOOD[0]).encode()] + [b"}"] * 8
    lines = [json.dumps(row).encode() for row in GOOD]
    path = tmp_path / "CB/train.jsonl"
    path.write_bytes(b"\n".join([lines[0], *bad, *lines[1:]]))
    with pytest.raises(ConfigError, match=r"train.jsonl, line 2: malformed JSON"):
        open_caches(official, "train", small_vocabulary)
    ((_, cache),) = open_caches(dataclasses.replace(official, skip_bad_lines=True), "train", small_vocabulary)
    assert [cache.example(i)["idx"] for i in range(len(cache))] == [0, 1, 2]
    assert cache.bad_lines["count"] == len(bad) and len(cache.bad_lines["first"]) == SHOWN
    reasons = ["malformed JSON", "not list", "not UTF-8", "must be text", "label 1 is none", "same number"]
    for number, (message, reason) in enumerate(zip(cache.bad_lines["first"], reasons, strict=False), start=2):
        assert message.startswith(f"{path}, line {number}: ") and reason in message
    assert f"{len(bad)} bad lines left out" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="line 2"):
        open_caches(official, "train", small_vocabulary)


def test_a_file_of_bad_lines_alone_holds_no_examples(
    official: Data, small_vocabulary: Vocabulary, tmp_path: pathlib.Path
):
    (tmp_path / "CB/train.jsonl").write_text("{\n{\n")
    with pytest.raises(
        ConfigError, match=r"no examples; 2 bad lines were left out, the first: \S*, line 1: malf"
    ):
        open_caches(dataclasses.replace(official, skip_bad_lines=True), "train", small_vocabulary)


def test_bad_lines_of_tsv_and_of_plain_text(official: Data, small_vocabulary: Vocabulary, tmp_path):
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2/dev.tsv").write_bytes(b"sentence\tlabel\ngood\t1\nbad\n\xff\t0\nworse\t7\nfine\t1\n")
    skip = dataclasses.replace(official, skip_bad_lines=True, task="glue_sst2_v200")
    ((_, cache),) = open_caches(skip, "validation", small_vocabulary)
    assert [cache.example(i)["inputs_pretokenized"] for i in range(2)] == [
        "sst2 sentence: good",
        "sst2 sentence: fine",
    ]
    assert cache.bad_lines["count"] == 3
    with lzma.open(tmp_path / "text.txt.xz", "wb") as file:
        file.write(b"the fox\n\xff\nthe dog\n" * 200)
    plain = dataclasses.replace(skip, task="prefix_lm")
    with pytest.raises(ConfigError, match=r"text.txt.xz, line 2: not UTF-8"):
        open_caches(dataclasses.replace(plain, skip_bad_lines=False), "train", small_vocabulary)
    ((_, cache),) = open_caches(plain, "train", small_vocabulary)
    assert len(cache) > 10 and cache.bad_lines["count"] > 10


def test_only_bad_lines_are_tolerated():
    with skipping(True) as found:
        with tolerated():
            raise BadLine("one")
        with pytest.raises(TaskError), tolerated():
            raise TaskError("another")
    assert list(found) == ["one"]
    for context in (skipping(False), skipping(True)):
        with context, pytest.raises(KeyError), tolerated():
            raise KeyError
    with pytest.raises(BadLine), tolerated():
        raise BadLine("outside")


def test_a_bad_passage_of_nested_files_is_left_out(official: Data, small_vocabulary: Vocabulary, tmp_path):
    def passage(idx: int, **more) -> dict:
        answers = [{"text": "a", "idx": 10 * idx, "label": 1}, {"text": "b", "idx": 10 * idx + 1, "label": 0}]
        questions = [{"question": "q", "idx": idx, "answers": answers}]
        return {"idx": idx, "passage": {"text": "p", "questions": questions, **more}}

    (tmp_path / "MultiRC").mkdir()
    rows = [passage(0), passage(1, text=7), passage(2)]
    (tmp_path / "MultiRC/val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    multirc = dataclasses.replace(official, task="super_glue_multirc_v102")
    with pytest.raises(ConfigError, match=r"val.jsonl, line 2.*'text' must be text, found 7"):
        open_caches(multirc, "validation", small_vocabulary)
    skip = dataclasses.replace(multirc, skip_bad_lines=True)
    ((_, cache),) = open_caches(skip, "validation", small_vocabulary)
    assert len(cache) == 4 and cache.bad_lines["count"] == 1
