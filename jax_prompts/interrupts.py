"""Ctrl-C ends a command in one line, wherever it is."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

_GRACE_SECONDS = 5.0


def hold() -> None:
    """Keeps Ctrl-C waiting, also in a program that takes this one's place, until `obeyed`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextlib.contextmanager
def obeyed(interrupted: threading.Event, end: Callable[[], None]) -> Iterator[None]:
    """Sees to it that Ctrl-C ends the block: by KeyboardInterrupt, or by `end` where that does nothing for 5 s.

    Python raises it between two of its own instructions, so not while XLA compiles, and a library may lose it in a
    callback or turn it into another error. Where a handler of another kind is set, as by a training loop, the first
    Ctrl-C is left to it.

    Args:
      interrupted: is set at Ctrl-C.
      end: ends the process; called in another thread.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    done = threading.Event()
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch() -> None:
        left = False
        while number := os.read(read, 1):
            if number[0] != signal.SIGINT:
                continue
            if not left and signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                left = True
                continue
            interrupted.set()
            if not done.wait(_GRACE_SECONDS):
                end()
        os.close(read)

    def show(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is not KeyboardInterrupt:  # of which Python would print a traceback
            shown_before(lost)

    shown_before, sys.unraisablehook = sys.unraisablehook, show
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        sys.unraisablehook = shown_before
        os.close(write)
        watcher.join()  # so that `interrupted` is set, whatever ended the block


@contextlib.contextmanager
def by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the block as Ctrl-C does, by KeyboardInterrupt."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
