"""Rows of a user's own files: JSON lines, CSV and TSV with a header."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from tasks.errors import TaskError
from tasks.sources.bad_lines import tolerated
from tasks.sources.lines import BYTE_ORDER_MARK, Place, json_lines, read_lines, tab_separated

LONGEST_FIELD = 2**31 - 1  # characters; Python's own limit for CSV is 131,072
SUFFIXES = (".jsonl", ".csv", ".tsv")


def columns_of(path: pathlib.Path) -> Sequence[str]:
    """The columns that a header names; none for JSON lines, which name theirs row by row.

    Raises:
      TaskError: the file cannot be read, or is of another kind.
    """
    if path.suffix == ".tsv":
        header = next((line for _, line in read_lines(path)), None)
        return () if header is None else header.removeprefix(BYTE_ORDER_MARK).split("\t")
    if path.suffix == ".csv":
        return next((fields for _, fields in _csv_fields(path)), ())
    if path.suffix != ".jsonl":
        raise TaskError(f"{path}: use a file that ends in {', '.join(SUFFIXES)}")
    return ()


def read_rows(path: pathlib.Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Place where each row begins, and the row.

    Raises:
      TaskError: the file cannot be read, or a line is malformed.
    """
    columns = columns_of(path)
    if path.suffix == ".jsonl":
        rows = json_lines(path)
    else:
        rows = tab_separated(path, columns) if path.suffix == ".tsv" else _comma_separated(path, columns)
        next(rows, None)  # the header itself
    yield from rows


def _comma_separated(path: pathlib.Path, columns: Sequence[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    for place, fields in _csv_fields(path):
        with tolerated():
            if len(fields) != len(columns):
                raise place.error(f"{len(fields)} fields, the header has {len(columns)}")
            yield place, dict(zip(columns, fields, strict=True))


def _csv_fields(path: pathlib.Path) -> Iterator[tuple[Place, list[str]]]:
    """The fields of each row that is not blank; a quoted field may hold commas and line ends."""
    csv.field_size_limit(LONGEST_FIELD)
    # Bytes that are not UTF-8 stay recognisable, so that the row that holds them can be named.
    try:
        content = path.read_bytes().decode(errors="surrogateescape").removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror})") from error
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    while True:
        place = Place(path, reader.line_num + 1)
        with tolerated():
            try:
                fields = next(reader)
                "".join(fields).encode()
            except StopIteration:
                return
            except csv.Error as error:
                raise place.error(f"malformed CSV ({error})") from error
            except UnicodeEncodeError as error:
                raise place.error("not UTF-8") from error
            if fields:
                yield place, fields
