"""`t5x infer` is killed at any moment and goes on: the answers are those of a run that was left alone."""

import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
KILLS = 8
LINES = 3000


@pytest.fixture
def infer(tmp_path, compile_cache):
    """`infer(output, *flags)` starts `t5x infer` on lines of the bare micro model."""
    words = "the soup film song was cold warm dull fine and never always again".split()
    chosen = random.Random(0)
    texts = [" ".join(chosen.choices(words, k=chosen.randint(1, 9))) for _ in range(LINES)]
    (tmp_path / "in").write_text("".join(f"{text}\n" for text in texts))

    def start(output, *flags):
        run = [sys.executable, "-m", "jax_prompts.main", "infer"]
        run += ["--gin_file=gin_configs/quickstart_infer.gin", "--gin.EVAL_BATCH_SIZE=8"]
        run += ["--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 2}"]
        run += [f"--input={tmp_path / 'in'}", f"--output={tmp_path / output}", *flags]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **compile_cache}
        return subprocess.Popen(
            run, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def finished(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(infer, tmp_path):
    finished(infer("whole"))
    partial, target = tmp_path / "killed.partial", tmp_path / "killed"
    chosen, resumed = random.Random(1), 0
    for _ in range(KILLS):
        process = infer("killed", "--resume")
        before = partial.stat().st_size if partial.exists() else 0
        more = chosen.choice([0, 1, 30_000])  # bytes: before the first chunk, behind it, behind some
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if partial.exists() and partial.stat().st_size >= before + more:
                break
            time.sleep(0.001)
        time.sleep(chosen.uniform(0, 0.3))
        process.kill()
        process.communicate()
        if target.exists():  # it was quicker
            break
        resumed = max(resumed, partial.read_bytes().count(b"\n"))
    else:
        assert finished(infer("killed", "--resume"))["examples"] == LINES
    assert target.read_bytes() == (tmp_path / "whole").read_bytes()
    assert resumed > 256, "nothing was there to go on from"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in", "killed", "whole"]
