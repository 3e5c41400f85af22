"""Charts that several kinds of pictures share: lines with error bars, matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jax_prompts.report import theme
from jax_prompts.report.parts import Row

SOLID, DASHED = [1, 0], [5, 3]
_LINES = len(theme.LIGHT)  # more of them are dashed, with colours from the beginning


def lines(
    rows: Sequence[Row],
    x_title: str,
    y_title: str,
    description: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    ticks: Sequence[float] | None = None,
) -> Any:
    """Lines of rows `line`, `x` and `value`, told apart by colour, shape and dash; error bars where rows have any.

    Args:
      rows: those with `low`, `high` and `members` have an error bar.
      x_title, y_title: of the axes, with their units.
      description: for a screen reader.
      log_x, log_y: which axes are logarithmic.
      ticks: of the x axis; None: round numbers.
    """
    alt = theme.altair()
    names = list(dict.fromkeys(row["line"] for row in rows))
    legend = alt.Legend(title=None) if len(names) > 1 else None
    named = alt.Scale(domain=names)  # the same of all channels, which makes one legend of them
    dashes = alt.Scale(domain=names, range=[SOLID if n < _LINES else DASHED for n in range(len(names))])
    x_axis = _axis([row["x"] for row in rows], log_x, ticks)
    x = alt.X(
        "x:Q",
        title=x_title,
        scale=alt.Scale(nice=False, padding=20, **({"type": "log"} if log_x else {"zero": False})),
        axis=alt.Axis(grid=False, **x_axis),
    )
    scale = alt.Scale(type="log") if log_y else alt.Scale(zero=False)
    y_axis = alt.Axis(**_axis([row["value"] for row in rows], log_y, None))
    y = alt.Y("value:Q", title=y_title, scale=scale, axis=y_axis)
    colour = alt.Color("line:N", scale=named, legend=legend)
    shape = alt.Shape("line:N", scale=named, legend=legend)
    dash = alt.StrokeDash("line:N", scale=dashes, legend=legend)
    bars = any("low" in row for row in rows)
    told = [
        alt.Tooltip("line:N", title="of"),
        alt.Tooltip("x:Q", title=x_title),
        alt.Tooltip("value:Q", title=y_title),
        *((alt.Tooltip(f"{name}:Q") for name in ("low", "high", "members")) if bars else ()),
    ]
    base = theme.base()
    layers = [
        base.mark_line().encode(x=x, y=y, color=colour, strokeDash=dash),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x, y=y, color=colour, shape=shape, tooltip=told
        ),
    ]
    if bars:
        low = alt.Y("low:Q", title=y_title, scale=scale, axis=y_axis)
        layers.insert(0, base.mark_rule(strokeWidth=1.5).encode(x=x, y=low, y2="high:Q", color=colour))
    return theme.fitted(alt.layer(*layers), description)


def _axis(values: Sequence[float], log: bool, ticks: Sequence[float] | None) -> dict[str, Any]:
    """Ticks of an axis: those given, of a logarithmic one powers of ten, else a few round numbers."""
    if ticks is not None:
        return {"values": list(ticks)}
    if not log:
        return {"tickCount": 6}
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return {"values": [10.0**power for power in range(low, high + 1)], "format": "~s" if high > 3 else "~g"}


def matrix(
    rows: Sequence[Row],
    titles: tuple[str, str, str],
    description: str,
    domain: tuple[float, float],
    *,
    fields: tuple[str, str, str, str] = ("row", "column", "value", "shown"),
    diverging: bool = False,
) -> Any:
    """Cells of colours, with text in them where there is room.

    Args:
      rows: a cell each.
      titles: of rows, columns and colours.
      description: for a screen reader.
      domain: of the colours.
      fields: of `rows`, that hold the row, the column, the number of the colour and the text.
      diverging: whether the middle of `domain` is neutral.
    """
    alt = theme.altair()
    row, column, value, shown = fields
    down = list(dict.fromkeys(each[row] for each in rows))
    across = list(dict.fromkeys(each[column] for each in rows))
    wide = len(across) > 6 or max((len(str(name)) for name in across), default=0) > 12
    base = theme.base().encode(
        x=alt.X(
            f"{column}:N",
            sort=across,
            title=titles[1],
            axis=alt.Axis(orient="top", labelAngle=-40 if wide else 0, labelLimit=130),
        ),
        y=alt.Y(f"{row}:N", sort=down, title=titles[0], axis=alt.Axis(labelLimit=130)),
    )
    scheme = theme.DIVERGING if diverging else theme.SEQUENTIAL
    colour = alt.Color(
        f"{value}:Q",
        scale=alt.Scale(scheme=scheme, domain=list(domain), clamp=True),
        legend=alt.Legend(title=titles[2], orient="bottom", gradientLength=160),
    )
    told = [alt.Tooltip(f"{row}:N", title=titles[0]), alt.Tooltip(f"{column}:N", title=titles[1]),
            alt.Tooltip(f"{value}:Q", title=titles[2]), alt.Tooltip(f"{shown}:N")]  # fmt: skip
    middle, half = (domain[0] + domain[1]) / 2, (domain[1] - domain[0]) / 2
    dark = (
        f"abs(datum['{value}'] - {middle}) > {0.7 * half}"
        if diverging
        else f"datum['{value}'] > {middle + 0.1 * half}"
    )
    layers = [base.mark_rect().encode(color=colour, tooltip=told)]
    if len(across) <= 12:
        ink = alt.condition(dark, alt.value("white"), alt.value("black"))
        layers.append(base.mark_text().encode(text=f"{shown}:N", color=ink))
    return theme.fitted(alt.layer(*layers), description, len(down) * (34 if len(down) <= 12 else 20))


def intervals(rows: Sequence[Row], name: str, title: str) -> Any:
    """A point for each row, from `low` to `high` around `value`.

    Args:
      rows: with `members`, too.
      name: the field, and title, of what they are of.
      title: of the numbers.
    """
    alt = theme.altair()
    names = [row[name] for row in rows]
    y = alt.Y(f"{name}:N", sort=names, axis=alt.Axis(labelLimit=160, grid=True))
    told = [f"{name}:N", alt.Tooltip("value:Q", title=title), "low:Q", "high:Q", "members:Q"]
    base = theme.base()
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y)
    points = base.mark_point(filled=True, size=80, opacity=1).encode(x="value:Q", y=y, tooltip=told)
    described = f"{title} of {len(rows)} {name}"
    return theme.fitted(alt.layer(bars, points), described, 30 * len(rows))
