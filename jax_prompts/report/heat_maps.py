"""Cosines between the positions of prompts."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.errors import ConfigError, RunError, printable
from jax_prompts.prompts import load_prompt
from jax_prompts.prompts.geometry import cosines
from jax_prompts.report import limits, theme
from jax_prompts.report.parts import Figure, Row, Section, View
from jax_prompts.report.series import short_names, shortened

SVG = 48  # positions: a larger map is drawn on a canvas


def section(files: Sequence[pathlib.Path], problems: list[str]) -> Section | None:
    """A heat map of each prompt file."""
    views, shortest = [], False
    names = short_names([_shown(file) for file in files])
    for file, name in list(zip(files, names, strict=True))[: limits.HEAT_MAPS]:
        try:
            prompt_PD, _ = load_prompt(file)
        except (ConfigError, RunError) as error:
            problems.append(printable(str(error)))
            continue
        if not len(prompt_PD):  # of leaves inside the model alone
            continue
        shortest |= len(prompt_PD) > limits.POSITIONS
        rows = rows_of(prompt_PD[: limits.POSITIONS])
        views.append(View((shortened(name),), chart(rows, name), rows, canvas=len(rows) > SVG))
    remarks = []
    if len(files) > limits.HEAT_MAPS:
        remarks.append(f"Heat maps are drawn of {limits.HEAT_MAPS} of {len(files):,} prompts.")
    if shortest:
        remarks.append(f"Of longer prompts the first {limits.POSITIONS} positions are drawn.")
    if not views:
        return None
    caption = (
        "Cosine between the vectors of every two positions of a prompt. Positions that point one way are near 1: "
        "methods that reparameterise a prompt as a whole draw its rows together."
    )
    figure = Figure("cosines", "Cosines between positions", caption, views, ("prompt",))
    return Section("prompts", "Prompts", [figure], remarks)


def _shown(file: pathlib.Path) -> str:
    """A path that tells prompts apart: of a run's only one its directory."""
    return str(file.parent if file.stem == "prompt" else file.with_suffix(""))


def rows_of(prompt_PD: Float[np.ndarray, "P D"]) -> list[Row]:
    """For each position `one` lists of the `other` positions and of cosines with them."""
    return rows_of_cosines(cosines(prompt_PD, prompt_PD))


def rows_of_cosines(cosine_PP: Float[np.ndarray, "P P"]) -> list[Row]:
    """The same of cosines that are known."""
    return [
        {"one": one, "other": list(range(len(row))), "cosine": [round(float(value), 3) for value in row]}
        for one, row in enumerate(cosine_PP)
    ]


def chart(rows: Sequence[Row], name: str) -> Any:
    """A square of colours from -1 (blue) to 1 (orange)."""
    alt = theme.altair()
    described = f"Heat map of the cosines between the {len(rows)} positions of {name}"
    step = max(3, min(28, 420 // max(len(rows), 1)))
    axis = {"labelOverlap": True, "labelAngle": 0}
    made = (
        theme.base()
        .transform_flatten(["other", "cosine"])
        .mark_rect()
        .encode(
            x=alt.X("other:O", title="position", axis=alt.Axis(**axis)),
            y=alt.Y("one:O", title="position", axis=alt.Axis(**axis)),
            color=alt.Color(
                "cosine:Q",
                scale=alt.Scale(scheme=theme.DIVERGING, domain=[-1, 1]),
                legend=alt.Legend(title="cosine", orient="bottom", gradientLength=160),
            ),
            tooltip=["one:O", "other:O", "cosine:Q"],
        )
    )
    return theme.fitted(made, described, step * len(rows))
