"""Scores against learning rates and prompt lengths, where runs differ in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax_prompts.report import charts, limits
from jax_prompts.report.parts import Figure, Row, Section, View
from jax_prompts.report.series import Series, is_number, rounded, shortened
from jax_prompts.results.settings import differing, value_of, without_seeds
from jax_prompts.scoring.averages import deviation

SCORE = "best validation score"


@dataclasses.dataclass(frozen=True)
class Axis:
    """What runs may be compared by.

    Attributes:
      setting: its macro, and `fields` the settings that follow it.
      title: of the axis.
      log: whether it is logarithmic.
    """

    setting: str
    fields: tuple[str, ...]
    title: str
    log: bool


AXES = (
    Axis("LEARNING_RATE", ("Optimizer.learning_rate",), "learning rate", True),
    Axis("PROMPT_LENGTH", (), "prompt length", False),
)


def section(series: Sequence[Series]) -> Section | None:
    """A figure for each of `AXES` in which some series differ and in nothing else."""
    figures, remarks = [], []
    for axis in AXES:
        views: list[View] = []
        for of, lines in lines_of(series, axis).items():
            if len(lines) > limits.LINES:
                remarks.append(
                    f"{of}: {limits.LINES} of {len(lines)} lines against the {axis.title} are drawn."
                )
            rows = [row for line in list(lines)[: limits.LINES] for row in lines[line]]
            if rows and len(views) < limits.CURVE_GROUPS:
                views.append(View((of,), chart(rows, axis, of), rows))
        if views:
            caption = (
                f"Best validation score against the {axis.title}; mean and sample deviation over seeds. A line is of "
                "runs that differ in nothing else."
            )
            id = axis.setting.lower().replace("_", "-")
            figures.append(Figure(id, axis.title.capitalize(), caption, views, ("of",)))
    return Section("settings", "Learning rate and length", figures, remarks) if figures else None


def lines_of(series: Sequence[Series], axis: Axis) -> dict[str, dict[str, list[Row]]]:
    """Rows by suite and task, and by line: `line`, `x`, mean `value`, `low`, `high`, `members`."""
    groups: dict[tuple[str, Any], list[Series]] = {}
    for each in series:
        if is_number(value_of(each.settings, axis.setting)) and each.scores:
            key = frozenset(pair for pair in without_seeds(each.settings) if not _follows(pair[0], axis))
            groups.setdefault((" · ".join(filter(None, (each.scope, each.task))), key), []).append(each)
    found: dict[str, dict[str, list[Row]]] = {}
    for of in dict.fromkeys(of for of, _ in groups):
        lines = [
            group
            for (name, _), group in groups.items()
            if name == of and len({value_of(each.settings, axis.setting) for each in group}) > 1
        ]
        if lines:
            names = _names([group[0] for group in lines], axis)
            found[of] = {name: rows_of(group, axis, name) for name, group in zip(names, lines, strict=True)}
    return found


def _follows(name: str, axis: Axis) -> bool:
    """Whether a setting is the axis's, or of a class whose length the macro is."""
    own = name in (axis.setting, *axis.fields)
    return own or (axis.setting == "PROMPT_LENGTH" and name.endswith(".length"))


def rows_of(group: Sequence[Series], axis: Axis, line: str) -> list[Row]:
    """One row for each value of the setting, in order."""
    values: dict[float, list[float]] = {}
    for each in group:
        values.setdefault(value_of(each.settings, axis.setting), []).extend(each.scores)
    rows = []
    for x, scores in sorted(values.items()):
        mean, spread = sum(scores) / len(scores), deviation(scores) or 0.0
        rows.append(
            {
                "line": line,
                "x": x,
                "value": rounded(mean),
                "low": rounded(mean - spread),
                "high": rounded(mean + spread),
                "members": len(scores),
            }
        )
    return rows


def _names(firsts: Sequence[Series], axis: Axis) -> list[str]:
    """What sets lines apart: the settings in which they differ, else the name of the first run."""
    if len(firsts) == 1:
        return ["all runs"]
    names = [name for name in differing([each.settings for each in firsts]) if not _follows(name, axis)]
    macros = [name for name in names if "." not in name]
    short = [
        ", ".join(f"{name}={each.settings[name]}" for name in (macros or names)[:3] if name in each.settings)
        for each in firsts
    ]
    if len(set(short)) < len(short):
        short = [each.name for each in firsts]
    return [shortened(name) for name in short]


def chart(rows: Sequence[Row], axis: Axis, of: str) -> Any:
    """Lines with error bars."""
    names = ", ".join(dict.fromkeys(row["line"] for row in rows))
    described = f"{SCORE.capitalize()} against the {axis.title}, {of}: {names}"
    ticks = sorted({row["x"] for row in rows})
    return charts.lines(rows, axis.title, SCORE, described, log_x=axis.log, ticks=ticks)
