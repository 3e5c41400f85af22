"""Faults of the original tasks that are not repeated here, and mixtures in general."""

from __future__ import annotations

import pytest
import seqio

import tasks.registry  # noqa: F401
from tasks.metrics.labels import accuracy, f1_with_invalid
from tasks.mixtures import LIMIT
from tasks.selection import chooses

NAMES = sorted(seqio.MixtureRegistry.names())


def test_taskless_mixtures_hold_taskless_tasks_alone():
    """In the original the tasks of `taskless_glue_mnli_and_dev` were those with names."""
    taskless = [name for name in NAMES if name.startswith("taskless_")]
    assert "taskless_glue_mnli_and_dev_v200" in taskless
    assert "taskless_super_glue_wsc_and_dev_v102_simple" in taskless
    for name in taskless:
        assert all(task.name.startswith("taskless_") for task in seqio.MixtureRegistry.get(name).tasks)
        named = seqio.MixtureRegistry.get(name.removeprefix("taskless_")).tasks
        assert not any(task.name.startswith("taskless_") for task in named)


@pytest.mark.parametrize("prefix", ["", "taskless_"])
@pytest.mark.parametrize(
    ("task", "answers", "text"),
    [
        ("glue_mrpc_from_qqp_v002", {"duplicate": 1, "not_duplicate": 0, "maybe": -1}, "equivalent"),
        ("glue_qqp_from_mrpc_v002", {"equivalent": 1, "not_equivalent": 0, "maybe": -1}, "duplicate"),
    ],
)
def test_transfer_reads_the_words_of_the_set_it_was_tuned_on(
    prefix: str, task: str, answers: dict, text: str
):
    """In the original one of two forms was scored by the postprocessor of another task."""
    registered = seqio.TaskRegistry.get(prefix + task)
    for said, number in answers.items():
        assert registered.postprocess_fn(said, example={}, is_target=False) == number
    assert registered.postprocess_fn(text, example={}, is_target=True) == 1
    assert registered.metric_fns == [f1_with_invalid, accuracy]
    assert registered.splits == ("validation",)


@pytest.mark.parametrize("prefix", ["", "taskless_"])
def test_dpr_is_scored_by_its_own_functions(prefix: str):
    """In the original its postprocessor was a tuple, and its metrics those of whatever came before it."""
    task = seqio.TaskRegistry.get(f"{prefix}dpr_v001_simple")
    example = {"targets_pretokenized": "Tom", "label": 1}
    assert task.postprocess_fn("Tom", example=example, is_target=True) == 1
    assert task.postprocess_fn("tom", example=example, is_target=False) == 1
    assert task.postprocess_fn("Bob", example=example, is_target=False) == 0
    assert task.metric_fns == [accuracy]


@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        ("glue_mnli_and_dev_v200", "train", {"glue_mnli_v200"}),
        (
            "glue_mnli_and_dev_v200",
            "validation",
            {"glue_mnli_matched_v200", "glue_mnli_mismatched_v200"},
        ),
        ("super_glue_wsc_and_dev_v102_simple", "train", {"super_glue_wsc_v102_simple_train"}),
        ("super_glue_wsc_and_dev_v102_simple", "validation", {"super_glue_wsc_v102_simple_eval"}),
        ("glue_mrpc_from_qqp_zeroshot_v002", "train", {"glue_qqp_v002"}),
        ("squad_to_drop_examples", "train", {"squad_v010_allanswers"}),
    ],
)
def test_a_task_takes_part_in_the_splits_it_has(name: str, split: str, expected: set[str]):
    tasks = seqio.MixtureRegistry.get(name).tasks
    assert {task.name for task in tasks if split in task.source.splits} == expected


@pytest.mark.parametrize("prefix", ["", "taskless_"])
def test_transfer_is_chosen_on_the_task_it_was_tuned_on(prefix: str):
    """The paper chooses in-domain; the mean over both tasks would choose on what is to be judged."""
    chosen = {
        name: {task.name for task in seqio.MixtureRegistry.get(name).tasks if chooses(name, task.name)}
        for name in NAMES
    }
    assert chosen[f"{prefix}glue_mrpc_from_qqp_zeroshot_v002"] == {f"{prefix}glue_qqp_v002"}
    assert chosen[f"{prefix}glue_qqp_from_mrpc_zeroshot_v002"] == {f"{prefix}glue_mrpc_v002"}
    squad = [name for name in NAMES if name.startswith("squad_to_")]
    assert len(squad) == 7 and all(chosen[name] == {"squad_v010_allanswers"} for name in squad)
    others = [name for name in NAMES if name not in squad and "_zeroshot_" not in name]
    assert all(len(chosen[name]) == len(seqio.MixtureRegistry.get(name).tasks) for name in others)


@pytest.mark.parametrize("prefix", ["", "taskless_"])
def test_rates_follow_sizes_up_to_a_limit(prefix: str):
    rates = {}
    for ending in ("proportional", "limited"):
        mixture = seqio.MixtureRegistry.get(f"{prefix}super_glue_v102_{ending}")
        rates[ending] = {task.name.removeprefix(prefix): mixture.get_rate(task) for task in mixture.tasks}
    assert rates["proportional"]["super_glue_record_v102"] == 138_854
    assert rates["proportional"]["super_glue_cb_v102"] == 250
    assert rates["limited"]["super_glue_record_v102"] == rates["limited"]["super_glue_multirc_v102"] == LIMIT
    assert rates["limited"]["super_glue_cb_v102"] == 250
    glue = seqio.MixtureRegistry.get(f"{prefix}glue_v200_proportional")
    trained = {task.name: glue.get_rate(task) for task in glue.tasks if "train" in task.source.splits}
    assert len(trained) == 8
    assert trained[f"{prefix}glue_mnli_v200"] == 392_702
