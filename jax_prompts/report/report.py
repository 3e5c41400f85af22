"""One offline page of all that some directories hold: `t5x report`."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

from jax_prompts.display import log
from jax_prompts.errors import RunError
from jax_prompts.report import (
    confusion,
    curves,
    heat_maps,
    histograms,
    limits,
    studies,
    sweeps,
    tables,
    theme,
)
from jax_prompts.report.answers import read_answers
from jax_prompts.report.figures import write_figures
from jax_prompts.report.page import render
from jax_prompts.report.parts import Figure, Section
from jax_prompts.report.predictions import packed
from jax_prompts.report.series import Series, series_of
from jax_prompts.results.find import Found, find
from jax_prompts.storage import files
from jax_prompts.storage.home import local_path

PROBLEMS = 20  # of files that cannot be read, said one by one


def make_report(paths: Sequence[str], output: str, figures: str | None = None) -> dict[str, Any]:
    """Writes the page, and returns what the command prints.

    Args:
      paths: directories of runs, suites, evaluations, or above some; files of prompts and studies.
      output: the page's file.
      figures: directory for each figure as PNG and SVG; None: none is written.

    Raises:
      ConfigError: nothing to show, or what draws is not installed.
      RunError: a file that cannot be written, or none that can be read.
    """
    theme.altair()
    if figures is not None:
        local_path(figures, "--figures")
    found = find(paths)
    sections, answered, problems = sections_of(found)
    predictions, remarks = packed(answered)
    if problems:
        shown = problems[:PROBLEMS]
        more = [f"{len(problems) - PROBLEMS:,} more."] if len(problems) > PROBLEMS else []
        sections.append(Section("unread", "What could not be read", (), [*shown, *more]))
    drawn = [part for section in sections for part in section.parts if isinstance(part, Figure)]
    for problem in problems[:PROBLEMS]:
        log(f"not shown: {problem}")
    if problems and not any(section.parts for section in sections):
        raise RunError(f"nothing can be shown: {problems[0]}")
    page = render(_title(paths), _summary(found), sections, predictions, remarks).encode(errors="replace")
    with files.write_errors(output):
        files.write(output, page)
    if figures is not None:
        log(f"{write_figures(drawn, figures):,} pictures written to {figures}")
    log(f"written: {output}; open it in a browser")
    return {
        "output": output,
        "bytes": len(page),
        **_counts(found),
        "predictions": sum(len(each.rows) for each in answered),
        "figures": len(drawn),
        "problems": len(problems),
    }


def sections_of(found: Found) -> tuple[list[Section], list[Any], list[str]]:
    """Sections of the page, the answers for its browser, and what could not be read."""
    series, problems = series_of(found)
    answered, left_out = read_answers(found, problems)
    token_limits: dict[str, list[dict[str, int]]] = {}
    for each in series:
        token_limits.setdefault(each.task, []).append(histograms.limits_of(each.settings))
    lengths = histograms.section(answered, token_limits)
    cuts = tables.cuts_table(series)
    if cuts and lengths:
        lengths = Section(lengths.id, lengths.title, [*lengths.parts, cuts], lengths.remarks)
    elif cuts:
        lengths = Section("lengths", "What was cut", [cuts])
    sections = [
        tables.runs_section(series),
        tables.suites_section(list(found.suites), problems),
        tables.evaluations_section(found.evaluations, problems),
        *curves.sections(series, problems),
        sweeps.section(series),
        heat_maps.section(_prompt_files(found, series), problems),
        *studies.sections(found.studies, problems),
        confusion.section(answered),
        lengths,
    ]
    kept = [section for section in sections if section is not None]
    if left_out:
        kept.append(Section("left-out", "Left out", (), left_out))
    if not answered:
        kept.append(Section("no-predictions", "Predictions", (), ["There are no predictions here."]))
    return kept, answered, list(dict.fromkeys(problems))


def _prompt_files(found: Found, series: Sequence[Series]) -> list[pathlib.Path]:
    """Prompts that were named, then those of the series, the first member's of each before second ones."""
    of_series = [
        [file for run in each.runs for file in run.prompt_files] for each in series[: limits.HEAT_MAPS]
    ]
    turns = [
        files[turn]
        for turn in range(max(map(len, of_series), default=0))
        for files in of_series
        if turn < len(files)
    ]
    return list(dict.fromkeys([*found.prompts, *turns]))


def _title(paths: Sequence[str]) -> str:
    names = [pathlib.Path(path).name or path for path in paths]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more"


def _counts(found: Found) -> dict[str, int]:
    return {
        "runs": len(found.all_runs),
        "suites": len(found.suites),
        "evaluations": len(found.evaluations),
        "prompts": len(found.prompts),
        "studies": len(found.studies),
    }


def _summary(found: Found) -> str:
    counts = collections.Counter(_counts(found))
    words = [
        f"{count:,} {name if count != 1 else _SINGULAR[name]}" for name, count in counts.items() if count
    ]
    return " · ".join(words)


_SINGULAR = {
    "runs": "run",
    "suites": "suite",
    "evaluations": "evaluation",
    "prompts": "prompt file",
    "studies": "study",
}
