"""Tracks the best of each member on the validation metric, and when to stop looking."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

from jax_prompts.errors import ConfigError, nearest
from jax_prompts.scoring.averages import TaskMetrics


def selection_metric(metrics: TaskMetrics, name: str | None) -> tuple[float, bool]:
    """The number that chooses (mean over tasks), and whether higher is better.

    Without a `name` it is the mean of each task's metrics, as Lester et al. 2021 average two-metric tasks, those
    of ranked labels (`rank/...`) left out; of tasks scored by their loss it is the loss.

    Raises:
      ConfigError: a task has no metric of that name.
    """
    values, higher = [], True
    for task, found in metrics.items():
        if name is not None and name not in found:
            raise ConfigError(f"Training.metric {name!r} is no metric of {task}; use {nearest(name, found)}")
        if name is None and "loss" in found:
            name = "loss"
        generated = [value for metric, value in found.items() if "/" not in metric]
        values.append(found[name] if name else statistics.fmean(generated))
        higher = name != "loss"
    return statistics.fmean(values), higher


@dataclasses.dataclass
class BestTracker:
    """Best so far of each member; plain JSON inside, so that a checkpoint can hold it.

    Attributes:
      metric: `Training.metric`.
      best: for each member None, or `{"value", "step"}` and the report of that evaluation (`task_evaluator.report`).
      stale: evaluations since any member last improved.
    """

    metric: str | None
    best: list[dict[str, Any] | None]
    stale: int = 0

    def update(self, step: int, reports_E: list[dict[str, Any]]) -> list[int]:
        """Takes one evaluation of all members, `{"metrics": by task, ...}` each; returns the members that improved.

        Ties keep the earlier; any number is better than none (a correlation with constant answers).
        """
        improved = []
        for member, report in enumerate(reports_E):
            value, higher = selection_metric(report["metrics"], self.metric)
            best = self.best[member]
            if best is not None and math.isnan(best["value"]) and not math.isnan(value):
                best = None
            if best is None or (value > best["value"] if higher else value < best["value"]):
                self.best[member] = {"value": value, "step": step, **report}
                improved.append(member)
        self.stale = 0 if improved else self.stale + 1
        return improved

    def chosen(self) -> list[dict[str, Any]]:
        """The best evaluation of every member, once there was one."""
        return [best for best in self.best if best is not None]

    def values(self) -> list[float]:
        """The members' best metrics, once there was an evaluation."""
        return [best["value"] for best in self.chosen()]

    def exhausted(self, patience: int | None) -> bool:
        """Whether `patience` evaluations have passed without a better metric."""
        return patience is not None and self.stale >= patience
