"""Curves over training: loss, scores, learning rate, and what the prompt looks like meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jax_prompts.report import limits, theme
from jax_prompts.report.parts import Figure, Row, Section, View
from jax_prompts.report.series import (
    Lines,
    Series,
    averaged,
    best_first,
    read_lines,
    seconds_at,
    values_of,
)
from jax_prompts.results.run_files import metrics_of

TRAIN, VALIDATION = "training", "validation"
AGAINST = {"step": "steps", "seconds": "seconds of tuning"}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What one curve shows.

    Attributes:
      name: as the reader chooses it.
      unit: of the axis.
      parts: by name of the part, (file of metrics/, key, what else a line says).
      zero: whether the axis begins at 0.
    """

    name: str
    unit: str
    parts: dict[str, tuple[str, str, dict[str, Any]]]
    zero: bool = False


def _of(name: str, unit: str, file: str, key: str) -> Quantity:
    return Quantity(name, unit, {TRAIN: (file, key, {})}, zero=unit != "cosine")


PROMPT = (
    _of("mean norm of rows", "norm", "train", "prompt_norm"),
    _of("mean cosine between rows", "cosine", "train", "prompt_similarity"),
    _of("norm of the gradient", "norm", "train", "gradient_norm"),
    _of("norm of rows at evaluations", "norm", "prompt", "norm"),
    _of("cosine between rows at evaluations", "cosine", "prompt", "similarity"),
    _of("rank", "rank", "prompt", "rank"),
    _of("entropy rank", "rank", "prompt", "entropy_rank"),
    _of("positive diagonal entries of a rank probe", "entries", "prompt", "positive_diagonal"),
    _of("negative diagonal entries of a rank probe", "entries", "prompt", "negative_diagonal"),
)
RATE = _of("learning rate", "learning rate", "train", "learning_rate")


def sections(series: Sequence[Series], problems: list[str]) -> list[Section]:
    """Sections `Learning curves` and `Prompts during training`, where there is anything to draw."""
    groups, remarks = groups_of(series)
    lines = read_lines([each for group in groups.values() for each in group], problems)
    figures = {kind.id: made for kind in KINDS if (made := _figure(kind, groups, lines)) is not None}
    prompt = figures.pop("prompt", None)
    if figures and not any(lines[key] for key in lines if key[1] == "seconds"):
        remarks.append(
            "No run has recorded seconds (metrics/seconds.jsonl), so curves are against steps alone."
        )
    ranks = any(lines[key] for key in lines if key[1] == "prompt")
    quiet = [] if ranks else ["No run has recorded ranks while training (metrics/prompt.jsonl)."]
    found = [Section("curves", "Learning curves", [*figures.values()], remarks)] if figures else []
    return found + ([Section("training", "Prompts during training", [prompt], quiet)] if prompt else [])


def groups_of(series: Sequence[Series]) -> tuple[dict[str, list[Series]], list[str]]:
    """Series that share a chart, by task and suite, within the limits; and what was left out."""
    groups: dict[str, list[Series]] = {}
    for each in series:
        groups.setdefault(" · ".join(filter(None, (each.scope, each.task))), []).append(each)
    remarks = []
    if len(groups) > limits.CURVE_GROUPS:
        remarks.append(f"Curves are drawn of {limits.CURVE_GROUPS} of {len(groups)} tasks.")
    kept = dict(list(groups.items())[: limits.CURVE_GROUPS])
    for name, group in kept.items():
        if len(group) > limits.LINES:
            remarks.append(f"{name}: the {limits.LINES} lines of the best scores are drawn, of {len(group)}.")
    return {name: best_first(group, limits.LINES) for name, group in kept.items()}, remarks


def losses_of(group: Sequence[Series], lines: Lines) -> list[Quantity]:
    """The loss on training rows and on the validation examples of each task."""
    tasks = _where(group, lines, "loss")
    return [
        Quantity(
            _named("loss", where, tasks),
            "nats a target token",
            {TRAIN: ("train", "loss", {}), VALIDATION: ("eval", "loss", where)},
        )
        for where in tasks or [{"task": None}]
    ]


def scores_of(group: Sequence[Series], lines: Lines) -> list[Quantity]:
    """Each metric of each task at every evaluation."""
    found: dict[str, Quantity] = {}
    tasks = _where(group, lines)
    for each in group:
        for run in each.runs:
            for line in lines[run.name, "eval"]:
                where = {"task": line.get("task"), "split": line.get("split")}
                for metric in metrics_of(line):
                    name = _named(metric, where, tasks)
                    if name not in found and metric not in ("loss", "token_accuracy"):
                        found[name] = Quantity(name, metric, {VALIDATION: ("eval", metric, where)})
    return list(found.values())


def accuracies_of(group: Sequence[Series], lines: Lines) -> list[Quantity]:
    """The share of right tokens, and of training rows whose target is right as a whole."""
    tasks = _where(group, lines, "token_accuracy")
    tokens = [
        Quantity(
            _named("tokens", where, tasks),
            "% of target tokens",
            {TRAIN: ("train", "token_accuracy", {}), VALIDATION: ("eval", "token_accuracy", where)},
        )
        for where in tasks or [{"task": None}]
    ]
    whole = Quantity("whole answers", "% of rows", {TRAIN: ("train", "answer_accuracy", {})})
    return [*tokens, whole]


def _where(group: Sequence[Series], lines: Lines, key: str = "step") -> list[dict[str, Any]]:
    """Task and split of evaluations that have recorded `key`, each once."""
    found: dict[tuple[Any, Any], None] = {}
    for each in group:
        for run in each.runs:
            for line in lines[run.name, "eval"]:
                if key in line:
                    found[line.get("task"), line.get("split")] = None
    return [{"task": task, "split": split} for task, split in found]


def _named(what: str, where: dict[str, Any], all_of_them: Sequence[Any]) -> str:
    return what if len(all_of_them) < 2 else f"{what} · {where.get('task')} {where.get('split')}"


def rows_of(group: Sequence[Series], lines: Lines, quantity: Quantity) -> list[Row]:
    """Rows of a chart: `series`, `part`, `step`, `seconds`, mean `value`, `low`, `high`, `members`."""
    rows = []
    for each in group:
        for part, (file, key, where) in quantity.parts.items():
            found = averaged(
                [values_of(lines, run, member, file, key, where) for run, member in each.members]
            )
            seconds = seconds_at(lines, each.runs, [row["step"] for row in found]) if found else None
            for number, row in enumerate(found):
                time = {} if seconds is None else {"seconds": seconds[number]}
                rows.append({"series": each.name, "part": part, **row, **time})
    return rows


def chart(rows: Sequence[Row], against: str, quantity: Quantity, description: str) -> Any:
    """Lines with bands, of rows as `rows_of` gives them."""
    alt = theme.altair()
    parts = list(dict.fromkeys(row["part"] for row in rows))
    names = list(dict.fromkeys(row["series"] for row in rows))
    legend = alt.Legend(title=None, symbolOpacity=1) if len(names) > 1 else None
    named = alt.Scale(domain=names)  # the same of colours and shapes, which makes one legend of both
    drawn = {TRAIN: [5, 4], VALIDATION: [1, 0]} if len(parts) > 1 else {parts[0]: [1, 0]}
    dash = alt.StrokeDash(
        "part:N",
        scale=alt.Scale(domain=[*drawn], range=[*drawn.values()]),
        legend=alt.Legend(title=None, orient="bottom", columns=2) if len(parts) > 1 else None,
    )
    colour = alt.Color("series:N", scale=named, legend=legend)
    shape = alt.Shape("series:N", scale=named, legend=legend)
    x = alt.X(
        f"{against}:Q",
        title=AGAINST[against],
        scale=alt.Scale(zero=True),
        axis=alt.Axis(tickCount=6, grid=False),
    )
    scale, unit = alt.Scale(zero=quantity.zero, nice=True), quantity.unit
    y = alt.Y("value:Q", title=unit, scale=scale)
    told = [
        alt.Tooltip("series:N", title="run"),
        alt.Tooltip("part:N", title="on"),
        alt.Tooltip(f"{against}:Q", title=AGAINST[against]),
        alt.Tooltip("value:Q", title=unit),
        alt.Tooltip("low:Q", title="mean − deviation"),
        alt.Tooltip("high:Q", title="mean + deviation"),
        alt.Tooltip("members:Q", title="members"),
    ]
    base = theme.base()
    layers = [
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash),
        base.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=told),
    ]  # fmt: skip
    if any(row["high"] > row["low"] for row in rows):
        band = base.mark_area(opacity=0.18).encode(
            x=x, y=alt.Y("low:Q", title=unit, scale=scale), y2="high:Q", color=colour, detail="part:N"
        )
        layers.insert(0, band)
    return theme.fitted(alt.layer(*layers), description)


def views(
    groups: dict[str, list[Series]],
    lines: Lines,
    quantities: Callable[[Sequence[Series], Lines], list[Quantity]],
) -> list[View]:
    """A view for each group, quantity and axis of which something was recorded."""
    found = []
    for name, group in groups.items():
        for quantity in quantities(group, lines):
            if not (rows := rows_of(group, lines, quantity)):
                continue
            for against, axis in AGAINST.items():
                usable = [row for row in rows if against in row]
                if usable:
                    description = f"{quantity.name} against {axis} of {', '.join(_names(rows))}; {name}"
                    made = chart(usable, against, quantity, description)
                    same = rows if len(usable) == len(rows) else usable
                    found.append(View((name, quantity.name, axis), made, same))
    return found


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["series"] for row in rows))


def _figure(kind: Kind, groups: dict[str, list[Series]], lines: Lines) -> Figure | None:
    made = views(groups, lines, kind.quantities)
    if not made:
        return None
    band = any(row["members"] > 1 for view in made for row in view.rows)
    caption = kind.caption + (
        " Means over members; bands are one sample deviation wide to each side." if band else ""
    )
    return Figure(kind.id, kind.title, caption, made, ("of", "shown", "against"))


@dataclasses.dataclass(frozen=True)
class Kind:
    """One figure of curves.

    Attributes:
      id, title, caption: as of a `Figure`.
      quantities: what a group of series has to show in it.
    """

    id: str
    title: str
    caption: str
    quantities: Callable[[Sequence[Series], Lines], list[Quantity]]


KINDS = (
    Kind("loss", "Loss", "In nats a target token.", losses_of),
    Kind("score", "Score", "In the metric's own unit, percent for most.", scores_of),
    Kind("accuracy", "Accuracy", "In percent, each token with the right ones before it.", accuracies_of),
    Kind("rate", "Learning rate", "After warm-up and schedule.", lambda *_: [RATE]),
    Kind("prompt", "The prompt", "Of all its positions.", lambda *_: list(PROMPT)),
)
