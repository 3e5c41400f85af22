"""Whole suites through the command line: killed and gone on with, by one worker and by several."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from small_suite import SUITE

pytestmark = pytest.mark.slow
ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
SHORT = [
    "TRAIN_STEPS=6",
    "EVAL_PERIOD=3",
    "EVAL_SPLIT=validation[:40]",
    "CHECKPOINT_PERIOD=1",
    "BATCH_SIZE=8",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory, compile_cache):
    ENV.update(compile_cache)
    return tmp_path_factory.mktemp("cache")


def command(directory, cache, *flags):
    file = directory / "suite.gin"
    file.write_text(SUITE)
    settings = [f"MODEL_DIR={directory}/suite", f"CACHE_DIR={cache}", *SHORT]
    program = [sys.executable, "-m", "jax_prompts.main", "suite", f"--gin_file={file}"]
    return [*program, *(f"--gin.{setting}" for setting in settings), *flags]


def finished(directory, cache, *flags):
    run = subprocess.run(
        command(directory, cache, *flags), env=ENV, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1]), run.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """(directory, table) of a suite that nothing disturbed."""
    directory = tmp_path_factory.mktemp("whole")
    report, _ = finished(directory, cache)
    assert (report["cells"], report["done"], report["failed"]) == (8, 8, 0)
    return directory, report


def prompts(directory):
    cells = sorted((directory / "suite" / "cells").iterdir())
    return {cell.name: (cell / "prompt.safetensors").read_bytes() for cell in cells}


def test_killed_twice_it_ends_with_the_same_table(whole, tmp_path, cache):
    for after in (1, 3):  # groups that have begun
        process = subprocess.Popen(
            command(tmp_path, cache), env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if len(list((tmp_path / "suite").glob("groups/*/checkpoints/[1-9]"))) >= after:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    report, _ = finished(tmp_path, cache)
    assert report == whole[1]
    assert prompts(tmp_path) == prompts(whole[0])
    again, err = finished(tmp_path, cache)
    assert again == report
    assert "before tuning" not in err  # nothing is run again


def test_workers_that_submitit_starts(whole, tmp_path, cache):
    report, err = finished(
        tmp_path, cache, "--launcher=local", "--jobs=2", "--launcher_parameter", "timeout_min=15"
    )
    assert report == whole[1]
    assert "2 workers" in err


def test_a_cell_by_itself_is_the_member_of_its_group(whole, tmp_path, cache):
    directory, _ = whole
    cell = directory / "suite" / "cells" / "micro_residual.few.seed1"
    words = subprocess.run(
        ["xargs", "-n1"], stdin=(cell / "command.txt").open(), capture_output=True, text=True
    )
    arguments = words.stdout.splitlines()[1:]
    program = [sys.executable, "-m", "jax_prompts.main", *arguments, f"--gin.MODEL_DIR={tmp_path}/alone"]
    run = subprocess.run(program, env=ENV, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    alone, member = json.loads(run.stdout.splitlines()[-1]), json.loads((cell / "summary.json").read_text())
    assert alone["metrics"] == member["metrics"]
    for name in ("train.jsonl", "eval.jsonl"):
        lines = [(tmp_path / "alone" / "metrics" / name), cell / "metrics" / name]
        own, shared = ([json.loads(line) for line in file.read_text().splitlines()] for file in lines)
        assert [line["step"] for line in own] == [line["step"] for line in shared]
        for a, b in zip(own, shared, strict=True):
            numbers = {key: value for key, value in a.items() if isinstance(value, float)}
            assert numbers == pytest.approx({key: b[key] for key in numbers}, rel=1e-4)
