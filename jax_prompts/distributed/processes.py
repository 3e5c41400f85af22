"""Coordinates the processes of a run: they find each other, compare settings, take turns and stop together.

Every process runs the same program with the same settings; process 0 alone writes what a run leaves. With one
process nothing here waits.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import jax
from jax._src.distributed import global_state  # its key-value store has no public name
from jax.experimental import multihost_utils

from jax_prompts import display
from jax_prompts.distributed.supervisor import FLAGS
from jax_prompts.errors import ConfigError, Preempted, RunError, SettingWarning, system_reason

T = TypeVar("T")

_HEARTBEAT_SECONDS = 60  # a process without a sign of life for so long counts as dead
_LEAVING_SECONDS = 60  # between the first process that is done and the last
_WAITING_SECONDS = 1800  # for the slowest process; one that dies meanwhile is noticed by its heartbeat
_FILLING_SECONDS = 6 * 3600  # for another process that fills a token cache
_POLL_SECONDS = 1.0
_LIBRARIES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax",
              "orbax-checkpoint", "tensorstore", "safetensors", "sentencepiece", "numpy")  # fmt: skip
# Each of them changes numbers, or the program that a process compiles.
_JAX_SETTINGS = ("jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable",
                 "jax_default_matmul_precision", "jax_numpy_dtype_promotion")  # fmt: skip
_COMPILER_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")

_numbers = itertools.count()  # barriers need names of their own
_left = threading.Event()


def connect(args: argparse.Namespace) -> None:
    """Finds the other processes, before JAX is used in any other way.

    Where the flags leave something open, Slurm or the TPU pod says it.

    Raises:
      ConfigError: nothing says it; the processes differ in command, number, libraries, devices or JAX's settings.
      RunError: process 0 cannot have the coordinator's port.
    """
    if args.process_index == 0:
        _check_port(args.coordinator_address)
    # The preemption service takes SIGTERM, which a command without checkpoints should just die of.
    jax.config.update("jax_enable_preemption_service", args.command in ("train", "pretrain"))
    try:
        jax.distributed.initialize(
            args.coordinator_address,
            args.process_count,
            args.process_index,
            initialization_timeout=args.initialization_timeout,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_LEAVING_SECONDS,
        )
    except ValueError as error:
        if args.multiprocess_gpu or any(getattr(args, flag) is not None for flag in FLAGS):
            raise ConfigError(
                "give --coordinator_address, --process_count and --process_index: nothing else says them here"
            ) from error
        return  # a TPU machine by itself
    if not primary():
        display.console.quiet = True
        warnings.simplefilter("ignore", SettingWarning)
    threading.Thread(target=_watch, args=(args.command,), daemon=True).start()
    count, dry_run = global_state.num_processes, getattr(args, "dry_run", False)
    assert_equal(
        "flags", {"the command": args.command, "--process_count": str(count), "--dry_run": str(dry_run)}
    )
    assert_equal("libraries", _versions())
    assert_equal(
        "devices", {"kind": jax.local_devices()[0].device_kind, "number": str(jax.local_device_count())}
    )
    settings = {name: str(jax.config.values[name]) for name in _JAX_SETTINGS}
    assert_equal(
        "JAX settings", settings | {name: os.environ.get(name, "not set") for name in _COMPILER_FLAGS}
    )


def leave() -> None:
    """Waits until all processes are here, and disconnects."""
    barrier("leave")
    _left.set()
    jax.distributed.shutdown()


@contextlib.contextmanager
def joined(args: argparse.Namespace) -> Iterator[bool]:
    """Joins the other processes for one command; yields whether this is the one that prints. Raises as `connect`."""
    connect(args)
    yield primary()
    leave()


def abandon(command: str, error: BaseException, status: int, reason: str) -> None:
    """Says why this process stops, tells the others, and ends; returns where none has to be told.

    An error that comes from the end of another process is said to be one, or its reason told in its place.
    """
    client, index = global_state.client, global_state.process_id
    if client is None:
        return
    if isinstance(error, Preempted) and error.together:
        print(f"t5x {command}: {reason}", file=sys.stderr)
        leave()
        _end(status)
    if "Gloo" in reason or "oordination" in reason:
        time.sleep(3 * _POLL_SECONDS)  # `_watch` may know more
        reason = (
            f"another process stopped or cannot be reached, so this one stops, too ({reason}); see its messages, "
            "then run the same command again"
        )
    _left.set()  # `_watch` has nothing to add
    print(f"t5x {command}: {reason}", file=sys.stderr)
    with contextlib.suppress(Exception):  # the others may be gone already
        client.key_value_set(f"failed/{index}", json.dumps([status, reason]))
        if index == 0:  # which keeps what the others are about to read
            time.sleep(3 * _POLL_SECONDS)
    _end(status)


def primary() -> bool:
    """Whether this is process 0, which writes and talks."""
    return global_state.process_id == 0


def by_primary(function: Callable[..., None]) -> Callable[..., None]:
    """`function`, which does nothing on other processes than the primary one."""

    @functools.wraps(function)
    def once(*args: Any, **kwargs: Any) -> None:
        if primary():
            function(*args, **kwargs)

    return once


def barrier(name: str, seconds: int = _WAITING_SECONDS) -> None:
    """Waits until every process is here."""
    if global_state.client is not None:
        global_state.client.wait_at_barrier(f"{name}-{next(_numbers)}", seconds * 1000)


def assert_equal(subject: str, facts: Mapping[str, str]) -> None:
    """Waits until every process is here with the facts of process 0.

    Raises:
      ConfigError: a fact differs; it says which, here and there.
    """
    theirs = json.loads(from_primary(subject, json.dumps(dict(facts))))
    for name in [*theirs, *facts]:
        if facts.get(name) != theirs.get(name):
            raise ConfigError(
                f"process {global_state.process_id} has other {subject} than process 0: {name} is "
                f"{facts.get(name, 'not set')} here, and {theirs.get(name, 'not set')} there"
            )
    barrier(subject)


def assert_equal_settings(config_text: str) -> None:
    """`assert_equal` of the lines of a resolved configuration."""
    lines = [line.partition(" = ") for line in config_text.splitlines()]
    assert_equal("settings", {name: value for name, equals, value in lines if equals})


def from_primary(name: str, text: str) -> str:
    """The text that process 0 gives."""
    if global_state.client is None:
        return text
    key = f"told/{name}-{next(_numbers)}"
    if primary():
        global_state.client.key_value_set(key, text)
    return global_state.client.blocking_key_value_get(key, _WAITING_SECONDS * 1000)


def in_turns(work: Callable[[], T]) -> T:
    """Runs `work` on process 0, then on one process of each other machine, then on all others.

    So that of those which see the same files only one makes what is missing.
    """
    client, index = global_state.client, global_state.process_id
    if client is None:
        return work()
    folder = f"machines-{next(_numbers)}"  # a key is given once
    client.key_value_set(f"{folder}/{index}", socket.gethostname())
    barrier("machines")
    machines = {key.rpartition("/")[2]: name for key, name in client.key_value_dir_get(folder)}
    first = min(int(other) for other, name in machines.items() if name == machines[str(index)])
    own_turn = 0 if index == 0 else 1 if index == first else 2
    for turn in range(3):
        if turn == own_turn:
            result = work()
        barrier("turn", _FILLING_SECONDS)
    return result


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], str | None]]:
    """`stop(step)`, asked after every step: which signal wants this run to save and leave now, if any.

    Of several processes all stop at the same step, whichever got the signal; of these it is SIGTERM
    (`supervisor.py` makes it of Ctrl-C). Ctrl-C before the first step, and a second one, raises KeyboardInterrupt.
    """
    if jax.process_count() > 1:
        yield lambda step: "SIGTERM" if multihost_utils.reached_preemption_sync_point(step) else None
        return
    requests: list[str] = []

    def interrupted(*_: object) -> None:
        if requests:
            raise KeyboardInterrupt
        requests.append("Ctrl-C")

    def stop(step: int) -> str | None:
        signal.signal(signal.SIGINT, interrupted)
        return requests[0] if requests else None

    ctrl_c = signal.getsignal(signal.SIGINT)
    sigterm = signal.signal(signal.SIGTERM, lambda *_: requests.append("SIGTERM"))
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, sigterm)
        signal.signal(signal.SIGINT, ctrl_c)


def _check_port(address: str | None) -> None:
    """Raises RunError where another program, or another run, listens there: gRPC would share the port with it."""
    host, _, port = (address or "").rpartition(":")
    if not host:
        return  # the cluster chooses one
    try:
        socket.create_server(("", int(port))).close()
    except OSError as error:
        raise RunError(
            f"port {port} of --coordinator_address cannot be had on this host ({system_reason(error)}), perhaps for "
            "another run: choose another port, the same for all processes"
        ) from error


def _versions() -> dict[str, str]:
    from jax_prompts.data.cache_key import code_fingerprint

    installed = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    code = code_fingerprint("jax_prompts")[:16]
    return {"Python": platform.python_version(), **installed, "code of jax_prompts": code}


def _watch(command: str) -> None:
    """Ends this process when another one tells that it failed."""
    client, index = global_state.client, global_state.process_id
    assert client is not None
    while not _left.wait(_POLL_SECONDS):
        try:
            found = client.key_value_dir_get("failed")
        except Exception:  # process 0 is gone, which the runtime itself will notice
            return
        for key, told in found:
            other = int(key.rpartition("/")[2])
            if other != index:
                status, reason = json.loads(told)
                print(f"t5x {command}: process {other} stopped: {reason}", file=sys.stderr)
                _end(status)


def _end(status: int) -> NoReturn:
    """Exits without Python's way out, on which JAX waits for all processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
