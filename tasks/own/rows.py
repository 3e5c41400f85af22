"""Rows of a user's own files: JSON lines, CSV and TSV with a header, parquet."""

from __future__ import annotations

import csv
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from tasks.errors import TaskError
from tasks.own.parquet import parquet_rows
from tasks.sources.bad_lines import tolerated
from tasks.sources.lines import BYTE_ORDER_MARK, Place, json_lines, read_lines, tab_separated

LONGEST_FIELD = 2**31 - 1  # characters; Python's own limit for CSV is 131,072
SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".jsonl", *SEPARATORS, ".parquet")
_LONE_RETURN = "\ud800"  # stands for a carriage return that ends no line; UTF-8 cannot hold it


def open_rows(
    path: pathlib.Path, tsv_quotes: bool | None = None, wanted: Collection[str] = ()
) -> tuple[Sequence[str], Iterator[tuple[Place, dict[str, Any]]]]:
    """The columns that a header or schema names, none for JSON lines, which name theirs row by row; and the rows.

    Args:
      path: of the file.
      tsv_quotes: see `OwnTask`.
      wanted: names of the columns that are used; of parquet no others are read.

    Returns:
      The columns; and an iterator over the place where each row begins and the row. It raises TaskError for a line
      that is malformed.

    Raises:
      TaskError: the file cannot be read, or is of another kind.
    """
    if path.suffix not in SUFFIXES:
        raise TaskError(f"{path}: use a file that ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".jsonl":
        return (), json_lines(path)
    if path.suffix == ".parquet":
        return parquet_rows(path, wanted)
    if has_quotes(path, tsv_quotes):
        rows = _quoted_fields(path)
        columns = next(rows, (None, []))[1]
        return columns, _by_column(rows, columns)
    return next((line.split("\t") for _, line in read_lines(path)), ()), tab_separated(path)


def has_quotes(path: pathlib.Path, tsv_quotes: bool | None) -> bool:
    """Whether cells of a CSV or TSV may be quoted; of a TSV for which it is not told, as its cells look.

    They look quoted where every cell that begins with a quote ends with one. Where such cells hold line ends, and
    every line has as many cells as the header without that, the quotes are text.

    Raises:
      TaskError: the file cannot be read.
    """
    if path.suffix != ".tsv" or tsv_quotes is not None:
        return path.suffix != ".tsv" or bool(tsv_quotes)
    if not re.search(r'(?:^|\t)"', _content(path), re.MULTILINE):
        return False
    reader = _reader(path)
    try:
        rows = sum(1 for _ in reader)
    except csv.Error:
        return False
    if rows == reader.line_num:
        return True
    return len({line.count("\t") for _, line in read_lines(path)}) > 1


def _by_column(
    rows: Iterable[tuple[Place, list[str]]], columns: Sequence[str]
) -> Iterator[tuple[Place, dict[str, Any]]]:
    for place, fields in rows:
        with tolerated():
            if len(fields) != len(columns):
                raise place.error(f"{len(fields)} fields, the header has {len(columns)}")
            yield place, dict(zip(columns, fields, strict=True))


def _quoted_fields(path: pathlib.Path) -> Iterator[tuple[Place, list[str]]]:
    """The fields of each row that is not blank; a quoted field may hold separators and line ends."""
    reader = _reader(path)
    while True:
        place = Place(path, reader.line_num + 1)
        with tolerated():
            try:
                fields = [field.replace(_LONE_RETURN, "\r") for field in next(reader)]
                "".join(fields).encode()
            except StopIteration:
                return
            except csv.Error as error:
                if str(error) == "unexpected end of data":  # no bad line: the rest of the file is in one cell
                    raise TaskError(
                        f"{path}, {place.where}: a quote opens there and never closes; close it"
                    ) from error
                raise place.error(f"malformed {path.suffix[1:].upper()} ({error})") from error
            except UnicodeEncodeError as error:
                raise place.error("not UTF-8") from error
            if fields:
                yield place, fields


def _reader(path: pathlib.Path) -> Any:
    """Python's reader of the lines; `_LONE_RETURN` in place of carriage returns that it would take for line ends."""
    csv.field_size_limit(LONGEST_FIELD)
    lines = re.sub(r"\r(?!\n|\Z)", _LONE_RETURN, _content(path)).split("\n")
    return csv.reader(
        [f"{line}\n" for line in lines[:-1]] + lines[-1:], delimiter=SEPARATORS[path.suffix], strict=True
    )


def _content(path: pathlib.Path) -> str:
    """The text of a file; bytes that are not UTF-8 stay recognisable, so that the row that holds them can be named."""
    try:
        return path.read_bytes().removeprefix(BYTE_ORDER_MARK.encode()).decode(errors="surrogateescape")
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror})") from error
