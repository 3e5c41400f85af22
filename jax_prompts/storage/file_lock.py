"""The system's lock on an open file, which it takes from a process that ends, however it ends."""

from __future__ import annotations

import fcntl


def lock(descriptor: int, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> bool | None:
    """Whether this process has the lock now, until it closes the file; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
