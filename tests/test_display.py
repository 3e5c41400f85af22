"""Tables on stderr."""

from jax_prompts.display import log, print_table


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
