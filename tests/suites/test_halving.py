"""Choosing within a budget: rungs, who goes on, what is written, stopped and gone on with."""

import argparse
import json
import pathlib

import pytest
from small_suite import SUITE, expanded, trained

from jax_prompts.cli.gin_settings import resolve
from jax_prompts.errors import ConfigError, Preempted, RunError
from jax_prompts.main import main
from jax_prompts.suites import halving, worker
from jax_prompts.suites.cells import check
from jax_prompts.suites.table import option_of

SEARCH = {
    "Suite.search": "{'LEARNING_RATE': (0.1, 0.2, 0.3, 0.4, 0.5)}",
    "Suite.methods": "{'PT': 'gin_configs/prompts/prompt_tuning.gin', 'Residual': 'gin_configs/prompts/residual.gin'}",
    "Suite.tasks": "{'All': 'quickstart_reviews'}",
    "Suite.averages": "{}",
    "TRAIN_STEPS": 100,
}
RUNS = 2  # of an option: its seeds


@pytest.fixture(autouse=True)
def nothing_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "train", trained(ran=tmp_path / "ran.txt"))
    monkeypatch.setattr(worker, "_check_data", lambda suite, cells: None)


def search(directory, **settings):
    """(suite, cells, cells_at), as the command makes them."""
    settings = {**SEARCH, **settings}

    def cells_at(at, steps):
        return expanded(directory, SUITE, **{**settings, "MODEL_DIR": at, "TRAIN_STEPS": steps})[1]

    return *expanded(directory, SUITE, **settings), cells_at


def rungs_of(report):
    return [(len(rung["scores"]), rung["steps"]) for rung in report["rungs"]]


def test_the_best_go_on_for_more_steps(tmp_path):
    report = halving.choose(*search(tmp_path, **{"Suite.budget": "{'steps': 600}"}))
    assert rungs_of(report) == [(10, 10), (4, 25), (2, 50)]  # each rung 200 steps
    assert sum(options * steps * RUNS for options, steps in rungs_of(report)) == 600
    assert report["winner"]["settings"] == {"LEARNING_RATE": 0.5}
    assert report["winner"]["row"] == "micro, PT"  # of equal ones the first
    first = [(score["settings"]["LEARNING_RATE"], score["row"]) for score in report["rungs"][0]["scores"]]
    assert first == sorted(first, key=lambda option: (-option[0], option[1]))
    suite_dir = tmp_path / "suite"
    assert json.loads((suite_dir / "choice.json").read_text()) == report
    assert (
        all(pathlib.Path(prompt).is_file() for prompt in report["prompts"]) and len(report["prompts"]) == RUNS
    )
    args = argparse.Namespace(
        command="train", gin_file=[report["file"]], bindings=[], gin_search_paths="", tfds_data_dir=None
    )
    run, _ = resolve(args, "TrainRun")
    assert (run.optimizer.learning_rate, run.training.steps) == (0.5, 100)


def test_a_budget_for_everything_runs_everything_once(tmp_path):
    report = halving.choose(*search(tmp_path, **{"Suite.budget": "{'steps': 1000000}"}))
    assert rungs_of(report) == [(10, 100)]


@pytest.mark.slow
def test_what_was_stopped_goes_on_and_chooses_the_same(tmp_path, monkeypatch):
    budget = {"Suite.budget": "{'steps': 600}"}
    whole = halving.choose(*search(tmp_path / "whole", **budget))
    fine, left = worker.train, [3]

    def stopped(run, text):
        left[0] -= 1
        if left[0] < 0:
            raise Preempted("stopped by SIGTERM")
        return fine(run, text)

    ran = (tmp_path / "ran.txt").read_text()
    (tmp_path / "ran.txt").unlink()
    for runs in (1, 2):
        left[0] = runs
        monkeypatch.setattr(worker, "train", stopped)
        with pytest.raises(Preempted):
            halving.choose(*search(tmp_path / "parts", **budget))
    monkeypatch.setattr(worker, "train", fine)
    parts = halving.choose(*search(tmp_path / "parts", **budget))
    assert json.dumps(parts).replace("/parts/", "/whole/") == json.dumps(whole)
    assert (tmp_path / "ran.txt").read_text() == ran  # each run once


def test_options_that_fail_are_left_behind_and_listed(tmp_path, monkeypatch):
    fine = worker.train

    def failing(run, text):
        if run.variants[0].run.optimizer.learning_rate == 0.1 and len(run.variants) == 10:
            raise RunError("the loss is not finite")
        return fine(run, text)

    monkeypatch.setattr(worker, "train", failing)
    settings = {"Suite.budget": "{'steps': 600}"}
    with pytest.raises(RunError, match="no option could be run: the loss is not finite"):
        halving.choose(*search(tmp_path / "all", **settings))

    def one(run, text):
        if "/rungs/" in run.model_dir and "residual" in run.model_dir:
            raise RunError("the loss is not finite")
        return fine(run, text)

    monkeypatch.setattr(worker, "train", one)
    report = halving.choose(*search(tmp_path / "one", **settings))
    assert len(report["rungs"][0]["failures"]) == 5 * RUNS
    assert {score["row"] for score in report["rungs"][1]["scores"]} == {"micro, PT"}


@pytest.mark.slow
def test_minutes_are_measured(tmp_path, monkeypatch):
    """A step of each run takes 1/8 s of its group's, and nothing else takes time."""
    fine = worker.train

    def timed(run, text):
        summary = fine(run, text)
        members, steps = len(run.variants), run.training.steps
        seconds_of_step = members / 8
        rows = run.data.batch_size * members
        summary |= {"examples_per_second": rows / seconds_of_step, "wall_seconds": steps * seconds_of_step}
        (pathlib.Path(run.model_dir) / "summary.json").write_text(json.dumps(summary))
        return summary

    monkeypatch.setattr(worker, "train", timed)
    report = halving.choose(*search(tmp_path / "a", **{"Suite.budget": "{'minutes': 2.5}"}))
    measured = 10 * 10 * RUNS / 8
    assert rungs_of(report) == [(10, 16), (4, 42), (2, 86)]
    spent = measured + sum(options * steps * RUNS / 8 for options, steps in rungs_of(report))
    assert spent <= 150 < spent + 3
    with pytest.raises(ConfigError, match="10 options in 3 rungs get not one step each"):
        halving.choose(*search(tmp_path / "b", **{"Suite.budget": "{'minutes': 0.4}"}))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"Suite.budget": "{'steps': 50}"}, "get not one step each"),
        ({"Suite.budget": "{'hours': 1}"}, "set it to {'steps': N}"),
        ({"Suite.budget": "{'steps': 0}"}, "set it to {'steps': N}"),
        ({"Suite.budget": "{'steps': True}"}, "set it to {'steps': N}"),
        ({"Suite.budget": "{'steps': 9, 'minutes': 9}"}, "set it to {'steps': N}"),
        ({"Suite.budget": "{'steps': 600}", "Suite.eta": 1}, "Suite.eta is 1"),
        (
            {"Suite.budget": "{'steps': 600}", "TRAIN_STEPS": None, "TRAIN_EPOCHS": 2},
            "TRAIN_STEPS, which has to be set",
        ),
    ],
)
def test_searches_that_cannot_be(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        suite, cells, cells_at = search(tmp_path, **settings)
        halving.choose(suite, cells, cells_at)


@pytest.mark.slow
def test_other_searches_and_suites_are_refused(tmp_path):
    budget = {"Suite.budget": "{'steps': 600}"}
    report = halving.choose(*search(tmp_path, **budget))
    assert halving.choose(*search(tmp_path, **budget)) == report
    assert rungs_of(halving.choose(*search(tmp_path, **{"Suite.budget": "{'steps': 900}"})))[0] == (10, 15)
    for other in ({"TRAIN_STEPS": 90}, {"Suite.search": "{'LEARNING_RATE': (0.1, 0.2)}"}):
        with pytest.raises(ConfigError, match="among other options, or for other TRAIN_STEPS"):
            halving.choose(*search(tmp_path, **(budget | other)))
    worker.work(*expanded(tmp_path / "plain"))
    with pytest.raises(ConfigError, match="a suite that is no search"):
        halving.choose(*search(tmp_path / "plain", **budget))


def test_the_plan_is_what_is_run(tmp_path):
    suite, cells, cells_at = search(tmp_path, **{"Suite.budget": "{'steps': 850}"})
    plan = halving.show_plan(suite, cells)
    report = halving.choose(suite, cells, cells_at)
    assert [(rung["options"], rung["steps"]) for rung in plan] == rungs_of(report)
    minutes, cells, _ = search(tmp_path, **{"Suite.budget": "{'minutes': 9}"})
    check(minutes)
    assert [rung["steps"] for rung in halving.show_plan(minutes, cells)] == [None] * 3


def test_sizes():
    assert halving.sizes_of(24, 3) == [24, 8, 3]
    assert halving.sizes_of(27, 3) == [27, 9, 3]
    assert halving.sizes_of(2, 3) == [2] and halving.sizes_of(1, 3) == [1]
    assert halving.sizes_of(5, 2) == [5, 3, 2]


def test_options_are_rows_with_searched_settings(tmp_path):
    _, cells, _ = search(tmp_path)
    assert len({option_of(cell) for cell in cells}) == 10


def test_the_projects_own_search(capsys):
    main(["suite", "--gin_file=gin_configs/suites/choose.gin", "--dry_run"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(rung["options"], rung["steps"]) for rung in report["rungs"]] == [(24, 50), (8, 150), (3, 300)]
    assert {row["tuned_parameters"] for row in report["table"]} > {960, 40_036, 788, 576}
