"""Compiled programs are kept between starts, and what is wrong with where they are kept is one line."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from jax_prompts import compiled

ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
ENV.pop("JAX_COMPILATION_CACHE_DIR", None)
SHORT = [
    "Optimizer.warmup_steps=0",
    "TRAIN_STEPS=2",
    "EVAL_PERIOD=2",
    "EVAL_SPLIT=validation[:8]",
    "BATCH_SIZE=4",
    "EVAL_BATCH_SIZE=8",
]


def train(folder, name, **environment):
    settings = [f"MODEL_DIR={folder / name}", f"CACHE_DIR={folder / 'tokens'}", *SHORT]
    command = [sys.executable, "-m", "jax_prompts.main", "train", "--gin_file=gin_configs/quickstart.gin"]
    run = subprocess.run(
        [*command, *(f"--gin.{setting}" for setting in settings)],
        env={**ENV, "JAX_LOG_COMPILES": "1", "JAX_PROMPTS_CACHE": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])["best_metric"], run.stderr


def kept(folder):
    return [path for path in (folder / "cache" / "compiled").rglob("*-cache") if path.is_file()]


@pytest.mark.slow
def test_a_second_start_takes_what_the_first_compiled(tmp_path):
    score, err = train(tmp_path, "first", JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    assert kept(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in kept(tmp_path)}
    again, err = train(tmp_path, "second", JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    assert again == score
    assert {path: path.stat().st_mtime_ns for path in kept(tmp_path)} == before  # nothing was made again
    for path in kept(tmp_path):
        path.write_bytes(path.read_bytes()[:100])
    again, err = train(tmp_path, "third", JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    assert again == score
    (line,) = {line for line in err.splitlines() if "cannot be used" in line}
    assert line.startswith("t5x: a compiled program in ") and "remove that directory" in line
    assert "Traceback" not in err


def test_where_nothing_can_be_written_it_goes_on_without(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / "file" / "below"))
    compiled.keep_programs()
    (line,) = capsys.readouterr().err.splitlines()
    assert "compiled programs are not kept" in line and "is a file" in line
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.parametrize("own", ["", "/somewhere/else"])
def test_a_cache_of_ones_own_is_left_alone(own, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", own)
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path))
    compiled.keep_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == own and not list(pathlib.Path(tmp_path).iterdir())


def test_other_warnings_are_not_taken():
    assert compiled.warning_of("something else") is None
