"""Tracks the best of each member on the validation metric, and when to stop looking."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Collection, Sequence
from typing import Any

from jax_prompts.data.cache import TokenCache
from jax_prompts.errors import ConfigError, RunError, nearest
from jax_prompts.scoring.averages import TaskMetrics


def choosing_tasks(caches: Sequence[TokenCache]) -> list[str]:
    """Names of the tasks whose scores choose the prompt.

    Raises:
      ConfigError: there are none.
    """
    names = [cache.task for cache in caches if cache.chooses]
    if not names:
        raise ConfigError(
            f"none of {', '.join(cache.task for cache in caches)} chooses the prompt of this mixture: "
            "set EVAL_SPLIT to a split of a task that does"
        )
    return names


def selection_metric(
    metrics: TaskMetrics, name: str | None, tasks: Collection[str] | None = None
) -> tuple[float, bool]:
    """The number that chooses (mean over tasks), and whether higher is better.

    Without a `name` it is the mean of each task's metrics, as Lester et al. 2021 average two-metric tasks, those
    of ranked labels (`rank/...`) left out; where all tasks are scored by their loss it is the loss, and else these do
    not choose.

    Args:
      metrics: of every task.
      name: `Training.metric`.
      tasks: those whose scores choose; None: all.

    Raises:
      ConfigError: a task has no metric of that name.
    """
    name, chosen = choosing(metrics, name, tasks)
    values = []
    for task, found in chosen.items():
        check_metric(name, task, found)
        values.append(found[name] if name else statistics.fmean(found[metric] for metric in generated(found)))
    return statistics.fmean(values), name != "loss"


def metric_name(metrics: TaskMetrics, name: str | None, tasks: Collection[str] | None = None) -> str:
    """What the number of `selection_metric` is called, given the same: a metric, `loss`, or `mean of f1, em`.

    The mean over tasks whose one metric has the same name is called by that name, too.
    """
    name, chosen = choosing(metrics, name, tasks)
    if name is not None:
        return name
    names = list(dict.fromkeys(metric for found in chosen.values() for metric in generated(found)))
    return names[0] if len(names) == 1 else f"mean of {', '.join(names)}"


def choosing(
    metrics: TaskMetrics, name: str | None, tasks: Collection[str] | None
) -> tuple[str | None, TaskMetrics]:
    """The metric that is asked for, `loss` where every task is scored by it, and the tasks that have a say."""
    asked = {task: found for task, found in metrics.items() if tasks is None or task in tasks}
    if name is not None:
        return name, asked
    with_answers = {task: found for task, found in asked.items() if "loss" not in found}
    return (None, with_answers) if with_answers else ("loss", asked)


def generated(metrics: Collection[str]) -> list[str]:
    """Names of the metrics of answers as they were given, without those of ranked labels and of other ways."""
    return [metric for metric in metrics if "/" not in metric]


def check_metric(name: str | None, task: str, metrics: Collection[str]) -> None:
    """Raises ConfigError where a task has no metric `name`, such as the one that is to choose the prompt."""
    if name is not None and name not in metrics:
        raise ConfigError(
            f"METRIC (Training.metric) {name!r} is no metric of {task}; use {nearest(name, metrics)}"
        )


@dataclasses.dataclass
class BestTracker:
    """Best so far of each member; plain JSON inside, so that a checkpoint can hold it.

    Attributes:
      metric: `Training.metric`.
      best: for each member None, or `{"metric", "value", "step"}`, the metric by the name that people know it by, and
        the report of that evaluation (`task_evaluator.report`).
      stale: of each member, evaluations since it last improved.
      failed: of each member, why it could not go on; None where it could.
      tasks: those whose scores choose; None: all.
    """

    metric: str | None
    best: list[dict[str, Any] | None]
    stale: list[int]
    failed: list[str | None]
    tasks: list[str] | None = None

    @classmethod
    def fresh(cls, metric: str | None, members: int, tasks: list[str] | None = None) -> BestTracker:
        """Before any evaluation."""
        return cls(metric, [None] * members, [0] * members, [None] * members, tasks)

    def update(self, step: int, reports: dict[int, dict[str, Any]]) -> list[int]:
        """Takes one evaluation of members, by number, `{"metrics": by task, ...}`; returns those that improved.

        Ties keep the earlier; any number is better than none (a correlation with constant answers).
        """
        improved = []
        for member, report in reports.items():
            value, higher = selection_metric(report["metrics"], self.metric, self.tasks)
            best = self.best[member]
            if best is not None and math.isnan(best["value"]) and not math.isnan(value):
                best = None
            if best is None or (value > best["value"] if higher else value < best["value"]):
                metric = metric_name(report["metrics"], self.metric, self.tasks)
                self.best[member] = {"metric": metric, "value": value, "step": step, **report}
                improved.append(member)
            self.stale[member] = 0 if member in improved else self.stale[member] + 1
        return improved

    def fail(self, members: Collection[int], reason: str) -> None:
        """Ends members; the others go on.

        Raises:
          RunError: there are no others.
        """
        for member in members:
            if self.failed[member] is None:
                self.failed[member] = reason
        if all(self.failed):
            raise RunError(reason)

    def chosen(self) -> dict[int, dict[str, Any]]:
        """The best evaluation of each member that has had one, by number."""
        return {member: best for member, best in enumerate(self.best) if best is not None}

    def active(self, patience: int | None) -> list[int]:
        """The members that go on: not failed, and less than `patience` evaluations without a better metric."""
        return [
            member
            for member, stale in enumerate(self.stale)
            if self.failed[member] is None and (patience is None or stale < patience)
        ]
