"""The files of one run, read: settings, curves, predictions, prompts. It may be under way, or killed."""

from __future__ import annotations

import functools
import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from jax_prompts import records
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.model_dir import settings_of
from jax_prompts.results.settings import resolved, value_of
from jax_prompts.storage import json_text
from jax_prompts.storage.files import PathOrUrl
from jax_prompts.storage.home import local_path
from jax_prompts.sweep import combinations

Line = dict[str, Any]
LOSSES = ("loss", "token_accuracy")  # of a task with metrics beside these, and of one without in their place
_ABOUT = (
    "step",
    "task",
    "split",
    "member",
    "chooses",
    *LOSSES,
)  # of a line of metrics/eval.jsonl, what is no metric
LARGEST = 1e100  # of a number that can be added to others without an overflow
_STEPS, _MEMBERS = 2**53, 10**6  # more than a float can count, and than anyone tunes side by side
_PREDICTIONS = re.compile(r"(.+)-([^-]+)\.jsonl")


class RunFiles:
    """One MODEL_DIR, of which every file may be missing but config.gin; nothing is read before it is asked for."""

    def __init__(self, directory: PathOrUrl) -> None:
        """Args: MODEL_DIR.

        Raises:
          ConfigError: no directory, or one that holds no run.
        """
        self.directory = local_path(str(directory), "MODEL_DIR")
        self._lines: dict[str, list[Line]] = {}
        if not (self.directory / "config.gin").is_file():
            what = "holds no run" if self.directory.is_dir() else "is no directory"
            raise ConfigError(f"{directory} {what}: name the MODEL_DIR of a run, in which config.gin lies")

    @property
    def name(self) -> str:
        """As the user typed it."""
        return str(self.directory)

    @functools.cached_property
    def config_text(self) -> str:
        return records.read_file(self.directory / "config.gin").decode(errors="replace")

    @functools.cached_property
    def settings(self) -> dict[str, str]:
        """Every setting as config.gin spells its value."""
        return settings_of(self.config_text)

    @functools.cached_property
    def summary(self) -> dict[str, Any] | None:
        """What summary.json holds; None of a run that has not finished."""
        return records.read_summary(self.directory / "summary.json")

    def lines(self, name: str) -> list[Line]:
        """Whole lines of metrics/NAME.jsonl in order, each with its `step`; none where there is no such file.

        `train` and `eval` are the run's curves, `prompt` says of each evaluated prompt its `rank`, `entropy_rank`,
        `norm`, `similarity`, and a rank probe's `positive_diagonal` and `negative_diagonal`, `seconds`
        how long steps took until then.

        Raises:
          RunError: a line that no run wrote.
        """
        if name in self._lines:
            return self._lines[name]
        try:
            text = records.read_file(self.directory / "metrics" / f"{name}.jsonl").decode(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return []
        needs = ("step", "task") if name == "eval" else ("step",)
        lines = [_line(f"{self.name}/metrics/{name}.jsonl", line, needs) for line in text.split("\n")[:-1]]
        for line in lines:
            if name == "eval" and line["step"] == 0:  # of the bare model, which is everyone's
                line.pop("member", None)
        self._lines[name] = lines
        return lines

    @functools.cached_property
    def evaluations(self) -> list[Line]:
        """`lines("eval")`."""
        return self.lines("eval")

    @functools.cached_property
    def members(self) -> list[int]:
        """Numbers of the prompts that were tuned side by side."""
        if self.summary is not None:
            return list(range(len(self.summary["members"])))
        return sorted({line.get("member", 0) for line in self.evaluations}) or [0]

    @functools.cached_property
    def own_settings(self) -> list[dict[str, Any]]:
        """What each member of a sweep has of its own, plain JSON; empty ones of members that differ in seeds alone.

        Those of an unfinished run are as its settings say; where they cannot be told from text, each has its number.
        """
        if self.summary is not None:
            own = [member.get("settings", {}) for member in self.summary["members"]]
            return [each if isinstance(each, dict) else {} for each in own]
        sweep = value_of(self.settings, "TrainRun.sweep")
        try:
            if sweep is not None:
                return combinations(sweep)
        except ConfigError:
            pass
        alike = resolved(self.settings).get("TrainRun.sweep", "None") == "None"
        return [{} if alike else {"member": member} for member in range(max(self.members) + 1)]

    @property
    def prompt_files(self) -> list[pathlib.Path]:
        """The best prompt of each member that has one yet, or its prompts of each task."""
        members = ["", *(f"-{member}" for member in self.members)]
        single = [self.directory / f"prompt{member}.safetensors" for member in members]
        of_tasks = [sorted((self.directory / f"prompts{member}").glob("*.safetensors")) for member in members]
        return [file for file in [*single, *itertools.chain(*of_tasks)] if file.is_file()]

    @functools.cached_property
    def prediction_files(self) -> dict[tuple[str, str], pathlib.Path]:
        """Files of predictions by task and when they were made: a step, `test`, or of `t5x eval` a split."""
        found = {}
        for file in sorted((self.directory / "predictions").glob("*.jsonl")):
            if named := _PREDICTIONS.fullmatch(file.name):
                found[named[1], named[2]] = file
        return found


def prediction_rows(file: pathlib.Path) -> Iterator[Line]:
    """Rows of a file of predictions: `index`, `inputs`, `targets`, `prediction` and more, of several members `member`.

    Raises:
      FileNotFoundError, NotADirectoryError: there is none.
      RunError: it cannot be read, or holds a row that no run wrote.
    """
    text = records.read_file(file).decode(errors="replace")
    return (_line(str(file), line, needs=("index", "prediction")) for line in text.split("\n")[:-1])


def chooses(line: Line) -> bool:
    """Whether a line of metrics/eval.jsonl is of a task by which prompts are chosen, and not only reported."""
    return line.get("chooses", True) is not False


def metrics_of(line: Line) -> dict[str, float]:
    """The metrics in a line of metrics/eval.jsonl, by which prompts are chosen; of a task without any, its losses."""
    named = {
        name: value
        for name, value in line.items()
        if name not in _ABOUT and (value is None or isinstance(value, int | float))
    }
    found = named or {name: line[name] for name in LOSSES if name in line}
    # One that is not defined is null; that is no reason to take the losses in its place.
    return {name: value for name, value in found.items() if value is not None and abs(value) <= LARGEST}


def _is_usable(line: Line) -> bool:
    """Whether what a line says of itself is of the types that runs write."""
    named = all(isinstance(line.get(name, ""), str) for name in ("task", "split"))
    numbers = (
        (line.get("step", 0), _STEPS),
        (line.get("index", 0), _STEPS),
        (line.get("member", 0), _MEMBERS),
    )
    return named and all(isinstance(value, int) and 0 <= value < end for value, end in numbers)


def _line(file: str, text: str, needs: tuple[str, ...] = ("step",)) -> Line:
    try:
        line = json_text.loads(text)
        if isinstance(line, dict) and all(name in line for name in needs) and _is_usable(line):
            return line
    except (ValueError, RecursionError):
        pass
    raise RunError(f"{file} holds a line that no run has written: {text[:80]!r}; remove that line")
