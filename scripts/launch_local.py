#!/usr/bin/env python3
"""Runs t5x in several processes on this machine: `launch_local.py 2 train --gin_file=...`.

With `--gpus_each 1` before the number, each process has its own GPUs. SIGTERM and Ctrl-C go to all of them, as
SIGTERM; a second Ctrl-C ends them at once. When one fails, the others have 75 s to end by themselves. The exit status
is 0 when all succeed, and else that of the first that did not (128 + N where signal N ended it). On Linux no process
outlives this one.
"""

import argparse
import ctypes
import functools
import math
import os
import signal
import socket
import subprocess
import sys
import time

PATIENCE_SECONDS = 75  # t5x notices the end of another process within 60, and then ends with a reason
_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus_each", type=_positive, metavar="N", help="GPUs of each process")
    parser.add_argument("processes", type=_positive)
    parser.add_argument("command", help="of t5x")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="of t5x")
    args = parser.parse_args()
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stops.append(number))
    address = f"127.0.0.1:{_free_port()}"
    sys.exit(_watch([_start(args, address, index) for index in range(args.processes)], stops))


def _start(args: argparse.Namespace, address: str, index: int) -> subprocess.Popen:
    environment = dict(os.environ)
    if args.gpus_each:
        first = index * args.gpus_each
        environment["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(first, first + args.gpus_each)))
    own = [
        f"--coordinator_address={address}",
        f"--process_count={args.processes}",
        f"--process_index={index}",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "jax_prompts.main", args.command, "--multiprocess_gpu", *own, *args.flags],
        env=environment,
        start_new_session=True,  # so that a terminal's Ctrl-C reaches it as SIGTERM only
        preexec_fn=functools.partial(_die_with, os.getpid()),
    )


def _watch(running: list[subprocess.Popen], stops: list[int]) -> int:
    """Waits for all and returns the status of the first failure; each entry that comes into `stops` ends them."""
    failed, deadline, interrupted = 0, math.inf, False
    while running:
        time.sleep(_POLL_SECONDS)
        if stops:
            kill = interrupted and signal.SIGINT in stops
            interrupted = interrupted or signal.SIGINT in stops
            stops.clear()
            for process in running:
                process.kill() if kill else process.terminate()
        for process in running:
            status = process.poll()
            if status and not failed:
                failed = status if status > 0 else 128 - status
                deadline = time.monotonic() + PATIENCE_SECONDS
        running = [process for process in running if process.returncode is None]
        if running and time.monotonic() > deadline:
            deadline = math.inf
            print(
                f"launch_local.py: a process ended with status {failed}; those still running "
                f"{PATIENCE_SECONDS} s later are killed",
                file=sys.stderr,
            )
            for process in running:
                process.kill()
    return failed


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os._exit(1)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    main()
