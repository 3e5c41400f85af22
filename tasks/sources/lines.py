"""Readers of data files (JSON, JSON lines, TSV with a header) and of their fields, checked, with the place of each."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.errors import BadLine, TaskError
from tasks.sources.bad_lines import tolerated

BYTE_ORDER_MARK = "\ufeff"  # what some programs write first


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a file, for messages: a line, a path inside a JSON document, or both.

    Attributes:
      path: of the file.
      line: number, from 1.
      inside: path inside the document.
      unit: what is numbered, where it is no line.
    """

    path: pathlib.Path
    line: int | None = None
    inside: str = ""
    unit: str = "line"

    @property
    def where(self) -> str:
        line = [] if self.line is None else [f"{self.unit} {self.line}"]
        return ", ".join([*line, *filter(None, [self.inside])])

    def error(self, reason: str) -> BadLine:
        what = self.unit if self.line is not None else "entry"
        return BadLine(f"{self.path}, {self.where}: {reason}; correct or remove the {what}")


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that are not blank, of a plain file or a `.gz`, without a byte order mark.

    A line ends at a line feed, behind a carriage return or not; a carriage return alone is part of the text, and so
    are U+2028 and its kin.

    Raises:
      TaskError: the file cannot be read or a line is not UTF-8.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                line = line.removeprefix(BYTE_ORDER_MARK.encode()) if number == 1 else line
                if not line.strip():
                    continue
                with tolerated():
                    yield number, _decoded(line.rstrip(b"\n").removesuffix(b"\r"), Place(path, number))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TaskError(f"{path} cannot be read ({reason}); check DATA_DIR, or replace the file") from error


def _decoded(line: bytes, place: Place) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise place.error(f"not UTF-8 ({error.reason} at byte {error.start})") from error


def parsed_json(text: str) -> Any:
    """Value of a JSON text.

    Raises:
      ValueError, RecursionError: it is none, an object has a key twice, or a number is not finite.
    """
    return json.loads(
        text, object_pairs_hook=_object, parse_constant=_finite_number, parse_float=_finite_number
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in pairs:
        if key in row:
            raise ValueError(f"key {key!r} twice in one object")
        row[key] = value
    return row


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def json_document(path: pathlib.Path) -> Any:
    """What a JSON file holds.

    Raises:
      TaskError: the file cannot be read, or is no JSON.
    """
    try:
        return parsed_json(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror}); check DATA_DIR") from error
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8 are a ValueError, too
        raise TaskError(f"{path}: malformed JSON ({error}); replace the file") from error


def json_lines(path: pathlib.Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Place and JSON object of each line.

    Raises:
      TaskError: see `read_lines`, or a line is no JSON object.
    """
    for number, line in read_lines(path):
        place = Place(path, number)
        with tolerated():
            try:
                row = parsed_json(line)
            except (ValueError, RecursionError) as error:
                raise place.error(f"malformed JSON ({error})") from error
            if not isinstance(row, dict):
                raise place.error(f"a JSON object is expected, not {type(row).__name__}")
            yield place, row


def tab_separated(
    path: pathlib.Path, columns: Sequence[str] | None = None, incomplete: bool = False
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Place of each row and its fields by column: `{}` for a row that lacks some, where that is allowed.

    Raises:
      TaskError: see `read_lines`, or a line has other fields than the header.
    """
    lines = read_lines(path)
    header = columns or next(lines, (0, ""))[1].split("\t")
    for number, line in lines:
        fields, place = line.split("\t"), Place(path, number)
        with tolerated():
            if len(fields) < len(header) and incomplete:
                yield place, {}
            elif len(fields) != len(header):
                raise place.error(f"{len(fields)} tab-separated fields, the header has {len(header)}")
            else:
                yield place, dict(zip(header, fields, strict=True))


def text_field(row: Mapping[str, Any], name: str, place: Place) -> str:
    """Value of a text field.

    Raises:
      TaskError: it is missing, is no text, or cannot be written as UTF-8.
    """
    value = row.get(name)
    if not isinstance(value, str):
        raise place.error(
            f"field {name!r} must be text, found {json.dumps(value)}" if name in row else f"no field {name!r}"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise place.error(f"field {name!r} holds half a surrogate pair") from error
    return value


def integer_field(row: Mapping[str, Any], name: str, place: Place) -> int:
    """Value of a field that holds a whole number.

    Raises:
      TaskError: it is missing or something else.
    """
    value = row.get(name)
    if type(value) is not int:
        raise place.error(
            f"field {name!r} must be a whole number, found {json.dumps(value)}"
            if name in row
            else f"no field {name!r}"
        )
    return value
