"""What people read at the end of a command: a short table of what its JSON says, files, and commands to try next."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence

from jax_prompts.display import Cell, log, print_table

MOST = 10  # rows of one kind, the others are counted
Cells = list[Cell]  # of a row


@dataclasses.dataclass(frozen=True)
class Ending:
    """A table and the lines below it.

    Attributes:
      title: of the table.
      columns: heads; a column in which no row has anything is not shown, but for the first.
      sections: rows of a cell for each column.
      lines: what else is to be said.
      directory: where something was written.
      written: names of what was written there.
      commands: what to try next, as it is typed.
    """

    title: str
    columns: Sequence[str]
    sections: Sequence[Sequence[Cells]]
    lines: Sequence[str] = ()
    directory: str = ""
    written: Sequence[str] = ()
    commands: Sequence[str] = ()

    def show(self) -> None:
        """Prints it on stderr."""
        rows = [row for section in self.sections for row in section]
        kept = [n for n in range(len(self.columns)) if not n or any(row[n] not in ("", []) for row in rows)]
        heads = [self.columns[n] for n in kept]
        sections = ([[row[n] for n in kept] for row in section] for section in self.sections if section)
        print_table(heads, *sections, title=self.title, right=[head for head in heads if head not in LEFT])
        show_lines(self.lines, self.directory, self.written, self.commands)


LEFT = ("", "task", "metric")  # heads of columns of words


def show_lines(lines: Iterable[str], directory: str, written: Sequence[str], commands: Sequence[str]) -> None:
    """Prints on stderr what stands below a table: lines, files, and commands, each of which can be copied whole."""
    for line in lines:
        log(line)
    if written:
        log(f"written in {directory}: {', '.join(written)}")
    if commands:
        log("next:")
    for command in commands:
        log(f"  {command}")


def number_text(value: float | None) -> str:
    """Two decimals; `-` for a score that has no value, which JSON files have as null."""
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def cut_lines(cut: Mapping[str, Mapping[str, int]], role: str) -> list[str]:
    """A line for each task of which TASK_FEATURE_LENGTHS cut something, as `data.cuts.count_cuts` counts."""
    found = []
    for task, counts in cut.items():
        parts = [f"{counts[side]} {side}" for side in ("inputs", "targets") if counts[side]]
        if parts:
            examples = f"{counts['examples']} {role} examples of {task}"
            found.append(f"TASK_FEATURE_LENGTHS cut {' and '.join(parts)} of the {examples}")
    return found


def more_row(count: int, what: str, columns: Sequence[str]) -> list[Cells]:
    """A row that says how many more there are; none where there are no more."""
    return [[f"... and {count} more {what}", *[""] * (len(columns) - 1)]] if count > 0 else []


def few(lines: Sequence[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    more = [f"... and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return [*lines[:MOST], *more]


def command(*words: str) -> str:
    """Words as a shell takes them; values of flags stand in double quotes where these are enough."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if shlex.quote(word) == word:
        return word
    flag, equals, value = word.partition("=")
    if equals and flag.startswith("--") and not set(value) & set('"\\$`!') and shlex.quote(flag) == flag:
        return f'{flag}="{value}"'
    return shlex.quote(word)
