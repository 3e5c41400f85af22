"""Rows that tune nothing: cells, what they leave, the command that makes one alone."""

import json
import pathlib

import pytest
from small_suite import expanded

from jax_prompts.errors import ConfigError
from jax_prompts.main import main
from jax_prompts.suites.cells import groups_of
from jax_prompts.suites.suite import run_suite, show
from jax_prompts.suites.untuned import count_untuned

TASK = "quickstart_reviews"
SUITE = """
include 'gin_configs/recipes/micro.gin'
include 'gin_configs/runs/suite.gin'
TASK_FEATURE_LENGTHS = {'inputs': 96, 'targets': 4}
TRAIN_STEPS = 20
EVAL_PERIOD = 10
EVAL_SPLIT = 'validation[:24]'
FEW_SHOT_PER_CLASS = 3
EVAL_BATCH_SIZE = 16
RANK_CLASSIFICATION = True
METRIC = 'rank/accuracy'
Suite.models = {'': 'gin_configs/models/micro.gin'}
Suite.methods = {
    'Prompt design': {'PROMPT': None, 'INITIALIZER': None, 'TRAIN_STEPS': 0, 'DEMONSTRATIONS': 2},
}
Suite.tasks = {'All': 'quickstart_reviews'}
Suite.metrics = {'All': 'rank/accuracy'}
Suite.seeds = (0, 1)
Suite.seeded = ('RANDOM_SEED', 'DEMONSTRATIONS_SEED')
"""


def test_cells_are_counted_and_stand_alone(tmp_path):
    suite, cells = expanded(tmp_path, SUITE)
    assert [cell.run.tunes_nothing for cell in cells] == [True, True]
    assert [cell.run.data.prompt_design.seed for cell in cells] == [0, 1]
    assert [len(group.cells) for group in groups_of(cells, 16)] == [1, 1]
    command = cells[1].command()
    assert command[:2] == ["t5x", "eval"] and "--gin_file=gin_configs/runs/eval.gin" in command
    assert count_untuned(cells[0].run) == {"tuned_parameters": 0, "frozen_parameters": 4_082_688}
    rows = show(suite, cells)["table"]
    assert [(row["tuned_parameters"], row["steps"], row["flops"]) for row in rows] == [(0, 0, 0)] * 2


def test_a_prompt_is_not_tuned_for_no_steps(tmp_path):
    text = SUITE.replace(
        "{'PROMPT': None, ", "('gin_configs/prompts/prompt_tuning.gin', {'PROMPT_LENGTH': 2, "
    )
    suite, cells = expanded(tmp_path, text.replace("'DEMONSTRATIONS': 2}", "'DEMONSTRATIONS': 2})"))
    with pytest.raises(ConfigError, match="TRAIN_STEPS is 0; it must be at least 1"):
        show(suite, cells)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"PROMPT_INSIDE_LENGTH": True}, "PROMPT_INSIDE_LENGTH is True"),
        ({"METRIC": "rank/accurac"}, "use rank/accuracy"),
    ],
)
def test_settings_that_cannot_work_are_said_before_anything_is_read(tmp_path, setting, reason):
    suite, cells = expanded(tmp_path, SUITE, **setting)
    with pytest.raises(ConfigError, match=reason):
        show(suite, cells)


@pytest.mark.slow
def test_a_table_of_the_bare_model(tmp_path, capsys):
    suite, cells = expanded(tmp_path, SUITE, CACHE_DIR=tmp_path / "caches")
    report = run_suite(suite, cells)
    assert (report["done"], report["failed"]) == (2, 0)
    (row,) = report["table"]
    summaries = [json.loads((pathlib.Path(cell.address) / "summary.json").read_text()) for cell in cells]
    scores = [summary["metrics"][TASK]["rank/accuracy"] for summary in summaries]
    assert row["columns"]["All"]["mean"] == pytest.approx(sum(scores) / 2)
    for cell, summary, score in zip(cells, summaries, scores, strict=True):
        assert (summary["best_metric"], summary["best_step"], summary["tuned_parameters"]) == (score, 0, 0)
        assert summary["demonstrations"] == {TASK: {"asked": 2, "mean": 2.0, "fewer": 0}}
        predictions = (
            (pathlib.Path(cell.address) / "predictions" / f"{TASK}-0.jsonl").read_text().splitlines()
        )
        assert len(predictions) == 24
        assert all(json.loads(line)["inputs"].count("\n\n") == 2 for line in predictions)
    capsys.readouterr()
    assert run_suite(suite, cells) == report
    assert "finished prompt_design" not in capsys.readouterr().err  # nothing is run again
    _, *arguments = cells[1].command()
    main([*arguments, f"--gin.MODEL_DIR={tmp_path / 'alone'}"])
    alone = json.loads(pathlib.Path(tmp_path / "alone" / "eval.json").read_text())
    assert alone["metrics"]["no prompt"] == summaries[1]["metrics"]
    assert alone["demonstrations"] == summaries[1]["demonstrations"]
    for command in ("compare", "report"):
        more = [f"--output={tmp_path / 'report.html'}"] if command == "report" else []
        main([command, str(tmp_path / "suite"), *more])
