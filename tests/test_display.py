"""Progress, lines and tables on stderr."""

import io
import re
import sys
import types

import pytest
from rich.console import Console

from jax_prompts import display
from jax_prompts.display import LineDisplay, StepDisplay, log, print_table


def test_a_table_is_never_wrapped_and_its_cells_are_plain_text(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    long = "x " * 100 + "[bold]"
    print_table(("name", "n"), [("a", "1"), ("b", "22")], [(long, "[P, D]")], title="two parts", right=["n"])
    out, err = capsys.readouterr()
    assert out == ""
    title, top, heads, _, first, second, between, last, bottom = err.splitlines()
    assert title.strip() == "two parts"
    assert long in last and "[P, D]" in last
    assert first.endswith("     1 │") and second.endswith("    22 │")
    assert first.startswith("│ a  ") and heads.startswith("┃ name")
    assert between[0] == "├" and top[0] == "┏" and bottom[0] == "└"


def test_a_terminal_obeys_nothing_in_lines_and_cells(capsys):
    log("written: \x1b]0;owned\x07[bold]\udcff")
    print_table(("name", "task"), [("a\x1b[2J", "b\rc\nd")])
    err = capsys.readouterr().err
    assert not set("\x1b\x07\r") & set(err)
    assert r"written: \x1b]0;owned\x07[bold]\udcff" in err
    assert r"a\x1b[2J" in err and r"b\rc\nd" in err


class Clock:
    """Moments in seconds, each asked for once."""

    def __init__(self, *moments):
        self._moments = iter(moments)

    def monotonic(self):
        return next(self._moments)


def test_a_file_has_a_line_for_each_loss_and_score(monkeypatch, capsys):
    monkeypatch.setattr(display, "time", Clock(100, 110, 120, 130, 150))
    with StepDisplay(10, 100) as steps:
        for step in range(11, 31):
            steps.advance(step, 8)
            if step % 10 == 0:
                steps.status(step, losses=[step / 8])
        steps.status(30, score="rte accuracy 52.00")
        steps.advance(50, 80)
        steps.status(50, losses=[0.5, 1.25, 1.0])
    assert capsys.readouterr().err.splitlines() == [
        "step 20/100  loss 2.5000  8.0 examples/s  80 s left",
        "step 30/100  loss 3.7500  8.0 examples/s  70 s left",
        "step 30/100  loss 3.7500  validation rte accuracy 52.00  5.3 examples/s  105 s left",
        "step 50/100  loss 0.5000 to 1.2500  validation rte accuracy 52.00  4.8 examples/s  62 s left",
    ]


@pytest.mark.parametrize("width", [50, 90, 120, 200])
def test_a_terminal_has_a_bar_with_loss_score_rate_and_time_left(monkeypatch, width):
    seen = io.StringIO()
    terminal = Console(file=seen, force_terminal=True, width=width, soft_wrap=True, legacy_windows=False)
    monkeypatch.setattr(display, "console", terminal)
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: True))
    with StepDisplay(0, 300) as steps:
        steps.advance(120, 960)
        steps.status(120, losses=[0.5], score="[bold]accuracy 52.00")
        steps.advance(150, 240)
        steps.status(150, losses=[0.25])
        log("a line above")
    assert "a line above" in seen.getvalue()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.getvalue()).replace("\r", "\n").rstrip().split("\n")[-1]
    assert len(last.rstrip()) <= width
    assert re.match(r"step 150/300 .* loss .* left [-\d]:[-\d]{2}:[-\d]{2}$", last)
    assert ("loss 0.2500  validation [bold]accuracy 52.00  " in last) == (width >= 90)
    assert bool(re.search(r"52\.00  [\d.]+ examples/s  ", last)) == (width >= 120)


@pytest.mark.parametrize("dumb", [False, True])
def test_lines_come_where_nothing_can_be_drawn_over(monkeypatch, capsys, dumb):
    """In a notebook, and in a terminal that only adds lines."""
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: dumb, raising=False)
    with StepDisplay(0, 10) as steps:
        steps.status(5, losses=[0.5])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("step 5/10  loss 0.5000  ")


@pytest.mark.parametrize(
    ("total", "shown"),
    [
        (1000, ["line 600/1000  25.0 lines/s  16 s left", "line 700/1000  16.0 lines/s  19 s left"]),
        (None, ["line 600  25.0 lines/s", "line 700  16.0 lines/s"]),
    ],
)
def test_lines_are_counted_every_ten_seconds(monkeypatch, capsys, total, shown):
    moments = iter([100, 105, 112, 113, 125])  # seconds; the first line took long
    monkeypatch.setattr(display.time, "monotonic", lambda: next(moments))
    with LineDisplay(total) as lines:
        lines.begin(200)  # which were there
        for count in (100, 100, 200, 50, 50):
            lines.advance(count)
    assert capsys.readouterr().err.splitlines() == shown


def test_heads_and_titles_of_tables_are_not_obeyed(capsys):
    print_table(["a\x1b[31m\u202e", "b"], [["1", "2"]], title="t\x1b[31m")
    shown = capsys.readouterr().err
    assert "\x1b" not in shown and "\u202e" not in shown and "a\\x1b[31m" in shown
