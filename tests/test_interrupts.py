"""Ctrl-C at any moment: one line, status 130, no traceback."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import dataclasses, sys, time
from jax_prompts import interrupts, main
from jax_prompts.cli import arguments
from jax_prompts.cli.run_commands import TRAIN

def waits(args):
    print("waiting", flush=True)
    time.sleep(60)

def turns_it_into_another_error(args):
    try:
        waits(args)
    except KeyboardInterrupt as error:
        raise ImportError("a C extension failed") from error

def loses_it(args):
    class Lost:
        def __del__(self):
            waits(args)
    lost = Lost()
    del lost
    time.sleep(60)

interrupts._GRACE_SECONDS = 0.2
arguments.COMMANDS = [dataclasses.replace(TRAIN, run=globals()[sys.argv.pop()])]
main.main()
"""


@pytest.mark.parametrize("run", ["waits", "turns_it_into_another_error", "loses_it"])
def test_ctrl_c_is_one_line(run):
    env = {
        **os.environ,
        "PYTHONPATH": str(pathlib.Path(__file__).parents[1]),
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PROGRAM, "train", run], env=env, **pipes) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "t5x train: stopped by Ctrl-C\n")
