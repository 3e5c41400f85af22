"""Runs that differ in their seeds alone as one series, and numbers of its members as mean and deviation."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jax_prompts.errors import RunError, printable
from jax_prompts.report import limits
from jax_prompts.report.parts import Row
from jax_prompts.results.find import Found
from jax_prompts.results.run_files import Line, RunFiles
from jax_prompts.results.scored import finite
from jax_prompts.results.settings import resolved, with_own, without_seeds
from jax_prompts.results.settings import short_names as differing_parts
from jax_prompts.scoring.averages import deviation

LINES = ("train", "eval", "prompt", "seconds")  # files of metrics/
_SEED = re.compile(r"\.seed\d+")  # of a cell's name (suites/cells.py)

Lines = dict[tuple[str, str], list[Line]]  # by a run's name and the file's
Values = Mapping[int, float]  # by step


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart: members that differ in their seeds alone.

    Attributes:
      name: unlike that of any other.
      scope: the suite's name; "" of runs that belong to none.
      members: runs, each with the member's number among those of its directory.
      settings: `resolved` settings of the first.
    """

    name: str
    scope: str
    members: tuple[tuple[RunFiles, int], ...]
    settings: dict[str, str]

    @property
    def runs(self) -> list[RunFiles]:
        """Its directories, each once."""
        return list({run.name: run for run, _ in self.members}.values())

    @property
    def task(self) -> str:
        return self.settings.get("MIXTURE_OR_TASK_NAME", "").strip("'\"") or "unknown task"

    @property
    def scores(self) -> list[float]:
        """Best validation scores of the members that have one."""
        found = (member_summary(run, number).get("best_metric") for run, number in self.members)
        return [value for value in found if is_number(value)]

    @property
    def score(self) -> float | None:
        return statistics.fmean(self.scores) if self.scores else None


def is_number(value: Any) -> bool:
    return finite(value) is not None


def member_summary(run: RunFiles, number: int) -> dict[str, Any]:
    """What summary.json says of one member; empty of a run that has not finished."""
    members = (run.summary or {}).get("members", [])
    return members[number] if number < len(members) and isinstance(members[number], dict) else {}


def series_of(found: Found) -> tuple[list[Series], list[str]]:
    """Series of all runs, in the order in which they were found, and why runs were left out that cannot be read."""
    problems: list[str] = []
    series = _of_runs(found.runs, "", problems, together=False)
    scopes = short_names([str(directory) for directory in found.suites])
    for scope, cells in zip(scopes, found.suites.values(), strict=True):
        series += _of_runs(cells, scope, problems, together=True)
    names = _unlike([each.name for each in series])
    return [dataclasses.replace(each, name=name) for each, name in zip(series, names, strict=True)], problems


def _of_runs(runs: Sequence[RunFiles], scope: str, problems: list[str], *, together: bool) -> list[Series]:
    """Args: together: whether members of different runs may be one series."""
    groups: dict[Any, list[tuple[RunFiles, int, dict[str, str], dict[str, Any]]]] = {}
    names = dict(zip((run.name for run in runs), short_names([run.name for run in runs]), strict=True))
    for run in runs:
        try:
            of_run = [(number, run.own_settings[number]) for number in run.members]
            settings = run.settings
        except RunError as error:
            problems.append(printable(str(error)))
            continue
        for number, own in of_run:
            full = resolved(with_own(settings, own))
            key = (without_seeds(full), None if together else run.name)
            groups.setdefault(key, []).append((run, number, full, own))
    made = []
    for group in groups.values():
        run, _, settings, own = group[0]
        name = _SEED.sub("", run.directory.name) if scope else names[run.name]
        differs = ", ".join(f"{key}={own[key]}" for key in own if "SEED" not in key)
        shown = " · ".join(filter(None, (printable(name), printable(differs))))
        made.append(Series(shown, scope, tuple((each[0], each[1]) for each in group), settings))
    return made


def short_names(paths: Sequence[str]) -> list[str]:
    """Paths without what all have in common, ready to be shown."""
    return [printable(name) for name in differing_parts(paths)]


def shortened(name: str) -> str:
    """A name that a chart has room for, its end kept, which tells most."""
    return name if len(name) <= limits.NAME else f"…{name[-limits.NAME + 1 :]}"


def _unlike(names: Sequence[str]) -> list[str]:
    taken: dict[str, int] = {}
    found = []
    for name in map(shortened, names):
        taken[name] = taken.get(name, 0) + 1
        found.append(name if taken[name] == 1 else f"{name} ({taken[name]})")
    return found


def read_lines(series: Iterable[Series], problems: list[str]) -> Lines:
    """Lines of metrics of every run of some series; a file that cannot be read has none, and `problems` says why."""
    lines: Lines = {}
    for run in {run.name: run for each in series for run in each.runs}.values():
        for name in LINES:
            try:
                lines[run.name, name] = run.lines(name)
            except RunError as error:
                problems.append(printable(str(error)))
                lines[run.name, name] = []
    return lines


def values_of(
    lines: Lines, run: RunFiles, member: int, file: str, key: str, where: Mapping[str, Any] | None = None
) -> dict[int, float]:
    """One member's numbers by step; of lines that say no member, everyone's.

    Args:
      lines: of all runs.
      run, member: whose.
      file: of metrics/.
      key: of the number.
      where: what else a line has to say.
    """
    return {
        line["step"]: line[key]
        for line in lines.get((run.name, file), [])
        if line.get("member", member) == member
        and is_number(line.get(key))
        and all(line.get(name) == value for name, value in (where or {}).items())
    }


def averaged(values: Sequence[Values]) -> list[Row]:
    """`step`, mean `value`, `low` and `high` one sample deviation away, and how many `members`, of each step."""
    rows = []
    for step in sorted(set().union(*values)):
        at = [of_member[step] for of_member in values if step in of_member]
        mean, spread = statistics.fmean(at), deviation(at) or 0.0
        rows.append(
            {
                "step": step,
                "value": rounded(mean),
                "low": rounded(mean - spread),
                "high": rounded(mean + spread),
                "members": len(at),
            }
        )
    return thinned(rows)


def thinned(rows: list[Row]) -> list[Row]:
    """At most `limits.POINTS` rows, evenly, the first and the last among them."""
    if len(rows) <= limits.POINTS:
        return rows
    return [rows[round(i)] for i in np.linspace(0, len(rows) - 1, limits.POINTS)]


def rounded(value: float, digits: int = 6) -> float:
    """A number with so many significant digits."""
    return float(f"{value:.{digits}g}")


def seconds_at(lines: Lines, runs: Sequence[RunFiles], steps: Sequence[int]) -> list[float] | None:
    """Seconds of tuning until each step, the mean over runs, in between along a line; None where none were recorded."""
    found = []
    for run in runs:
        known = {0: 0.0} | values_of(lines, run, 0, "seconds", "tuning_seconds")
        if len(known) > 1:
            at = sorted(known)
            found.append(np.interp(steps, at, [known[step] for step in at]))
    return [rounded(second) for second in np.mean(found, axis=0)] if found else None


def best_first(series: Sequence[Series], most: int) -> list[Series]:
    """At most so many series, those of the best scores, in the order in which they were found."""
    if len(series) <= most:
        return list(series)
    lower = any((run.summary or {}).get("metric") == "loss" for each in series for run in each.runs)

    def worth(each: Series) -> float:
        return -math.inf if each.score is None else -each.score if lower else each.score

    kept = {each.name for each in sorted(series, key=worth, reverse=True)[:most]}
    return [each for each in series if each.name in kept]
