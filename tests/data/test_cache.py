"""Caches: made once, found again, made anew when anything that decides the tokens has changed."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest

pytest.importorskip("seqio")

from jax_prompts.config import Data
from jax_prompts.data import fill as fill_module
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.cache_key import cache_root
from jax_prompts.data.open import open_caches
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError, RunError
from tasks import selection


@pytest.fixture
def fills(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tasks that were tokenised."""
    done: list[str] = []
    write = fill_module._write

    def counted(task, *rest):
        done.append(task.name)
        write(task, *rest)

    monkeypatch.setattr(fill_module, "_write", counted)
    return done


def only(data: Data, vocabulary: Vocabulary, split: str = "train") -> TokenCache:
    ((rate, cache),) = open_caches(data, split, vocabulary)
    assert rate == 1.0
    return cache


def contents(cache: TokenCache) -> list[tuple[list[int], list[int], dict]]:
    inputs, targets = cache.rows(range(len(cache)))
    return [
        (
            inputs.values_N[inputs.offsets[i] : inputs.offsets[i + 1]].tolist(),
            targets.values_N[targets.offsets[i] : targets.offsets[i + 1]].tolist(),
            cache.example(i),
        )
        for i in range(len(cache))
    ]


def test_tokens_are_those_of_our_vocabulary(toy: Data, small_vocabulary: Vocabulary) -> None:
    cache = only(toy, small_vocabulary)
    assert (cache.task, cache.split, len(cache)) == ("toy_ten", "train", 10)
    assert (cache.labels, cache.label_counts) == (("no", "yes"), {"yes": 5, "no": 5})
    for i, (inputs, targets, example) in enumerate(contents(cache)):
        text = f"sentence {i} " + "of words " * (i % 7)
        assert inputs == [*small_vocabulary.encode(text)[:15], 1]
        assert targets == [*small_vocabulary.encode(("yes", "no")[i % 2]), 1]
        assert example == {
            "inputs_pretokenized": text,
            "targets_pretokenized": ("yes", "no")[i % 2],
            "idx": i,
        }
    lengths = [(len(inputs), len(targets)) for inputs, targets, _ in contents(cache)]
    assert (cache.longest_inputs, cache.longest_targets) == tuple(np.max(lengths, axis=0))
    assert cache.longest_inputs == 16


@pytest.mark.parametrize("task", ["toy_placeholder", "toy_wrapped"])
def test_tokens_made_many_at_once_are_those_of_seqio(
    toy: Data, small_vocabulary: Vocabulary, task: str
) -> None:
    for split in ("train", "validation"):
        expected = contents(only(toy, small_vocabulary, split))
        assert contents(only(dataclasses.replace(toy, task=task), small_vocabulary, split)) == expected


def test_scoring_functions_come_back_without_seqio(toy: Data, small_vocabulary: Vocabulary) -> None:
    cache = only(toy, small_vocabulary)
    assert cache.postprocess("yes", example=cache.example(0), is_target=True) == 1
    assert cache.postprocess("what", example=cache.example(0), is_target=False) == -1
    (metric,) = cache.metrics
    assert metric([1, 0], [1, 1]) == {"accuracy": 50.0}


def test_many_examples_span_record_batches(toy: Data, small_vocabulary: Vocabulary) -> None:
    cache = only(dataclasses.replace(toy, task="toy_many"), small_vocabulary)
    assert len(cache) == 5000 > fill_module.BATCH_ROWS
    order = np.random.default_rng(0).permutation(5000)[:300]
    inputs, _ = cache.rows(order)
    rows = np.split(inputs.values_N, inputs.offsets[1:-1])
    for i, row in zip(order, rows, strict=True):
        assert cache.example(int(i))["idx"] == i
        assert row.tolist() == [*small_vocabulary.encode(f"sentence {i} " + "of words " * (i % 7))[:15], 1]


def test_an_unchanged_cache_is_found_again(toy: Data, small_vocabulary: Vocabulary, fills: list[str]) -> None:
    first, second = only(toy, small_vocabulary), only(toy, small_vocabulary)
    assert fills == ["toy_ten"]
    assert contents(first) == contents(second)
    assert [path.name for path in pathlib.Path(toy.cache_dir).iterdir()] == [first.directory.name]
    assert sorted(path.name for path in first.directory.iterdir()) == ["info.json", "tokens.arrow"]


def test_what_decides_the_tokens_makes_another_cache(
    toy: Data, small_vocabulary: Vocabulary, task_package: pathlib.Path, fills: list[str], tmp_path
) -> None:
    first = only(toy, small_vocabulary)
    shorter = only(
        dataclasses.replace(toy, task_feature_lengths={"inputs": 6, "targets": 4}), small_vocabulary
    )
    assert shorter.longest_inputs == 6
    assert all(row[0][-1] == 1 for row in contents(shorter))
    assert len(only(toy, small_vocabulary, "validation")) == 10
    (tmp_path / "copy.model").write_bytes(small_vocabulary.model_bytes)
    only(toy, Vocabulary(str(tmp_path / "copy.model")))  # the same content elsewhere is the same vocabulary
    assert len(fills) == 3
    only(toy, Vocabulary(str(tmp_path / "copy.model"), extra_ids=7))
    assert len(fills) == 4

    scoring = task_package / "toytasks" / "scoring.py"
    before = scoring.read_text()
    try:
        scoring.write_text(before + "\n# changed\n")
        changed = only(toy, small_vocabulary)
    finally:
        scoring.write_text(before)
    assert len(fills) == 5
    assert changed.directory != first.directory
    only(toy, small_vocabulary)
    assert len(fills) == 5


@pytest.mark.parametrize("file", ["tokens.arrow", "info.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_damaged_caches_are_made_again_and_say_so(
    toy: Data,
    small_vocabulary: Vocabulary,
    fills: list[str],
    capsys: pytest.CaptureFixture[str],
    file: str,
    damage: str,
) -> None:
    before = only(toy, small_vocabulary)
    expected, path = contents(before), before.directory / file
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        # A hole in the middle: in info.json it ends the JSON early, in tokens.arrow it changes a token.
        content[len(content) // 2] ^= 0xFF
        path.unlink()  # `before` still maps the old file
        path.write_bytes(
            {"truncated": content[: len(content) // 2], "flipped": content, "empty": b""}[damage]
        )
    capsys.readouterr()
    assert contents(only(toy, small_vocabulary)) == expected
    assert fills == ["toy_ten", "toy_ten"]
    if damage != "missing":
        assert "making it again" in capsys.readouterr().err
    assert len(list(pathlib.Path(toy.cache_dir).iterdir())) == 1


def files_task(toy: Data, folder: pathlib.Path, text: str) -> Data:
    folder.mkdir(exist_ok=True)
    (folder / "train.tsv").write_text(text)
    return dataclasses.replace(toy, task="toy_files", data_dir=str(folder))


def test_data_files_are_compared_by_content(
    toy: Data, small_vocabulary: Vocabulary, fills: list[str], tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = files_task(toy, tmp_path / "one", "the fox\tyes\nthe dog\tno\n")
    assert [row[2]["inputs_pretokenized"] for row in contents(only(data, small_vocabulary))] == [
        "the fox",
        "the dog",
    ]
    only(files_task(toy, tmp_path / "two", "the fox\tyes\nthe dog\tno\n"), small_vocabulary)
    assert len(fills) == 1
    changed = files_task(toy, tmp_path / "two", "the fox\tyes\nthe cat\tno\n")
    assert [row[2]["inputs_pretokenized"] for row in contents(only(changed, small_vocabulary))] == [
        "the fox",
        "the cat",
    ]
    assert len(fills) == 2
    assert "making it again" in capsys.readouterr().err
    # Without DATA_DIR what is there is taken.
    assert len(only(dataclasses.replace(changed, data_dir=None), small_vocabulary)) == 2
    assert len(fills) == 2


def test_bad_data_is_named_and_leaves_no_cache(toy: Data, small_vocabulary: Vocabulary, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"DATA_DIR .*nowhere is not a directory"):
        only(dataclasses.replace(toy, data_dir=str(tmp_path / "nowhere")), small_vocabulary)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"CACHE_DIR .*file is not a directory .*\(it is a file\)"):
        only(dataclasses.replace(toy, cache_dir=str(tmp_path / "file")), small_vocabulary)
    for place in ("file/below", "n" * 300):
        with pytest.raises(
            ConfigError, match=rf"^CACHE_DIR .*{place} is not a directory and cannot become one \("
        ):
            only(dataclasses.replace(toy, cache_dir=str(tmp_path / place)), small_vocabulary)
    malformed = files_task(toy, tmp_path / "bad", "the fox\tyes\nthe dog\n")
    with pytest.raises(ConfigError, match=r"^.*bad/train\.tsv:2: no tab in this line$"):
        only(malformed, small_vocabulary)
    with pytest.raises(
        ConfigError, match=r"toy_wrong_label train, example 0: label 'yes' is none of true, false"
    ):
        only(dataclasses.replace(toy, task="toy_wrong_label"), small_vocabulary)
    with pytest.raises(ConfigError, match=r"toy_ten has no examples in split 'none'"):
        only(toy, small_vocabulary, "none")
    with pytest.raises(ConfigError, match=r"toy_ten has no split 'validatoin': use validation"):
        only(toy, small_vocabulary, "validatoin")
    with pytest.raises(ConfigError, match=r"MIXTURE_OR_TASK_NAME toy_tne is not registered .*: use toy_ten"):
        only(dataclasses.replace(toy, task="toy_tne"), small_vocabulary)
    with pytest.raises(ConfigError, match=r"MIXTURE_OR_TASK_MODULE no_such_package\.tasks"):
        only(dataclasses.replace(toy, task_module="no_such_package.tasks"), small_vocabulary)
    with pytest.raises(ConfigError, match=r"MIXTURE_OR_TASK_MODULE toytasks\.nothing"):
        only(dataclasses.replace(toy, task_module="toytasks.nothing"), small_vocabulary)
    assert list(pathlib.Path(toy.cache_dir).iterdir()) == []


def test_a_mixture_gives_its_tasks_and_rates(
    toy: Data, small_vocabulary: Vocabulary, fills: list[str]
) -> None:
    mixture = dataclasses.replace(toy, task="toy_mixture")
    only(toy, small_vocabulary)
    for _ in range(2):
        found = open_caches(mixture, "train", small_vocabulary)
        assert [(rate, cache.task, len(cache)) for rate, cache in found] == [
            (1.0, "toy_many", 5000),
            (3.0, "toy_ten", 10),
        ]
    assert fills == ["toy_ten", "toy_many"]  # what a task alone had made is used
    (record,) = pathlib.Path(toy.cache_dir).glob("toy_mixture-*/mixture.json")
    assert json.loads(record.read_text()) == [["toy_many", 1.0, True], ["toy_ten", 3.0, True]]
    record.write_text("[[")
    assert len(open_caches(mixture, "train", small_vocabulary)) == 2


def test_a_module_that_registers_no_task_is_named(
    toy: Data, small_vocabulary: Vocabulary, monkeypatch
) -> None:
    monkeypatch.setattr(fill_module, "_registered", set)
    with pytest.raises(ConfigError, match=r"MIXTURE_OR_TASK_MODULE toytasks\.registry registers no task"):
        open_caches(toy, "train", small_vocabulary)


def test_tasks_that_choose_are_known_from_the_cache(
    toy: Data, small_vocabulary: Vocabulary, monkeypatch
) -> None:
    monkeypatch.setitem(selection._CHOOSING, "toy_mixture", ("toy_ten",))
    mixture = dataclasses.replace(toy, task="toy_mixture")
    for _ in range(2):
        found = open_caches(mixture, "train", small_vocabulary)
        assert {cache.task: cache.chooses for _, cache in found} == {"toy_many": False, "toy_ten": True}
    assert all(cache.subset(np.arange(2)).chooses == cache.chooses for _, cache in found)


def test_a_mixtures_tasks_take_part_in_the_splits_they_have(
    toy: Data, small_vocabulary: Vocabulary, fills: list[str]
) -> None:
    mixture = dataclasses.replace(toy, task="toy_and_dev")
    for split, expected in {
        "train[:10]": [(2.5, "toy_ten"), (1.0, "toy_train_only")],
        "validation": [(2.5, "toy_ten")],
    }.items():
        for _ in range(2):
            found = open_caches(mixture, split, small_vocabulary)
            assert [(rate, cache.task) for rate, cache in found] == expected
    assert fills == ["toy_ten", "toy_train_only", "toy_ten"]
    with pytest.raises(ConfigError, match="toy_ten has no split 'tset': use"):
        open_caches(mixture, "tset", small_vocabulary)


def test_a_loser_of_the_race_keeps_the_winners_cache(
    toy: Data, small_vocabulary: Vocabulary, monkeypatch
) -> None:
    write, winners = fill_module._write, []

    def slow(task, *rest):
        write(task, *rest)
        if not winners:
            winners.append(None)
            winners[0] = only(toy, small_vocabulary).directory.stat().st_ino

    monkeypatch.setattr(fill_module, "_write", slow)
    assert only(toy, small_vocabulary).directory.stat().st_ino == winners[0]


@pytest.mark.parametrize(
    "named",
    [
        "outside:f",
        "toytasks.scoring:getcwd",
        "toytasks.scoring:sys",
        "toytasks.scoring:nothing",
        "toytasks.scoring:sys.exit",
    ],
)
def test_a_cache_cannot_name_code_outside_the_tasks(
    toy: Data, small_vocabulary: Vocabulary, named: str
) -> None:
    cache = only(toy, small_vocabulary)
    path = cache.directory / "info.json"
    info = json.loads(path.read_text())
    info["metrics"] = [{"function": named, "kwargs": {}}]
    path.write_text(json.dumps(info))
    with pytest.raises(RunError, match=rf"info\.json names {named}, .*remove this directory"):
        _ = only(toy, small_vocabulary).metrics


def test_the_cache_directory_has_a_default(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path))
    assert cache_root(None) == tmp_path
    assert cache_root("/elsewhere") == pathlib.Path("/elsewhere")
    monkeypatch.delenv("JAX_PROMPTS_CACHE")
    assert cache_root(None) == pathlib.Path.home() / ".cache" / "jax_prompts"


def test_official_files_with_the_real_vocabulary(
    toy: Data, t5_vocabulary_path: str, superglue_folder: str
) -> None:
    vocabulary = Vocabulary(t5_vocabulary_path)
    lengths = {"inputs": 128, "targets": 8}
    data = dataclasses.replace(
        toy,
        task="super_glue_cb_v102",
        task_module="tasks.registry",
        task_feature_lengths=lengths,
        data_dir=superglue_folder,
    )
    cache = only(data, vocabulary, "validation")
    assert len(cache) == 56
    assert sum(cache.label_counts.values()) == 56
    for inputs, targets, example in contents(cache):
        assert inputs == [*vocabulary.encode(example["inputs_pretokenized"])[:127], 1]
        assert targets == [*vocabulary.encode(example["targets_pretokenized"]), 1]
        assert example["targets_pretokenized"] in cache.labels
    texts = [example["targets_pretokenized"] for _, _, example in contents(cache)]
    classes = [cache.postprocess(text, example={}, is_target=True) for text in texts]
    scores = {name: value for metric in cache.metrics for name, value in metric(classes, classes).items()}
    assert scores == pytest.approx({"mean_3class_f1": 100, "accuracy": 100})
