"""How far cells are: finished, failed, or open; read from their directories, which every worker sees."""

from __future__ import annotations

import json
import pathlib
import uuid
from collections.abc import Sequence
from typing import Any

from jax_prompts import model_dir, records
from jax_prompts.errors import ConfigError, printable
from jax_prompts.storage import files, json_text
from jax_prompts.suites.cells import Cell

_FAILED = "failed.json"
_SEARCH = "search.json"
_OTHERS = {"config.gin": "a run", _SEARCH: "a search"}


def summary_of(cell: Cell) -> dict[str, Any] | None:
    """What a finished cell's summary.json holds; None where it is not finished."""
    return records.read_summary(cell.directory / "summary.json")


def fail(cell: Cell, reason: str) -> None:
    """Says of a cell why it could not be run; each time anew, so that others see that it was tried again."""
    text = json_text.dumps({"reason": reason, "attempt": uuid.uuid4().hex})
    files.write(cell.directory / _FAILED, text + "\n")


def failure_of(cell: Cell) -> tuple[str, str] | None:
    """(reason, attempt) of a cell that could not be run; None where it has not failed."""
    try:
        found = json.loads(records.read_file(cell.directory / _FAILED))
        return str(found["reason"]), str(found["attempt"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError):
        return "its failed.json is damaged", ""


def forget_failure(cell: Cell) -> None:
    (cell.directory / _FAILED).unlink(missing_ok=True)


def check_same_suite(root: pathlib.Path, cells: Sequence[Cell]) -> None:
    """Checks that a directory holds these cells or none.

    Raises:
      ConfigError: it holds a run, a search, a cell of the same name with other settings, or another suite's alone.
    """
    for file, what in _OTHERS.items():
        if (root / file).exists():
            raise ConfigError(f"MODEL_DIR {root} holds {what}: choose another MODEL_DIR")
    there = {path.name for path in (root / "cells").glob("*") if (path / "config.gin").exists()}
    if there and not there & {cell.name for cell in cells}:
        raise ConfigError(
            f"MODEL_DIR {root} holds the cells of another suite ({printable(min(there))}): choose another MODEL_DIR"
        )
    for cell in cells:
        if cell.name in there:
            model_dir.check_same_run(cell.run, cell.config_text)
            if summary_of(cell) is not None:
                model_dir.check_same_length(cell.run.model_dir, cell.config_text)


def claim_for_search(root: pathlib.Path, settings: dict[str, Any]) -> None:
    """Keeps a directory for a search with these settings, plain JSON; with another budget it is the same search.

    Raises:
      ConfigError: it holds a run, a suite without a budget, or another search.
    """
    text = json_text.dumps(settings, indent=2) + "\n"
    if (root / "config.gin").exists() or (root / "cells").exists():
        what = "a run" if (root / "config.gin").exists() else "a suite that is no search"
        raise ConfigError(f"MODEL_DIR {root} holds {what}: choose another MODEL_DIR")
    try:
        there = records.read_file(root / _SEARCH).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        files.write(root / _SEARCH, text)
        return
    if there != text:
        raise ConfigError(
            f"MODEL_DIR {root} holds a search among other options, or for other TRAIN_STEPS: choose another MODEL_DIR"
        )


def refuse(wrong: dict[str, list[str]]) -> None:
    """Raises ConfigError where there are reasons why cells cannot be run, each with the names of those."""
    if wrong:
        reasons = [
            f"{names[0]}{f' and {len(names) - 1} others' if len(names) > 1 else ''}: {reason}"
            for reason, names in wrong.items()
        ]
        raise ConfigError(f"{sum(map(len, wrong.values()))} cells cannot be run: {'; '.join(reasons)}")
