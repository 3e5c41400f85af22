"""`t5x compare`: tables that fit the terminal, JSON for scripts, one line for what is wrong."""

import json
import shutil

import pytest
from made_runs import TASK, make_run, right

from jax_prompts.main import main

A, B = right("11110000", 5), right("11111100", 5)


@pytest.fixture
def compare(capsys):
    """`compare(*arguments) -> (JSON or None, stderr, exit status)`."""

    def run(*arguments):
        status = 0
        try:
            main(["compare", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return (json.loads(out.splitlines()[-1]) if out else None), err, status

    return run


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "runs" / "long", A, B)
    make_run(tmp_path / "runs" / "short", B, B, bindings=("PROMPT_LENGTH=5", "LEARNING_RATE=0.1"))
    return tmp_path / "runs"


def test_tables_go_to_stderr_and_json_to_stdout(runs, compare):
    found, err, _ = compare(runs)
    assert [line["name"] for line in found["lines"]] == ["short", "long"]
    for words in (
        f"{TASK}: settings that differ",
        "PROMPT_LENGTH",
        f"{TASK}: scores (accuracy)",
        "62.50 ± 17.68",
        "95 % of the mean: Student's t",
        "by Wilson",
        "4,000,000",
        "12.3 kB",
        "percent right less that of long: paired bootstrap",
        "McNemar's exact test",
        "corrected for 1 test of its kind",
    ):
        assert words in err
    assert compare(runs, "--json")[:2] == (found, "")


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_tables_fit_the_terminal(runs, compare, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for number in range(12):
        make_run(
            runs / f"a_run_with_a_rather_long_name_{number}", A, bindings=(f"PROMPT_LENGTH={number + 9}",)
        )
    shutil.copytree(runs / "short", runs / ("another_name_" * 10))
    _, err, _ = compare(runs, "--pairs")
    tables = [line for line in err.splitlines() if line[:1] in "┏┃┡│└"]
    assert len(tables) > 50
    assert max(map(len, tables)) <= columns


def test_few_runs_are_columns_and_many_are_rows(runs, compare, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, err, _ = compare(runs)
    assert "┃ setting" in err
    for number in range(12):
        make_run(runs / f"run_{number}", A, bindings=(f"PROMPT_LENGTH={number + 9}",))
    _, err, _ = compare(runs)
    assert "┃ setting" not in err and "┃ run " in err


def test_runs_past_the_limit_are_counted(runs, compare):
    found, err, _ = compare(runs, "--limit=1")
    assert len(found["lines"]) == 2
    assert f"1 more of {TASK} are in the JSON" in err


def test_what_differs_between_tasks_is_said(runs, compare):
    make_run(runs / "other", A, A, task="another", bindings=("MIXTURE_OR_TASK_NAME=another", "BATCH_SIZE=7"))
    found, err, _ = compare(runs)
    assert found["tasks"][1]["task"] == "another"
    assert "settings that differ between tasks" in err and "BATCH_SIZE" in err
    assert "not compared: one task with another: there are 2" in err


def test_states_are_shown(tmp_path, compare):
    make_run(tmp_path / "killed", A, finished=False)
    make_run(tmp_path / "lost", A, B, failed={1: "the loss is not finite"})
    _, err, _ = compare(tmp_path)
    assert "unfinished at 20" in err and "1 of 2 failed" in err
    assert "not compared: killed: it is unfinished, and not tested" in err


def test_names_are_shown_and_not_obeyed(tmp_path, compare):
    make_run(tmp_path / "[bold]\x1b[31mred", A)
    make_run(tmp_path / "b", A, bindings=("PROMPT_LENGTH=5",))
    _, err, _ = compare(tmp_path)
    assert "\x1b" not in err and "[bold]\\x1b[31mred" in err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["{gone}"], 2, "does not exist"),
        (["{empty}"], 2, "holds no run, suite, evaluation or study"),
        (["{run}", "--limit=0"], 2, "--limit 0: show at least one"),
        (["{run}", "--sort=PROMPT_LENGHT"], 2, "use PROMPT_LENGTH"),
        (["gopher://bucket/run"], 1, "gopher://bucket/run cannot be read"),
        ([], 2, "DIR"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, compare, arguments, status, words):
    (tmp_path / "empty").mkdir()
    run = make_run(tmp_path / "run", A)
    places = {"gone": tmp_path / "gone", "empty": tmp_path / "empty", "run": run}
    found, err, code = compare(*(argument.format(**places) for argument in arguments))
    assert (found, code) == (None, status)
    assert words in err and err.count("\n") == 1


def test_a_prompt_file_is_said_to_be_none(runs, compare):
    _, err, status = compare(runs / "long" / "prompt-0.safetensors")
    assert status == 2 and "a prompt file has no run beside it" in err and err.count("\n") == 1
