"""Confusion matrices: which label got which answer."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from jax_prompts.report import charts, limits
from jax_prompts.report.answers import Answered, text_of
from jax_prompts.report.parts import Figure, Row, Section, View
from jax_prompts.report.series import shortened

OTHER = "other"


def is_labelled(row: dict[str, Any]) -> bool:
    """Whether a row of predictions is of a task whose answers are labels."""
    return "out_of_class" in row


def section(answered: Sequence[Answered]) -> Section | None:
    """A matrix for each run, or prompt of an evaluation, and task; members of a run are counted together."""
    counts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in answered:
        if rows := [row for row in each.rows if is_labelled(row)]:
            who = "" if each.who.startswith("member") else each.who
            name = " · ".join(filter(None, (each.run, who)))
            counts.setdefault((name, each.examples), []).extend(rows)
    views: list[View] = []
    remarks: list[str] = []
    for (name, examples), rows in counts.items():
        if len(views) == limits.CONFUSIONS:
            remarks.append(f"{len(counts) - len(views)} more matrices are not drawn.")
            break
        found = rows_of(rows)
        classes = len({row["label"] for row in found})
        if classes > limits.CLASSES:
            remarks.append(f"{examples}: {classes} classes are too many for a matrix.")
            continue
        views.append(View((shortened(name), examples), chart(found, f"{name}, {examples}"), found))
    if not views:
        return Section("confusion", "Confusion", (), remarks) if remarks else None
    caption = (
        "Answers to the examples of each label, at the best step; members are counted together. "
        f"“{OTHER}” is every answer that is no label of the task."
    )
    figure = Figure("confusion", "Labels and answers", caption, views, ("of", "examples"))
    return Section("confusion", "Confusion", [figure], remarks)


def rows_of(predictions: Sequence[dict[str, Any]]) -> list[Row]:
    """Every pair of label and answer: `label`, `answer`, `count`, and `share`, percent of the label's examples."""
    counts = collections.Counter(
        (text_of(row.get("targets")), OTHER if row["out_of_class"] else text_of(row["prediction"]))
        for row in predictions
    )
    labels = sorted({label for label, _ in counts} | {answer for _, answer in counts if answer != OTHER})
    answers = [*labels, *([OTHER] if any(answer == OTHER for _, answer in counts) else [])]
    totals = {label: sum(counts[label, answer] for answer in answers) for label in labels}
    return [
        {
            "label": label,
            "answer": answer,
            "count": counts[label, answer],
            "share": round(100 * counts[label, answer] / totals[label], 2) if totals[label] else 0.0,
        }
        for label in labels
        for answer in answers
    ]


def chart(rows: Sequence[Row], name: str) -> Any:
    """A heat map of shares with the counts in it."""
    labels, answers = (len({row[key] for row in rows}) for key in ("label", "answer"))
    described = f"Confusion matrix of {name}: {labels} labels in rows, {answers} answers in columns"
    titles = ("label", "answer", "% of the label")
    fields = ("label", "answer", "share", "count")
    return charts.matrix(rows, titles, described, (0, 100), fields=fields)
