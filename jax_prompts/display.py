"""Shows lines, tables and progress on stderr: progress as a live bar on a terminal, else as lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from jax_prompts.errors import printable

console = Console(stderr=True, highlight=False, soft_wrap=True)
Cell = str | list[str]  # of a table, with one line or several
_SECONDS_BETWEEN_LINES, _SECONDS_BETWEEN_FRAMES = 10, 0.1
_WIDE = 1000  # characters: wider than any table, so that none is wrapped


class _Display:
    """A bar, shown while the block runs."""

    _bar: Progress

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _bar(unit: str) -> Progress:
    """A bar that counts units, with a text of its task's field `status`; off where there is no terminal."""
    status = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # has what the others leave
    return Progress(
        TextColumn(unit),
        MofNCompleteColumn(),
        BarColumn(bar_width=console.width // 10),
        TextColumn("{task.fields[status]}", markup=False, table_column=status),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        expand=True,
        disable=not sys.stderr.isatty() or console.is_dumb_terminal,
    )


class StepDisplay(_Display):
    """Counts steps from `start` to `total`, and their examples. Use as a context manager."""

    def __init__(self, start: int, total: int) -> None:
        self._start, self._total, self._examples = start, total, 0
        self._begun = time.monotonic()
        self._loss = self._score = ""
        self._bar = _bar("step")
        self._task = self._bar.add_task("steps", total=total, completed=start, status="")

    def advance(self, step: int, examples: int) -> None:
        """Shows that `step` is done, which took so many examples."""
        self._examples += examples
        self._bar.update(self._task, completed=step)

    def status(self, step: int, *, losses: Collection[float] = (), score: str = "") -> None:
        """Shows the newest loss, score and rate: beside the bar, or as a line where there is no terminal.

        Args:
          step: of the run.
          losses: of members, of which the lowest and the highest are shown; none: those before are still the newest.
          score: on validation examples; empty: the one before is still the newest.
        """
        if losses:
            ends = (f"{min(losses):.4f}", f"{max(losses):.4f}")
            self._loss = f"loss {' to '.join(dict.fromkeys(ends))}"
        if score:
            self._score = f"validation {score}"
        seconds = max(time.monotonic() - self._begun, 1e-9)
        rate = (step - self._start) / seconds
        shown = (self._loss, self._score, f"{self._examples / seconds:.1f} examples/s")
        text = printable("  ".join(filter(None, shown)))
        self._bar.update(self._task, completed=step, status=text)
        if self._bar.disable:
            left = (self._total - step) / rate if rate else 0.0
            log(f"step {step}/{self._total}  {text}  {left:.0f} s left")


class LineDisplay(_Display):
    """Counts lines of text, of `total` where that is known. Use as a context manager."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._bar = _bar("line")
        self._task = self._bar.add_task("lines", total=total, status="")
        self.begin(0)

    def begin(self, done: int) -> None:
        """Counts on from `done` lines; the rate is of those that follow, but for the first, which waits for XLA."""
        self._first = self._done = done
        self._begun: float | None = None
        self._bar.reset(self._task, total=self._total, completed=done)

    def advance(self, lines: int) -> None:
        """Counts lines: shown at once beside a bar, else every ten seconds."""
        self._done += lines
        now = time.monotonic()
        if self._begun is None:
            self._first, self._begun, self._shown = self._done, now, now
        if now - self._shown < (_SECONDS_BETWEEN_LINES if self._bar.disable else _SECONDS_BETWEEN_FRAMES):
            return
        self._shown = now
        rate = (self._done - self._first) / (now - self._begun)
        status = f"{rate:.1f} lines/s"
        self._bar.update(self._task, completed=self._done, status=status)
        if self._bar.disable:
            of, left = "", ""
            if self._total is not None and rate:
                of, left = f"/{self._total}", f"  {(self._total - self._done) / rate:.0f} s left"
            console.print(f"line {self._done}{of}  {status}{left}")


def log(text: str) -> None:
    """Prints one line on stderr."""
    console.print(printable(text), markup=False)


def print_table(
    columns: Sequence[str],
    *sections: Iterable[Sequence[Cell]],
    title: str | None = None,
    right: Collection[str] = (),
) -> None:
    """Prints a table on stderr, as wide as it needs to be, where `log` prints lines.

    Args:
      columns: the head of each.
      sections: rows of a cell for each column; a line divides sections.
      title: stands above it.
      right: columns whose cells end at the right.
    """
    heads = [
        Column(printable(head), no_wrap=True, justify="right" if head in right else "left")
        for head in columns
    ]
    table = Table(*heads, title=title and printable(title))
    for rows in sections:
        for row in rows:
            lines = ([cell] if isinstance(cell, str) else cell for cell in row)
            table.add_row(*("\n".join(map(printable, cell)) for cell in lines))
        table.add_section()
    Console(stderr=True, width=_WIDE, highlight=False, markup=False, quiet=console.quiet).print(table)
