"""Temporary names for what is being written: `.NAME.0123456789abcdef0123456789abcdef.tmp`, beside NAME."""

from __future__ import annotations

import os
import pathlib
import re
import uuid

_NAME = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp", re.DOTALL)


def temporary_path(target: pathlib.Path) -> pathlib.Path:
    """A path that nobody else has, on the file system of `target`."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


def final_name(name: str) -> str | None:
    """NAME of a temporary file or directory; None for any other. A killed process leaves such."""
    found = _NAME.fullmatch(name)
    return found and found[1]


def sync(path: pathlib.Path) -> None:
    """Waits until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
