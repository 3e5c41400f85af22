"""Rows of CSV and TSV, quoted as pandas writes them or not quoted."""

from __future__ import annotations

import csv
import io
import pathlib

import pytest

from tasks.errors import TaskError
from tasks.own.rows import has_quotes, open_rows
from tasks.sources.bad_lines import skipping

# What a cell may hold that needs quotes: quotes, separators and line ends.
CELLS = [
    'She said "no", and left.',
    "Two\nlines\tand a tab",
    '"',
    "",
    "plain",
    'an inch, 1"',
    "x\r\ny",
    "a,b",
]


def rows(path: pathlib.Path, tsv_quotes: bool | None = None) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for _, row in open_rows(path, tsv_quotes)[1]]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_cells_are_read_as_they_were_written(tmp_path: pathlib.Path, name: str, end: str, mark: str):
    file, separator = io.StringIO(), "," if name == "x.csv" else "\t"
    writer = csv.writer(file, delimiter=separator, lineterminator=end)
    writer.writerows([["text", "label"], *((cell, number) for number, cell in enumerate(CELLS))])
    path = tmp_path / name
    path.write_bytes((mark + file.getvalue()).encode())
    assert rows(path) == [(cell, str(number)) for number, cell in enumerate(CELLS)]
    assert {tuple(row) for _, row in open_rows(path)[1]} == {("text", "label")}


def test_a_carriage_return_alone_ends_no_line(tmp_path: pathlib.Path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'text,label\r\na\rb,1\r\n"c\rd\r\ne",2\r')
    assert rows(path) == [("a\rb", "1"), ("c\rd\r\ne", "2")]
    assert [place.line for place, _ in open_rows(path)[1]] == [2, 3]
    path = tmp_path / "x.tsv"
    path.write_bytes(b"text\tlabel\r\na\rb\t1\r\nc\t2\r")
    assert rows(path) == rows(path, True) == rows(path, False) == [("a\rb", "1"), ("c", "2")]


@pytest.mark.parametrize(
    "line",
    [
        '"Frost line" is deep.\t1',  # closes in the middle of a cell
        '"open\t1',  # never closes
        '"\t1\nb\t"',  # closes, but over a tab and a line end that are in their places
    ],
)
def test_quotes_that_are_text(tmp_path: pathlib.Path, line: str):
    path = tmp_path / "x.tsv"
    path.write_text(f"text\tlabel\n{line}\n")
    assert not has_quotes(path, None)
    assert rows(path) == [tuple(row.split("\t")) for row in line.split("\n")]


def test_a_setting_decides(tmp_path: pathlib.Path):
    path = tmp_path / "x.tsv"
    path.write_text('text\tlabel\n"a ""b"""\t1\n')
    assert rows(path) == rows(path, True) == [('a "b"', "1")]
    assert rows(path, False) == [('"a ""b"""', "1")]
    path.write_text('text\tlabel\n"a" b\t1\n')
    with pytest.raises(TaskError, match="line 2: malformed TSV"):
        rows(path, True)


def test_a_quote_that_never_closes_takes_no_rows_along(tmp_path: pathlib.Path):
    path = tmp_path / "x.csv"
    path.write_text('text,label\na,1\n"b,1\nc,1\n')
    with (
        skipping(True),
        pytest.raises(TaskError, match=r"x\.csv, line 3: a quote opens there and never closes"),
    ):
        rows(path)


def test_the_quoted_case(shared: pathlib.Path):
    path = shared / "cases/quoted.tsv"
    with path.open(newline="") as file:
        expected = list(csv.reader(file, delimiter="\t"))[1:]
    assert len(expected) == 4
    assert rows(path) == rows(path, True) == [tuple(row) for row in expected]
