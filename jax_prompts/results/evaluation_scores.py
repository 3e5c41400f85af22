"""What `t5x eval` has scored."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from jax_prompts.results.find import read_json
from jax_prompts.results.scored import (
    COSTS,
    Member,
    Scored,
    chosen,
    damage_named,
    metric_of,
    recorded_interval,
    there,
)
from jax_prompts.scoring.averages import TaskMetrics


def of_evaluation(directory: pathlib.Path) -> list[Scored]:
    """What `t5x eval` has scored, of each task: its prompts in one record, and their ensemble in another.

    Raises:
      RunError: eval.json is damaged or cannot be read.
    """
    report = read_json(directory / "eval.json")
    with damage_named(directory / "eval.json"):
        if "tasks" in report:
            parts = report["tasks"].items()
            return [scored for task, part in parts for scored in _evaluated(directory / task, part)]
        return _evaluated(directory, report)


def _evaluated(directory: pathlib.Path, report: dict[str, Any]) -> list[Scored]:
    def member(number: int | str, metrics: TaskMetrics, intervals: Mapping[str, Any]) -> Member:
        files = {
            task: directory / "predictions" / f"{task}-{number}-{report['split']}.jsonl" for task in metrics
        }
        return Member(
            number=None,
            seed=None,
            score=chosen(metrics, None),
            step=None,
            metrics=metrics,
            test_metrics={},
            test=None,
            interval=recorded_interval(intervals, metrics, None),
            failed=None,
            predictions={"evaluation": there({task: file for task, file in files.items() if file.is_file()})},
        )

    def scored(kind: str, members: list[Member]) -> Scored:
        metric, higher = metric_of([member.metrics for member in members], None)
        return Scored(
            directory=directory,
            part=kind if kind == "ensemble" else "",
            kind=kind,
            state="finished",
            reason=None,
            task=str(report["task"]),
            metric=metric,
            higher=higher,
            settings={},
            members=members,
            untuned=None,
            last_step=None,
            costs=dict.fromkeys(COSTS),
        )

    intervals = report.get("intervals", {})
    prompts = [
        member(number, metrics, intervals.get(prompt, {}))
        for number, (prompt, metrics) in enumerate(report["metrics"].items())
    ]
    made = [scored("evaluation", prompts)] if prompts else []
    if (ensemble := report.get("ensemble")) and "refused" not in ensemble:
        made.append(scored("ensemble", [member("ensemble", ensemble, intervals.get("ensemble", {}))]))
    return made
