"""Runs whose MODEL_DIR is in a bucket: the bytes of a run in a directory, whatever kills them or fails below them."""

import os
import pathlib
import random
import subprocess
import sys
import threading
import time

import pytest
from bucket_servers import google_bucket
from several import launched

from jax_prompts.storage import buckets, files

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("JAX_PROMPTS_KILLS", "3"))
OUTAGE_SECONDS = float(os.environ.get("JAX_PROMPTS_OUTAGE", "15"))
QUICK = [
    "--gin_file=gin_configs/quickstart.gin",
    "--gin.Optimizer.warmup_steps=0",
    "--gin.Training.log_period=4",
    "--gin.EVAL_SPLIT='validation[:64]'",
]
STEPS = ["--gin.TRAIN_STEPS=16", "--gin.EVAL_PERIOD=4"]
NAMES = ("prompt.safetensors", "metrics/eval.jsonl", "metrics/train.jsonl", "metrics/prompt.jsonl")
PREDICTIONS = tuple(f"predictions/quickstart_reviews-{step}.jsonl" for step in range(0, 17, 4))


def program(model_dir, variables, *more):
    command = [
        sys.executable,
        "-m",
        "jax_prompts.main",
        "train",
        *QUICK,
        *STEPS,
        f"--gin.MODEL_DIR='{model_dir}'",
    ]
    return subprocess.Popen(
        [*command, *more],
        env={**os.environ, **variables},
        cwd=pathlib.Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, compile_cache):
    """Content of the files of a run in a directory."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    _, err = (run := program(directory, compile_cache)).communicate()
    assert run.returncode == 0, err
    return {name: (directory / name).read_bytes() for name in (*NAMES, *PREDICTIONS)}


@pytest.fixture
def url(google, monkeypatch):
    return f"{google_bucket(google, monkeypatch)}/runs/a"


def in_bucket(url):
    return {name: files.read(f"{url}/{name}", 1 << 28) for name in (*NAMES, *PREDICTIONS)}


def test_kills_at_any_write_leave_the_same_bytes(url, google, undisturbed, compile_cache):
    """Each start is killed behind so many of its writes and removals: also in the middle of a checkpoint's."""
    draw, resumed, killed = random.Random(0), set(), 0
    while True:
        run, left = program(url, compile_cache), draw.randrange(1, 140)
        lines = []
        reading = threading.Thread(
            target=lambda run=run, lines=lines: lines.extend(iter(run.stderr.readline, ""))
        )
        reading.start()
        before = google.written
        while run.poll() is None and killed < KILLS:
            if google.written - before >= left:
                run.kill()
                killed += 1
                break
            time.sleep(0.01)
        reading.join()
        run.communicate()
        resumed |= {line for line in lines if line.startswith("resuming at step")}
        if run.returncode == 0 and killed == KILLS:
            break
        assert run.returncode in (0, -9), lines
        if run.returncode == 0:  # too early: it is to end as often as it takes
            assert in_bucket(url) == undisturbed
            for name in buckets.stored(url):
                buckets.remove(f"{url}/{name}")
    assert in_bucket(url) == undisturbed
    assert killed == KILLS and len(resumed) > 1, (killed, resumed)
    assert not [name for name in buckets.stored(url) if "run.lock" in name]


def test_faults_lose_and_repeat_no_step(url, google, undisturbed, compile_cache):
    """Throttling, errors of the server, lost answers and half ones; later everything is refused for a while."""
    draw, done, away = random.Random(1), [], []

    def faults(method, path):
        if "checkpoints%2F8" in path and not away:
            away.append(time.monotonic())
        if away and time.monotonic() < away[0] + OUTAGE_SECONDS:
            return "gone"
        if draw.random() < 0.06:
            done.append(draw.choice([503, 500, 429, "drop", "half"]))
            return done[-1]
        return None

    google.faults = faults
    run = program(url, compile_cache)
    _, err = run.communicate()
    google.faults = lambda method, path: None
    assert run.returncode == 0, err
    assert "resuming" not in err and "Traceback" not in err
    assert len(done) >= 10 and away, done
    assert in_bucket(url) == undisturbed


def test_what_another_run_holds_is_refused(url, undisturbed, compile_cache):
    first = program(url, compile_cache)
    while not buckets.stored(url):
        time.sleep(0.1)
    second = program(url, compile_cache)
    out, err = second.communicate()
    first.kill()
    first.communicate()
    assert second.returncode == 1 and out == ""
    assert f"MODEL_DIR {url} is in use by another run (process {first.pid} on " in err.splitlines()[-1]


def test_two_processes_write_what_is_one_once(url, google, tmp_path, compile_cache):
    """Killed in the middle, too, they leave the bytes of two processes with a directory."""

    def together(model_dir):
        # Two processes add up in an order of their own: they are compared with each other.
        variables = {**compile_cache, "JAX_PROMPTS_CACHE": str(tmp_path / "cache")}
        return launched(2, "train", *QUICK, *STEPS, f"--gin.MODEL_DIR='{model_dir}'", **variables)

    _, err = (run := together(tmp_path / "run")).communicate()
    assert run.returncode == 0, err
    first = together(url)
    while first.poll() is None and "checkpoints/8/commit_success.txt" not in buckets.stored(url):
        time.sleep(0.1)
    first.kill()
    first.communicate()
    _, err = (second := together(url)).communicate()
    assert second.returncode == 0, err
    assert "resuming at step" in err
    assert in_bucket(url) == {name: (tmp_path / "run" / name).read_bytes() for name in (*NAMES, *PREDICTIONS)}
    written = set(buckets.stored(url))
    assert {f"checkpoints/16/state/array_metadatas/process_{index}" for index in (0, 1)} <= written
    assert "run.lock" not in written
