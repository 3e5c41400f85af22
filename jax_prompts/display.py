"""Shows lines, tables and progress on stderr: progress as a live bar on a terminal, else as lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

console = Console(stderr=True, highlight=False, soft_wrap=True)
_WIDE = 1000  # characters: wider than any table, so that none is wrapped


class StepDisplay:
    """Counts steps from `start` to `total`. Use as a context manager."""

    def __init__(self, start: int, total: int, examples_per_step: int) -> None:
        self._start, self._total, self._rows = start, total, examples_per_step
        self._begun = time.monotonic()
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("steps", total=total, completed=start, status="")

    def __enter__(self) -> StepDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def status(self, step: int, text: str) -> None:
        """Shows `text` with the rate: beside the bar, or as a line where there is no terminal."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        rate = (step - self._start) / seconds
        text = f"{text}  {rate * self._rows:.1f} examples/s"
        self._bar.update(self._task, completed=step, status=text)
        if self._bar.disable:
            left = (self._total - step) / rate if rate else 0.0
            console.print(f"step {step}/{self._total}  {text}  {left:.0f} s left")


def log(text: str) -> None:
    """Prints one line on stderr."""
    console.print(text, markup=False)


def print_table(
    columns: Sequence[str],
    *sections: Iterable[Sequence[str]],
    title: str | None = None,
    right: Collection[str] = (),
) -> None:
    """Prints a table on stderr, as wide as it needs to be.

    Args:
      columns: the head of each.
      sections: rows of a cell for each column; a line divides sections.
      title: stands above it.
      right: columns whose cells end at the right.
    """
    heads = (Column(head, no_wrap=True, justify="right" if head in right else "left") for head in columns)
    table = Table(*heads, title=title)
    for rows in sections:
        for row in rows:
            table.add_row(*row)
        table.add_section()
    Console(stderr=True, width=_WIDE, highlight=False, markup=False).print(table)
