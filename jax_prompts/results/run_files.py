"""The files of one run, read: settings, curves, predictions, prompts. It may be under way, or killed."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from jax_prompts import records
from jax_prompts.errors import ConfigError, RunError, nearest
from jax_prompts.model_dir import settings_of
from jax_prompts.storage import json_text
from jax_prompts.storage.files import PathOrUrl
from jax_prompts.storage.home import local_path

Line = dict[str, Any]
LOSSES = ("loss", "token_accuracy")  # of a task with metrics beside these, and of one without in their place
_ABOUT = ("step", "task", "split", "member", *LOSSES)  # of a line of metrics/eval.jsonl, what is no metric
_STEPS = 2**53  # more than a float can count
_PREDICTIONS = re.compile(r"(.+)-([^-]+)\.jsonl")


class RunFiles:
    """One MODEL_DIR, of which every file may be missing but config.gin; nothing is read before it is asked for."""

    def __init__(self, directory: PathOrUrl) -> None:
        """Args: MODEL_DIR.

        Raises:
          ConfigError: no directory, or one that holds no run.
        """
        self.directory = local_path(str(directory), "MODEL_DIR")
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

        `train` and `eval` are the run's curves, `prompt` says of each evaluated prompt its `rank`, `entropy_rank`
        and a rank probe's `positive_diagonal` and `negative_diagonal`, `seconds` how long steps took until then.

        Raises:
          RunError: a line that no run wrote.
        """
        try:
            text = records.read_file(self.directory / "metrics" / f"{name}.jsonl").decode(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return []
        needs = ("step", "task") if name == "eval" else ("step",)
        return [_line(f"{self.name}/metrics/{name}.jsonl", line, needs) for line in text.split("\n")[:-1]]

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

    @property
    def prompt_files(self) -> list[pathlib.Path]:
        """The best prompt of each member that has one yet."""
        single = self.directory / "prompt.safetensors"
        if single.is_file():
            return [single]
        several = [self.directory / f"prompt-{member}.safetensors" for member in self.members]
        return [file for file in several if file.is_file()]

    @functools.cached_property
    def prediction_files(self) -> dict[tuple[str, str], pathlib.Path]:
        """Files of predictions by task and when they were made: a step, `test`, or of `t5x eval` a split."""
        found = {}
        for file in sorted((self.directory / "predictions").glob("*.jsonl")):
            if named := _PREDICTIONS.fullmatch(file.name):
                found[named[1], named[2]] = file
        return found

    def predictions(self, task: str, when: str) -> Iterator[Line]:
        """Rows of predictions: `index`, `inputs`, `targets`, `prediction` and more, of several members `member`.

        Raises:
          ConfigError: there are none of that task and step.
          RunError: a row that no run wrote.
        """
        file = self.prediction_files.get((task, when))
        if file is None:
            known = [f"{task} {when}" for task, when in self.prediction_files]
            near = f"; use {nearest(f'{task} {when}', known)}" if known else ""
            raise ConfigError(f"{self.name} has no predictions of {task} at {when}{near}")
        return prediction_rows(file)


def prediction_rows(file: pathlib.Path) -> Iterator[Line]:
    """Rows of a file of predictions, those of an evaluation, too.

    Raises:
      FileNotFoundError, NotADirectoryError: there is none.
      RunError: it cannot be read, or holds a row that no run wrote.
    """
    text = records.read_file(file).decode(errors="replace")
    return (_line(str(file), line, needs=("index", "prediction")) for line in text.split("\n")[:-1])


def metrics_of(line: Line) -> dict[str, float]:
    """The metrics in a line of metrics/eval.jsonl, by which prompts are chosen; of a task without any, its losses."""
    found = {
        name: value for name, value in line.items() if isinstance(value, int | float) and name not in _ABOUT
    }
    return found or {name: line[name] for name in LOSSES if name in line}


def _is_usable(line: Line) -> bool:
    """Whether what a line says of itself is of the types that runs write."""
    step, member = line.get("step", 0), line.get("member", 0)
    named = all(isinstance(line.get(name, ""), str) for name in ("task", "split"))
    return named and isinstance(member, int) and isinstance(step, int) and 0 <= step < _STEPS


def _line(file: str, text: str, needs: tuple[str, ...] = ("step",)) -> Line:
    try:
        line = json_text.loads(text)
        if isinstance(line, dict) and all(name in line for name in needs) and _is_usable(line):
            return line
    except (ValueError, RecursionError):
        pass
    raise RunError(f"{file} holds a line that no run has written: {text[:80]!r}; remove that line")
