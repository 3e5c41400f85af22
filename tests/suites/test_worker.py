"""Workers of a suite: each cell once, failures beside the rest, nothing lost with a killed worker."""

import contextlib
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
from small_suite import expanded, trained

from jax_prompts.errors import ConfigError, Preempted, RunError
from jax_prompts.storage import run_lock
from jax_prompts.suites import states, worker
from jax_prompts.suites.claims import Claims
from jax_prompts.suites.suite import finish, run_suite, show

PROGRAM = str(pathlib.Path(__file__).parent / "small_suite.py")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """(suite, cells) of which nothing trains; `ran.txt` lists what was run."""
    monkeypatch.setattr(worker, "train", trained(ran=tmp_path / "ran.txt"))
    monkeypatch.setattr(worker, "_check_data", lambda suite, cells: None)
    return expanded(tmp_path)


def ran(tmp_path):
    file = tmp_path / "ran.txt"
    return sorted(line.split()[1] for line in file.read_text().splitlines()) if file.exists() else []


def test_cells_have_the_files_of_runs_and_finished_ones_are_found_again(small, tmp_path):
    suite, cells = small
    worker.work(suite, cells)
    assert len(ran(tmp_path)) == 4  # two seeds share each
    for cell in cells:
        assert (pathlib.Path(cell.address) / "config.gin").read_text() == cell.config_text
        score = states.summary_of(cell)["best_metric"]
        assert (pathlib.Path(cell.address) / "prompt.safetensors").read_text() == f"prompt of {score}"
        assert (
            pathlib.Path(cell.address) / "metrics" / "train.jsonl"
        ).read_text() == f'{{"step": 10, "loss": {score}}}\n'
        assert states.summary_of(cell)["members"][0]["file"] == str(
            pathlib.Path(cell.address) / "prompt.safetensors"
        )
        assert (pathlib.Path(cell.address) / "command.txt").read_text().startswith("t5x train --gin_file=")
    report = finish(suite, cells)
    assert (report["cells"], report["done"], report["failed"]) == (8, 8, 0)
    worker.work(suite, cells)
    assert len(ran(tmp_path)) == 4
    assert finish(suite, cells) == report


def test_shares_are_all_of_it(small, tmp_path):
    suite, cells = small
    for number in (1, 2, 3):
        worker.work(suite, cells, (number, 3))
    assert len(ran(tmp_path)) == len(set(ran(tmp_path))) == 4
    assert finish(suite, cells)["done"] == 8


def test_failures_are_listed_while_the_rest_goes_on_and_tried_again(small, tmp_path, monkeypatch):
    suite, cells = small
    fine = worker.train

    def failing(run, text):
        if run.data.few_shot_per_class:
            raise RunError("the disk is full") if run.optimizer.learning_rate == 0.3 else KeyError("x")
        return fine(run, text)

    monkeypatch.setattr(worker, "train", failing)
    worker.work(suite, cells)
    report = finish(suite, cells)
    assert (report["done"], report["failed"]) == (4, 4)
    assert set(report["failures"].values()) == {"the disk is full", "KeyError: 'x'"}
    monkeypatch.setattr(worker, "train", fine)
    worker.work(suite, cells)
    assert (finish(suite, cells)["done"], finish(suite, cells)["failed"]) == (8, 0)


def test_cells_that_memory_cannot_hold_together_are_run_in_halves(small, tmp_path, monkeypatch):
    suite, cells = small
    fine = worker.train

    def small_memory(run, text):
        if run.variants:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 466000063112 bytes.")
        return fine(run, text)

    monkeypatch.setattr(worker, "train", small_memory)
    worker.work(suite, cells)
    assert (finish(suite, cells)["done"], finish(suite, cells)["failed"]) == (8, 0)
    assert len(ran(tmp_path)) == 8


def test_a_stopped_worker_stops(small, monkeypatch):
    def stopped(run, text):
        raise Preempted("stopped by SIGTERM at step 10")

    monkeypatch.setattr(worker, "train", stopped)
    with pytest.raises(Preempted):
        worker.work(*small)
    assert finish(*small)["failed"] == 0


def test_directories_of_other_suites_are_refused(small, tmp_path):
    suite, cells = small
    worker.work(suite, cells)
    with pytest.raises(ConfigError, match="another configuration"):
        worker.work(*expanded(tmp_path, TRAIN_STEPS=30, LEARNING_RATE=0.5))
    with pytest.raises(ConfigError, match="finished run with TRAIN_STEPS = 20, and here it is 30"):
        worker.work(*expanded(tmp_path, TRAIN_STEPS=30))
    with pytest.raises(ConfigError, match="another suite"):
        worker.work(*expanded(tmp_path, **{"Suite.models": "{'other': ('gin_configs/models/micro.gin',)}"}))


def test_more_seeds_are_no_other_suite_and_train_alone(small, tmp_path):
    suite, cells = small
    worker.work(suite, cells)
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "suite" / "cells").rglob("*") if path.is_file()
    }
    more = expanded(tmp_path, **{"Suite.seeds": "(0, 1, 2)"})
    worker.work(*more)
    assert finish(*more)["done"] == 12
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(ran(tmp_path)) == 4 + 4
    assert sorted(ran(tmp_path))[1].endswith(".seed2")  # a cell by itself


@pytest.mark.parametrize("kind", ["a run", "a search"])
def test_directories_of_runs_and_searches_are_refused(kind, small, tmp_path):
    suite, cells = small
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / {"a run": "config.gin", "a search": "search.json"}[kind]).write_text("{}")
    with pytest.raises(ConfigError, match=f"holds {kind}: choose another"):
        worker.work(suite, cells)
    with pytest.raises(ConfigError, match=f"holds {kind}: choose another"):
        show(suite, cells)


def test_metrics_that_a_task_has_not_are_found_before_anything_starts(tmp_path):
    suite, cells = expanded(tmp_path, **{"Suite.metrics": "{'Few': 'f1'}"})
    for command in (show, run_suite):
        with pytest.raises(
            ConfigError, match=r"Suite.metrics 'Few': .*'f1' is no metric of quickstart_reviews"
        ):
            command(suite, cells)
    assert not ran(tmp_path)


def test_missing_data_are_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "train", trained(ran=tmp_path / "ran.txt"))
    tasks = "{'All': 'quickstart_reviews', 'Few': 'super_glue_rte_v102'}"
    suite, cells = expanded(tmp_path, **{"Suite.tasks": tasks, "DATA_DIR": tmp_path / "nothing"})
    with pytest.raises(ConfigError, match=r"\d+ cells cannot be run: .*seed0 and \d+ others: .*nothing"):
        worker.work(suite, cells)
    assert not ran(tmp_path)


def test_a_group_that_another_worker_has_is_waited_for(small, tmp_path, monkeypatch):
    suite, cells = small
    (first, *_) = worker.groups_of(cells, suite.members)
    lock = run_lock.held(pathlib.Path(suite.model_dir) / "claims" / first.name)
    lock.__enter__()
    polls = []

    def sleep(seconds):
        polls.append(len(ran(tmp_path)))
        lock.__exit__(None, None, None)

    monkeypatch.setattr(worker, "time", types.SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    worker.work(suite, cells)
    assert polls == [3]  # all others first
    assert len(ran(tmp_path)) == 4


@pytest.mark.slow
def test_four_workers_of_which_two_are_killed(tmp_path):
    """Every cell once, none lost."""
    command = [sys.executable, PROGRAM, str(tmp_path), "4"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as started:
        workers = [started.enter_context(subprocess.Popen(command, **pipes)) for _ in range(4)]
        for process in workers:
            started.callback(process.kill)
        assert [process.stdout.readline() for process in workers] == ["ready\n"] * 4
        time.sleep(1)
        for process in workers[:2]:
            process.send_signal(signal.SIGKILL)
        for process in workers:
            process.communicate(timeout=120)
    assert [process.returncode for process in workers] == [-9, -9, 0, 0]
    suite, cells = expanded(tmp_path)
    report = finish(suite, cells)
    assert (report["done"], report["failed"]) == (8, 0)
    assert len(ran(tmp_path)) == len(set(ran(tmp_path))) == 4


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(2, "gone"), run_lock.BusyError),
        (FileExistsError(17, "there again"), run_lock.BusyError),
        (PermissionError(13, "denied"), RunError),
    ],
)
def test_a_claim_that_is_being_left_is_busy_and_one_that_cannot_be_made_is_said(
    error, kind, tmp_path, monkeypatch
):
    @contextlib.contextmanager
    def failing(folder):
        raise error
        yield

    monkeypatch.setattr(run_lock, "held", failing)
    with pytest.raises(RunError) as caught, Claims(str(tmp_path)).held("group"):
        raise AssertionError
    assert type(caught.value) is kind
