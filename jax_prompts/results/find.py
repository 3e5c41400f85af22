"""Finds what directories and files hold: runs, suites, evaluations, prompts, studies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from jax_prompts import records
from jax_prompts.errors import ConfigError, RunError, printable
from jax_prompts.results.run_files import RunFiles
from jax_prompts.storage import json_text
from jax_prompts.storage.home import local_path

_INSIDE = ("metrics", "predictions")  # of an evaluation: nothing to look for
STUDY = "study"  # the key by which a JSON file says which study it is of


@dataclasses.dataclass
class Found:
    """What was found, in the order of the paths.

    Attributes:
      runs: directories of runs that belong to no suite.
      suites: directories of suites, and of the rungs of a search, with their cells.
      evaluations: directories of `t5x eval` with an eval.json.
      prompts: prompt files that were named themselves.
      studies: files that `t5x study` wrote.
    """

    runs: list[RunFiles] = dataclasses.field(default_factory=list)
    suites: dict[pathlib.Path, list[RunFiles]] = dataclasses.field(default_factory=dict)
    evaluations: list[pathlib.Path] = dataclasses.field(default_factory=list)
    prompts: list[pathlib.Path] = dataclasses.field(default_factory=list)
    studies: list[pathlib.Path] = dataclasses.field(default_factory=list)

    @property
    def all_runs(self) -> list[RunFiles]:
        """Those of suites, too."""
        return [*self.runs, *(cell for cells in self.suites.values() for cell in cells)]


def find(paths: Sequence[str]) -> Found:
    """Looks through directories, and below them, for whatever commands of this package leave; takes single files, too.

    What is named beside a directory above it is found once.

    Raises:
      ConfigError: a path that is not there, is named twice, or holds none of these.
    """
    found, seen = Found(), set()
    taken: set[pathlib.Path] = set()  # directories that were looked into
    for place in paths:
        path, name = local_path(place, "DIR"), printable(place)
        if not _exists(path):
            raise ConfigError(
                f"{name} does not exist: name directories of runs, suites or evaluations, or prompt files"
            )
        if (real := path.resolve()) in seen:
            raise ConfigError(f"{name} is named twice: leave one out")
        seen.add(real)
        before, above = _count(found), set(taken)
        _take_file(found, path) if path.is_file() else _take_directory(found, path, taken)
        if _count(found) == before and real not in above:
            raise ConfigError(
                f"{name} holds no run, suite, evaluation or study: name a MODEL_DIR, or a directory above some"
            )
    return found


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """An object that a command of this package wrote as a JSON file.

    Raises:
      ConfigError: no such file.
      RunError: it cannot be read, or is no JSON object.
    """
    try:
        value = json_text.loads(records.read_file(file).decode())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{file} does not exist") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file} is damaged: make it again with the command that wrote it") from error
    if not isinstance(value, dict):
        raise RunError(f"{file} is no JSON object: make it again with the command that wrote it")
    return value


def _exists(path: pathlib.Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _count(found: Found) -> int:
    return sum(map(len, (found.runs, found.suites, found.evaluations, found.prompts, found.studies)))


def _take_file(found: Found, file: pathlib.Path) -> None:
    if file.suffix == ".safetensors":
        found.prompts.append(file)
    elif file.suffix == ".json" and _may_be_a_study(file):
        found.studies.append(file)


def _may_be_a_study(file: pathlib.Path) -> bool:
    """Whether a file that was named itself is one, or damaged, which whoever reads it says."""
    try:
        return STUDY in read_json(file)
    except RunError:
        return True


def _take_directory(found: Found, directory: pathlib.Path, taken: set[pathlib.Path]) -> None:
    for folder, folders, files in os.walk(directory):
        here = pathlib.Path(folder)
        if here.resolve() in taken:  # by a directory above it, that was named too
            folders[:] = []
            continue
        taken.add(here.resolve())
        folders.sort()
        if os.path.isfile(here / "config.gin"):  # which asks folders that may not be read without an error
            found.runs.append(RunFiles(here))
            folders[:] = []
        elif "cells" in folders and (here / "cells").is_dir():
            cells = sorted(
                path.parent for path in (here / "cells").glob("*/config.gin") if os.path.isfile(path)
            )
            with contextlib.suppress(OSError):
                if any((here / "cells").iterdir()):
                    found.suites[here] = [RunFiles(cell) for cell in cells]
            folders.remove("cells")
            folders[:] = [name for name in folders if name != "groups"]
        elif "eval.json" in files:
            found.evaluations.append(here)
        folders[:] = [name for name in folders if name not in _INSIDE]
        for file in sorted(files):
            if file.endswith(".json") and file not in ("eval.json", "summary.json", "table.json"):
                _take_study(found, here / file)


def _take_study(found: Found, file: pathlib.Path) -> None:
    try:
        if STUDY in read_json(file):
            found.studies.append(file)
    except (ConfigError, RunError):
        pass  # some other file, or a link to nothing
