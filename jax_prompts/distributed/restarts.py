"""Starts a command again after it was stopped or died, `--restarts=N`: it goes on from what it has saved.

The parent, which imports nothing heavy, outlives what ends a process from outside: a preemption of another host, the
kernel's kill for memory, an abort in native code.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from jax_prompts.distributed.supervisor import die_with, leave, leave_as, pass_on_to

_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5, 60
_NOT_AGAIN = (0, 2)  # done; settings that cannot work


def start_again(args: argparse.Namespace) -> None:
    """Returns in a child process, at most `args.restarts` times more than once; the parent exits as the last one does.

    No further start follows a child that is done or has wrong settings, nor SIGTERM or Ctrl-C to the parent, which
    the child gets first.
    """
    for start in range(args.restarts + 1):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the child, which a terminal would tell, too
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        parent, child = os.getpid(), os.fork()
        if child == 0:
            die_with(parent)
            return
        told = pass_on_to(child)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        ended = f"status {code}" if code >= 0 else signal.Signals(-code).name
        if code in _NOT_AGAIN or told or start == args.restarts:
            leave_as(args.command, code, told)
        pause = min(_PAUSE_SECONDS * 2**start, _LONGEST_PAUSE_SECONDS)
        print(
            f"t5x {args.command}: ended with {ended}; restart {start + 1} of {args.restarts} in {pause} s",
            file=sys.stderr,
        )
        _wait(pause, told)


def _wait(seconds: float, told: list[int]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if told:
            leave(75)
        time.sleep(0.1)
