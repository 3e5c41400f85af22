"""A process of several, watched by its parent: what Ctrl-C does to both."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import argparse, os, signal, sys, time
from jax_prompts import interrupts
from jax_prompts.distributed.supervisor import supervise

interrupts.hold()
supervise(argparse.Namespace(command="train", debug=False, initialization_timeout=9))
def tell(text):
    os.write(sys.stdout.fileno(), text)  # print may not be interrupted by another
def saves(*_):
    tell(b"asked\\n")
    sys.exit(75)
def saves_forever(*_):
    tell(b"asked\\n")
    time.sleep(60)
if sys.argv[1] != "dies":
    signal.signal(signal.SIGTERM, globals()[sys.argv[1]])
tell(b"ready\\n")
time.sleep(60)
"""


@pytest.mark.parametrize("group", [True, False], ids=["to all, as by a terminal", "to the parent"])
@pytest.mark.parametrize(("child", "status"), [("saves", 75), ("dies", 130), ("saves_forever", 130)])
def test_ctrl_c_asks_the_child_and_a_second_one_ends_it(group, child, status):
    env = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, child], env=env, start_new_session=True, **pipes
    ) as process:

        def ctrl_c():
            (os.killpg if group else os.kill)(process.pid, signal.SIGINT)

        assert process.stdout.readline() == "ready\n"
        ctrl_c()
        if child != "dies":
            assert process.stdout.readline() == "asked\n"
        if child == "saves_forever":
            ctrl_c()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    assert stderr == ("t5x train: stopped by Ctrl-C\n" if status == 130 else "")
