"""Files under DATA_DIR as its SHA256SUMS names them, in the form that `sha256sum` writes and checks."""

from __future__ import annotations

import hashlib
import pathlib

from tasks.errors import TaskError

NAME = "SHA256SUMS"


def checked_files(data_dir: pathlib.Path | None, folder: str) -> list[pathlib.Path]:
    """The files that SHA256SUMS names under a folder of DATA_DIR, in order of path.

    Raises:
      TaskError: DATA_DIR is not set, has no SHA256SUMS or one without such files; or a file is missing or another.
    """
    if data_dir is None:
        raise TaskError(f"these tasks read files: set DATA_DIR to a directory with {NAME} and what it names")
    sums = data_dir / NAME
    try:
        lines = sums.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(
            f"{sums} cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'}): put there that of the "
            "model to be made again, or write one with sha256sum"
        ) from error
    named = {}
    for line in filter(None, lines):
        sha256, _, path = line.partition(" ")
        named[path.strip().removeprefix("*").removeprefix("./")] = sha256
    wanted = sorted(path for path in named if path.startswith(f"{folder}/"))
    if not wanted:
        raise TaskError(f"{sums} names no file of {folder}/: add them with sha256sum")
    for path in wanted:
        file = data_dir / path
        if not file.is_file():
            raise TaskError(f"{file} is missing, and {sums} names it: put it there")
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != named[path]:
            raise TaskError(
                f"{file} is not the file that {sums} names (SHA-256 {found[:12]}... in place of "
                f"{named[path][:12]}...): replace it"
            )
    return [data_dir / path for path in wanted]
