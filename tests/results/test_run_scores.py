"""What runs and evaluations have scored: finished, under way, swept, failed, damaged."""

import json
import math

import pytest
from made_runs import TASK, make_evaluation, make_run, right

from jax_prompts.errors import RunError
from jax_prompts.records import Records
from jax_prompts.results.evaluation_scores import of_evaluation
from jax_prompts.results.run_files import RunFiles, metrics_of
from jax_prompts.results.run_scores import of_run
from jax_prompts.run_folder import RunFolder

HALF, MOST, ALL = right("11110000"), right("11111100"), right("11111111")


def lines_of(directory):
    return of_run(RunFiles(directory))


def test_a_finished_run_is_one_line(tmp_path):
    (line,) = lines_of(make_run(tmp_path / "run", HALF, MOST, test=(ALL, HALF)))
    assert (line.kind, line.state, line.part, line.task, line.metric) == (
        "run",
        "finished",
        "",
        TASK,
        "accuracy",
    )
    assert [(m.number, m.seed, m.score, m.step, m.test) for m in line.members] == [
        (0, 0, 50.0, 20, 100.0),
        (1, 1, 75.0, 20, 50.0),
    ]
    assert (line.untuned, line.last_step, line.higher) == (0.0, 20, True)
    assert line.costs == {
        "wall_seconds": 10.0,
        "examples_per_second": 50.0,
        "tuned_parameters": 1000,
        "frozen_parameters": 4_000_000,
        "checkpoint_bytes": 12_345,
        "prompt_bytes": 100,
    }
    assert line.members[1].predictions["validation"][TASK].name == f"{TASK}-20.jsonl"
    assert line.members[1].predictions["test"][TASK].name == f"{TASK}-test.jsonl"


def test_intervals_that_the_run_recorded_are_taken(tmp_path):
    (line,) = lines_of(make_run(tmp_path / "run", HALF, intervals={"accuracy": [40.0, 60.0]}))
    assert line.members[0].interval == (40.0, 60.0)
    (line,) = lines_of(make_run(tmp_path / "other", HALF, intervals={"accuracy": [None, 60.0]}))
    assert line.members[0].interval is None


@pytest.mark.parametrize("finished", [True, False])
def test_a_sweep_is_a_line_for_each_settings(tmp_path, finished):
    sweep = "SWEEP={'LEARNING_RATE': (0.1, 0.2), 'RANDOM_SEED': (5, 6)}"
    rights = (HALF, MOST, ALL, HALF)
    found = lines_of(make_run(tmp_path / "run", *rights, bindings=(sweep,), finished=finished))
    assert [line.part for line in found] == ["LEARNING_RATE = 0.1", "LEARNING_RATE = 0.2"]
    assert [[(m.seed, m.score) for m in line.members] for line in found] == [
        [(5, 50.0), (6, 75.0)],
        [(5, 100.0), (6, 50.0)],
    ]
    assert [line.settings["LEARNING_RATE"] for line in found] == ["0.1", "0.2"]
    assert {line.state for line in found} == {"finished" if finished else "unfinished"}


def test_a_killed_run_has_its_best_so_far(tmp_path):
    directory = make_run(tmp_path / "run", MOST, HALF, finished=False)
    with (directory / "metrics" / "eval.jsonl").open("a") as file:
        file.write('{"step": 30, "task": "quick')  # killed in the middle of a line
    (line,) = lines_of(directory)
    assert (line.state, line.last_step, line.metric) == ("unfinished", 20, "accuracy")
    assert [(m.seed, m.score, m.step) for m in line.members] == [(0, 75.0, 20), (1, 50.0, 20)]
    (directory / "metrics" / "eval.jsonl").unlink()
    (line,) = lines_of(directory)
    assert [m.score for m in line.members] == [None, None]
    assert (line.metric, line.last_step, line.untuned) == ("", None, None)


def test_losses_beside_metrics_choose_nothing(tmp_path):
    directory = make_run(tmp_path / "run", MOST, finished=False)
    file = directory / "metrics" / "eval.jsonl"
    rows = [json.loads(text) | {"loss": 1.0, "token_accuracy": 3.0} for text in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (line,) = lines_of(directory)
    assert (line.metric, line.higher, line.members[0].score) == ("accuracy", True, 75.0)


def test_an_evaluation_without_a_value_is_passed_over(tmp_path):
    directory = make_run(tmp_path / "run", MOST, finished=False)
    with (directory / "metrics" / "eval.jsonl").open("a") as file:
        file.write(json.dumps({"step": 30, "task": TASK, "split": "validation", "accuracy": None}) + "\n")
    (line,) = lines_of(directory)
    assert (line.members[0].score, line.members[0].step) == (75.0, 20)


def test_members_that_failed_say_why(tmp_path):
    (line,) = lines_of(make_run(tmp_path / "run", HALF, MOST, failed={1: "the loss is not finite"}))
    assert (line.state, line.reason) == ("finished", "the loss is not finite")
    assert [m.failed for m in line.members] == [None, "the loss is not finite"]


def test_a_cell_that_failed_says_why(tmp_path):
    directory = make_run(tmp_path / "run", HALF, finished=False)
    (directory / "failed.json").write_text('{"reason": "no memory", "attempt": "1"}')
    (line,) = lines_of(directory)
    assert (line.state, line.reason, line.members[0].score) == ("failed", "no memory", 50.0)


def change(directory, **values):
    file = directory / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("value", [None, math.inf])
def test_scores_without_a_value_are_none(tmp_path, value):
    directory = make_run(tmp_path / "run", HALF)
    members = json.loads((directory / "summary.json").read_text())["members"]
    values = {"metrics": {TASK: {"accuracy": None}}, "wall_seconds": None}
    change(directory, members=[{**members[0], "best_metric": None}], **values)
    (line,) = lines_of(directory)
    assert (line.members[0].score, line.costs["wall_seconds"], line.metric) == (None, None, "accuracy")


@pytest.mark.parametrize(
    "values",
    [
        {"metrics": [1]},
        {"metrics": {TASK: 3}},
        {"intervals": {TASK: {"accuracy": 3}}},
        {"members": [{"file": "x"}]},
        {"members": []},
    ],
)
def test_a_summary_that_no_run_wrote_is_one_line(tmp_path, values):
    directory = make_run(tmp_path / "run", HALF)
    change(directory, **values)
    with pytest.raises(RunError, match=r"summary\.json (holds what no run has written|is damaged)"):
        lines_of(directory)


def test_lines_that_no_run_wrote_are_one_line(tmp_path):
    directory = make_run(tmp_path / "run", HALF, finished=False)
    for text in (
        '{"step": "x", "task": "a", "accuracy": 1}\n',
        '{"step": 3}\n',
        '{"step": 3, "task": "a", "member": []}\n',
    ):
        (directory / "metrics" / "eval.jsonl").write_text(
            f'{{"step": 0, "task": "a", "accuracy": 1.0}}\n{text}'
        )
        with pytest.raises(RunError, match="no run has written"):
            lines_of(directory)


def test_an_evaluation_has_its_prompts_and_their_ensemble(tmp_path):
    directory = make_evaluation(
        tmp_path / "eval", {"a.safetensors": HALF, "b.safetensors": MOST}, ensemble=ALL
    )
    prompts, ensemble = of_evaluation(directory)
    assert [(m.score, m.seed) for m in prompts.members] == [(50.0, None), (75.0, None)]
    assert (prompts.kind, prompts.settings) == ("evaluation", {})
    assert (ensemble.kind, ensemble.part, ensemble.metric) == ("ensemble", "ensemble", "accuracy")
    assert ensemble.members[0].score == 100.0
    files = [line.members[0].predictions["evaluation"][TASK].name for line in (prompts, ensemble)]
    assert files == [f"{TASK}-0-validation.jsonl", f"{TASK}-ensemble-validation.jsonl"]


def test_an_evaluation_of_several_tasks_has_those_of_each(tmp_path):
    parts = {task: make_evaluation(tmp_path / task, {"a": HALF}, task=task) for task in ("one", "two")}
    reports = {task: json.loads((part / "eval.json").read_text()) for task, part in parts.items()}
    Records(RunFolder(tmp_path), None).write("eval.json", {"tasks": reports})
    found = of_evaluation(tmp_path)
    assert [(line.task, line.directory.name) for line in found] == [("one", "one"), ("two", "two")]
    assert all(line.members[0].predictions["evaluation"] for line in found)


@pytest.mark.parametrize("text", ["[]", "{", '{"metrics": {"a": 1}}', '{"task": 1}', '{"tasks": [1]}'])
def test_an_evaluation_that_no_command_wrote_is_one_line(tmp_path, text):
    (tmp_path / "eval.json").write_text(text)
    with pytest.raises(RunError, match=r"eval\.json"):
        of_evaluation(tmp_path)


def test_a_metric_that_is_null_is_not_a_task_without_one():
    """Whose losses would be its score."""
    line = {"step": 20, "task": "stsb", "pearson_corrcoef": None, "loss": 0.9, "token_accuracy": 50.0}
    assert metrics_of(line) == {}
    assert metrics_of({**line, "spearman_corrcoef": 3.0}) == {"spearman_corrcoef": 3.0}
    assert metrics_of({"step": 20, "task": "lm", "loss": 0.9}) == {"loss": 0.9}
    assert metrics_of({"step": 20, "task": "lm", "loss": None}) == {}
