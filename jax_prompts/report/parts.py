"""What a page is made of: sections of figures, tables and remarks, as plain records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class View:
    """One way to show a figure.

    Attributes:
      labels: what is chosen, one for each of the figure's controls.
      chart: an Altair chart of the data named `theme.ROWS`.
      rows: that data.
      canvas: whether it has too many marks to be drawn as SVG.
    """

    labels: tuple[str, ...]
    chart: Any
    rows: list[Row]
    canvas: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart, or several of which the reader chooses one.

    Attributes:
      id: of the page, and of the files of `--figures`.
      title: its heading.
      caption: what it shows, in words, units included.
      views: at least one; the first is shown.
      controls: names of what views differ in.
    """

    id: str
    title: str
    caption: str
    views: Sequence[View]
    controls: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      title: its heading.
      caption: what it shows, in words.
      columns: heads.
      rows: cells; the first of each row names it.
      right: heads of columns of numbers.
    """

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page under one heading.

    Attributes:
      id, title: of the heading.
      parts: tables and figures, in order.
      remarks: quiet lines at the end: what is missing or was left out.
    """

    id: str
    title: str
    parts: Sequence[Figure | Table] = ()
    remarks: Sequence[str] = ()
