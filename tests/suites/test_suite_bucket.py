"""Suites in a bucket: the cells and tables of one in a directory, claims of workers, killed and gone on with."""

import json
import os
import subprocess
import sys
import time

import pytest
from bucket_servers import google_bucket
from small_suite import SUITE, expanded, trained

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.storage import bucket_lock, buckets, files
from jax_prompts.storage.run_lock import BusyError
from jax_prompts.suites import states, worker
from jax_prompts.suites.claims import Claims
from jax_prompts.suites.launch import launch
from jax_prompts.suites.suite import finish

SMALL = "\n".join(line for line in SUITE.split("\n") if "'Residual'" not in line)  # four cells, two and two


@pytest.fixture
def url(google, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / "cache"))
    return f"{google_bucket(google, monkeypatch)}/suite"


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Lists what was run, of which nothing trains."""
    monkeypatch.setattr(worker, "train", trained(ran=tmp_path / "ran.txt"))
    monkeypatch.setattr(worker, "_check_data", lambda suite, cells: None)
    return lambda: len((tmp_path / "ran.txt").read_text().splitlines())


def contents(url):
    """Files of cells and tables, by path in the suite."""
    kept = {name for name in buckets.stored(url) if name.startswith(("cells/", "table."))}
    return {
        name: buckets.content(f"{url}/{name}", 1 << 20).decode().replace(f"{url}/", "SUITE/") for name in kept
    }


@pytest.mark.slow
def test_cells_and_tables_are_those_of_a_directory(url, ran, tmp_path):
    suite, cells = expanded(tmp_path, SMALL, MODEL_DIR=url)
    worker.work(suite, cells)
    report = finish(suite, cells)
    assert (report["cells"], report["done"], report["failed"], ran()) == (4, 4, 0, 2)
    worker.work(suite, cells)
    assert ran() == 2
    here, own_cells = expanded(tmp_path, SMALL)
    worker.work(here, own_cells)
    finish(here, own_cells)
    directory = tmp_path / "suite"
    of_directory = {
        str(path.relative_to(directory)): path.read_text().replace(f"{directory}/", "SUITE/")
        for path in directory.rglob("*")
        if path.is_file() and "groups" not in path.parts
    }
    assert contents(url) == of_directory
    assert not [name for name in buckets.stored(url) if name.startswith("claims/")]


@pytest.mark.slow
def test_failures_and_other_suites_are_told(url, ran, tmp_path, monkeypatch):
    suite, cells = expanded(tmp_path, SMALL, MODEL_DIR=url)

    def full(run, text):
        raise RunError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "train", full)
        worker.work(suite, cells)
    assert states.failure_of(cells[0])[0] == "the disk is full"
    worker.work(suite, cells)
    assert finish(suite, cells)["failed"] == 0
    other, other_cells = expanded(
        tmp_path, SUITE.replace("'PT'", "'Other'").replace("'Residual'", "'R'"), MODEL_DIR=url
    )
    with pytest.raises(ConfigError, match=f"MODEL_DIR {url} holds the cells of another suite"):
        worker.work(other, other_cells)
    changed, changed_cells = expanded(tmp_path, SMALL, MODEL_DIR=url, BATCH_SIZE=3)
    with pytest.raises(ConfigError, match=f"{url}/cells/.* holds a run with another configuration"):
        worker.work(changed, changed_cells)
    with pytest.raises(ConfigError, match="at gs:// alone"):
        expanded(tmp_path, MODEL_DIR="s3://bucket/suite")
    with pytest.raises(ConfigError, match="without --launcher"):
        launch("slurm", 2, url, [], {})


def test_a_claim_keeps_others_out_until_its_worker_is_silent(url, monkeypatch):
    mine, other = Claims(url), Claims(url)
    monkeypatch.setattr(bucket_lock, "_is_gone", lambda holder: False)  # as of another machine
    with mine.held("a"):
        for _ in range(2):
            with pytest.raises(BusyError), other.held("a"):
                pass
        with other.held("b"):
            pass
    with other.held("a"):
        pass
    files.write(f"{url}/claims/a/run.lock", json.dumps({"host": "gone", "run": "x"}))
    with pytest.raises(BusyError), other.held("a"):
        pass
    monkeypatch.setattr(bucket_lock, "SILENCE_SECONDS", 0.0)
    with other.held("a"), pytest.raises(BusyError), mine.held("a"):
        pass
    assert buckets.stored(url) == {}


def test_nobody_knows_of_a_claim_while_the_bucket_is_away(url, google, monkeypatch):
    monkeypatch.setattr("gcsfs.retry.random.random", lambda: 0.0)
    monkeypatch.setattr("jax_prompts.storage.remote.TIMEOUT_SECONDS", 0.5)
    google.faults = lambda method, path: 503
    with pytest.raises(BusyError, match="could not be asked"), Claims(url).held("a"):
        pass
    google.faults = lambda method, path: 403
    with pytest.raises(RunError, match=r"cannot be claimed .*403"), Claims(url).held("a"):
        pass


def test_a_bucket_that_cannot_be_reached_is_named(url, google, ran, tmp_path):
    suite, cells = expanded(tmp_path, SMALL, MODEL_DIR=url)
    google.faults = lambda method, path: 403
    with pytest.raises(RunError, match=f"{url}/config.gin cannot be read .*403"):
        worker.work(suite, cells)


@pytest.mark.slow
def test_killed_while_it_trains_it_ends_with_the_same_prompts(url, google, tmp_path, compile_cache):
    """Two cells that share steps."""
    text = SMALL.replace("    'Few'", "    # 'Few'").replace("Suite.averages", "# Suite.averages")
    (tmp_path / "suite.gin").write_text(text + "BATCH_SIZE = 8\n")
    settings = [
        "TRAIN_STEPS=6",
        "EVAL_PERIOD=3",
        "EVAL_SPLIT=validation[:40]",
        f"CACHE_DIR={tmp_path}/caches",
    ]
    environment = {**os.environ, **compile_cache, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def table_of(model_dir, writes=None):
        """What a worker ends with; None of one that was killed behind so many writes."""
        program = [sys.executable, "-m", "jax_prompts.main", "suite", f"--gin_file={tmp_path}/suite.gin"]
        program += [f"--gin.{setting}" for setting in (*settings, f"MODEL_DIR='{model_dir}'")]
        before = google.written
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            run = subprocess.Popen(program, env=environment, stdout=out, stderr=err)
        while run.poll() is None:
            if writes is not None and google.written - before >= writes:
                run.kill()
            time.sleep(0.01)
        assert run.returncode == (0 if writes is None else -9), (tmp_path / "err").read_text()
        return json.loads((tmp_path / "out").read_text())["table"] if writes is None else None

    expected = table_of(tmp_path / "whole")
    table_of(url, writes=40)
    assert table_of(url) == expected
    for cell in (tmp_path / "whole" / "cells").iterdir():
        for name in ("prompt.safetensors", "metrics/eval.jsonl"):
            assert files.read(f"{url}/cells/{cell.name}/{name}", 1 << 24) == (cell / name).read_bytes()
