"""How soon runs come near their best (Lester et al. 2021, table 5; Residual, figures 4, 7 and 8)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jax_prompts.errors import ConfigError
from jax_prompts.results.run_files import Line, RunFiles, chooses, metrics_of
from jax_prompts.results.settings import value_of, with_own, without_seeds
from jax_prompts.scoring.averages import deviation
from jax_prompts.scoring.best_tracker import selection_metric
from jax_prompts.studies.curves import number_of
from jax_prompts.studies.prompt_inputs import read_runs, short_names

MARKS = ("own", "configuration")


def convergence(paths: Sequence[str], within: float = 1.0) -> dict[str, Any]:
    """Steps and seconds until the validation score is within some percent of the best.

    Of what it is measured from two ways: `own`, the member's own best, and `configuration`, the mean best of all
    members and runs with the same settings but for seeds and directories, as Lester et al. define it; a member whose
    score stays below that mean never comes there.

    Args:
      paths: directories of runs, or above some.
      within: percent of the best.

    Raises:
      ConfigError: no runs, a percentage that is none, a metric that a run's lines lack.
    """
    if not 0 <= within < 100:
        raise ConfigError(f"--within is {within}: set it from 0 to below 100 percent")
    runs = read_runs(paths)
    names = short_names([run.name for run in runs])
    rows = [row for name, run in zip(names, runs, strict=True) for row in _members(name, run)]
    configurations: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        configurations.setdefault(row.pop("settings"), []).append(row)
    found = []
    for number, members in enumerate(configurations.values()):
        best = [row["best"] for row in members if row["best"] is not None]
        mean = statistics.fmean(best) if best else None
        for row in members:
            row["settings"] = number
            curve, higher = row.pop("curve"), row.pop("higher")
            row |= {
                mark: _reached(curve, higher, of, within, row["seconds"])
                for mark, of in zip(MARKS, (row["best"], mean), strict=True)
            }
            del row["seconds"]
        found.append({"number": number, "members": len(members), "best": _spread(best)} | _over(members))
    return {"study": "convergence", "within_percent": within, "members": rows, "configurations": found}


def first_within(
    curve: Sequence[tuple[int, float]], higher: bool, best: float, percent: float
) -> tuple[int, float] | None:
    """The first (step, score) of a curve that is within so many percent of `best`, or better; None: there is none."""
    slack = abs(best) * percent / 100 + 1e-9
    near = (point for point in curve if (point[1] >= best - slack if higher else point[1] <= best + slack))
    return next(near, None)


def score_curve(lines: Sequence[Line], metric: str | None) -> tuple[list[tuple[int, float]], bool]:
    """(step, score that chooses) of one member's validation, and whether higher is better; before tuning left out.

    Evaluations without a number are left out, too.
    """
    steps: dict[int, dict[str, Mapping[str, float]]] = {}
    names: dict[str, set[str]] = {}  # of metrics, by task
    for line in lines:
        if line["step"] > 0 and chooses(line):
            task, metrics = str(line.get("task", "")), metrics_of(line)
            steps.setdefault(line["step"], {})[task] = metrics
            names.setdefault(task, set()).update(metrics)
    curve, higher = [], True
    for step, tasks in sorted(steps.items()):
        if {task: set(metrics) for task, metrics in tasks.items()} == names:
            value, higher = selection_metric(tasks, metric)
            curve.append((step, value))
    return curve, higher


def _members(name: str, run: RunFiles) -> list[dict[str, Any]]:
    """One row for each member: curve, best, state."""
    metric = value_of(run.settings, "Training.metric")
    seconds = run.lines("seconds")
    rows = []
    for member in run.members:
        own = [line for line in run.evaluations if line.get("member", member) == member]
        curve, higher = score_curve(own, metric)
        values = [value for _, value in curve]
        best = (max(values) if higher else min(values)) if values else None
        rows.append(
            {
                "run": name,
                "directory": run.name,
                "member": member,
                "finished": run.summary is not None,
                "evaluations": len(curve),
                "last_step": curve[-1][0] if curve else None,
                "best": best,
                "curve": curve,
                "higher": higher,
                "seconds": seconds,
                "settings": without_seeds(with_own(run.settings, run.own_settings[member])),
            }
        )
    return rows


def _reached(
    curve: Sequence[tuple[int, float]],
    higher: bool,
    best: float | None,
    within: float,
    seconds: Sequence[Line],
) -> dict[str, Any]:
    """Step, score and seconds of the first evaluation that is near enough; each None where there is none."""
    found = None if best is None else first_within(curve, higher, best, within)
    step, score = found or (None, None)
    at = next((line for line in seconds if step is not None and line["step"] >= step), {})
    return {
        "step": step,
        "score": score,
        "tuning_seconds": number_of(at, "tuning_seconds"),
        "wall_seconds": number_of(at, "wall_seconds"),
    }


def _over(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and deviation over members of each number, by mark."""
    names = ("step", "tuning_seconds", "wall_seconds")
    return {
        mark: {
            name: _spread([row[mark][name] for row in members if row[mark][name] is not None])
            for name in names
        }
        for mark in MARKS
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Of so many values their mean and sample deviation, of one alone no deviation."""
    mean = statistics.fmean(values) if values else None
    return {"count": len(values), "mean": mean, "deviation": deviation(values)}
