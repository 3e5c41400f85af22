"""The tables of a comparison, each as wide as the terminal; what does not fit goes on in another table below."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from typing import Any

from jax_prompts.display import log, print_table
from jax_prompts.errors import printable

Said = dict[str, Any]
Row = dict[str, str]

_REASONS = 10  # lines on what was not compared
_VALUE = 24  # characters of a setting's value in a table with a row a run
_FRAME = 3  # characters that a column has besides its text
_TEXT = ("run", "state", "metric", "task", "setting")  # columns that begin at the left
_INTERVALS = {"bootstrap": "the bootstrap", "wilson": "Wilson"}


def show(comparison: Said, limit: int) -> None:
    """Prints a comparison on stderr.

    Args:
      comparison: as `results.comparison.compare` returns it.
      limit: lines of each task.
    """
    for task in comparison["tasks"]:
        lines = [line for line in comparison["lines"] if line["task"] == task["task"]]
        _show_task(task, lines[:limit])
        if len(lines) > limit:
            log(
                f"{len(lines) - limit:,} more of {task['task']} are in the JSON, or shown with a higher --limit"
            )
        _show_seeds([group for group in comparison["seeds"] if group["task"] == task["task"]][:limit])
    _show_between_tasks(comparison)
    _show_tests(comparison["tests"])
    reasons = [f"not compared: {each['what']}: {each['reason']}" for each in comparison["not_compared"]]
    for reason in reasons[:_REASONS]:
        log(reason)
    if len(reasons) > _REASONS:
        log(f"{len(reasons) - _REASONS:,} more are not compared, as the JSON says")


def _show_task(task: Said, lines: Sequence[Said]) -> None:
    with_settings = [line for line in lines if line["settings"]]
    if len(with_settings) > 1:
        _show_settings(f"{task['task']}: settings that differ", task["settings"], with_settings)
    several = len(task["metrics"]) > 1
    metric = f" ({task['metrics'][0]})" if len(task["metrics"]) == 1 else ""
    _print(f"{task['task']}: scores{metric}", [_scores(line, several) for line in lines])
    legend = []
    if any(line["score"] and line["score"]["count"] > 1 for line in lines):
        legend.append("±: sample deviation over n members; 95 % of the mean: Student's t over members")
    if kinds := {line["interval_by"] for line in lines} - {None}:
        names = " or ".join(_INTERVALS[kind] for kind in sorted(kinds))
        legend.append(f"95 % over examples: by {names}, of several members the mean of their bounds")
    for line in legend:
        log(line)
    costs = [_costs(line) for line in lines if line["kind"] in ("run", "sweep")]
    _print(f"{task['task']}: time and size, of all members of a run together", costs)


def _show_settings(title: str, names: Sequence[str], lines: Sequence[Said]) -> None:
    """A column a run where that fits the terminal, else a row a run with shortened values."""
    if not names:
        log(f"{title}: none")
        return
    columns = [
        {"setting": name, **{printable(line["name"]): line["settings"][name] or "-" for line in lines}}
        for name in names
    ]
    if sum(_widths(columns).values()) < _terminal():
        _print(title, columns)
        return
    _print(
        title,
        [
            {
                "run": _name(line["name"]),
                **{name: _cut(line["settings"][name] or "-") for name in names},
            }
            for line in lines
        ],
        text=names,
    )


def _scores(line: Said, several_metrics: bool) -> Row:
    score = line["score"]
    return {
        "run": _name(line["name"]),
        "state": _state(line),
        **({"metric": line["metric"] or ""} if several_metrics else {}),
        "score": _mean(score),
        "n": str(score["count"]) if score else "0",
        "95 % of the mean": _interval(score and score["interval"]),
        "95 % over examples": _interval(line["interval"]),
        "test": _mean(line["test"]),
        "before": _decimal(line["untuned"]),
        "best step": _steps(line),
    }


def _costs(line: Said) -> Row:
    return {
        "run": _name(line["name"]),
        "steps": _count(line["last_step"]),
        "seconds": _decimal(line["wall_seconds"]),
        "examples/s": _decimal(line["examples_per_second"]),
        "tuned": _count(line["tuned_parameters"]),
        "frozen": _count(line["frozen_parameters"]),
        "checkpoint": _bytes(line["checkpoint_bytes"]),
        "prompt": _bytes(line["prompt_bytes"]),
    }


def _show_seeds(groups: Sequence[Said]) -> None:
    rows = [
        {
            "run": _name(group["name"]),
            "runs": str(len(group["runs"])),
            "score": _mean(group["score"]),
            "n": str(group["score"]["count"]) if group["score"] else "0",
            "95 % of the mean": _interval(group["score"] and group["score"]["interval"]),
            "test": _mean(group["test"]),
        }
        for group in groups
    ]
    if rows:
        _print(f"{groups[0]['task']}: runs that are the same but for their seeds, together", rows)
        log("±: sample deviation over n seeds; 95 % of the mean: Student's t over seeds")


def _show_between_tasks(comparison: Said) -> None:
    """Settings that differ between tasks and within none."""
    within = {name for task in comparison["tasks"] for name in task["settings"]}
    first = {line["task"]: line for line in reversed(comparison["lines"]) if line["settings"]}
    names = [name for name in comparison["settings"] if name not in within]
    if len(first) > 1 and names:
        lines = [{**first[name], "name": name} for name in reversed(first)]
        _show_settings("settings that differ between tasks", names, lines)


def _show_tests(tests: Sequence[Said]) -> None:
    if not tests:
        return
    references = list(dict.fromkeys(test["a"] for test in tests))
    several_tasks = len({test["task"] for test in tests}) > 1

    def first_columns(test: Said) -> Row:
        one = len(references) == 1
        name = _name(test["b"]) if one else f"{_name(test['b'], 0.2)} less {_name(test['a'], 0.2)}"
        examples = f"{test['examples']:,} {test['roles'][0]}"
        return {"run": name, **({"task": test["task"]} if several_tasks else {}), "examples": examples}

    of = f" less that of {references[0]}" if len(references) == 1 else ", the difference"
    _print(
        f"percent right{of}: paired bootstrap over examples",
        [
            {
                **first_columns(test),
                "pairs": f"{test['pairs']} by {test['paired_by']}",
                "difference": f"{test['bootstrap']['difference']:+.2f}",
                "95 %": _interval(test["bootstrap"]["interval"]),
                "p": _p(test["bootstrap"]["p"]),
                "Holm's p": _p(test["bootstrap"]["p_holm"]),
            }
            for test in tests
        ],
    )
    _print(
        "examples that one of two alone has right: McNemar's exact test of the best members",
        [
            {
                **first_columns(test),
                "only it": str(test["mcnemar"]["only_b"]),
                f"only {_name(references[0], 0.2)}" if len(references) == 1 else "only the other": str(
                    test["mcnemar"]["only_a"]
                ),
                "p": _p(test["mcnemar"]["p"]),
                "Holm's p": _p(test["mcnemar"]["p_holm"]),
            }
            for test in tests
        ],
    )
    log(f"Holm's p: corrected for {len(tests)} test{'s' if len(tests) > 1 else ''} of its kind")


def _print(title: str, rows: Sequence[Row], text: Sequence[str] = ()) -> None:
    """A table without the columns in which every row is empty; another one, below, of columns that do not fit.

    Args:
      title: stands above each.
      rows: text by head, the first of which names the row.
      text: heads of columns that begin at the left, besides `_TEXT`.
    """
    widths = {head: width for head, width in _widths(rows).items() if any(row[head] for row in rows)}
    if not widths:
        return
    label, *heads = widths
    tables: list[list[str]] = [[label]]
    for head in heads:
        if len(tables[-1]) > 1 and sum(widths[each] for each in [*tables[-1], head]) >= _terminal():
            tables.append([label])
        tables[-1].append(head)
    for part in tables:
        right = [head for head in part if head not in (*_TEXT, *text) and label != "setting"]
        log(title)
        print_table(part, [[row[head] for head in part] for row in rows], right=right)


def _widths(rows: Sequence[Row]) -> dict[str, int]:
    return {
        head: max(len(line) for line in itertools.chain([head], (printable(row[head]) for row in rows)))
        + _FRAME
        for head in (rows[0] if rows else ())
    }


def _terminal() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def _state(line: Said) -> str:
    failed = sum(member["failed"] is not None for member in line["members"])
    if line["state"] != "finished":
        return line["state"] if line["last_step"] is None else f"{line['state']} at {line['last_step']:,}"
    return f"{failed} of {len(line['members'])} failed" if failed else ""


def _steps(line: Said) -> str:
    steps = sorted({member["step"] for member in line["members"] if member["step"] is not None})
    return "" if not steps else f"{steps[0]:,}" + (f" to {steps[-1]:,}" if len(steps) > 1 else "")


def _mean(score: Said | None) -> str:
    if score is None:
        return ""
    return f"{score['mean']:.2f}" + ("" if score["deviation"] is None else f" ± {score['deviation']:.2f}")


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else ""


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    if value is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _cut(value: str) -> str:
    return value if len(value) <= _VALUE else f"{value[: _VALUE - 1]}…"


def _name(text: str, share: float = 0.4) -> str:
    """A run's name in that share of the terminal: its middle, which says least, is left out."""
    text, length = printable(text), int(share * _terminal())
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"
