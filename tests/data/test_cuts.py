"""Texts that TASK_FEATURE_LENGTHS cut: counted in caches and views of them, said, refused where all targets are."""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("seqio")

from jax_prompts.config import OwnTask
from jax_prompts.data.cuts import count_cuts
from jax_prompts.data.open import open_caches
from jax_prompts.data.roles import open_roles
from jax_prompts.errors import ConfigError


def words(text):
    return " ".join(text.split())


def opened(data, vocabulary, **lengths):
    data = dataclasses.replace(data, task_feature_lengths={**data.task_feature_lengths, **lengths})
    ((_, cache),) = open_caches(data, "train", vocabulary)
    return cache


def test_rows_that_were_cut_are_counted(toy, small_vocabulary):
    cache = opened(toy, small_vocabulary)
    texts = [len(small_vocabulary.encode(text)) + 1 for text in cache.texts("inputs_pretokenized")]
    cut = [length > 16 for length in texts]
    assert 0 < sum(cut) < len(cache)
    assert cache.cut() == {"inputs": sum(cut), "targets": 0}
    info = json.loads((cache.directory / "info.json").read_text())
    assert (info["cut"], info["misread_targets"]) == (cache.cut(), 0)
    view = cache.subset(np.flatnonzero(cut)[:2])
    assert view.cut() == {"inputs": 2, "targets": 0}
    # A prompt inside the length leaves less for the text.
    assert cache.cut(inputs_length=1) == {"inputs": len(cache), "targets": 0}
    whole = opened(toy, small_vocabulary, inputs=max(texts))
    assert whole.cut() == {"inputs": 0, "targets": 0}
    assert opened(toy, small_vocabulary, inputs=max(texts) - 1).cut()["inputs"] == texts.count(max(texts))


def test_cuts_are_said_and_cut_targets_warned_of(toy, small_vocabulary, capsys):
    cache = opened(toy, small_vocabulary)
    capsys.readouterr()
    cut = cache.cut()["inputs"]
    assert count_cuts({"train": [cache]}, 16) == {
        "train": {"toy_ten": {"inputs": cut, "targets": 0, "examples": 10}}
    }
    said = words(capsys.readouterr().err)
    assert f"TASK_FEATURE_LENGTHS cuts {cut} inputs ({10 * cut}.0 %) of the 10 train examples" in said
    assert "warning" not in said
    lengths = sorted(len(small_vocabulary.encode(text)) + 1 for text in ("yes", "no"))
    assert lengths[0] < lengths[1], "the test needs labels of two lengths"
    half = opened(toy, small_vocabulary, targets=lengths[0])
    capsys.readouterr()
    assert count_cuts({"train": [half]}, 16)["train"]["toy_ten"]["targets"] == 5
    assert "warning: TASK_FEATURE_LENGTHS cuts" in words(capsys.readouterr().err)


def test_targets_that_are_all_cut_are_refused(toy, small_vocabulary):
    cache = opened(toy, small_vocabulary, targets=1)
    with pytest.raises(
        ConfigError, match="every target of the train examples of toy_ten is cut: raise 'targets'"
    ):
        count_cuts({"train": [cache]}, 16)


def test_labels_of_a_run_are_checked(toy, small_vocabulary, capsys):
    short = dataclasses.replace(toy, task_feature_lengths={"inputs": 16, "targets": 1})
    with pytest.raises(ConfigError, match="labels 'no' and 'yes' are the same tokens, cut to 1"):
        open_roles(short, small_vocabulary)
    open_roles(short, small_vocabulary, ["validation"])
    assert "warning: toy_ten: labels 'no' and 'yes' are the same tokens" in words(capsys.readouterr().err)


def test_free_texts_that_do_not_read_back_are_counted(toy, small_vocabulary, tmp_path, capsys):
    rows = [{"text": "the fox", "answer": answer} for answer in ("the fox", " the fox", "the  fox", "fox €")]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = dataclasses.replace(
        toy,
        task="my_answers",
        task_module="tasks.registry",
        task_feature_lengths={"inputs": 32, "targets": 32},
        data_dir=str(tmp_path),
        own_task=OwnTask(train="train.jsonl", target="{answer}"),
    )
    cache = opened(own, small_vocabulary)
    assert cache.misread_targets == 3
    assert "warning: 3 targets of my_answers train do not read back" in words(capsys.readouterr().err)
