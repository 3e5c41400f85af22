"""What a run has scored, finished or not, and each group of a sweep's members."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax_prompts.errors import ConfigError
from jax_prompts.results.find import read_json
from jax_prompts.results.run_files import RunFiles, chooses, metrics_of
from jax_prompts.results.scored import (
    COSTS,
    Member,
    Scored,
    chosen,
    damage_named,
    finite,
    metric_of,
    recorded_interval,
    there,
)
from jax_prompts.results.settings import value_of, with_own
from jax_prompts.scoring.best_tracker import BestTracker
from jax_prompts.sweep import MOST_MEMBERS, alike, without_seed


def of_run(run: RunFiles) -> list[Scored]:
    """What a run has scored: one record, and of a sweep one for each group of members that differ in their seeds alone.

    Raises:
      RunError: a file that is damaged or cannot be read.
    """
    with damage_named(run.directory / ("config.gin" if run.summary is None else "summary.json")):
        return _unfinished(run) if run.summary is None else _finished(run, run.summary)


def _finished(run: RunFiles, summary: dict[str, Any]) -> list[Scored]:
    name = value_of(run.settings, "Training.metric")
    metric = summary["metric"]
    members = [_member(run, summary, number, name) for number in range(len(summary["members"]))]
    costs = {cost: finite(summary.get(cost)) for cost in COSTS}
    files = run.prompt_files
    costs["prompt_bytes"] = files[0].stat().st_size if files else None
    groups = [list(range(len(members)))]
    own = run.own_settings
    if any(own):
        groups = alike(own)

    def scored(group: Sequence[int]) -> Scored:
        mine = without_seed(own[group[0]])
        failed = [members[number].failed for number in group]
        return Scored(
            directory=run.directory,
            part=_part(mine),
            kind="sweep" if any(own) else "run",
            state="failed" if all(failed) else "finished",
            reason=next(filter(None, failed), None),
            task=str(summary.get("task") or _task_of(run)),
            metric=metric,
            higher=metric != "loss",
            settings=with_own(run.settings, mine),
            members=[members[number] for number in group],
            untuned=finite(summary.get("untuned_metric")),
            last_step=summary["last_step"],
            costs=costs,
        )

    return [scored(group) for group in groups]


def _member(run: RunFiles, summary: dict[str, Any], number: int, name: str | None) -> Member:
    own = summary["members"][number]
    metrics = _by_member(summary, "metrics")[number] or {}
    test_metrics = _by_member(summary, "test_metrics")[number] or {}
    at_best = {task: run.prediction_files.get((task, str(own["best_step"]))) for task in metrics}
    at_test = {task: run.prediction_files.get((task, "test")) for task in test_metrics}
    return Member(
        number=number if len(summary["members"]) > 1 else None,
        seed=own["seed"],
        score=finite(own["best_metric"]),
        step=own["best_step"],
        metrics=metrics,
        test_metrics=test_metrics,
        test=finite(own.get("test_metric")),
        interval=recorded_interval(_by_member(summary, "intervals")[number] or {}, metrics, name),
        failed=own.get("failed"),
        predictions={"test": there(at_test), "validation": there(at_best)},
    )


def _unfinished(run: RunFiles) -> list[Scored]:
    """The best so far, from what metrics/eval.jsonl has."""
    name, seed = value_of(run.settings, "Training.metric"), value_of(run.settings, "Training.seed") or 0
    own = run.own_settings if any(run.own_settings) else []
    count = len(own) or _members_of(run)
    tracker, last, untuned = BestTracker.fresh(name, count), None, None
    for step, reports in _reports(run):
        last = step
        if step == 0:
            untuned = next(iter(reports.values()))["metrics"]
        else:
            tracker.update(step, reports)
    found = [{} if best is None else best["metrics"] for best in tracker.best]
    known = [metrics for metrics in (*found, untuned) if metrics]
    metric, higher = metric_of(known, name)
    failure = _failure(run.directory)

    def member(number: int) -> Member:
        best = tracker.best[number] or {"value": None, "step": None}
        files = {task: run.prediction_files.get((task, str(best["step"]))) for task in found[number]}
        return Member(
            number=number if count > 1 else None,
            seed=own[number].get("RANDOM_SEED", own[number].get("Training.seed", seed))
            if own
            else seed + number,
            score=finite(best["value"]),
            step=best["step"],
            metrics=found[number],
            test_metrics={},
            test=None,
            interval=None,
            failed=None,
            predictions={"test": {}, "validation": there(files)},
        )

    return [
        Scored(
            directory=run.directory,
            part=_part(without_seed(own[group[0]])) if own else "",
            kind="sweep" if own else "run",
            state="unfinished" if failure is None else "failed",
            reason=failure,
            task=_task_of(run),
            metric=metric,
            higher=higher,
            settings=with_own(run.settings, without_seed(own[group[0]])) if own else run.settings,
            members=[member(number) for number in group],
            untuned=None if untuned is None else chosen(untuned, name),
            last_step=last,
            costs=dict.fromkeys(COSTS),
        )
        for group in (alike(own) if own else [list(range(count))])
    ]


def _reports(run: RunFiles) -> Iterator[tuple[int, dict[int, dict[str, Any]]]]:
    """(step, reports by member) of every evaluation, as `BestTracker.update` takes them."""
    steps: dict[int, dict[int, dict[str, Any]]] = {}
    for line in filter(chooses, run.evaluations):
        report = steps.setdefault(line["step"], {}).setdefault(line.get("member", 0), {"metrics": {}})
        report["metrics"][line["task"]] = metrics_of(line)
    for step, reports in sorted(steps.items()):
        whole = {member: report for member, report in reports.items() if all(report["metrics"].values())}
        if whole:
            yield step, whole


def _members_of(run: RunFiles) -> int:
    """How many members an unfinished run has, as its settings say, or else its lines."""
    said = value_of(run.settings, "Training.members")
    if (
        value_of(run.settings, "TrainRun.sweep") is None
        and isinstance(said, int)
        and 1 <= said <= MOST_MEMBERS
    ):
        return said
    return max(run.members) + 1


def _by_member(summary: dict[str, Any], part: str) -> list[Any]:
    """A part of a summary, of each member; one member has the value itself."""
    count = len(summary["members"])
    found = summary.get(part)
    return found if isinstance(found, list) and count > 1 else [found] * count


def _failure(directory: pathlib.Path) -> str | None:
    """Why a cell of a suite could not be run; None where it has not failed."""
    try:
        return str(read_json(directory / "failed.json").get("reason"))
    except ConfigError:
        return None


def _task_of(run: RunFiles) -> str:
    return str(value_of(run.settings, "Data.task") or "unknown task")


def _part(own: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in own.items())
