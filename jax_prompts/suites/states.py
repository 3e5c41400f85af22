"""How far cells are: finished, failed, or open; read from their directories, which every worker sees."""

from __future__ import annotations

import contextlib
import json
import pathlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from jax_prompts import model_dir, records
from jax_prompts.errors import ConfigError, RunError, printable, system_reason
from jax_prompts.storage import buckets, json_text, places
from jax_prompts.storage.remote import is_remote
from jax_prompts.suites.cells import Cell

_FAILED = "failed.json"
_SEARCH = "search.json"
_OTHERS = {"config.gin": "a run", _SEARCH: "a search"}


def summary_of(cell: Cell) -> dict[str, Any] | None:
    """What a finished cell's summary.json holds; None where it is not finished."""
    file = places.below(cell.address, "summary.json")
    content = read(file)
    return None if content is None else records.summary_of(content, file)


def finished_of(root: str, cells: Sequence[Cell]) -> int:
    """How many cells are finished; of a bucket, by one listing."""
    if not is_remote(root):
        return sum(summary_of(cell) is not None for cell in cells)
    with _errors(root, "read"):
        there = buckets.stored(root)
    return sum(f"cells/{cell.name}/summary.json" in there for cell in cells)


def fail(cell: Cell, reason: str) -> None:
    """Says of a cell why it could not be run; each time anew, so that others see that it was tried again."""
    text = json_text.dumps({"reason": reason, "attempt": uuid.uuid4().hex})
    write(places.below(cell.address, _FAILED), text + "\n")


def failure_of(cell: Cell) -> tuple[str, str] | None:
    """(reason, attempt) of a cell that could not be run; None where it has not failed."""
    if (content := read(places.below(cell.address, _FAILED))) is None:
        return None
    try:
        found = json.loads(content)
        return str(found["reason"]), str(found["attempt"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "its failed.json is damaged", ""


def forget_failure(cell: Cell) -> None:
    with _errors(cell.address, "written"):
        places.remove(places.below(cell.address, _FAILED))


def read(file: str) -> bytes | None:
    """A file of a suite, of a directory or a bucket; None where there is none. Raises RunError."""
    with _errors(file, "read"):
        return places.read(file, records.MAX_BYTES)


def write(file: str, text: str) -> None:
    """Writes a file of a suite. Raises RunError."""
    with _errors(file, "written"):
        places.write(file, text)


@contextlib.contextmanager
def _errors(file: str, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        absent = isinstance(error, FileNotFoundError) and is_remote(file)
        reason = "there is no such bucket" if absent else system_reason(error)
        raise RunError(
            f"{file} cannot be {what} ({reason}): mend that, or choose another MODEL_DIR"
        ) from error


def check_same_suite(root: str, cells: Sequence[Cell]) -> None:
    """Checks that a directory holds these cells or none.

    Raises:
      ConfigError: it holds a run, a search, a cell of the same name with other settings, or another suite's alone.
    """
    for file, what in _OTHERS.items():
        if read(places.below(root, file)) is not None:
            raise ConfigError(f"MODEL_DIR {root} holds {what}: choose another MODEL_DIR")
    there = _begun(places.below(root, "cells"))
    if there and not there & {cell.name for cell in cells}:
        raise ConfigError(
            f"MODEL_DIR {root} holds the cells of another suite ({printable(min(there))}): choose another MODEL_DIR"
        )
    for cell in cells:
        if cell.name in there:
            before = (read(places.below(cell.address, "config.gin")) or b"").decode(errors="replace")
            model_dir.check_same_run(cell.run, before, cell.config_text)
            if summary_of(cell) is not None:
                model_dir.check_same_length(cell.address, before, cell.config_text)


def _begun(folder: str) -> set[str]:
    """Names of the cells that have a config.gin."""
    with _errors(folder, "read"):
        if is_remote(folder):
            found = (name.split("/") for name in buckets.stored(folder))
            return {parts[0] for parts in found if parts[1:] == ["config.gin"]}
        return {path.parent.name for path in pathlib.Path(folder).glob("*/config.gin")}


def claim_for_search(root: str, settings: dict[str, Any]) -> None:
    """Keeps a directory for a search with these settings, plain JSON; with another budget it is the same search.

    Raises:
      ConfigError: it holds a run, a suite without a budget, or another search.
    """
    text = json_text.dumps(settings, indent=2) + "\n"
    is_run = read(places.below(root, "config.gin")) is not None
    if is_run or is_there(places.below(root, "cells")):
        what = "a run" if is_run else "a suite that is no search"
        raise ConfigError(f"MODEL_DIR {root} holds {what}: choose another MODEL_DIR")
    if (there := read(places.below(root, _SEARCH))) is None:
        write(places.below(root, _SEARCH), text)
        return
    if there.decode(errors="replace") != text:
        raise ConfigError(
            f"MODEL_DIR {root} holds a search among other options, or for other TRAIN_STEPS: choose another MODEL_DIR"
        )


def is_there(folder: str) -> bool:
    """Whether a folder of a suite is there. Raises RunError."""
    with _errors(folder, "read"):
        return places.is_there(folder)


def refuse(wrong: dict[str, list[str]]) -> None:
    """Raises ConfigError where there are reasons why cells cannot be run, each with the names of those."""
    if wrong:
        reasons = [
            f"{names[0]}{f' and {len(names) - 1} others' if len(names) > 1 else ''}: {reason}"
            for reason, names in wrong.items()
        ]
        raise ConfigError(f"{sum(map(len, wrong.values()))} cells cannot be run: {'; '.join(reasons)}")
