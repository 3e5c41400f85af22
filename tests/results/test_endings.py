"""The ends of commands: what their tables show of their JSON, what is left out, and commands that can be pasted."""

import json
import shlex

import pytest

from jax_prompts import display
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.commands import COMMANDS
from jax_prompts.results.end_of_evaluation import end_of_evaluation
from jax_prompts.results.end_of_run import end_of_run
from jax_prompts.results.endings import command, few
from jax_prompts.storage import json_text

TASK = "reviews"


def member(number, score, step=20, directory="runs/x", several=True, **more):
    name = f"prompt-{number}.safetensors" if several else "prompt.safetensors"
    return {"seed": number, "best_metric": score, "best_step": step, "file": f"{directory}/{name}", **more}


def about(metrics):
    baselines = dict.fromkeys(metrics, 50.0)
    return {TASK: {"examples": 400, "majority_baseline": baselines, "all_positive_baseline": baselines}}


def summary(*members, metrics=None, **more):
    """As a run makes it."""
    metrics = metrics or {"accuracy": 90.0}
    scores = [each["best_metric"] for each in members if each["best_metric"] is not None]
    one = len(members) == 1
    return {
        "task": TASK,
        "metric": next(iter(metrics)),
        "best_metric": sum(scores) / len(scores),
        "best_metric_deviation": 0.0 if one else 1.5,
        "untuned_metric": 1.25,
        "majority_metric": 50.0,
        "metrics": {TASK: metrics} if one else [{TASK: metrics} for _ in members],
        "about_scores": about(metrics) if one else [about(metrics) for _ in members],
        "members": list(members),
        "cut": {"train": {TASK: {"inputs": 0, "targets": 0, "examples": 2000}}},
        **more,
    }


@pytest.fixture
def shown(capsys):
    """`shown(ending) -> (cells of each row, the head first, lines below the table)`."""

    def show(ending):
        ending.show()
        out, err = capsys.readouterr()
        assert out == ""
        lines = err.splitlines()
        bars = [line for line in lines if line[:1] in "┃│"]
        below = lines[max(n for n, line in enumerate(lines) if line.startswith("└")) + 1 :]
        return [[cell.strip() for cell in line[1:-1].replace("┃", "│").split("│")] for line in bars], below

    return show


def test_one_prompt_is_one_row(shown):
    ending = end_of_run(summary(member(0, 97.5, 200, several=False)), "runs/x")
    rows, below = shown(ending)
    assert ending.title == "reviews: accuracy"
    assert rows == [
        ["", "score", "before tuning", "majority class", "best step"],
        ["prompt.safetensors", "97.50", "1.25", "50.00", "200"],
    ]
    assert below[:2] == [
        "written in runs/x: prompt.safetensors, summary.json, metrics, predictions, tensorboard",
        "next:",
    ]


def test_metrics_beside_the_one_that_chooses_and_test_examples_have_rows_and_columns(shown):
    made = summary(
        member(0, 60.0, several=False, test_metric=58.0),
        metrics={"f1": 70.0, "em": 50.0},
        metric="mean of f1, em",
    )
    made["test_metrics"] = {TASK: {"f1": 68.0, "em": 48.0}}
    made["about_scores"][TASK]["majority_baseline"] = {"f1": 33.3, "em": None}
    rows, _ = shown(end_of_run(made, "runs/x"))
    assert rows == [
        ["", "score", "before tuning", "majority class", "on test examples", "best step"],
        ["prompt.safetensors", "60.00", "1.25", "50.00", "58.00", "20"],
        ["reviews f1", "70.00", "", "33.30", "68.00", ""],
        ["reviews em", "50.00", "", "", "48.00", ""],
    ]


def test_seeds_have_a_mean_and_the_best_ten_rows(shown):
    made = summary(*(member(n, 80.0 + n) for n in range(14)))
    rows, below = shown(end_of_run(made, "runs/x"))
    assert rows[1] == ["mean of 14 prompts", "86.50", "1.50", "1.25", "50.00", ""]
    assert rows[2] == ["prompt-13.safetensors, seed 13", "93.00", "", "", "", "20"]
    assert len(rows) == 13 and rows[-1][0] == "... and 4 more prompts"
    assert "prompt-13.safetensors, prompt-12.safetensors, prompt-11.safetensors, 11 more prompts" in below[0]


def test_of_losses_the_lowest_is_the_best(shown):
    made = summary(
        member(0, 2.5), member(1, 2.25), metrics={"loss": 2.5, "token_accuracy": 30.0}, metric="loss"
    )
    made |= {"majority_metric": None, "about_scores": [None, None]}
    rows, _ = shown(end_of_run(made, "runs/x"))
    assert rows[0] == ["", "score", "deviation", "before tuning", "best step"]
    assert [row[0] for row in rows[2:4]] == ["prompt-1.safetensors, seed 1", "prompt-0.safetensors, seed 0"]


def test_a_sweep_has_a_row_for_each_of_its_best_settings(shown):
    rates = [0.001 * 2**n for n in range(12)]
    members = [member(n, 50.0 + n // 2) for n in range(24)]
    groups = [
        {
            "settings": {"LEARNING_RATE": rate},
            "best_metric": 50.0 + n,
            "best_metric_deviation": 0.5,
            "members": [2 * n, 2 * n + 1],
        }
        for n, rate in enumerate(rates)
    ]
    rows, below = shown(end_of_run(summary(*members, sweep=groups), "runs/x"))
    assert rows[1] == ["LEARNING_RATE 2.048, 2 seeds", "61.00", "0.50", "1.25", "50.00"]
    assert rows[2] == ["LEARNING_RATE 1.024, 2 seeds", "60.00", "0.50", "", ""]
    assert len(rows) == 12 and rows[-1][0] == "... and 2 more settings"
    assert not any("PROMPT_FILES" in line for line in below)  # no ensemble of good and bad settings


def test_members_that_failed_are_counted_and_come_last(shown):
    lost = member(0, None, None, failed="the loss is not finite at or before step 5")
    rows, below = shown(end_of_run(summary(lost, member(1, 90.0)), "runs/x"))
    assert rows[2:] == [
        ["prompt-1.safetensors, seed 1", "90.00", "", "", "", "20"],
        ["prompt-0.safetensors, seed 0", "-", "", "", "", "-"],
    ]
    assert below[0] == "1 of 2 members failed: the loss is not finite at or before step 5"
    assert "prompt-0" not in below[1]


def test_what_was_cut_is_said_where_something_was(shown):
    made = summary(member(0, 90.0))
    made["cut"]["validation"] = {TASK: {"inputs": 12, "targets": 3, "examples": 400}}
    _, below = shown(end_of_run(made, "runs/x"))
    assert (
        below[0]
        == f"TASK_FEATURE_LENGTHS cut 12 inputs and 3 targets of the 400 validation examples of {TASK}"
    )
    made["cut"] = {"train": {f"task{n}": {"inputs": 1, "targets": 0, "examples": 2} for n in range(30)}}
    _, below = shown(end_of_run(made, "runs/x"))
    assert below[10] == "... and 20 more"


@pytest.mark.parametrize("score", [float("nan"), 91.0])
def test_a_finished_run_started_again_shows_the_same(shown, score):
    made = summary(member(0, score), member(1, 91.0), best_metric=score)
    again = json.loads(json_text.dumps(made))
    assert shown(end_of_run(made, "runs/x")) == shown(end_of_run(again, "runs/x"))


@pytest.mark.parametrize("directory", ["runs/x", "my runs/it's $5", 'a"b', "runs/[x]!"])
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_to_be_tried_next_can_be_pasted(directory, count):
    members = [member(n, 90.0 - n, directory=directory, several=count > 1) for n in range(count)]
    infer, *ensemble, report = end_of_run(summary(*members), directory).commands
    words = shlex.split(infer)
    assert words[:4] == ["echo", "a text", "|", "t5x"]
    args = parse(words[4:])
    assert args.command == "infer" and args.prompt == {TASK: members[0]["file"]}
    assert args.gin_file == [f"{directory}/config.gin", "gin_configs/runs/infer.gin"]
    if count > 1:
        args = parse(shlex.split(ensemble[0])[1:])
        (files,) = [
            value for name, _, value in (b.partition("=") for b in args.bindings) if name == "PROMPT_FILES"
        ]
        assert (args.command, eval(files)[0].endswith("/prompt-*.safetensors")) == ("eval", True)
        assert f"MODEL_DIR={directory}-ensemble" in args.bindings
    assert shlex.split(report) == ["t5x", "report", directory, "--output=report.html"]
    if "report" in {each.name for each in COMMANDS}:
        parse(shlex.split(report)[1:])


def test_of_a_run_in_a_bucket_the_report_is_next():
    ending = end_of_run(summary(member(0, 90.0, directory="gs://b/x", several=False)), "gs://b/x")
    assert ending.commands == ["t5x report gs://b/x --output=report.html"]


def test_a_tuned_model_is_asked_itself():
    made = summary({**member(0, 90.0), "file": "runs/x/model"})
    assert "--gin.INITIAL_CHECKPOINT_PATH=runs/x/model --input=-" in end_of_run(made, "runs/x").commands[0]


def test_values_of_flags_are_quoted_where_a_shell_asks_for_it():
    assert command("t5x", "--gin.A=('x',)") == "t5x --gin.A=\"('x',)\""
    assert command("t5x", "--gin.A=$x") == "t5x '--gin.A=$x'"
    assert command("a b", "c") == "'a b' c"


def test_other_processes_say_nothing(monkeypatch, capsys):
    monkeypatch.setattr(display.console, "quiet", True)
    end_of_run(summary(member(0, 90.0)), "runs/x").show()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_obeys_no_name(shown):
    made = summary({**member(0, 90.0), "file": "runs/\x1b[2J/\x07.safetensors"}, task="a\x1b[31m")
    rows, below = shown(end_of_run(made, "runs/\x1b[2J"))
    assert not {"\x1b", "\x07"} & set(str(rows) + "".join(below))


# t5x eval


def report(count, metrics=None, tasks=(TASK,), **more):
    """As an evaluation of prompts makes it, the n-th with an accuracy of n."""
    names = [f"p{n}.safetensors" for n in range(count)] or ["no prompt"]
    scores = {
        name: {task: dict.fromkeys(metrics or ["accuracy"], float(n)) for task in tasks}
        for n, name in enumerate(names)
    }
    made = {
        "task": "mix" if len(tasks) > 1 else tasks[0],
        "split": "validation",
        "examples": dict.fromkeys(tasks, 400),
        "cut": {task: {"inputs": 0, "targets": 0, "examples": 400} for task in tasks},
        "metrics": scores,
        "about_scores": {
            name: {task: about(metrics or ["accuracy"])[TASK] for task in tasks}
            for name in [*names, "ensemble"]
        },
    }
    if count > 1:
        same = scores[names[0]]
        made["over_prompts"] = {"mean": same, "deviation": same, "best": names[-1]}
        made["ensemble"] = {task: {"accuracy": 99.0, "mean_rank/accuracy": 98.0} for task in tasks}
    return {**made, **more}


HEADS = ["", "task", "metric", "score", "majority class", "all positive"]


def test_the_bare_model_is_one_row(shown):
    ending = end_of_evaluation(report(0), None)
    rows, below = shown(ending)
    assert ending.title == "reviews: 400 examples of validation"
    assert rows == [HEADS, ["no prompt", TASK, "accuracy", "0.00", "50.00", "50.00"]]
    assert below == []


def test_prompts_then_their_mean_then_the_ensemble(shown):
    rows, below = shown(end_of_evaluation(report(2), "runs/e"))
    assert rows[0][4] == "deviation"
    assert [row[0] for row in rows[1:]] == [
        "p0.safetensors",
        "p1.safetensors",
        "mean of 2 prompts",
        "ensemble",
        "",
    ]
    assert rows[-2][2:4] == ["accuracy", "99.00"] and rows[-1][2:4] == ["mean_rank/accuracy", "98.00"]
    assert rows[-1][5] == "50.00"  # a constant answer is as good in every way of answering
    assert below == [
        "written in runs/e: eval.json, predictions",
        "next:",
        "  t5x report runs/e --output=report.html",
    ]


def test_of_200_prompts_the_best_ten_have_rows(shown):
    rows, _ = shown(end_of_evaluation(report(200), "runs/e"))
    assert [row[0] for row in rows[1:11]] == [f"p{n}.safetensors" for n in range(199, 189, -1)]
    assert rows[11][0] == "... and 190 more prompts, none better"
    assert [row[0] for row in rows[12:]] == ["mean of 200 prompts", "ensemble", ""]


def test_a_mixture_has_a_row_for_each_task_and_few_prompts(shown):
    tasks = [f"task{n}" for n in range(12)]
    rows, _ = shown(end_of_evaluation(report(9, metrics=["accuracy", "f1"], tasks=tasks), "runs/e"))
    assert [row[0] for row in rows if row[0].startswith("p")] == ["p8.safetensors", "p7.safetensors"]
    assert [row[1] for row in rows[1:25:2]] == tasks and rows[2][2] == "f1"
    tasks = [f"task{n}" for n in range(100)]
    rows, _ = shown(end_of_evaluation(report(0, tasks=tasks), None))
    assert len(rows) == 32 and rows[-1][0] == "... and 70 more tasks"


def test_prompts_of_different_tasks_and_intervals(shown):
    made = report(2, ensemble={"refused": "prompts of different tasks: a, b"})
    made["intervals"] = {"p0.safetensors": {TASK: {"accuracy": [1.0, None]}}}
    rows, below = shown(end_of_evaluation(made, None))
    assert rows[0][5] == "95 %" and [row[5] for row in rows[1:]] == ["1.00 to -", "", ""]
    assert below == ["no ensemble: prompts of different tasks: a, b"]


def test_several_tasks_share_a_table(shown):
    parts = {f"task{n}": report(20, tasks=(f"task{n}",)) for n in range(40)}
    parts["task3"]["cut"]["task3"]["targets"] = 7
    ending = end_of_evaluation({"tasks": parts}, "runs/job")
    rows, below = shown(ending)
    assert ending.title == "40 tasks"
    assert sum(row[0] == "p19.safetensors" for row in rows) == 30  # of each task the best
    assert rows[-1][0] == "... and 10 more tasks" and len(rows) < 160
    assert below[0] == "TASK_FEATURE_LENGTHS cut 7 targets of the 400 validation examples of task3"
    assert below[1].startswith("written in runs/job: eval.json, task0, ") and below[1].endswith(
        "... and 30 more"
    )


def test_few_of_many():
    assert few(["a"]) == ["a"] and few([]) == []
    assert few([str(n) for n in range(12)])[-2:] == ["9", "... and 2 more"]
