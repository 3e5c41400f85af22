"""The table of a suite: means and deviations over seeds, averages of columns, published numbers beside them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jax_prompts.errors import ConfigError
from jax_prompts.runs import Suite
from jax_prompts.scoring.averages import deviation
from jax_prompts.scoring.best_tracker import selection_metric
from jax_prompts.suites.cells import Cell

Summaries = dict[str, dict[str, Any]]
Searched = tuple[tuple[str, Any], ...]
Option = tuple[str, Searched]
INCOMPLETE = "*"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One number of a table.

    Attributes:
      values: of each seed that is finished.
      complete: whether all of them, and of an average all of its columns, are there, and nothing may yet be chosen
        in their place.
      published, published_deviation: the paper's; None where it has none.
      chosen: the searched settings behind it.
    """

    values: tuple[float, ...] = ()
    complete: bool = False
    published: float | None = None
    published_deviation: float | None = None
    chosen: Searched = ()

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds; None with fewer than two."""
        return deviation(self.values)

    @property
    def difference(self) -> float | None:
        return None if self.mean is None or self.published is None else self.mean - self.published


Table = dict[str, dict[str, Entry]]


def make_table(suite: Suite, cells: Sequence[Cell], summaries: Summaries) -> Table:
    """Entries by row and column, averages and rows that are only published among them.

    Args:
      suite: the suite.
      cells: all of its cells.
      summaries: of those that are finished, by name.
    """
    rows = list(dict.fromkeys([*(cell.row for cell in cells), *suite.published]))
    table: Table = {}
    for row in rows:
        own = [cell for cell in cells if cell.row == row]
        chosen = _chosen(suite, own, summaries)
        waiting = {cell.column for cell in own if cell.name not in summaries}
        if waiting and suite.search and suite.search_by == "suite":
            waiting = set(suite.tasks)  # what is chosen for the row may yet change
        kept = {
            column: [c for c in own if c.column == column and option_of(c)[1] == chosen.get(column)]
            for column in suite.tasks
        }
        by_seed = {
            column: {
                cell.seed: score
                for cell in found
                if cell.name in summaries and (score := shown(suite, cell, summaries[cell.name])) is not None
            }
            for column, found in kept.items()
        }
        entries = {}
        for column in suite.tasks:
            complete = bool(own) and column not in waiting and len(by_seed[column]) == len(suite.seeds)
            entries[column] = _entry(suite, row, column, by_seed[column], complete, chosen.get(column))
        for average, columns in suite.averages.items():
            there = [column for column in columns if by_seed[column]]
            seeds = [
                seed for seed in suite.seeds if there and all(seed in by_seed[column] for column in there)
            ]
            values = {seed: statistics.fmean(by_seed[column][seed] for column in there) for seed in seeds}
            complete = all(entries[column].complete for column in columns)
            entries[average] = _entry(suite, row, average, values, complete, None)
        table[row] = entries
    return table


def shown(suite: Suite, cell: Cell, summary: dict[str, Any]) -> float | None:
    """The number that a finished cell shows: of test examples where its protocol has some, else of validation's.

    None where it is not defined, as the correlation of constant answers, which is null in files.
    """
    found = summary.get("test_metrics") or summary["metrics"]
    metrics = {
        task: {metric: math.nan if value is None else value for metric, value in of_task.items()}
        for task, of_task in found.items()
    }
    task, name = wanted(suite, cell.column)
    with naming(cell.column):
        value, _ = selection_metric(metrics, name, None if task is None else [task])
    return None if math.isnan(value) else value


def wanted(suite: Suite, column: str) -> tuple[str | None, str | None]:
    """(task, metric) that a column shows: of all its tasks (None), and the mean of the metrics (None)."""
    found = suite.metrics.get(column)
    return (None, found) if found is None or isinstance(found, str) else tuple(found)


@contextlib.contextmanager
def naming(column: str) -> Iterator[None]:
    """Says of a metric that is not there which of Suite.metrics asks for it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"Suite.metrics {column!r}: {error}") from error


def option_of(cell: Cell) -> Option:
    """A cell's row and searched settings."""
    return cell.row, tuple(cell.searched.items())


def score_of(cells: Sequence[Cell], summaries: Summaries) -> float | None:
    """Mean validation score; None where some are not finished or undefined, which cannot be compared with others."""
    scores = [summaries[cell.name]["best_metric"] for cell in cells if cell.name in summaries]
    if not cells or len(scores) < len(cells) or None in scores:
        return None
    return statistics.fmean(scores)


def lower_is_better(summaries: Summaries) -> bool:
    """Whether validation scores are losses."""
    return any("loss" in next(iter(found["metrics"].values()), {}) for found in summaries.values())


def _chosen(suite: Suite, cells: Sequence[Cell], summaries: Summaries) -> dict[str, Searched]:
    """The searched settings of each column with the best validation score, of the column or of all."""
    options = list(dict.fromkeys(option_of(cell)[1] for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    sign = -1.0 if lower_is_better(summaries) else 1.0

    def score(option: Searched, of: Sequence[str]) -> float:
        found = score_of([c for c in cells if option_of(c)[1] == option and c.column in of], summaries)
        return -math.inf if found is None else sign * found

    together = suite.search_by == "suite"
    return {
        column: max(options, key=lambda option, c=column: score(option, columns if together else [c]))
        for column in columns
        if options
    }


def _entry(
    suite: Suite, row: str, column: str, values: dict[int, float], complete: bool, chosen: Any
) -> Entry:
    published = suite.published.get(row, {}).get(column)
    number, deviation = (*published, None)[:2] if isinstance(published, tuple | list) else (published, None)
    return Entry(tuple(values.values()), complete, number, deviation, chosen or ())


def columns_of(suite: Suite) -> list[str]:
    return [*suite.tasks, *suite.averages]


def as_json(table: Table) -> list[dict[str, Any]]:
    """Rows as plain JSON."""
    return [
        {
            "row": row,
            "columns": {
                column: {
                    "mean": entry.mean,
                    "deviation": entry.deviation,
                    "seeds": len(entry.values),
                    "complete": entry.complete,
                    "published": entry.published,
                    "published_deviation": entry.published_deviation,
                    "difference": entry.difference,
                    **({"settings": dict(entry.chosen)} if entry.chosen else {}),
                }
                for column, entry in entries.items()
            },
        }
        for row, entries in table.items()
    ]


def text_of(entry: Entry, plus_minus: str = "±") -> str:
    """`MEAN±DEVIATION`, with a star where it is incomplete, then `(PUBLISHED, DIFFERENCE)`."""
    text = "-"
    if entry.mean is not None:
        text = f"{entry.mean:.1f}" + ("" if entry.deviation is None else f"{plus_minus}{entry.deviation:.1f}")
        text += "" if entry.complete else INCOMPLETE
    if entry.published is not None:
        difference = "" if entry.difference is None else f", {entry.difference:+.1f}"
        text += f" ({entry.published:g}{difference})"
    return text


def lines_of(table: Table, columns: Sequence[str], show: Callable[[Entry], str] = text_of) -> list[list[str]]:
    """Rows of text, the label first."""
    return [[row, *(show(entries[column]) for column in columns)] for row, entries in table.items()]


def markdown(suite: Suite, table: Table) -> str:
    """A Markdown table with its legend."""
    heads = ["", *columns_of(suite)]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines_of(table, columns_of(suite))]
    cells = (" | ".join(word.replace("|", "\\|") for word in row) for row in rows)
    return "".join(f"| {line} |\n" for line in cells) + f"\n{legend(suite)}\n"


def legend(suite: Suite) -> str:
    """What the numbers of a table are."""
    words = [
        f"Mean and sample standard deviation over {len(suite.seeds)} seeds"
        if len(suite.seeds) > 1
        else "One seed"
    ]
    if suite.published:
        words.append(f"in brackets the published number and the difference from it ({suite.source})")
    words.append(f"{INCOMPLETE} is not complete")
    return "; ".join(words) + "."


def comma_separated(table: Table) -> str:
    """One line for each number of a table."""
    names = "mean deviation seeds complete published published_deviation difference".split()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "column", *names])
    for row in as_json(table):
        for column, entry in row["columns"].items():
            writer.writerow(
                [row["row"], column, *("" if entry[name] is None else entry[name] for name in names)]
            )
    return out.getvalue()


def latex(suite: Suite, table: Table) -> str:
    """A LaTeX `tabular` (booktabs)."""
    columns = columns_of(suite)

    def line(words: Iterable[str]) -> str:
        return " & ".join(words) + r" \\" + "\n"

    rows = lines_of(table, columns, lambda entry: text_of(entry, plus_minus=r"$\pm$"))
    body = "".join(line([_escaped(label), *words]) for label, *words in rows)
    return (
        f"% {legend(suite)}\n\\begin{{tabular}}{{l{'r' * len(columns)}}}\n\\toprule\n"
        + line(["", *map(_escaped, columns)])
        + f"\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
    )


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
