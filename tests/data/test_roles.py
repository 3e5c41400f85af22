"""Caches by role: views of official splits, the same for every form of a task."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("seqio")

from jax_prompts.config import Data
from jax_prompts.data.open import open_caches
from jax_prompts.data.roles import open_role, open_roles, subset_record
from jax_prompts.data.sampler import eval_batches, train_batches
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError


def numbers(caches) -> list[list[int]]:
    """The `idx` of every example."""
    return [[cache.example(i)["idx"] for i in range(len(cache))] for _, cache in caches]


def test_a_subset_is_a_view_with_the_same_interface(toy: Data, small_vocabulary: Vocabulary) -> None:
    ((_, whole),) = open_caches(toy, "train", small_vocabulary)
    view = whole.subset(np.array([9, 2, 4])).subset(np.array([2, 0]))
    assert (len(whole), len(view), view.index_N.tolist()) == (10, 2, [4, 9])
    assert numbers([(1.0, view)]) == [[4, 9]]
    assert (view.label_counts, view.labels) == ({"yes": 1, "no": 1}, whole.labels)
    assert view.texts("targets_pretokenized") == ["yes", "no"]
    inputs, targets = view.rows([1, 0])
    expected = whole.rows([9, 4])
    np.testing.assert_array_equal(inputs.values_N, expected[0].values_N)
    np.testing.assert_array_equal(targets.offsets, expected[1].offsets)
    assert view.longest_inputs == max(expected[0].lengths_B)
    assert whole.subset(np.array([0, 7])).longest_inputs < whole.longest_inputs
    assert view.metrics[0]([1], [1]) == {"accuracy": 100.0}


def test_rows_of_one_raw_example_stay_together(toy: Data, small_vocabulary: Vocabulary) -> None:
    data = dataclasses.replace(toy, task="toy_wic")  # two rows share an idx
    ((_, whole),) = open_caches(data, "validation", small_vocabulary)
    assert whole.first_rows.tolist() == [0, 2, 4, 6, 8]
    assert whole.rows_of(np.array([4, 1])).tolist() == [2, 3, 8, 9]
    for protocol, seed in (("ept_b1", 0), ("ept_b1", 1), ("attempt_half", 0)):
        settings = dataclasses.replace(data, protocol=protocol, subset_seed=seed)
        found = open_roles(settings, small_vocabulary)
        ((validation,), (test,)) = (numbers(found[role]) for role in ("validation", "test"))
        assert (len(validation), len(test)) == (4, 6)
        assert sorted([*validation, *test]) == sorted([*range(5)] * 2)
        assert not set(validation) & set(test)
    ((_, few),) = open_roles(dataclasses.replace(data, few_shot=2), small_vocabulary)["train"]
    assert (len(few), len(few.first_rows), len(set(numbers([(1.0, few)])[0]))) == (4, 2, 2)


def test_held_out_training_examples_and_few_shot_after_them(toy: Data, small_vocabulary: Vocabulary) -> None:
    data = dataclasses.replace(toy, task="toy_qnli", protocol="attempt_half")
    found = open_roles(data, small_vocabulary)
    ((train,), (validation,), (test,)) = (numbers(found[role]) for role in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (200, 1000, 1200)
    assert sorted([*train, *validation]) == list(range(1200))
    data = dataclasses.replace(data, few_shot_per_class=8)
    few = open_roles(data, small_vocabulary)
    ((rate, cache),) = few["train"]
    assert (rate, cache.label_counts) == (1.0, {"no": 8, "yes": 8})
    assert set(numbers(few["train"])[0]) < set(train)
    assert numbers(few["validation"]) == [validation]
    record = subset_record(data, few)
    assert {name: record[name] for name in ("protocol", "few_shot", "few_shot_per_class", "subset_seed")} == {
        "protocol": "attempt_half",
        "few_shot": None,
        "few_shot_per_class": 8,
        "subset_seed": 42,
    }
    assert [(row["role"], row["split"], len(row["rows"])) for row in record["subsets"]] == [
        ("train", "train", 16),
        ("validation", "train", 1000),
    ]
    assert record["subsets"][0]["rows"] == numbers(few["train"])[0]


def test_views_make_batches(toy: Data, small_vocabulary: Vocabulary) -> None:
    data = dataclasses.replace(toy, task="toy_mixture", few_shot=3)
    caches = open_roles(data, small_vocabulary)["train"]
    assert [(rate, cache.task, len(cache)) for rate, cache in caches] == [
        (1.0, "toy_many", 3),
        (3.0, "toy_ten", 3),
    ]
    options = dict(inputs_length=16, targets_length=4, batch_size=4)
    batches = train_batches([caches], seeds=[0], prompt_ids_TP=np.arange(2)[None], **options)
    seen = {tuple(row) for _ in range(6) for row in next(batches)[0]["encoder_input_tokens"][0].tolist()}
    assert len(seen) == 6
    evaluated = eval_batches(caches[0][1], prompt_ids_EP=np.arange(2)[None], **options)
    assert sum((batch["index"] >= 0).sum() for batch in evaluated) == 3


def test_a_mixture_divides_each_task_by_its_own_sizes(toy: Data, small_vocabulary: Vocabulary) -> None:
    data = dataclasses.replace(toy, task="toy_mixture", protocol="ept_b1")
    found = open_roles(data, small_vocabulary)
    assert {role: [(c.task, len(c)) for _, c in caches] for role, caches in found.items()} == {
        "train": [("toy_many", 5000), ("toy_ten", 10)],
        "validation": [("toy_many", 2500), ("toy_ten", 5)],
        "test": [("toy_many", 2500), ("toy_ten", 5)],
    }
    alone = open_roles(dataclasses.replace(data, task="toy_ten"), small_vocabulary)
    assert numbers(alone["test"]) == numbers(found["test"][1:])
    other = open_roles(dataclasses.replace(data, subset_seed=7), small_vocabulary)
    assert numbers(other["test"][:1]) != numbers(found["test"][:1])


def test_roles_open_no_more_than_they_need(toy: Data, small_vocabulary: Vocabulary, tmp_path) -> None:
    (cache,) = open_role(toy, small_vocabulary, "validation")
    assert cache.index_N is None
    assert [path.name[:18] for path in (tmp_path / "caches").iterdir()] == ["toy_ten-validation"]
    assert subset_record(toy, {"validation": [(1.0, cache)]}) is None


def test_roles_and_subsets_that_are_not_there(toy: Data, small_vocabulary: Vocabulary) -> None:
    with pytest.raises(ConfigError, match="EVAL_ROLE is test, and PROTOCOL dev_as_test has train and"):
        open_role(toy, small_vocabulary, "test")
    with pytest.raises(ConfigError, match=r"takes split test of toy_ten: .*; use PROTOCOL ept_b1"):
        open_roles(dataclasses.replace(toy, protocol="attempt_half"), small_vocabulary)


def test_few_shot_takes_what_there_is(toy: Data, small_vocabulary: Vocabulary, capsys) -> None:
    ((_, cache),) = open_roles(dataclasses.replace(toy, few_shot_per_class=6), small_vocabulary)["train"]
    assert cache.label_counts == {"no": 5, "yes": 5}
    assert "toy_ten has 5 no, 5 yes training examples: all" in " ".join(capsys.readouterr().err.split())
    for k, count in {6: 6, 60: 10}.items():
        free = dataclasses.replace(toy, task="toy_free", few_shot_per_class=k)
        ((_, cache),) = open_roles(free, small_vocabulary)["train"]
        assert len(cache) == count
        assert f"toy_free has no classes, so that {count} examples" in " ".join(
            capsys.readouterr().err.split()
        )


def test_real_files_and_every_form_of_a_task(shared, small_vocabulary: Vocabulary, tmp_path) -> None:
    found = {}
    for task in ("super_glue_cb_v102", "taskless_super_glue_cb_v102"):
        data = Data(
            task,
            "tasks.registry",
            {"inputs": 32, "targets": 8},
            4,
            data_dir=str(shared / "data" / "superglue"),
            cache_dir=str(tmp_path),
            protocol="ept_b1",
            few_shot_per_class=16,
        )
        roles = open_roles(data, small_vocabulary)
        assert [len(roles[role][0][1]) for role in ("train", "validation", "test")] == [48, 28, 28]
        found[task] = [row["rows"] for row in subset_record(data, roles)["subsets"]]
    assert found["super_glue_cb_v102"] == found["taskless_super_glue_cb_v102"]
