"""Progress on stderr: a live bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False, soft_wrap=True)


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
    """One line for the reader, on stderr."""
    console.print(text, markup=False)
