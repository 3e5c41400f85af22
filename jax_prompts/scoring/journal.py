"""Keeps answers as they come, so that an evaluation which was stopped goes on behind them."""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jax_prompts import records
from jax_prompts.display import log
from jax_prompts.distributed import processes
from jax_prompts.errors import RunError
from jax_prompts.run_folder import RunFolder
from jax_prompts.storage.directories import make_directory

FOLDER = "answers"  # in MODEL_DIR, while an evaluation is not finished
_SECONDS = 30.0  # between two times that answers are taken to a bucket
Batches = Callable[[int], Iterable[Sequence[Any]]]


class Journal:
    """The answers of one evaluation, a file for each part of it; of several processes the primary one writes."""

    def __init__(self, folder: RunFolder | None, made_with: Mapping[str, Any]) -> None:
        """Keeps answers in MODEL_DIR.

        Args:
          folder: where the evaluation works in it; None: none are kept.
          made_with: all that the answers depend on; those that were made with something else are not taken.
        """
        self._folder, self._made_with = folder, made_with
        self._published = time.monotonic()

    def of(self, **made_with: Any) -> Journal:
        """The journal of answers that depend on this, too."""
        return Journal(self._folder, {**self._made_with, **made_with})

    def collect(self, part: str, batches: Batches) -> list[Any]:
        """All rows of a part, each plain JSON: those that are there, and the others as `batches` gives them.

        Args:
          part: its name, the same for the same rows.
          batches: function from the number of the first row that is wanted to rows, some at a time.

        Raises:
          RunError: they cannot be read or written.
        """
        if self._folder is None:
            return list(itertools.chain.from_iterable(batches(0)))
        made_with = json.dumps(self._made_with, sort_keys=True, default=str)
        mark = hashlib.sha256(f"{part} {made_with}".encode()).hexdigest()[:16]
        file = self._folder.path / FOLDER / f"{part}-{mark}.jsonl"
        _begin(file)
        self._folder.share()
        rows = _rows(file)
        processes.assert_equal("answers that are there", {file.name: str(len(rows))})
        if rows:
            log(f"{part}: goes on behind {len(rows):,} answers that are there")
        for found in batches(len(rows)):
            _append(file, found)
            rows += found
            self._publish()
        return rows

    @processes.by_primary
    def _publish(self) -> None:
        """Takes answers to a bucket, now and then."""
        if self._folder is not None and time.monotonic() - self._published > _SECONDS:
            self._folder.publish()
            self._published = time.monotonic()

    @processes.by_primary
    def remove(self) -> None:
        """Removes all answers, once what was made of them is in the bucket."""
        if self._folder is not None:
            self._folder.publish()
            shutil.rmtree(self._folder.path / FOLDER, ignore_errors=True)
            self._folder.publish()


NOTHING_KEPT = Journal(None, {})


@processes.by_primary
def _begin(file: pathlib.Path) -> None:
    """Makes a file, or ends it behind its last whole line."""
    with records.writing(file.parent):
        make_directory(file.parent)
        with file.open("a+b") as opened:
            opened.seek(0)
            opened.truncate(opened.read().rfind(b"\n") + 1)


@processes.by_primary
def _append(file: pathlib.Path, rows: Sequence[Any]) -> None:
    with records.writing(file.parent), file.open("a") as opened:
        opened.write("".join(json.dumps(row) + "\n" for row in rows))


def _rows(file: pathlib.Path) -> list[Any]:
    try:
        return [json.loads(line) for line in records.read_file(file).splitlines()]
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file} is damaged: remove it, and start the command again") from error
