"""Watches a process of several from its parent, which says in one line how it ended.

JAX's distributed runtime ends a process from C++, with a stack trace and SIGABRT, when another process died or
none answered in time; Python cannot catch that. So a process that belongs to a run of several goes on in a child
(`fork`, before anything heavy is imported) and the parent turns such an end into a line and exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import glob
import importlib.util
import os
import re
import signal
import sys
import threading
from typing import NoReturn

from jax_prompts.errors import ConfigError, printable

FLAGS = ("coordinator_address", "process_count", "process_index")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")  # of a process under srun
_PR_SET_PDEATHSIG = 1
_STAMP = re.compile(r"[IWEF]\d{4} [\d:.]+ +\d+ ([\w./]+):\d+\] ")  # a line of native code begins with it
_RUNTIME = ("coordination_service", "preemption_", "client.h")  # sources of the distributed runtime


def one_of_several(args: argparse.Namespace) -> bool:
    """Whether this process is one of several: by flags, under Slurm's srun, or on a TPU machine (which may be
    the only one of its slice).

    Raises:
      ConfigError: srun started several of a command that is one process.
    """
    tasks = int(os.environ.get("SLURM_NTASKS", 1)) if all(name in os.environ for name in _SLURM) else 1
    if not hasattr(args, "multiprocess_gpu"):
        if tasks > 1:
            raise ConfigError(
                f"t5x {args.command} is one process, and srun started {tasks}: use srun --ntasks=1"
            )
        return False
    if tasks > 1 or args.multiprocess_gpu or any(getattr(args, flag) is not None for flag in FLAGS):
        return True
    chips = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    wanted = os.environ.get("JAX_PLATFORMS") or "tpu"
    return bool(chips) and "tpu" in wanted and importlib.util.find_spec("libtpu") is not None


def supervise(args: argparse.Namespace) -> None:
    """Returns in a child process; the parent stays, passes SIGTERM on and exits as the child does.

    Ctrl-C, which a terminal sends to both, reaches the child as SIGTERM, a second one as SIGKILL.

    What native code writes to stdout or stderr goes to stderr, without the runtime's lines unless `--debug`.
    """
    read, write = os.pipe()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the child
    parent, child = os.getpid(), os.fork()
    if child == 0:
        die_with(parent)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(fd), "w", buffering=1) for fd in (1, 2))
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(read)
        os.close(write)
        return
    os.close(write)
    passed_on = pass_on_to(child)
    native = _Native(read, args.debug)
    native.start()
    _, status = os.waitpid(child, 0)
    native.join(timeout=5)  # what else has the pipe open may outlive the child
    reason = native.fatal and how_it_ended(native.fatal, args.initialization_timeout)
    leave_as(args.command, os.waitstatus_to_exitcode(status), passed_on, reason)


def leave_as(command: str, code: int, passed_on: list[int], reason: str = "") -> NoReturn:
    """Exits as a child did; where a signal ended it, with 130 for Ctrl-C or 1, and one line that says why.

    Args:
      command: of t5x.
      code: of the child, below 0 that of a signal.
      passed_on: what `pass_on_to` gave it.
      reason: what is known besides the signal's name.
    """
    if code >= 0:
        leave(code)
    by_ctrl_c = signal.SIGINT in passed_on
    known = (
        "stopped by Ctrl-C" if by_ctrl_c else printable(reason) or f"ended by {signal.Signals(-code).name}"
    )
    print(f"t5x {command}: {known}", file=sys.stderr)
    leave(130 if by_ctrl_c else 1)


def pass_on_to(child: int) -> list[int]:
    """Passes SIGTERM and Ctrl-C on to a child, a second Ctrl-C as SIGKILL; the list holds those that came."""
    passed_on: list[int] = []

    def pass_on(number: int, _: object) -> None:
        kill = number == signal.SIGINT and number in passed_on
        passed_on.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL if kill else signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return passed_on


def how_it_ended(fatal: str, timeout: int) -> str:
    """Reason, in one line, for the last words of the distributed runtime."""
    if "RegisterTask" in fatal:
        return (
            f"the processes did not find each other within {timeout} s: start as many as --process_count says, each "
            "with its own --process_index and one --coordinator_address, of process 0's host, that all can reach; "
            "--initialization_timeout gives them longer (--debug shows more)"
        )
    if again := re.search(r"(\d+) unexpectedly tried to connect", fatal):
        return (
            f"process {again[1]} was started twice, or again while the others ran on: start all processes together, "
            "each with its own --process_index"
        )
    dead = ", ".join(
        re.findall(r"^\D*(\d+)$", fatal.partition("stopped sending heartbeats")[2], re.MULTILINE)
    )
    who = f"process {dead} stopped" if dead else "process 0 stopped or cannot be reached"
    return f"{who}, so this one stops, too; see its messages, then run the same command again"


class _Native(threading.Thread):
    """Copies what native code writes; `fatal` is the distributed runtime's reason to end the process."""

    def __init__(self, read: int, everything: bool) -> None:
        super().__init__(daemon=True)
        self._read, self._everything, self.fatal = read, everything, ""

    def run(self) -> None:
        from_runtime = False
        with os.fdopen(self._read, errors="replace") as lines:
            for line in lines:
                if stamp := _STAMP.match(line):
                    from_runtime = stamp[1].startswith(_RUNTIME)
                if from_runtime and (line.startswith("F") or self.fatal):
                    self.fatal += line
                if self._everything or not (from_runtime or line.startswith("[Gloo] Rank ")):
                    sys.stderr.write(line)


def die_with(parent: int) -> None:
    """Lets this process end when its parent does (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)


def leave(code: int) -> NoReturn:
    """Ends the process without waiting for anything."""
    sys.stderr.flush()
    os._exit(code)
