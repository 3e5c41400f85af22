"""The end of `t5x eval`: prompts and their ensemble on each task, beside constant answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jax_prompts.results.endings import MOST, Cells, Ending, command, cut_lines, few, more_row, number_text
from jax_prompts.scoring.best_tracker import selection_metric

Report = dict[str, Any]
_COLUMNS = ("", "task", "metric", "score", "deviation", "95 %", "majority class", "all positive")
_ROWS = 30  # of a table, about


def end_of_evaluation(report: Report, output_dir: str | None) -> Ending:
    """What an evaluation found: a row for each prompt and task, the best of many, and last the ensemble.

    Args:
      report: of eval.json, of one task or mixture or of several.
      output_dir: where it was written; None: nowhere.
    """
    parts = report.get("tasks", {report.get("task", ""): report})
    rows_each = max(1, _ROWS // len(parts))
    sections = [_section(part, rows_each) for part in list(parts.values())[:_ROWS]]
    sections.append(more_row(len(parts) - _ROWS, "tasks", _COLUMNS))
    lines = [line for part in parts.values() for line in cut_lines(part["cut"], part["split"])]
    for part in parts.values():
        if reason := part.get("ensemble", {}).get("refused"):
            lines.append(f"no ensemble: {reason}")
    title, lines = _title(parts), few(lines)
    if output_dir is None:
        return Ending(title, _COLUMNS, sections, lines)
    written = ["eval.json", *(few(list(parts)) if "tasks" in report else ["predictions"])]
    commands = [command("t5x", "report", output_dir, "--output=report.html")]
    return Ending(title, _COLUMNS, sections, lines, output_dir, written, commands)


def _title(parts: Mapping[str, Report]) -> str:
    if len(parts) > 1:
        return f"{len(parts)} tasks"
    ((task, part),) = parts.items()
    return f"{task}: {sum(part['examples'].values()):,} examples of {part['split']}"


def _section(part: Report, rows: int) -> list[Cells]:
    """The rows of one task or mixture."""
    metrics = part["metrics"]
    names = list(metrics)
    shown = max(1, min(MOST, rows // len(part["examples"])))
    if len(names) > shown:
        names = sorted(names, key=lambda name: _worth(metrics[name]))[:shown]
    found = [row for name in names for row in _rows(name, metrics[name], _said(part, name))]
    found += more_row(len(metrics) - len(names), "prompts, none better", _COLUMNS)
    if (over := part.get("over_prompts")) and len(metrics) > 1:
        found += _rows(f"mean of {len(metrics)} prompts", over["mean"], {"deviation": over["deviation"]})
    if (ensemble := part.get("ensemble")) and "refused" not in ensemble:
        found += _rows("ensemble", ensemble, _said(part, "ensemble"))
    return found


def _said(part: Report, name: str) -> Report:
    """What else is reported of a prompt, by kind and task."""
    return {kind: part.get(kind, {}).get(name, {}) for kind in ("about_scores", "intervals")}


def _rows(name: str, metrics: Mapping[str, Mapping[str, float]], said: Report) -> list[Cells]:
    """A row for each task, of a line for each of its metrics."""
    rows: list[Cells] = []
    for task, values in metrics.items():
        about, intervals, deviation = (
            said.get(kind, {}).get(task, {}) for kind in ("about_scores", "intervals", "deviation")
        )
        baselines = [
            _lines(about.get(f"{kind}_baseline", {}), [metric.rpartition("/")[2] for metric in values])
            for kind in ("majority", "all_positive")
        ]
        ranges = {
            metric: f"{number_text(low)} to {number_text(high)}"
            for metric, (low, high) in intervals.items()
            if metric in values
        }
        rows.append(
            [
                "" if rows else name,
                task,
                list(values),
                [number_text(value) for value in values.values()],
                _lines(deviation, list(values)),
                [ranges.get(metric, "") for metric in values] if ranges else "",
                *baselines,
            ]
        )
        if len(rows) == _ROWS:
            return [*rows, *more_row(len(metrics) - _ROWS, "tasks", _COLUMNS)]
    return rows


def _lines(values: Mapping[str, float | None], metrics: list[str]) -> str | list[str]:
    """The values of metrics, a line each; nothing where there is none."""
    if not values:
        return ""
    return [number_text(values[metric]) if metric in values else "" for metric in metrics]


def _worth(metrics: Mapping[str, Mapping[str, float]]) -> float:
    """The lower the better."""
    value, higher = selection_metric(metrics, None)
    return math.inf if math.isnan(value) else -value if higher else value
