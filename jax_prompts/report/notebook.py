"""A run in a notebook: its curves, its predictions, and itself as a short table."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.report import curves, limits, tables, theme
from jax_prompts.report.answers import is_right, of_run
from jax_prompts.report.figures import WIDTH, static_spec
from jax_prompts.report.parts import View
from jax_prompts.report.series import Series, read_lines, series_of
from jax_prompts.results.find import Found
from jax_prompts.results.run_files import RunFiles
from jax_prompts.results.settings import resolved
from jax_prompts.storage.files import PathOrUrl

if TYPE_CHECKING:
    import pandas

_FIRST = ("task", "when", "member", "index", "inputs", "targets", "prediction", "right")


class Run:
    """One MODEL_DIR, finished or under way: every view reads its files anew."""

    def __init__(self, directory: PathOrUrl) -> None:
        """A run.

        Args:
          directory: its MODEL_DIR.

        Raises:
          ConfigError: no directory, or one that holds no run.
        """
        RunFiles(directory)
        self.directory = directory

    @property
    def summary(self) -> dict[str, Any] | None:
        """What summary.json holds; None of a run that has not finished."""
        return RunFiles(self.directory).summary

    @property
    def settings(self) -> dict[str, str]:
        """Every setting as config.gin spells its value, macros resolved."""
        return resolved(RunFiles(self.directory).settings)

    def curves(self, what: str = "score", against: str = "step") -> Any:
        """An Altair chart of means over members with their deviation, a line for each setting of a sweep.

        Args:
          what: `score`, `loss`, `accuracy`, `rate`, or what a prompt looks like, such as `entropy rank`.
          against: `step` or `seconds` (of tuning).

        Raises:
          ConfigError: Altair is not installed, or nothing of that name was recorded.
          RunError: a file that cannot be read.
        """
        theme.altair()
        view = self._view(what, against)
        shown = {theme.ROWS: view.rows}
        return view.chart.properties(datasets=shown, width=WIDTH, config=theme.config(dark=False))

    def predictions(self) -> pandas.DataFrame:
        """Predictions at the best step of each member, and on test examples, the wrong ones first.

        Columns: `task`, `when`, `member`, `index`, `inputs`, `targets`, `prediction`, `right` (whether the answer is
        the target, letter by letter), and whatever else rows of predictions hold.

        Raises:
          ConfigError: pandas is not installed.
          RunError: a file that cannot be read.
        """
        theme.altair()  # of the same extra
        import pandas

        rows = [
            {"task": each.task, "when": each.when, "member": 0, **row, "right": is_right(row)}
            for each in of_run(RunFiles(self.directory))
            for row in each.rows
        ]
        frame = pandas.DataFrame(rows, columns=None if rows else list(_FIRST))
        others = [name for name in frame.columns if name not in _FIRST]
        return frame[[*_FIRST, *others]].sort_values("right", kind="stable", ignore_index=True)

    def _repr_html_(self) -> str:
        """What a notebook shows of it: its rows of the table of runs, and the score as a picture."""
        rows = [tables.run_row(each) for each in self._series()[: limits.ROWS]]
        lines = [_line("th", tables.RUNS), *(_line("td", row) for row in rows)]
        return f"<table>{''.join(lines)}</table>{self._picture()}"

    def _picture(self) -> str:
        """The score's curve as SVG, which needs no script; empty where there is none, or nothing to draw with."""
        try:
            import vl_convert

            return vl_convert.vegalite_to_svg(static_spec(self._view("score", "step")))
        except (ImportError, ConfigError):
            return ""

    def _series(self) -> list[Series]:
        series, problems = series_of(Found(runs=[RunFiles(self.directory)]))
        if problems:
            raise RunError(problems[0])
        return series

    def _view(self, what: str, against: str) -> View:
        if against not in curves.AGAINST:
            raise ConfigError(f"against is {against!r}: set it to {' or '.join(curves.AGAINST)}")
        problems: list[str] = []
        groups, _ = curves.groups_of(self._series())
        lines = read_lines([each for group in groups.values() for each in group], problems)
        if problems:
            raise RunError(problems[0])
        names = []
        for kind in curves.KINDS:
            for view in curves.views(groups, lines, kind.quantities):
                _, quantity, axis = view.labels
                names.append(quantity if kind.id == "prompt" else kind.id)
                if what in (kind.id, quantity) and axis == curves.AGAINST[against]:
                    return view
        known = ", ".join(dict.fromkeys(names)) or "nothing yet"
        raise ConfigError(
            f"{self.directory} has not recorded {what} against {curves.AGAINST[against]}: it has {known}"
        )


def _line(tag: str, words: Sequence[str]) -> str:
    cells = "".join(f"<{tag}>{html.escape(word)}</{tag}>" for word in words)
    return f"<tr>{cells}</tr>"
