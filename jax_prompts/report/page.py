"""The page: sections as HTML, charts and predictions as compressed data, all scripts inside."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import importlib.resources
import re
import string
import zlib
from collections.abc import Sequence
from typing import Any

from jax_prompts.errors import printable
from jax_prompts.report import limits, theme
from jax_prompts.report.parts import Figure, Row, Section, Table, View
from jax_prompts.storage import json_text

SCRIPTS = ("page.js", "predictions.js")


def render(
    title: str,
    summary: str,
    sections: Sequence[Section],
    predictions: str = "",
    remarks: Sequence[str] = (),
) -> str:
    """The HTML of a page that asks the network for nothing.

    Args:
      title: of the page, as text.
      summary: one line below it.
      sections: in order.
      predictions: what `predictions.packed` gives; "": there is no browser of predictions.
      remarks: below the predictions.
    """
    scripts = [bundle(), *map(_file, SCRIPTS)]
    figures = [part for section in sections for part in section.parts if isinstance(part, Figure)]
    shown = [_section(section) for section in sections]
    links = [(section.id, section.title) for section in sections]
    if predictions:
        browser = string.Template(_file("predictions.html"))
        shown.append(browser.substitute(remarks=_remarks(remarks)))
        links.append(("predictions", "Predictions"))
    return string.Template(_file("page.html")).substitute(
        policy=_policy(scripts),
        title=text(f"{title} – t5x report"),
        heading=text(title),
        summary=text(summary),
        css=_file("page.css"),
        navigation="\n".join(f'<li><a href="#{id}">{text(name)}</a></li>' for id, name in links),
        sections="\n".join(shown),
        footer=text(limits.said()),
        figures=_figures_data(figures),
        predictions=predictions,
        scripts="\n".join(f'<script type="module">{script}</script>' for script in scripts),
    )


def text(value: str) -> str:
    """Text as HTML shows it: markup in it is text, control characters are escapes."""
    return html.escape(printable(value))


@functools.cache  # it takes seconds to make
def bundle() -> str:
    """Vega, Vega-Lite and vega-embed in one script, which defines `vegaEmbed`."""
    import vl_convert

    # A closing tag inside a string of theirs would end the script.
    return re.sub(
        r"</(?=script)",
        r"<\\/",
        vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        flags=re.IGNORECASE,
    )


def spec_of(view: View) -> dict[str, Any]:
    """A view's chart as Vega-Lite takes it, without its data."""
    alt = theme.altair()
    with alt.data_transformers.enable("default", max_rows=None):
        spec = view.chart.to_dict(validate=False)  # slow; tests validate every kind of chart
    spec.pop("config", None)  # the theme's
    return spec


def _policy(scripts: Sequence[str]) -> str:
    """What the browser may do here: run these scripts and no other, fetch nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{found}'" for found in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return (importlib.resources.files("jax_prompts.report") / name).read_text("utf-8")


def _section(section: Section) -> str:
    """Figures that follow each other share a grid."""
    pieces, open_grid = [], False
    for part in section.parts:
        if isinstance(part, Figure) != open_grid:
            pieces.append('<div class="figures">' if not open_grid else "</div>")
            open_grid = not open_grid
        pieces.append(
            _figure(part) if isinstance(part, Figure) else _table(part, alone=len(section.parts) == 1)
        )
    pieces += ["</div>"] if open_grid else []
    body = "\n".join(pieces)
    heading = f"{section.id}-heading"
    return (
        f'<section id="{section.id}" aria-labelledby="{heading}">\n<h2 id="{heading}">{text(section.title)}</h2>\n'
        f"{body}\n{_remarks(section.remarks)}</section>"
    )


def _remarks(remarks: Sequence[str]) -> str:
    return "".join(f'<p class="remark">{text(remark)}</p>\n' for remark in remarks)


def _figure(figure: Figure) -> str:
    id = f"figure-{figure.id}"
    return (
        f'<figure id="{id}" aria-labelledby="{id}-title">\n<h3 id="{id}-title">{text(figure.title)}</h3>\n'
        f'<figcaption class="caption">{text(figure.caption)}</figcaption>\n'
        f'<div class="controls"></div>\n<div class="chart"></div>\n'
        f'<details class="data"><summary>Data of this chart</summary></details>\n</figure>'
    )


def _table(table: Table, *, alone: bool) -> str:
    """Args: alone: whether the section's heading is its own."""
    right = [head in table.right for head in table.columns]

    def cell(tag: str, word: str, number: bool, scope: str = "") -> str:
        kind = ' class="number"' if number else ""
        return f"<{tag}{scope}{kind}>{text(word)}</{tag}>"

    heads = "".join(
        cell("th", head, number, ' scope="col"') for head, number in zip(table.columns, right, strict=True)
    )
    lines = [
        cell("th", row[0], False, ' scope="row"')
        + "".join(cell("td", word, number) for word, number in zip(row[1:], right[1:], strict=True))
        for row in table.rows
    ]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    name = text(table.title)
    return (
        f'{"" if alone else f"<h3>{name}</h3>"}<p class="caption">{text(table.caption)}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>\n'
        f'<caption class="unseen">{name}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _figures_data(figures: Sequence[Figure]) -> str:
    """Charts and their data, each data set once, as page.js decodes them."""
    if not figures:
        return ""
    rows: dict[int, int] = {}
    data: list[list[Row]] = []
    described = []
    for figure in figures:
        views = []
        for view in figure.views:
            if id(view.rows) not in rows:
                rows[id(view.rows)] = len(data)
                data.append(view.rows)
            views.append(
                {
                    "labels": [printable(label) for label in view.labels],
                    "spec": spec_of(view),
                    "rows": rows[id(view.rows)],
                    "canvas": view.canvas,
                }
            )
        described.append({"id": f"figure-{figure.id}", "controls": figure.controls, "views": views})
    themes = {name: theme.config(dark=name == "dark") for name in ("light", "dark")}
    content = json_text.dumps({"figures": described, "rows": data, "themes": themes}, separators=(",", ":"))
    return base64.b64encode(zlib.compress(content.encode(errors="replace"), 9)).decode()
