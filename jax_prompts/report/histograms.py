"""Lengths of inputs and targets, in words, beside the limit in tokens."""

from __future__ import annotations

import ast
import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax_prompts.report import limits, theme
from jax_prompts.report.answers import Answered, text_of
from jax_prompts.report.parts import Figure, Row, Section, View

BINS = 40
PARTS = ("inputs", "targets")


def section(
    answered: Sequence[Answered], token_limits: Mapping[str, Sequence[Mapping[str, int]]]
) -> Section | None:
    """Histograms of every task's inputs and targets.

    Args:
      answered: predictions, whose examples are counted once each.
      token_limits: of inputs and targets of each run, by task.
    """
    examples: dict[str, set[tuple[int, str, str]]] = {}
    tasks: dict[str, str] = {}
    for each in answered:
        tasks[each.examples] = each.task
        of_task = examples.setdefault(each.examples, set())
        of_task |= {
            (row["index"], text_of(row.get("inputs")), text_of(row.get("targets"))) for row in each.rows
        }
    views, remarks = [], []
    for name, found in list(examples.items())[: limits.HISTOGRAMS]:
        for place, part in enumerate(PARTS, 1):
            lengths = [len(str(example[place]).split()) for example in found]
            known = sorted({of[part] for of in token_limits.get(tasks[name], ()) if part in of})
            most = known[0] if len(known) == 1 else None
            if len(known) > 1:
                several = ", ".join(map(str, known))
                remarks.append(
                    f"{name}: runs have different limits for {part}, {several} tokens, so none is marked."
                )
            rows = rows_of(lengths, most)
            views.append(
                View((name, part), chart(rows, part, most, f"{name}, {len(lengths)} examples"), rows)
            )
    if not views:
        return None
    if len(examples) > limits.HISTOGRAMS:
        remarks.append(f"Lengths are drawn of {limits.HISTOGRAMS} of {len(examples)} tasks.")
    caption = (
        "In words, which predictions hold; the limit is in tokens. A word is one token or more, so what is right of "
        "the line is cut for certain, and some of what is left of it may be. How many were cut is in the table below."
    )
    figure = Figure("lengths", "Lengths of texts", caption, views, ("examples", "texts"))
    return Section("lengths", "Lengths and what was cut", [figure], remarks)


def limits_of(settings: Mapping[str, str]) -> dict[str, int]:
    """Tokens of inputs and targets at most, of a run's `resolved` settings; empty where they are not spelled out."""
    try:
        found = ast.literal_eval(settings.get("TASK_FEATURE_LENGTHS", "{}"))
        return {part: int(found[part]) for part in PARTS if part in found}
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return {}


def rows_of(lengths: Sequence[int], limit: int | None) -> list[Row]:
    """Bins of equal width from `start` to below `end` words, and how many `texts` each has; with the `limit`."""
    width = max(1, math.ceil((max(lengths, default=0) + 1) / BINS))
    counts = collections.Counter(length // width for length in lengths)
    mark = {} if limit is None else {"limit": limit}
    return [
        {"start": number * width, "end": (number + 1) * width, "texts": counts[number], **mark}
        for number in range(max(counts, default=0) + 1)
    ]


def chart(rows: Sequence[Row], part: str, limit: int | None, name: str) -> Any:
    """Bars, and a dashed line at the limit."""
    alt = theme.altair()
    described = f"Histogram of the lengths of {part} in words: {name}"
    base = theme.base()
    bars = base.mark_bar(binSpacing=1).encode(
        x=alt.X("start:Q", bin="binned", title=f"words of {part}", axis=alt.Axis(grid=False, tickMinStep=1)),
        x2="end:Q",
        y=alt.Y("texts:Q", title="texts"),
        tooltip=[alt.Tooltip("start:Q", title="from"), alt.Tooltip("end:Q", title="to below"), "texts:Q"],
    )
    layers = [bars]
    if limit is not None:
        layers.append(base.mark_rule(strokeDash=[5, 4], strokeWidth=2).encode(x="mean(limit):Q"))
        layers.append(
            base.mark_text(align="right", dx=-5, baseline="top", text=f"limit: {limit} tokens").encode(
                x="mean(limit):Q", y=alt.value(0)
            )
        )
    return theme.fitted(alt.layer(*layers), described, 200)
