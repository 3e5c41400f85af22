"""Tables: runs, suites beside published numbers, evaluations, and what limits cut."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax_prompts.errors import ConfigError, RunError, printable
from jax_prompts.report import limits
from jax_prompts.report.parts import Section, Table
from jax_prompts.report.series import Series, is_number, member_summary, short_names
from jax_prompts.results.find import read_json
from jax_prompts.scoring.averages import deviation

NONE = "–"
RUNS = ("run", "task", "metric", "score", "untuned", "majority", "best step", "tuned", "seconds", "state")


def runs_section(series: Sequence[Series]) -> Section | None:
    """One row for each series."""
    if not series:
        return None
    shown = series[: limits.ROWS]
    caption = (
        "Score: the best validation score, which chose the prompt; its mean and sample deviation over members that "
        "differ in their seeds alone. Untuned: the model without a prompt. Majority: the score of always giving the "
        "most frequent answer. Tuned: parameters of one member. Seconds: of all members together, evaluations included."
    )
    table = Table("All runs", caption, RUNS, [run_row(each) for each in shown], RUNS[3:9])
    return Section("runs", "Runs", [table], _left_out(series, "runs"))


def run_row(series: Series) -> list[str]:
    """Cells of one series under the heads `RUNS`."""
    summaries = [summary for run in series.runs if (summary := run.summary) is not None]
    failed = sum("failed" in member_summary(run, number) for run, number in series.members)
    steps = [member_summary(run, number).get("best_step") for run, number in series.members]
    tuned = [
        summary["tuned_parameters"] // len(summary["members"])
        for summary in summaries
        if is_number(summary.get("tuned_parameters")) and summary["members"]
    ]
    seconds = [summary["wall_seconds"] for summary in summaries if is_number(summary.get("wall_seconds"))]
    untuned = [summary["untuned_metric"] for summary in summaries if is_number(summary.get("untuned_metric"))]
    shared = sum(len(run.members) for run in series.runs)
    return [
        series.name,
        series.task,
        str(summaries[0].get("metric") or NONE) if summaries else NONE,
        with_deviation(series.scores),
        number(untuned[0] if untuned else None),
        number(summaries[0].get("majority_metric") if summaries else None),
        _span([step for step in steps if is_number(step)]),
        f"{tuned[0]:,}" if tuned else NONE,
        f"{sum(seconds) * len(series.members) / shared:,.0f}" if seconds else NONE,
        _state(series, len(summaries), failed),
    ]


def _state(series: Series, finished: int, failed: int) -> str:
    if finished < len(series.runs):
        unfinished = len(series.runs) - finished
        return "unfinished" if len(series.runs) == 1 else f"{unfinished} of {len(series.runs)} unfinished"
    return f"{failed} of {len(series.members)} failed" if failed else "finished"


def _span(steps: Sequence[float]) -> str:
    if not steps:
        return NONE
    low, high = min(steps), max(steps)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def with_deviation(values: Sequence[float]) -> str:
    """`MEAN ± DEVIATION`, the sample deviation of two or more."""
    if not values:
        return NONE
    spread = deviation(values)
    return number(statistics.fmean(values)) + ("" if spread is None else f" ± {number(spread)}")


def number(value: Any) -> str:
    """A score in a table."""
    return f"{value:.2f}" if is_number(value) else NONE


def suites_section(directories: Sequence[pathlib.Path], problems: list[str]) -> Section | None:
    """The table of each suite, published numbers and differences in it."""
    tables, remarks = [], []
    for directory, name in zip(directories, short_names([str(each) for each in directories]), strict=True):
        file = directory / "table.json"
        if not file.is_file():
            remarks.append(f"{name} has no table yet: t5x suite writes it when its cells are finished.")
            continue
        try:
            tables.append(suite_table(name, _rows_of(file)))
        except (RunError, ConfigError) as error:
            problems.append(printable(str(error)))
    return Section("suites", "Suites", tables, remarks) if tables or remarks else None


def _rows_of(file: pathlib.Path) -> list[dict[str, Any]]:
    try:
        rows = read_json(file)["table"]
        if all(isinstance(entry, dict) for row in rows for entry in row["columns"].values()):
            return rows
    except (AttributeError, KeyError, TypeError):
        pass
    raise RunError(f"{file} is damaged: start the suite's command again, which writes it")


def suite_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A suite's table.json as a table: mean and deviation, then published number and difference."""
    columns = list(dict.fromkeys(column for row in rows for column in row["columns"]))
    published = any(is_number(e.get("published")) for row in rows for e in row["columns"].values())
    caption = "Mean ± sample deviation over seeds; * is not complete." + (
        " In brackets the published number and the difference from it." if published else ""
    )
    lines = [
        [str(row.get("row", "")), *(_entry(row["columns"].get(column) or {}) for column in columns)]
        for row in rows[: limits.ROWS]
    ]
    return Table(name, caption, ["", *columns], lines, columns)


def _entry(entry: Mapping[str, Any]) -> str:
    text = NONE
    if is_number(mean := entry.get("mean")):
        spread = entry.get("deviation")
        text = f"{mean:.1f}" + (f" ± {spread:.1f}" if is_number(spread) else "")
        text += "" if entry.get("complete") else "*"
    if is_number(published := entry.get("published")):
        difference = entry.get("difference")
        text += f" ({published:g}" + (f", {difference:+.1f})" if is_number(difference) else ")")
    return text


def evaluations_section(directories: Sequence[pathlib.Path], problems: list[str]) -> Section | None:
    """Every metric of every prompt and ensemble of every evaluation."""
    rows: list[list[str]] = []
    for directory, name in zip(directories, short_names([str(each) for each in directories]), strict=True):
        try:
            report = read_json(directory / "eval.json")
            if not isinstance(report.get("tasks", report.get("metrics")), dict):
                raise RunError(f"{directory / 'eval.json'} is damaged: start the evaluation's command again")
            rows += evaluation_rows(name, report)
        except (RunError, ConfigError) as error:
            problems.append(printable(str(error)))
    if not rows:
        return None
    columns = ("evaluation", "split", "answers of", "task", "metric", "score", "majority")
    caption = "Majority: the score of always giving the most frequent answer."
    table = Table("All evaluations", caption, columns, rows[: limits.ROWS], columns[5:])
    return Section("evaluations", "Evaluations", [table], _left_out(rows, "scores"))


def evaluation_rows(name: str, report: Mapping[str, Any]) -> list[list[str]]:
    """Cells of one eval.json; of one over several tasks none, since each has its own."""
    rows = []
    metrics = _object(report, "metrics")
    names = dict(zip(metrics, short_names([*metrics]), strict=True)) | {"ensemble": "ensemble"}
    about = _object(report, "about_scores")
    for who, tasks in (metrics | {"ensemble": report.get("ensemble")}).items():
        for task, found in tasks.items() if isinstance(tasks, dict) else ():
            if not isinstance(found, dict):
                continue
            baseline = _object(_object(_object(about, who), task), "majority_baseline")
            for metric, value in found.items():
                cells = (number(value), number(baseline.get(metric)))
                rows.append([name, str(report.get("split", NONE)), names[who], task, metric, *cells])
    return rows


def _object(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    return found if isinstance(found := value.get(key), dict) else {}


def cuts_table(series: Sequence[Series]) -> Table | None:
    """How many examples of each role and task TASK_FEATURE_LENGTHS has cut."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, *counts in _cuts(series):
        names.setdefault(tuple(counts), []).append(name)
    rows = [
        [of[0] if len(of) == 1 else f"{of[0]} and {len(of) - 1} more", *counts]
        for counts, of in names.items()
    ]
    if not rows:
        return None
    columns = ("run", "examples of", "task", "examples", "inputs cut", "targets cut")
    caption = "Examples longer than TASK_FEATURE_LENGTHS."
    return Table("What was cut", caption, columns, rows[: limits.ROWS], columns[3:])


def _cuts(series: Sequence[Series]) -> Iterator[list[str]]:
    for each in series:
        for role, tasks in _object(each.runs[0].summary or {}, "cut").items():
            for task in tasks if isinstance(tasks, dict) else ():
                found = [_object(tasks, task).get(part) for part in ("examples", "inputs", "targets")]
                if all(map(is_number, found)):
                    yield [each.name, role, task, *(f"{count:,}" for count in found)]


def _left_out(rows: Sequence[Any], what: str) -> list[str]:
    more = len(rows) - limits.ROWS
    return [f"{more:,} more {what} are not in the table."] if more > 0 else []
