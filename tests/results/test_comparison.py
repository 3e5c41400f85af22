"""Runs side by side: order, seeds taken together, tests of the same examples, and what cannot be compared."""

import json
import shutil

import pytest
from made_runs import TASK, make_evaluation, make_run, right

from jax_prompts.errors import ConfigError
from jax_prompts.results import comparison, significance
from jax_prompts.results.find import find
from jax_prompts.storage import json_text

A = right("11110000", 5)  # 20 of 40
B = right("11111100", 5)  # all of these, and 10 more
C = right("00001111", 5)


def compare(*directories, **options):
    found = comparison.compare([find([str(directory)]) for directory in directories], **options)
    return json.loads(json_text.report(found))  # what a script reads


@pytest.fixture
def runs(tmp_path):
    """`a` and `b` with two seeds each."""
    make_run(tmp_path / "runs" / "a", A, A)
    make_run(tmp_path / "runs" / "b", B, B, bindings=("PROMPT_LENGTH=5",))
    return tmp_path / "runs"


def test_lines_have_scores_settings_and_intervals(runs):
    found = compare(runs)
    b, a = found["lines"]
    assert (a["name"], b["name"]) == ("a", "b")  # the better one first
    assert found["settings"] == ["PROMPT_LENGTH"]
    assert [line["settings"] for line in (a, b)] == [{"PROMPT_LENGTH": "10"}, {"PROMPT_LENGTH": "5"}]
    assert a["score"] == {"mean": 50.0, "deviation": 0.0, "count": 2, "interval": [50.0, 50.0]}
    assert a["interval_by"] == "wilson"
    assert a["interval"] == pytest.approx([35.2, 64.8], abs=0.05)  # Wilson's of 20 of 40
    assert [member["seed"] for member in a["members"]] == [0, 1]
    assert found["tasks"][0] == {
        "task": TASK,
        "lines": 2,
        "metrics": ["accuracy"],
        "settings": ["PROMPT_LENGTH"],
        "reference": "a",
    }
    assert found["not_compared"] == []


def test_runs_are_tested_against_the_first_that_is_named(runs):
    (test,) = compare(runs / "a", runs / "b")["tests"]
    assert (test["a"], test["b"], test["examples"], test["pairs"]) == ("a", "b", 40, 2)
    assert (test["right_a"], test["right_b"]) == (50.0, 75.0)
    assert test["bootstrap"]["difference"] == 25.0
    low, high = test["bootstrap"]["interval"]
    assert 10 < low < 25 < high < 45
    mcnemar = test["mcnemar"]
    assert (mcnemar["only_a"], mcnemar["only_b"], mcnemar["p"]) == (0, 10, 2 / 2**10)
    (turned,) = compare(runs / "b", runs / "a")["tests"]
    assert (turned["a"], turned["bootstrap"]["difference"]) == ("b", -25.0)


def test_pairs_are_corrected_for_their_number(runs):
    make_run(runs / "c", C, C, bindings=("PROMPT_LENGTH=7",))
    few, all_pairs = compare(runs)["tests"], compare(runs, pairs=True)["tests"]
    assert [(test["a"], test["b"]) for test in few] == [("a", "b"), ("a", "c")]
    assert [(test["a"], test["b"]) for test in all_pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert few[0]["mcnemar"]["p_holm"] == pytest.approx(2 * few[0]["mcnemar"]["p"])
    assert all_pairs[0]["mcnemar"]["p_holm"] == pytest.approx(3 * few[0]["mcnemar"]["p"])


def test_pairs_beyond_a_number_are_said(runs, monkeypatch):
    monkeypatch.setattr(significance, "MOST_TESTS", 1)
    make_run(runs / "c", C, C, bindings=("PROMPT_LENGTH=7",))
    found = compare(runs, pairs=True)
    assert len(found["tests"]) == 1
    assert found["not_compared"] == [{"what": "2 more pairs", "reason": "1 are tested: name fewer runs"}]


def test_runs_that_differ_in_their_seed_alone_are_taken_together(tmp_path):
    for seed, marks in enumerate((A, B, B)):
        make_run(tmp_path / f"a{seed}", marks, bindings=(f"RANDOM_SEED={seed}",))
        make_run(tmp_path / f"b{seed}", C, bindings=(f"RANDOM_SEED={seed}", "PROMPT_LENGTH=5"))
    found = compare(tmp_path, sort="name")
    first, second = found["seeds"]
    assert (first["name"], first["runs"]) == ("a0", ["a0", "a1", "a2"])
    assert first["score"]["mean"] == pytest.approx(200 / 3)
    assert first["score"]["deviation"] == pytest.approx(25 / 3**0.5)
    half = 4.302653 * 25 / 3  # quantile of Student's t with two degrees of freedom
    assert first["score"]["interval"] == pytest.approx([200 / 3 - half, 200 / 3 + half])
    assert second["runs"] == ["b0", "b1", "b2"]
    (test,) = found["tests"]
    assert (test["a"], test["b"], test["pairs"], test["paired_by"]) == ("a0", "b0", 3, "seed")
    assert test["bootstrap"]["difference"] == pytest.approx(50 - 200 / 3)


def test_a_seed_counts_once(tmp_path):
    make_run(tmp_path / "a", A, B)
    make_run(tmp_path / "b", A, bindings=("RANDOM_SEED=2",))
    make_run(tmp_path / "c", A, bindings=("RANDOM_SEED=1",))
    (group,) = compare(tmp_path, sort="given")["seeds"]
    assert (group["runs"], group["score"]["count"]) == (["a", "b"], 3)


def test_members_without_common_seeds_are_paired_by_the_best(tmp_path):
    make_run(tmp_path / "a", A, B)
    make_run(tmp_path / "b", C, bindings=("RANDOM_SEED=7", "PROMPT_LENGTH=5"))
    (test,) = compare(tmp_path)["tests"]
    assert (test["paired_by"], test["pairs"], test["right_a"]) == ("best member", 1, 75.0)
    assert test["mcnemar"]["seeds"] == [1, 7]


def test_test_examples_are_tested_where_both_have_some(tmp_path):
    make_run(tmp_path / "a", A, test=(right("11001100"),))
    make_run(tmp_path / "b", B, test=(right("11001111"),), bindings=("PROMPT_LENGTH=5",))
    found = compare(tmp_path)
    (test,) = found["tests"]
    assert (test["roles"], test["examples"], test["mcnemar"]["only_b"]) == (["test", "test"], 8, 2)
    assert [line["test"]["mean"] for line in found["lines"]] == [75.0, 50.0]


def test_evaluations_are_compared_with_runs(tmp_path):
    make_run(tmp_path / "run", A)
    make_evaluation(tmp_path / "eval", {"x.safetensors": B, "y.safetensors": C}, ensemble=B)
    found = compare(tmp_path)
    assert {line["name"] for line in found["lines"]} == {"run", "eval", "eval [ensemble]"}
    assert [(test["b"], test["roles"]) for test in found["tests"]] == [
        ("eval", ["validation", "evaluation"]),
        ("eval [ensemble]", ["validation", "evaluation"]),
    ]
    assert [line["settings"] for line in found["lines"] if line["kind"] == "ensemble"] == [None]


def test_what_is_not_of_the_same_examples_is_not_tested(tmp_path):
    make_run(tmp_path / "a", A)
    make_run(tmp_path / "b", A[:8], bindings=("PROMPT_LENGTH=5",))
    make_run(tmp_path / "c", A, bindings=("PROMPT_LENGTH=6",))
    shutil.rmtree(tmp_path / "c" / "predictions")
    make_run(tmp_path / "d", A, bindings=("PROMPT_LENGTH=7",))
    (tmp_path / "d" / "predictions" / f"{TASK}-20.jsonl").write_text("nonsense\n")
    make_run(tmp_path / "e", A, bindings=("PROMPT_LENGTH=8",), task="another")
    make_run(tmp_path / "f", A, bindings=("PROMPT_LENGTH=9",), finished=False)
    found = compare(tmp_path, sort="name")
    assert found["tests"] == []
    reasons = {each["what"]: each["reason"] for each in found["not_compared"]}
    assert reasons["a and b"] == f"their predictions of {TASK} are of other examples"
    assert reasons["a and c"] == f"their predictions of {TASK} are not all there"
    assert reasons["a and d"] == f"their predictions of {TASK} are not all there"
    assert "no run has written" in reasons[str(tmp_path / "d" / "predictions" / f"{TASK}-20.jsonl")]
    assert reasons["f"] == "it is unfinished, and not tested"
    assert reasons["one task with another"] == f"there are 2: {TASK}, another"
    assert [line["name"] for line in found["lines"]] == ["a", "b", "c", "d", "f", "e"]
    assert found["lines"][2]["interval"] is None


def test_what_is_damaged_or_named_twice_is_left_out(runs):
    (runs / "b" / "summary.json").write_text("{")
    found = compare(runs, runs / "a")
    assert [line["name"] for line in found["lines"]] == ["a"]
    reasons = {each["what"]: each["reason"] for each in found["not_compared"]}
    assert "summary.json is damaged" in reasons[str(runs / "b")]
    assert reasons[str(runs / "a")] == "it is named twice, and counts once"
    (runs / "a" / "summary.json").write_text("[]")
    with pytest.raises(ConfigError, match="damaged"):
        compare(runs)


def test_tasks_of_an_evaluation_count_once(tmp_path):
    parts = {task: make_evaluation(tmp_path / "eval" / task, {"a": A}, task=task) for task in ("one", "two")}
    reports = {task: json.loads((part / "eval.json").read_text()) for task, part in parts.items()}
    (tmp_path / "eval" / "eval.json").write_text(json.dumps({"tasks": reports}))
    for named in ((tmp_path,), (tmp_path / "eval", parts["one"]), (parts["one"], tmp_path / "eval")):
        assert sorted(line["task"] for line in compare(*named)["lines"]) == ["one", "two"]


def test_members_that_failed_before_any_score_are_no_part_of_the_interval(tmp_path):
    directory = make_run(tmp_path / "a", A, B, failed={1: "diverged"})
    summary = json.loads((directory / "summary.json").read_text())
    summary["members"][1] |= {"best_metric": None, "best_step": None}
    summary["metrics"][1] = None
    (directory / "summary.json").write_text(json.dumps(summary))
    (line,) = compare(directory)["lines"]
    assert (line["score"]["count"], line["interval_by"]) == (1, "wilson")
    assert line["members"][1]["failed"] == "diverged"


def test_a_score_that_is_no_percentage_of_right_answers_has_no_interval_of_them(tmp_path):
    directory = make_run(tmp_path / "a", A)
    text = (directory / "summary.json").read_text().replace('"accuracy"', '"f1"').replace(" 50.0", " 61.0")
    (directory / "summary.json").write_text(text)
    (line,) = compare(directory)["lines"]
    assert (line["metric"], line["score"]["mean"], line["interval"]) == ("f1", 61.0, None)


def test_cells_that_failed_before_they_were_runs_are_named(tmp_path):
    make_run(tmp_path / "suite" / "cells" / "a", A)
    (tmp_path / "suite" / "cells" / "b").mkdir()
    (tmp_path / "suite" / "cells" / "b" / "failed.json").write_text('{"reason": "no memory"}')
    (failed,) = compare(tmp_path)["not_compared"]
    assert failed["reason"] == "it failed: no memory"


def test_lines_are_sorted(tmp_path):
    for name, marks, rate in (("x", A, 0.1), ("y", B, 0.01), ("z", A, 0.3)):
        make_run(tmp_path / name, marks, bindings=(f"LEARNING_RATE={rate}",))
    make_run(tmp_path / "w", B, finished=False)
    (tmp_path / "w" / "metrics" / "eval.jsonl").unlink()

    def order(sort):
        return "".join(line["name"] for line in compare(tmp_path, sort=sort)["lines"])

    assert [order(sort) for sort in ("score", "name", "given")] == ["yxzw", "wxyz", "wxyz"]
    assert order("LEARNING_RATE") == "ywxz"  # 0.02 is the quickstart's
    assert order("Optimizer.learning_rate") == "ywxz"
    with pytest.raises(ConfigError, match="no such order or setting; use LEARNING_RATE"):
        order("LEARNING_RAT")


def test_lines_past_the_limit_are_in_the_json_and_their_predictions_are_not_read(tmp_path):
    for number, marks in enumerate((C, B, B, A)):
        make_run(tmp_path / f"r{number}", marks, bindings=(f"PROMPT_LENGTH={number + 1}",))
    found = compare(tmp_path, limit=2)
    assert [line["name"] for line in found["lines"]] == ["r1", "r2", "r0", "r3"]
    assert [line["interval_by"] for line in found["lines"]] == ["wilson", "wilson", "wilson", None]
    assert [(test["a"], test["b"]) for test in found["tests"]] == [("r0", "r1"), ("r0", "r2")]


def test_one_run_alone_has_its_numbers(tmp_path):
    found = compare(make_run(tmp_path / "run", A))
    assert (found["lines"][0]["name"], found["settings"], found["tests"]) == ("run", [], [])


def test_a_run_without_examples_is_compared(tmp_path):
    make_run(tmp_path / "a", A[:0])
    make_run(tmp_path / "b", A[:0], bindings=("PROMPT_LENGTH=5",))
    assert [line["interval"] for line in compare(tmp_path)["lines"]] == [None, None]


HUGE = "1" * 401


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metric", "null"),
        ("metric", "[1]"),
        ("members", "[]"),
        ("members", '[{"seed": [], "best_metric": 1.0, "best_step": 20, "file": "x"}]'),
        ("members", '[{"seed": 0, "best_metric": 1.0, "best_step": {}, "file": "x"}]'),
        ("members", f'[{{"seed": 0, "best_metric": {HUGE}, "best_step": 20, "file": "x"}}]'),
        ("last_step", HUGE),
    ],
)
def test_a_damaged_summary_is_said_and_the_others_are_compared(runs, name, value):
    file = runs / "a" / "summary.json"
    summary = {**json.loads(file.read_text()), name: "HERE"}
    file.write_text(json.dumps(summary).replace('"HERE"', value))
    found = compare(runs)
    assert [line["name"] for line in found["lines"]] == ["b"]
    (said,) = [each for each in found["not_compared"] if each["what"].endswith("/a")]
    assert "summary.json" in said["reason"]


def test_numbers_that_cannot_be_added_count_as_none(runs):
    file = runs / "a" / "summary.json"
    summary = json.loads(file.read_text())
    for member in summary["members"]:
        member["best_metric"] = 1e308
    file.write_text(json.dumps(summary))
    assert [line["score"] and line["score"]["mean"] for line in compare(runs)["lines"]] == [75.0, None]


@pytest.mark.parametrize("text", ["Data.subset_seed = []", "MEMBERS = 50000000"])
def test_settings_that_nobody_wrote_are_compared_as_they_are(runs, text):
    with (runs / "a" / "config.gin").open("a") as file:
        file.write(f"{text}\n")
    (runs / "b" / "summary.json").unlink()
    assert len(compare(runs)["lines"]) == 2


def test_seeds_without_predictions_are_said(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", A, bindings=(f"RANDOM_SEED={seed}",))
        make_run(tmp_path / f"b{seed}", B, bindings=(f"RANDOM_SEED={seed}", "PROMPT_LENGTH=5"))
    shutil.rmtree(tmp_path / "b1" / "predictions")
    found = compare(*(tmp_path / name for name in ("a0", "a1", "b0", "b1")))
    assert found["tests"][0]["paired_by"] == "best member"
    assert "of 2 pairs of equal seeds 1 have predictions" in found["not_compared"][0]["reason"]


def test_links_to_nothing_and_names_that_are_too_long_do_no_harm(runs):
    (runs / "z.json").symlink_to(runs / "nowhere")
    (runs / "linked").mkdir()
    (runs / "linked" / "config.gin").symlink_to(runs / "nowhere")
    assert len(compare(runs)["lines"]) == 2
    with pytest.raises(ConfigError, match="does not exist"):
        find(["x" * 5000])
