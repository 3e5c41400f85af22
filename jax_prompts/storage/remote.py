"""What is far away: asked with patience, but so that a command without a network ends within 30 seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

TIMEOUT_SECONDS = 25.0


def within_limit(ask: Callable[[], Any]) -> Any:
    """What `ask` returns or raises.

    Raises:
      TimeoutError: it has done neither after `TIMEOUT_SECONDS`.
    """
    result: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            result.append((True, ask()))
        except Exception as error:  # whatever a remote file system's library raises
            result.append((False, error))

    # A thread of its own: these libraries retry for minutes, and a daemon does not hold up the exit.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    if not result:
        raise TimeoutError(f"no answer in {TIMEOUT_SECONDS:.0f} s")
    answered, found = result[0]
    if not answered:
        raise found
    return found
