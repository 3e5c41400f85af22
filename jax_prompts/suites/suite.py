"""A suite from beginning to end: its cells are shown, or run, and its table is written."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

from jax_prompts.display import print_table
from jax_prompts.dry_run import dry_run
from jax_prompts.errors import ConfigError
from jax_prompts.results.endings import command, few, show_lines
from jax_prompts.runs import Suite
from jax_prompts.storage import json_text, places
from jax_prompts.suites import states, table
from jax_prompts.suites.cells import Cell, groups_of
from jax_prompts.suites.halving import show_plan
from jax_prompts.suites.untuned import count_untuned
from jax_prompts.suites.worker import work
from jax_prompts.task_check import check_task

_FLOPS_A_FROZEN_PARAMETER = 4  # of a token: forward, and backward without gradients of weights
_FLOPS_A_TUNED_PARAMETER = 6


def run_suite(suite: Suite, cells: Sequence[Cell], share: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    """Runs what is not finished of a suite's cells, then shows and writes its table.

    Raises:
      As `worker.work`.
    """
    work(suite, cells, share)
    return finish(suite, cells)


def finish(suite: Suite, cells: Sequence[Cell]) -> dict[str, Any]:
    """Shows the table of what is finished, and writes it beside the cells: Markdown, CSV, LaTeX and JSON."""
    summaries = {cell.name: found for cell in cells if (found := states.summary_of(cell)) is not None}
    failures = {cell.name: failed[0] for cell in cells if (failed := states.failure_of(cell)) is not None}
    made = table.make_table(suite, cells, summaries)
    columns = table.columns_of(suite)
    print_table(["", *columns], table.lines_of(made, columns), right=columns)
    root = suite.model_dir
    report = {
        "cells": len(cells),
        "done": len(summaries),
        "failed": len(failures),
        "failures": failures,
        "table": table.as_json(made),
    }
    texts = {
        "md": table.markdown(suite, made),
        "csv": table.comma_separated(made),
        "tex": table.latex(suite, made),
        "json": json_text.dumps(report, indent=2) + "\n",
    }
    for kind, text in texts.items():
        states.write(places.below(root, f"table.{kind}"), text)
    lines = [
        table.legend(suite),
        f"{len(summaries)} of {len(cells)} cells done, {len(failures)} failed"
        + (", which the same command tries again" if failures else ""),
        *few([f"failed: {name}: {reason}" for name, reason in failures.items()]),
    ]
    written = [f"table.{kind}" for kind in texts]
    show_lines(lines, root, written, [command("t5x", "report", root, "--output=report.html")])
    return report


def show(suite: Suite, cells: Sequence[Cell]) -> dict[str, Any]:
    """What a suite would run: its cells with their parameters and an estimate of their cost; checks each.

    The cost is that of the products with weights: without data, steps of runs that count epochs are not known.

    Raises:
      ConfigError: a task, file or setting of a cell that does not work; all that is wrong is said at once.
    """
    _check_metrics(suite, cells)
    if not suite.budget:
        states.check_same_suite(suite.model_dir, cells)
    wrong: dict[str, list[str]] = {}
    counted: list[tuple[Any, dict[str, Any]]] = []

    def count(cell: Cell) -> dict[str, Any]:
        run = cell.run
        key = (run.model, run.method, run.tuned, run.data, run.optimizer.name, run.tunes_nothing)
        for known, report in counted:
            if known == key:
                return report
        try:
            report = count_untuned(run) if run.tunes_nothing else dry_run(run)
        except ConfigError as error:
            wrong.setdefault(str(error), []).append(cell.name)
            report = {}
        counted.append((key, report))
        return report

    groups = groups_of(cells, suite.members)
    listed = []
    for group in groups:
        for cell in group.cells:
            report = count(cell)
            if not report:
                continue
            flops = 0 if cell.run.tunes_nothing else _step_flops(report)
            steps = cell.run.training.steps
            listed.append(
                {
                    "cell": cell.name,
                    "row": cell.row,
                    "column": cell.column,
                    "seed": cell.seed,
                    **cell.searched,
                    "tuned_parameters": report["tuned_parameters"],
                    "frozen_parameters": report["frozen_parameters"],
                    "steps": steps,
                    "epochs": cell.run.training.epochs if steps is None else None,
                    "step_flops": flops,
                    "flops": None if steps is None else flops * steps,
                    "group": group.name,
                    "command": shlex.join(cell.command()),
                }
            )
    states.refuse(wrong)
    columns = ["cell", "tuned", "frozen", "steps", "TFLOP"]
    print_table(
        columns,
        [
            [
                row["cell"],
                f"{row['tuned_parameters']:,}",
                f"{row['frozen_parameters']:,}",
                f"{row['epochs']} epochs" if row["steps"] is None else f"{row['steps']:,}",
                f"{row['step_flops'] / 1e12:.3g} a step"
                if row["flops"] is None
                else f"{row['flops'] / 1e12:,.3g}",
            ]
            for row in listed
        ],
        right=columns[1:],
    )
    plan = {"rungs": show_plan(suite, cells)} if suite.budget else {}
    return {"cells": len(cells), "groups": len(groups), "done": 0, "failed": 0, **plan, "table": listed}


def _check_metrics(suite: Suite, cells: Sequence[Cell]) -> None:
    """Raises ConfigError for a metric of Suite.metrics that its task has not; reads no data."""
    for column in suite.metrics:
        run = next(cell.run for cell in cells if cell.column == column)
        task, name = table.wanted(suite, column)
        data = dataclasses.replace(run.data, task=task or run.data.task)
        training = dataclasses.replace(run.training, metric=name)
        with table.naming(column):
            check_task(dataclasses.replace(run, data=data, training=training))


def _step_flops(report: dict[str, Any]) -> int:
    batch = report["batch"]
    tokens = batch["rows"] * (batch["encoder"] + batch["targets"])
    if report["frozen_parameters"]:
        return tokens * _FLOPS_A_FROZEN_PARAMETER * report["frozen_parameters"]
    return tokens * _FLOPS_A_TUNED_PARAMETER * report["tuned_parameters"]
