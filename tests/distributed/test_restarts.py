"""A command that is started again: after which ends, how often, and what signals to the parent do."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jax_prompts.cli.arguments import parse

PROGRAM = """
import argparse, os, pathlib, signal, sys, time
from jax_prompts import interrupts
from jax_prompts.distributed import restarts

restarts._PAUSE_SECONDS = float(os.environ.get("PAUSE", "0.1"))
interrupts.hold()
restarts.start_again(argparse.Namespace(command="train", restarts=3))
starts = pathlib.Path("starts")
count = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (count + 1))
end = sys.argv[1:][min(count, len(sys.argv) - 2)]
if end == "waits":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    os.write(1, b"ready\\n")
    time.sleep(60)
if end.startswith("SIG"):
    os.kill(os.getpid(), getattr(signal, end))
sys.exit(int(end))
"""


def started(folder, *ends, **environment):
    env = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2]), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *ends],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("ends", "starts", "status", "last"),
    [
        (["0"], 1, 0, ""),
        (["2"], 1, 2, ""),
        (["75", "1", "0"], 3, 0, "train: ended with status 1; restart 2 of 3 in 0.2 s"),
        (["SIGKILL", "SIGABRT", "2"], 3, 2, "train: ended with SIGABRT; restart 2 of 3 in 0.2 s"),
        (["1"], 4, 1, "train: ended with status 1; restart 3 of 3 in 0.4 s"),
        (["SIGKILL"], 4, 1, "train: ended by SIGKILL"),
    ],
)
def test_it_is_started_again_after_what_may_pass(tmp_path, ends, starts, status, last):
    process = started(tmp_path, *ends)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    assert len((tmp_path / "starts").read_text()) == starts
    assert stderr.splitlines()[-1:] == ([f"t5x {last}"] if last else [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_stops_the_parent_stops_it_all(tmp_path, number):
    with started(tmp_path, "75", "waits") as process:
        assert process.stdout.readline() == "ready\n"
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        process.communicate(timeout=60)
    assert process.returncode == 75 and (tmp_path / "starts").read_text() == "xx"


def test_no_start_follows_who_stops_the_parent_between_two(tmp_path):
    with started(tmp_path, "1", PAUSE="50") as process:
        while "restart 1 of 3" not in process.stderr.readline():
            time.sleep(0.01)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 75 and (tmp_path / "starts").read_text() == "x"


def test_it_is_a_flag_of_commands_that_go_on(capsys):
    assert parse(["train", "--restarts=3"]).restarts == 3
    assert parse(["eval"]).restarts == 0
    for arguments, words in (
        (["train", "--restarts=-1"], "--restarts -1: give"),
        (["tasks", "--restarts=1"], "unknown argument --restarts=1"),
    ):
        with pytest.raises(SystemExit):
            parse(arguments)
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path):
    """The child is killed twice, once each time a checkpoint is whole; the command that was started goes on."""
    command = [
        *(sys.executable, "-m", "jax_prompts.main", "train", "--gin_file=gin_configs/quickstart.gin"),
        *("--gin.TRAIN_STEPS=30", "--gin.EVAL_PERIOD=10", "--gin.CHECKPOINT_PERIOD=10"),
    ]
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([*command, f"--gin.MODEL_DIR={tmp_path / 'a'}"], cwd=root, capture_output=True, check=True)
    again = [*command, f"--gin.MODEL_DIR={tmp_path / 'b'}", "--restarts=2"]
    with subprocess.Popen(
        again, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        kills, lines = iter(("step 10/", "step 20/")), []
        wanted = next(kills)
        for line in process.stderr:
            lines.append(line)
            if wanted and line.startswith(wanted):
                children = (
                    pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                )
                os.kill(int(children[0]), signal.SIGKILL)
                wanted = next(kills, None)
    assert process.returncode == 0, lines
    assert sum("restart" in line for line in lines) == 2
    files = [tmp_path / run / "prompt.safetensors" for run in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
