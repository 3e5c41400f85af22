"""A suite expands to ordinary runs, and what makes no sense is refused before anything starts."""

import shlex

import pytest
from small_suite import SUITE, expanded

from jax_prompts import sweep
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.errors import ConfigError
from jax_prompts.main import main
from jax_prompts.suites.cells import groups_of


def test_cells_are_runs_that_their_commands_make_again(tmp_path):
    _, cells = expanded(tmp_path, **{"Suite.search": "{'LEARNING_RATE': (0.1, 0.3)}"})
    assert len(cells) == 2 * 2 * 2 * 2
    assert [cell.name for cell in cells[:3]] == [
        "micro_pt.all.learning_rate=0.1.seed0",
        "micro_pt.all.learning_rate=0.1.seed1",
        "micro_pt.all.learning_rate=0.3.seed0",
    ]
    assert {cell.row for cell in cells} == {"micro, PT", "micro, Residual"}
    assert len({cell.run.model_dir for cell in cells}) == len(cells)
    last = cells[-1]
    assert (last.run.optimizer.learning_rate, last.run.training.seed, last.run.data.few_shot_per_class) == (
        0.3,
        1,
        4,
    )
    assert last.run.method.hidden == 8  # a method's value wins over the suite's recipe
    program, *arguments = shlex.split(shlex.join(last.command()))
    assert program == "t5x"
    alone, text = resolve(parse(arguments), "TrainRun")
    assert not sweep.differences(alone, last.run)
    assert text == last.config_text


def test_values_of_methods_win_over_the_suite_and_flags_over_all(tmp_path):
    _, cells = expanded(tmp_path)
    rates = {cell.row: cell.run.optimizer.learning_rate for cell in cells}
    assert rates == {"micro, PT": 0.3, "micro, Residual": 0.02}  # the recipe's
    _, cells = expanded(tmp_path, LEARNING_RATE=0.7, TRAIN_STEPS=5)
    assert {cell.run.optimizer.learning_rate for cell in cells} == {0.7}
    assert {cell.run.training.steps for cell in cells} == {5}


def test_cells_that_differ_in_numbers_share_a_step(tmp_path):
    _, cells = expanded(tmp_path, **{"Suite.search": "{'LEARNING_RATE': (0.1, 0.3)}"})
    groups = groups_of(cells, 16)
    assert [len(group.cells) for group in groups] == [4, 4, 4, 4]
    assert all(len({(cell.row, cell.column) for cell in group.cells}) == 1 for group in groups)
    assert [len(group.cells) for group in groups_of(cells, 3)] == [3, 1] * 4
    assert len({group.name for group in groups_of(cells, 3)}) == 8
    _, cells = expanded(
        tmp_path, **{"Suite.search": "{'PROMPT_LENGTH': (4, 5)}"}
    )  # other shapes, other programs
    assert [len(group.cells) for group in groups_of(cells, 16)] == [2] * 8


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"Suite.tasks": "{}"}, "Suite.tasks is empty"),
        ({"Suite.tasks": "3"}, "Suite.tasks is 3"),
        ({"Suite.seeds": "()"}, "Suite.seeds"),
        ({"Suite.seeds": "(0, 0)"}, "Suite.seeds"),
        ({"Suite.seeds": "(0, 'one')"}, "Suite.seeds"),
        ({"Suite.members": "0"}, "Suite.members is 0"),
        ({"Suite.averages": "{'Mean': ('All', 'Fwe')}"}, "did you mean Few"),
        ({"Suite.averages": "{'All': ('Few',)}"}, "another name"),
        ({"Suite.averages": "{'Mean': 'All'}"}, "its columns"),
        ({"Suite.metrics": "{'Al': 'f1'}"}, "did you mean All"),
        ({"Suite.published": "{'micro, PT': {'All': 90.0}}"}, "no source"),
        ({"Suite.published": "{'micro, PT': {'Al': 90.0}}", "Suite.source": "a paper"}, "did you mean All"),
        (
            {"Suite.published": "{'micro, PT': {'All': 'high'}}", "Suite.source": "a paper"},
            "set it to a number",
        ),
        ({"Suite.published": "{'micro, PT': 90.0}", "Suite.source": "a paper"}, "for each column"),
        (
            {"Suite.search": "{'LEARNING_RATE': 0.1}"},
            "Suite.search 'LEARNING_RATE' is 0.1: set it to its values",
        ),
        ({"Suite.search": "{'LEARNING_RATE': (0.1, 0.1)}"}, "Suite.search has {'LEARNING_RATE': 0.1} twice"),
        ({"MEMBERS": 2}, "MEMBERS is 2; a suite has Suite.seeds"),
        ({"Suite.search": "{'LEARNING_RAET': (0.1,)}"}, "LEARNING_RATE"),
        ({"Suite.search_by": "seed"}, "'suite' or 'task'"),
        ({"Suite.methods": "{'PT': (1,)}"}, "neither a gin file nor values"),
        ({"Suite.methods": "{'PT': ('gin_configs/prompts/promt_tuning.gin',)}"}, "did you mean"),
        ({"Suite.methods": "{'PT': ({'PROMPT': '@Residuall()'},)}"}, "Residuall"),
        ({"SWEEP": "{'RANDOM_SEED': (0, 1)}"}, "Suite.search"),
        ({"Suite.colums": "3"}, "did you mean"),
    ],
)
def test_suites_that_make_no_sense(tmp_path, settings, reason):
    with pytest.raises(ConfigError, match=reason):
        expanded(tmp_path, **settings)


def test_dry_run_lists_cells_and_names_all_that_is_wrong(tmp_path, capsys):
    file = tmp_path / "suite.gin"
    file.write_text(SUITE)
    flags = ["suite", f"--gin_file={file}", f"--gin.MODEL_DIR={tmp_path}/suite", "--dry_run"]
    main(flags)
    out = capsys.readouterr().out
    assert '"cells": 8, "groups": 4' in out
    assert '"tuned_parameters": 768' in out  # 4 vectors of 192
    assert not (tmp_path / "suite").exists()
    with pytest.raises(SystemExit) as status:
        main(
            [
                *flags,
                "--gin.Suite.tasks={'A': 'quickstart_reviewz', 'B': 'no_such_task'}",
                "--gin.Suite.averages={}",
            ]
        )
    assert status.value.code == 2
    err = capsys.readouterr().err
    assert "4 cells cannot be run" in err and "quickstart_reviewz" in err and "no_such_task" in err


@pytest.mark.parametrize(
    "flag", ["--cells=0/2", "--cells=3/2", "--cells=2", "--jobs=0", "--jobs=2", "--launcher=pbs"]
)
def test_wrong_usage(flag, capsys):
    with pytest.raises(SystemExit) as status:
        main(["suite", "--gin_file=gin_configs/suites/quickstart.gin", flag])
    assert status.value.code == 2
    assert "error" not in capsys.readouterr().out
