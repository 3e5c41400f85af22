"""Scores of a finished run as summary.json has them, and of any evaluation as one line."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from jax_prompts.scoring.averages import TaskMetrics
from jax_prompts.scoring.best_tracker import BestTracker, selection_metric


def summarize(
    tracker: BestTracker, untuned_metrics: TaskMetrics, tests_E: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The members' best scores, mean and deviation, beside the score before tuning.

    Args:
      tracker: after the last evaluation.
      untuned_metrics: of the bare model.
      tests_E: `task_evaluator.report` of each member's best on test examples; empty where there are none.
    """
    best_E, values_E = tracker.chosen(), tracker.values()
    reported = [part for part in best_E[0] if part not in ("value", "step")]
    return {
        "best_metric": statistics.fmean(values_E),
        "best_metric_deviation": statistics.stdev(values_E) if len(values_E) > 1 else 0.0,
        "best_step": _alone([best["step"] for best in best_E]),
        "untuned_metric": selection_metric(untuned_metrics, tracker.metric)[0],
        **{part: _alone([best[part] for best in best_E]) for part in reported},
        **{f"test_{part}": _alone([tests[part] for tests in tests_E]) for part in (tests_E or [{}])[0]},
    }


def one_line(metrics: TaskMetrics) -> str:
    """Text of metrics by task: `TASK METRIC VALUE, ...`."""
    return ", ".join(
        f"{task} {name} {value:.2f}" for task, values in metrics.items() for name, value in values.items()
    )


def _alone(values_E: list[Any]) -> Any:
    """The list of the members' values; of one member the value itself."""
    return values_E[0] if len(values_E) == 1 else values_E
