"""Charts of studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jax_prompts.report import charts, heat_maps, limits
from jax_prompts.report.parts import Figure, Row, View
from jax_prompts.report.series import is_number, rounded, shortened, thinned

Study = Mapping[str, Any]
TUNED = {
    "tuned": "tuned parameters",
    "kept": "parameters of the prompt file",
    "percent": "tuned, % of the model",
}


def similarity(study: Study, id: str) -> Iterator[Figure]:
    """Cosines between the positions of each prompt, and between prompts."""
    views = []
    for prompt in study["prompts"][: limits.HEAT_MAPS]:
        cosine_PP = np.array(prompt["positions"], float)[: limits.POSITIONS, : limits.POSITIONS]
        rows = heat_maps.rows_of_cosines(cosine_PP)
        chart = heat_maps.chart(rows, prompt["name"])
        views.append(View((shortened(prompt["name"]),), chart, rows, canvas=len(rows) > heat_maps.SVG))
    caption = "Cosine between the vectors of every two positions of a prompt."
    if views:
        yield Figure(f"{id}-within", "Between positions", caption, views, ("prompt",))
    names = [shortened(prompt["name"]) for prompt in study["prompts"]]
    between = []
    for measure, values in study["between"].items() if 1 < len(names) <= limits.CLASSES else ():
        rows = matrix_rows(names, names, values, "{:.2f}")
        described = f"Cosines between {len(names)} prompts, {measure.replace('_', ' ')}"
        chart = charts.matrix(rows, ("prompt", "prompt", "cosine"), described, (-1, 1), diverging=True)
        between.append(View((measure.replace("_", " "),), chart, rows))
    if between:
        yield Figure(
            f"{id}-between", "Between prompts", "Cosine between prompts, in four ways.", between, ("of",)
        )


def matrix_rows(down: Sequence[str], across: Sequence[str], values: Any, form: str) -> list[Row]:
    """A cell for each pair: `row`, `column`, `value`, and `shown` as text; a missing number is a dash."""
    return [
        {
            "row": row,
            "column": column,
            "value": rounded(value) if is_number(value) else None,
            "shown": form.format(value) if is_number(value) else "–",
        }
        for row, line in zip(down, values, strict=True)
        for column, value in zip(across, line, strict=True)
    ]


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    """Least and largest value, not the same."""
    values = [row["value"] for row in rows if row["value"] is not None] or [0.0]
    return min(values), max(max(values), min(values) + 1e-9)


def transfer(study: Study, id: str) -> Iterator[Figure]:
    """Every prompt on every task: scores, and ratios to the task's own prompts."""
    prompts, tasks = study["prompts"][: limits.CLASSES], study["tasks"][: limits.CLASSES]
    names, columns = [shortened(prompt["name"]) for prompt in prompts], [task["task"] for task in tasks]
    views = []
    for what, form in (("scores", "{:.1f}"), ("ratios", "{:.2f}")):
        values = [[(task[what] or [])[n : n + 1] or [None] for task in tasks] for n in range(len(prompts))]
        rows = matrix_rows(names, columns, [[cell[0] for cell in line] for line in values], form)
        described = (
            f"Transfer matrix, {what} of {len(names)} prompts in rows on {len(columns)} tasks in columns"
        )
        domain = _range(rows) if what == "scores" else (0.0, max(1.0, _range(rows)[1]))
        views.append(
            View((what,), charts.matrix(rows, ("prompt of", "on task", what), described, domain), rows)
        )
    caption = (
        "Prompts in rows on tasks in columns, without tuning there; ratios are to the mean of the task's own."
    )
    yield Figure(id, "Every prompt on every task", caption, views, ("shown",))


def copies(study: Study, id: str) -> Iterator[Figure]:
    """The score of each position, copied so many times."""
    names = [str(position) for position in study["positions"]][: limits.POSITIONS]
    values = [list(row)[: limits.POSITIONS] for row in zip(*study["scores"], strict=True)][: limits.POSITIONS]
    rows = matrix_rows(names, [f"{length} ×" for length in study["copies"]], values, "{:.0f}")
    described = f"Scores of {len(names)} positions in rows, copied so many times in columns"
    chart = charts.matrix(rows, ("position", "copies", "score"), described, _range(rows))
    of = f"{study['prompt']['name']} on {study['task']}"
    caption = f"One position of {of}, copied so many times; the whole prompt has {study['whole']:.1f}."
    yield Figure(id, "Scores of copies", caption, [View(("scores",), chart, rows)], ("shown",))


def rank(study: Study, id: str) -> Iterator[Figure]:
    """Singular values of each prompt, and ranks over training."""
    rows = [
        {"line": shortened(prompt["name"]), "x": number, "value": rounded(value)}
        for prompt in study["prompts"][: limits.LINES]
        for number, value in enumerate(prompt["singular_values"][: limits.POSITIONS], 1)
        if is_number(value) and value > 0
    ]
    if rows:
        chart = charts.lines(
            rows, "number", "singular value", "Singular values of prompts, largest first", log_y=True
        )
        caption = "Largest first, on a logarithmic axis; those that are 0 are left out."
        yield Figure(f"{id}-values", "Singular values", caption, [View(("values",), chart, rows)], ("shown",))
    names = {
        "rank": "rank",
        "entropy_rank": "entropy rank",
        "positive_diagonal": "positive diagonal entries",
        "negative_diagonal": "negative diagonal entries",
    }
    yield from _training(study["training"], names, id)


def norms(study: Study, id: str) -> Iterator[Figure]:
    """Norms of positions, and over training."""
    rows = [
        {"line": shortened(prompt["name"]), "x": position, "value": rounded(value)}
        for prompt in study["prompts"][: limits.LINES]
        for position, value in enumerate(prompt["positions"][: limits.POSITIONS])
        if is_number(value)
    ]
    if rows:
        chart = charts.lines(rows, "position", "norm", "Norm of each position of prompts")
        yield Figure(
            f"{id}-rows", "Norm of each position", "Euclidean.", [View(("norms",), chart, rows)], ("shown",)
        )
    names = {"norm": "mean norm", "similarity": "mean cosine between positions"}
    yield from _training(study["training"], names, id)


def _training(runs: Sequence[Mapping[str, Any]], names: Mapping[str, str], id: str) -> Iterator[Figure]:
    """A line for each member of each run, of each quantity that some have."""
    members = [(run["name"], own) for run in runs for own in run["members"]]
    views = []
    for field, name in names.items():
        rows: list[Row] = []
        for run, own in [each for each in members if field in each[1]][: limits.LINES]:
            line = shortened(f"{run}, member {own['member']}")
            points = zip(own["step"], own[field], strict=True)
            rows += thinned(
                [{"line": line, "x": step, "value": value} for step, value in points if is_number(value)]
            )
        if rows:
            views.append(
                View((name,), charts.lines(rows, "steps", name, f"{name} of prompts over training"), rows)
            )
    if views:
        yield Figure(f"{id}-training", "Over training", "Each member by itself.", views, ("shown",))


def convergence(study: Study, id: str) -> Iterator[Figure]:
    """Steps and seconds until the score is near its best, of each configuration."""
    first = {row["settings"]: row["run"] for row in reversed(study["members"])}
    views = []
    for key, title in (
        ("step", "steps"),
        ("tuning_seconds", "seconds of tuning"),
        ("wall_seconds", "seconds in all"),
    ):
        rows = []
        for found in study["configurations"][: limits.CLASSES]:
            spread = found["own"][key]
            if is_number(mean := spread["mean"]):
                deviation = spread["deviation"] if is_number(spread["deviation"]) else 0.0
                rows.append(
                    {
                        "settings": shortened(f"{found['number']}: {first.get(found['number'], '')}"),
                        "value": rounded(mean),
                        "low": rounded(mean - deviation),
                        "high": rounded(mean + deviation),
                        "members": spread["count"],
                    }
                )
        if rows:
            views.append(View((title,), charts.intervals(rows, "settings", title), rows))
    if views:
        caption = (
            f"Until the validation score is within {study['within_percent']:g} % of the member's own best: mean and "
            "sample deviation over members of the same settings, named by their first run."
        )
        yield Figure(id, "How soon", caption, views, ("shown",))


def parameters(study: Study, id: str) -> Iterator[Figure]:
    """Tuned parameters of every method over model sizes."""
    views = []
    for length in study["lengths"]:
        for family, models in _families(study["models"]).items():
            for key, title in TUNED.items():
                rows = [
                    {"line": row["method"], "x": model["parameters"], "value": rounded(row[key])}
                    for model in sorted(models, key=lambda model: model["parameters"])
                    for row in model["methods"]
                    if row["length"] in (None, length) and row[key] > 0
                ]
                rows.sort(key=lambda row: row["line"])
                described = f"{title} of methods over the parameters of {family} models, {length} tokens"
                chart = charts.lines(
                    rows, "parameters of the model", title, described, log_x=True, log_y=True
                )
                views.append(View((f"{length} tokens", family, title), chart, rows))
    caption = "Counted without weights, on logarithmic axes."
    yield Figure(id, "Parameters of methods", caption, views, ("length", "models", "shown"))


def _families(models: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Models by the part of their name before the size."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for model in models:
        found.setdefault(model["model"].rpartition("_")[0], []).append(model)
    return found
