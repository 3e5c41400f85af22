"""Answers to examples: of runs at their best step and on test examples, of evaluations, of their ensembles."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax_prompts.errors import RunError, printable
from jax_prompts.report import limits
from jax_prompts.report.series import member_summary, short_names
from jax_prompts.results.find import Found
from jax_prompts.results.run_files import RunFiles, prediction_rows
from jax_prompts.storage import json_text

ENSEMBLE = "ensemble"
_FILES = 16  # kept in memory: a run has one for each task


@dataclasses.dataclass(frozen=True)
class Answered:
    """One prompt's answers, or an ensemble's, to the examples of one task.

    Attributes:
      run: name of the run or the evaluation.
      who: member of a run, prompt of an evaluation, or `ENSEMBLE`; "" of a run's only member.
      task: of the examples.
      when: `step N`, `test`, or the split.
      rows: as the file of predictions has them.
    """

    run: str
    who: str
    task: str
    when: str
    rows: list[dict[str, Any]]

    @property
    def examples(self) -> str:
        """Which examples they are, whatever the step."""
        return self.task if self.when.startswith("step ") else f"{self.task} ({self.when})"


@dataclasses.dataclass(frozen=True)
class _File:
    """A file of predictions, not yet read; `member` None: whole."""

    file: pathlib.Path
    run: str
    who: str
    task: str
    when: str
    member: int | None = None


def read_answers(found: Found, problems: list[str]) -> tuple[list[Answered], list[str]]:
    """Answers of evaluations, then of runs, as many as one page embeds; and what was left out."""
    answered: list[Answered] = []
    files = [*_of_evaluations(found.evaluations), *_of_runs(found.all_runs, problems)]
    read, left, unread = _reader(), limits.PREDICTIONS, 0
    for each in files:
        if left <= 0:
            unread += 1
            continue
        try:
            whole = read(each)
        except RunError as error:
            problems.append(printable(str(error)))
            continue
        if whole.rows:
            answered.append(dataclasses.replace(whole, rows=whole.rows[:left]))
        left -= len(whole.rows)
    if left >= 0 and not unread:
        return answered, []
    return answered, [
        f"Of the predictions {limits.PREDICTIONS:,} are in this page; {max(-left, 0):,} more of the last file, and "
        f"those of {unread:,} further members and prompts, are not."
    ]


def _reader() -> Callable[[_File], Answered]:
    """Reads files of predictions, each once for the members that follow each other."""
    rows = functools.lru_cache(maxsize=_FILES)(lambda file: list(prediction_rows(file)))

    def read(each: _File) -> Answered:
        try:
            whole = rows(each.file)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"{each.file} is gone: start the command again") from error
        own = [row for row in whole if each.member is None or row.get("member") == each.member]
        return Answered(each.run, each.who, each.task, each.when, own)

    return read


def _of_runs(runs: Sequence[RunFiles], problems: list[str]) -> Iterator[_File]:
    names = short_names([run.name for run in runs])
    for run, name in zip(runs, names, strict=True):
        try:
            yield from _of_run(run, name)
        except (RunError, OSError) as error:
            problems.append(printable(str(error)))


def of_run(run: RunFiles) -> list[Answered]:
    """A run's answers at the best step of each member, and on test examples; of one under way those of its last step.

    Raises:
      RunError: a file that cannot be read.
    """
    return [*map(_reader(), _of_run(run, printable(run.directory.name)))]


def _of_run(run: RunFiles, name: str) -> Iterator[_File]:
    steps = [int(when) for _, when in run.prediction_files if when.isdecimal()]
    several = len(run.members) > 1
    for member in run.members:
        step = member_summary(run, member).get("best_step") or max(steps, default=None)
        for (task, when), file in run.prediction_files.items():
            if when in (str(step), "test"):
                shown = when if when == "test" else f"step {when}"
                who = f"member {member}" if several else ""
                yield _File(file, name, who, task, shown, member if several else None)


def _of_evaluations(directories: Sequence[pathlib.Path]) -> Iterator[_File]:
    """The ensemble's first, whose rows say how far prompts agree."""
    for directory, name in zip(directories, short_names([str(each) for each in directories]), strict=True):
        files = sorted((directory / "predictions").glob("*.jsonl"))
        for file in sorted(files, key=lambda file: f"-{ENSEMBLE}-" not in file.name):
            task, which, split = _named(file.stem)
            who = which if which == ENSEMBLE else f"prompt {which}"
            yield _File(file, name, who, task, split)


def _named(stem: str) -> tuple[str, str, str]:
    """Task, which prompt, and split of a file's name, `TASK-WHICH-SPLIT`; a task may have a hyphen, a split none."""
    words = stem.rsplit("-", 2)
    return (words[0], words[1], words[2]) if len(words) == 3 else (stem, "0", "")


def text_of(value: Any) -> str:
    """A text of a row; of answers that are no text, as a number, how JSON spells it."""
    return value if isinstance(value, str) else "" if value is None else json_text.dumps(value)


def is_right(row: dict[str, Any]) -> bool:
    """Whether the answer is the target, letter by letter."""
    return text_of(row["prediction"]) == text_of(row.get("targets"))
