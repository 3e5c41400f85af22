"""Scores of a finished run as summary.json has them, and of any evaluation as one line."""

from __future__ import annotations

import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax_prompts.runs import TrainRun
from jax_prompts.scoring.averages import WAYS, TaskMetrics, deviation
from jax_prompts.scoring.best_tracker import BestTracker, choosing, generated, metric_name, selection_metric
from jax_prompts.sweep import alike, without_seed


def summarize(
    run: TrainRun,
    tracker: BestTracker,
    untuned_metrics: TaskMetrics,
    tests: dict[int, dict[str, Any]],
    seeds: Sequence[int],
    files: Sequence[pathlib.Path | str],
) -> dict[str, Any]:
    """The members' best scores, mean and deviation, beside the score before tuning and that of a constant answer.

    Of a sweep they are those of its best settings.

    Args:
      run: the run.
      tracker: after the last evaluation.
      untuned_metrics: of the bare model.
      tests: `task_evaluator.report` of members' best on test examples, by member; empty where there are none.
      seeds: of every member.
      files: of every member's best.
    """
    chosen, members = tracker.chosen(), range(len(files))
    untuned, higher = selection_metric(untuned_metrics, tracker.metric, tracker.tasks)
    tested = {
        member: selection_metric(found["metrics"], tracker.metric, tracker.tasks)[0]
        for member, found in tests.items()
    }
    groups = [_group(run, tracker, group) for group in _groups(run)]
    scored = [group for group in groups if group["best_metric"] is not None]
    best = max(scored, key=lambda group: _worth(group["best_metric"], higher))

    def reported(name: str, reports: dict[int, dict[str, Any]]) -> Any:
        """The members' values in a list; of one member the value itself."""
        values_E = [reports[member].get(name) if member in reports else None for member in members]
        return values_E[0] if len(values_E) == 1 else values_E

    first = next(iter(chosen.values()))
    parts = [part for part in first if part not in ("metric", "value", "step")]
    return {
        "metric": metric_name(untuned_metrics, tracker.metric, tracker.tasks),
        "best_metric": best["best_metric"],
        "best_metric_deviation": best["best_metric_deviation"],
        "best_step": reported("step", chosen),
        "untuned_metric": untuned,
        "majority_metric": _majority(first, tracker),
        **{part: reported(part, chosen) for part in parts},
        **{f"test_{part}": reported(part, tests) for part in next(iter(tests.values()), {})},
        **({"best_settings": best["settings"], "sweep": groups} if run.variants else {}),
        "members": [
            {
                "seed": seeds[member],
                "best_metric": chosen[member]["value"] if member in chosen else None,
                "best_step": chosen[member]["step"] if member in chosen else None,
                "file": str(files[member]),
                **({"test_metric": tested[member]} if member in tested else {}),
                **({"settings": run.variants[member].settings} if run.variants else {}),
                **({"failed": tracker.failed[member]} if tracker.failed[member] else {}),
            }
            for member in members
        ],
    }


def of_member(summary: dict[str, Any], member: int) -> dict[str, Any]:
    """One member's part of a summary, as a run by itself has it; what members share is divided among them."""
    own, count = summary["members"][member], len(summary["members"])
    part = {name: value for name, value in summary.items() if name not in ("best_settings", "sweep")}
    for name, value in part.items():
        if name not in ("members", "cut") and isinstance(value, list):
            part[name] = value[member]
    for name in ("tuned_parameters", "examples_per_second", "wall_seconds", "checkpoint_bytes"):
        part[name] = summary[name] / count if isinstance(summary[name], float) else summary[name] // count
    part |= {"best_metric": own["best_metric"], "best_metric_deviation": 0.0, "shared_with": count - 1}
    return {**part, "members": [{name: value for name, value in own.items() if name != "settings"}]}


def over_prompts(metrics: Mapping[str, TaskMetrics]) -> dict[str, Any]:
    """Mean and sample deviation of each metric over prompts, by task, and the best prompt by the mean of metrics.

    Args:
      metrics: by prompt, two or more, and task.
    """
    first = next(iter(metrics.values()))

    def over(function: Callable[[list[float]], float | None]) -> dict[str, dict[str, float | None]]:
        return {
            task: {name: function([of[task][name] for of in metrics.values()]) for name in names}
            for task, names in first.items()
        }

    return {
        "mean": over(statistics.fmean),
        "deviation": over(deviation),
        "best": max(metrics, key=lambda prompt: _worth(*selection_metric(metrics[prompt], None))),
    }


def _worth(value: float, higher: bool) -> float:
    """What is best where it is largest; a score that is not defined is worth least."""
    return -math.inf if math.isnan(value) else value if higher else -value


def _groups(run: TrainRun) -> list[list[int]]:
    if not run.variants:
        return [list(range(run.training.members))]
    return alike([variant.settings for variant in run.variants])


def _group(run: TrainRun, tracker: BestTracker, members: Sequence[int]) -> dict[str, Any]:
    """Mean and deviation over members that differ in their seeds alone."""
    values = [best["value"] for member in members if (best := tracker.best[member]) is not None]
    return {
        "settings": without_seed(run.variants[members[0]].settings) if run.variants else {},
        "best_metric": statistics.fmean(values) if values else None,
        "best_metric_deviation": deviation(values) or 0.0,
        "members": list(members),
    }


def _majority(chosen: dict[str, Any], tracker: BestTracker) -> float | None:
    """The number that chooses, if every answer were the most frequent target; None where that has no such score."""
    about, name = chosen.get("about_scores", {}), tracker.metric
    for way in filter(None, WAYS):
        name = name and name.removeprefix(way)
    found: dict[str, dict[str, float]] = {}
    for task in choosing(chosen["metrics"], tracker.metric, tracker.tasks)[1]:
        baseline = about.get(task, {}).get("majority_baseline", {})
        wanted = generated(chosen["metrics"][task]) if name is None else [name]
        if any(baseline.get(metric) is None for metric in wanted):
            return None
        found[task] = {metric: baseline[metric] for metric in wanted}
    return selection_metric(found, name)[0]


def one_line(*metrics: TaskMetrics, named: bool = True) -> str:
    """Text of metrics by task: `TASK METRIC VALUE, ...`.

    Args:
      metrics: of a member; of several the lowest and the highest value are shown.
      named: whether the task is named where there is one alone.
    """

    def shown(task: str, name: str) -> str:
        values = [f"{value:.2f}" for value in sorted(member[task][name] for member in metrics)]
        return " to ".join(dict.fromkeys((values[0], values[-1])))

    return ", ".join(
        f"{task if named or len(metrics[0]) > 1 else ''} {name} {shown(task, name)}".lstrip()
        for task, values in metrics[0].items()
        for name in values
    )
