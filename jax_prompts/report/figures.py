"""Every figure of a page as files: PNG and SVG, in light colours."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jax_prompts.report import theme
from jax_prompts.report.page import spec_of
from jax_prompts.report.parts import Figure, View
from jax_prompts.storage import files

WIDTH = 640  # pixels, of what the page makes as wide as its place
SCALE = 2  # pixels of a PNG to one of the page


def write_figures(figures: Sequence[Figure], directory: str) -> int:
    """Writes NAME.png and NAME.svg of each view of each figure; returns how many files.

    Raises:
      ConfigError, RunError: a file cannot be written.
    """
    import vl_convert

    count = 0
    for name, view in named(figures):
        spec = static_spec(view)
        png = vl_convert.vegalite_to_png(spec, scale=SCALE)
        svg = vl_convert.vegalite_to_svg(spec)
        for content, kind in ((png, "png"), (svg, "svg")):
            file = pathlib.Path(directory) / f"{name}.{kind}"
            with files.write_errors(file):
                files.write(file, content)
            count += 1
    return count


def static_spec(view: View) -> dict[str, Any]:
    """A view's chart with its data, of a fixed width and in light colours."""
    spec = spec_of(view) | {"datasets": {theme.ROWS: view.rows}, "config": theme.config(dark=False)}
    return {**spec, "width": WIDTH, "autosize": {"type": "pad"}}


def named(figures: Sequence[Figure]) -> Iterator[tuple[str, View]]:
    """Each view with a file name: the figure's id, then what tells the view from others."""
    taken: set[str] = set()
    for figure in figures:
        differ = [len({view.labels[n] for view in figure.views}) > 1 for n in range(len(figure.controls))]
        for view in figure.views:
            labels = [label for label, different in zip(view.labels, differ, strict=True) if different]
            words = (re.sub(r"[^A-Za-z0-9.=_-]+", "_", label).strip("_.") for label in labels)
            name = base = ".".join([figure.id, *filter(None, words)])[:150]
            number = 1
            while name in taken:
                number += 1
                name = f"{base}.{number}"
            taken.add(name)
            yield name, view
