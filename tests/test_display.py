"""Tables on stderr."""

import pytest

from jax_prompts import display
from jax_prompts.display import LineDisplay, log, print_table


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
