"""Runs, suites' cells and evaluations side by side, as plain JSON."""

from __future__ import annotations

import collections
import math
import os
import pathlib
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from jax_prompts.errors import MOST_NAMES, ConfigError, RunError, nearest
from jax_prompts.results.evaluation_scores import of_evaluation
from jax_prompts.results.find import Found, read_json
from jax_prompts.results.intervals import wilson
from jax_prompts.results.run_scores import of_run
from jax_prompts.results.scored import Member, Scored, finite
from jax_prompts.results.seed_groups import over_members, seed_groups, summed_up
from jax_prompts.results.settings import differing, resolved, short_names, value_of
from jax_prompts.results.significance import Marks, compared

Said = dict[str, Any]
_NOTHING = (1,)  # sorted behind all that has a value


def compare(found: Sequence[Found], *, sort: str = "score", limit: int = 50, pairs: bool = False) -> Said:
    """Compares whatever directories hold.

    Args:
      found: what each of the directories holds, in the order in which they were named.
      sort: how lines of one task are ordered: `score`, `test`, `seconds`, `parameters`, `name`, `given`, or the name of
        a setting.
      limit: the first lines of each task, of which predictions are read: for intervals and tests.
      pairs: whether every pair is tested, not only each with the first that was named of its task.

    Returns:
      `lines` in order, those of one task together; `settings` that differ, and of each of `tasks` those that differ
      in it; `seeds`, lines that are the same but for their seeds taken together; `tests`; and `not_compared`, with
      reasons.

    Raises:
      ConfigError: there is nothing to compare, or no such order.
    """
    scored, left_out = _read(found)
    if not scored:
        raise ConfigError(
            "; ".join(f"{each['what']}: {each['reason']}" for each in left_out[:3]) or "no run is there"
        )
    names = _names(scored)
    order_key = _order(sort, scored, names)
    by_task: dict[str, list[int]] = collections.defaultdict(list)
    for number, line in enumerate(scored):
        by_task[line.task].append(number)
    sorted_by_task = {task: sorted(numbers, key=order_key) for task, numbers in by_task.items()}
    firsts = [
        next((n for n in numbers if scored[n].state == "finished"), numbers[0])
        for numbers in by_task.values()
    ]
    shown = sorted({*firsts, *(number for numbers in sorted_by_task.values() for number in numbers[:limit])})

    marks, with_answers = Marks(), set(shown)
    groups = seed_groups(names, scored)
    tested = [group for group in groups if not with_answers.isdisjoint(group.lines)]
    tests, untested = compared(tested, marks, pairs=pairs)
    differ = differing([line.settings for line in scored if line.settings])
    references: dict[str, str] = {}
    for group in tested:
        references.setdefault(group.first.task, group.name)
    lines = [
        _line(scored[number], names[number], differ, marks if number in with_answers else None)
        for numbers in sorted_by_task.values()
        for number in numbers
    ]
    left_out += _untestable(by_task, [(names[number], scored[number]) for number in shown])
    left_out += [{"what": str(file), "reason": reason} for file, reason in marks.damaged.items()]
    return {
        "tasks": [
            {
                "task": task,
                "lines": len(numbers),
                "metrics": sorted({scored[number].metric for number in numbers} - {""}),
                "settings": differing(
                    [scored[number].settings for number in numbers if scored[number].settings]
                ),
                "reference": references.get(task),
            }
            for task, numbers in by_task.items()
        ],
        "settings": differ,
        "lines": lines,
        "seeds": [summed_up(group, names) for group in groups if len(group.lines) > 1],
        "tests": tests,
        "not_compared": [*left_out, *untested],
    }


def _untestable(tasks: Collection[str], shown: Sequence[tuple[str, Scored]]) -> list[Said]:
    said = []
    if len(tasks) > 1:
        reason = f"there are {len(tasks)}: {', '.join(list(tasks)[:MOST_NAMES])}"
        said.append({"what": "one task with another", "reason": reason})
    for name, line in shown:
        if line.state != "finished":
            why = f" ({line.reason})" if line.reason else ""
            said.append({"what": name, "reason": f"it is {line.state}{why}, and not tested"})
    return said


def _read(found: Sequence[Found]) -> tuple[list[Scored], list[Said]]:
    """A line for all that has scores, and what was left out, with the reason."""
    scored: list[Scored] = []
    left_out: list[Said] = []
    seen: set[str] = set()
    for directory, read in (each for of_path in found for each in _readers(of_path)):
        if (real := os.path.realpath(directory)) in seen:
            left_out.append({"what": str(directory), "reason": "it is named twice, and counts once"})
            continue
        try:
            lines = read()
        except (RunError, ConfigError) as error:
            left_out.append({"what": str(directory), "reason": str(error)})
            lines = []
        scored += [line for line in lines if os.path.realpath(line.directory) not in seen]
        seen |= {real, *(os.path.realpath(line.directory) for line in lines)}
    for of_path in found:
        left_out += [
            {"what": str(file), "reason": "a prompt file has no run beside it"} for file in of_path.prompts
        ]
        left_out += [{"what": str(file), "reason": "a study has no scores"} for file in of_path.studies]
        for suite, cells in of_path.suites.items():
            left_out += _failed_cells(suite, {cell.directory.name for cell in cells})
    return scored, left_out


def _readers(found: Found) -> Iterator[tuple[pathlib.Path, Callable[[], list[Scored]]]]:
    for run in found.all_runs:
        yield run.directory, lambda run=run: of_run(run)  # type: ignore[misc]
    for directory in found.evaluations:
        if directory.parent not in found.evaluations:  # whose report has this one, of one of its tasks
            yield directory, lambda directory=directory: of_evaluation(directory)  # type: ignore[misc]


def _failed_cells(suite: pathlib.Path, known: set[str]) -> list[Said]:
    """Cells that failed before they were runs."""
    said = []
    for file in sorted((suite / "cells").glob("*/failed.json")):
        if file.parent.name not in known:
            try:
                reason = str(read_json(file).get("reason"))
            except (RunError, ConfigError) as error:
                reason = str(error)
            said.append({"what": str(file.parent), "reason": f"it failed: {reason}"})
    return said


def _names(scored: Sequence[Scored]) -> list[str]:
    """What is different in the paths, and in brackets what sets lines of one directory apart; each but once."""
    paths = list(dict.fromkeys(str(line.directory.absolute()) for line in scored))
    short = dict(zip(paths, short_names(paths), strict=True))
    return [
        short[str(line.directory.absolute())] + (f" [{line.part}]" if line.part else "") for line in scored
    ]


def _order(sort: str, scored: Sequence[Scored], names: Sequence[str]) -> Callable[[int], Any]:
    """The key by which numbers of lines are sorted.

    Raises:
      ConfigError: no such order, and no setting of that name.
    """

    def descending(values: Callable[[Member], float | None]) -> Callable[[int], Any]:
        def key(number: int) -> Any:
            line = scored[number]
            there = [value for member in line.members if (value := values(member)) is not None]
            if not there:
                return _NOTHING
            return 0, line.metric, -statistics.fmean(there) if line.higher else statistics.fmean(there)

        return key

    def cost(name: str) -> Callable[[int], Any]:
        return lambda number: _NOTHING if (value := scored[number].costs[name]) is None else (0, value)

    orders: dict[str, Callable[[int], Any]] = {
        "score": descending(lambda member: member.score),
        "test": descending(lambda member: member.test),
        "seconds": cost("wall_seconds"),
        "parameters": cost("tuned_parameters"),
        "name": lambda number: names[number],
        "given": lambda number: number,
    }
    if sort in orders:
        return orders[sort]
    known = dict.fromkeys(name for line in scored for name in line.settings)
    if sort not in known:
        raise ConfigError(f"--sort {sort}: no such order or setting; use {nearest(sort, [*orders, *known])}")

    def by_setting(number: int) -> Any:
        value = finite(value_of(scored[number].settings, sort))
        if value is not None:
            return 0, value, ""
        return 1, 0, resolved(scored[number].settings).get(sort, "")

    return by_setting


def _line(line: Scored, name: str, differ: Sequence[str], marks: Marks | None) -> Said:
    """One line of the comparison; without `marks` its predictions are not read."""
    intervals = [
        {"bootstrap": member.interval} if member.interval else _wilson(line, member, marks)
        for member in line.members
    ]
    kinds = {kind for interval in intervals for kind in interval}
    there = [
        interval for interval, member in zip(intervals, line.members, strict=True) if member.score is not None
    ]
    by = kinds.pop() if len(kinds) == 1 and all(there) else None
    settings = resolved(line.settings)
    return {
        "name": name,
        "directory": str(line.directory),
        "part": line.part,
        "kind": line.kind,
        "state": line.state,
        "reason": line.reason,
        "task": line.task,
        "metric": line.metric or None,
        "higher_is_better": line.higher,
        "score": over_members([member.score for member in line.members]),
        "test": over_members([member.test for member in line.members]),
        "interval": None
        if by is None
        else [statistics.fmean(bounds) for bounds in zip(*(each[by] for each in there), strict=True)],
        "interval_by": by,
        "untuned": line.untuned,
        "last_step": line.last_step,
        "settings": {setting: settings.get(setting) for setting in differ} if line.settings else None,
        **line.costs,
        "members": [
            {
                "seed": member.seed,
                "score": member.score,
                "step": member.step,
                "test": member.test,
                "interval": next(iter(interval.values()), None),
                "metrics": member.metrics,
                "test_metrics": member.test_metrics,
                "failed": member.failed,
            }
            for member, interval in zip(line.members, intervals, strict=True)
        ],
    }


def _wilson(line: Scored, member: Member, marks: Marks | None) -> Said:
    """Wilson's interval, where the score is the percentage of answers that are their targets."""
    if marks is None or member.score is None or len(member.metrics) != 1:
        return {}
    (task,) = member.metrics
    for role in ("validation", "evaluation"):
        marked = marks.of(member, role, task, line.answer_key)
        if marked is not None:
            right, count = int(marked.right_N.sum()), len(marked.right_N)
            if math.isclose(100 * right / count, member.score, abs_tol=1e-4):
                return {"wilson": tuple(100 * bound for bound in wilson(right, count))}
    return {}
