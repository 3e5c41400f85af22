"""Official data files (JSON lines, TSV with a header) as the dictionaries that TFDS makes of them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax_prompts.data.bad_lines import BadLine, tolerated
from jax_prompts.errors import ConfigError

UNLABELLED = -1  # TFDS's class of an example without a label
KEYS = ("idx", "id", "qid")  # what numbers or names an example, in one data set or another


@dataclasses.dataclass(frozen=True)
class Files:
    """Official files of one data set, a file a split. Subclasses say what they hold.

    Attributes:
      folder: directory of the files (`CB`).
      suite: directory above it (`superglue`); `DATA_DIR/suite/folder` and `DATA_DIR/folder` will both do.
      names: file of each split, or several names that it may have; `*` stands for anything.
      url: where the files are had.
    """

    folder: str
    suite: str
    names: Mapping[str, str | Sequence[str]]
    url: str = dataclasses.field(default="", kw_only=True)

    def wanted(self, split: str) -> str:
        """What to put under DATA_DIR for a split, and where it is had."""
        name = self.names[split]
        file = pathlib.PurePath(self.suite, self.folder, name if isinstance(name, str) else name[0])
        return f"{file} from {self.url}" if self.url else str(file)

    def examples(self, path: pathlib.Path, split: str) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Each example, as the dictionary that TFDS makes of it, and where it stands.

        Raises:
          ConfigError: the file cannot be read, or what it holds is malformed; names the place.
        """
        raise NotImplementedError

    def file(self, data_dir: pathlib.Path, split: str) -> pathlib.Path:
        """The file of a split.

        Raises:
          ConfigError: there is none; says where it was looked for.
        """
        names = self.names[split]
        patterns = [names] if isinstance(names, str) else names
        folders = dict.fromkeys((data_dir / self.suite / self.folder, data_dir / self.folder))
        for folder in folders:
            for pattern in patterns:
                if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
                    return found[0]
        places = " nor ".join(str(folder / pattern) for folder in folders for pattern in patterns)
        raise ConfigError(
            f"DATA_DIR {data_dir} has no {split} file: neither {places} exists; "
            f"put the official {self.folder} files there" + (f", from {self.url}" if self.url else "")
        )

    def read(self, path: pathlib.Path, split: str) -> list[dict[str, Any]]:
        """Every example of a file, checked.

        Raises:
          ConfigError: as `examples`, or the file is empty or holds an example twice.
        """
        examples, places = [], dict[str, Place]()
        for place, example in self.examples(path, split):
            key = next((json.dumps(example[name]) for name in KEYS if name in example), str(len(places)))
            with tolerated():
                if key in places:
                    raise place.error(f"the same number or name ({key}) as {places[key].where}")
                places[key] = place
                examples.append(example)
        if not examples:
            raise ConfigError(f"{path} holds no examples; put {self.wanted(split)} there")
        return examples


@dataclasses.dataclass(frozen=True)
class Table(Files):
    """Files of a flat task (JSON lines, TSV), a row an example.

    Attributes:
      texts: text fields, kept as they are.
      numbers: integer fields, kept.
      labels: what the label field may hold, in order of TFDS's class numbers; None for a score.
      label: name of the label field.
      columns: column of the file that holds a field, where the two names differ.
      headers: columns of the files that name none themselves, by split.
      unlabelled: splits whose rows may lack a label.
      nested: field that holds further fields of a row (WSC's `target`); TFDS has them side by side.
      counted: `idx` is the row's number, as it always is in a TSV, and not what the file says.
      incomplete: rows that lack fields at their end are left out, as TFDS does, and are no error.
      repair: changes an example before it is used.
    """

    texts: tuple[str, ...] = ()
    labels: tuple[Any, ...] | None = ()
    numbers: tuple[str, ...] = ()
    label: str = "label"
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    headers: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    unlabelled: tuple[str, ...] = ("test",)
    nested: str | None = None
    counted: bool = False
    incomplete: bool = False
    repair: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def examples(self, path: pathlib.Path, split: str) -> Iterator[tuple[Place, dict[str, Any]]]:
        rows = (
            json_lines(path)
            if path.suffix == ".jsonl"
            else tab_separated(path, self.headers.get(split), self.incomplete)
        )
        for number, (place, row) in enumerate(rows):
            with tolerated():
                if row:
                    yield place, self._example(row, number, place, split)

    def _example(self, row: dict[str, Any], number: int, place: Place, split: str) -> dict[str, Any]:
        if self.nested is not None:
            inner = row.get(self.nested)
            if not isinstance(inner, dict):
                raise place.error(f"field {self.nested!r} must be an object, found {json.dumps(inner)}")
            row = {**inner, **row}
        # TFDS takes the index from JSON and counts the rows of a TSV.
        counted = self.counted or place.path.suffix != ".jsonl"
        numbers = self.numbers if counted else ("idx", *self.numbers)
        example: dict[str, Any] = {"idx": number}
        example |= {name: text_field(row, self.columns.get(name, name), place) for name in self.texts}
        example |= {name: integer_field(row, name, place) for name in numbers}
        if self.repair is not None:
            example = self.repair(example)
        return example | {"label": self._label(row, place, split)}

    def _label(self, row: dict[str, Any], place: Place, split: str) -> int | float:
        if self.label not in row:
            if split in self.unlabelled:
                return UNLABELLED if self.labels is not None else float(UNLABELLED)
            raise place.error(f"no field {self.label!r}")
        value = row[self.label]
        if self.labels is None:
            return self._score(value, place)
        # Compared by text too, since Python takes 1, 1.0 and true for equal.
        for number, label in enumerate(self.labels):
            if value == label and str(value) == str(label):
                return number
        classes = ", ".join(json.dumps(label) for label in self.labels)
        raise place.error(f"label {json.dumps(value)} is none of the task's classes {classes}")

    def _score(self, value: Any, place: Place) -> float:
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise place.error(f"{self.label} {json.dumps(value)} is no number")
        return score


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a file, for messages: a line, a path inside a JSON document, or both."""

    path: pathlib.Path
    line: int | None = None
    inside: str = ""

    @property
    def where(self) -> str:
        line = [] if self.line is None else [f"line {self.line}"]
        return ", ".join([*line, *filter(None, [self.inside])])

    def error(self, reason: str) -> BadLine:
        what = "line" if self.line is not None else "entry"
        return BadLine(f"{self.path}, {self.where}: {reason}; correct or remove the {what}")


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank, of a plain file or a `.gz`.

    Raises:
      ConfigError: the file cannot be read or a line is not UTF-8.
    """
    try:
        # Split at line feeds alone: U+2028 and its kin are part of the text.
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                with tolerated():
                    yield number, _decoded(line.rstrip(b"\n").removesuffix(b"\r"), Place(path, number))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read ({reason}); check DATA_DIR, or replace the file") from error


def _decoded(line: bytes, place: Place) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise place.error(f"not UTF-8 ({error.reason} at byte {error.start})") from error


def json_lines(path: pathlib.Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The object on each line and its place.

    Raises:
      ConfigError: see `read_lines`, or a line is no JSON object.
    """
    for number, line in read_lines(path):
        place = Place(path, number)
        with tolerated():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise place.error(f"malformed JSON ({error})") from error
            if not isinstance(row, dict):
                raise place.error(f"a JSON object is expected, not {type(row).__name__}")
            yield place, row


def tab_separated(
    path: pathlib.Path, columns: Sequence[str] | None = None, incomplete: bool = False
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows by their columns' names; an empty one for a row that lacks fields, where that is allowed.

    Raises:
      ConfigError: see `read_lines`, or a line has other fields than the header.
    """
    lines = read_lines(path)
    header = columns or next(lines, (0, ""))[1].removeprefix("\ufeff").split("\t")
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
    """A text field.

    Raises:
      ConfigError: it is missing, is no text, or cannot be written as UTF-8.
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
    """A whole number.

    Raises:
      ConfigError: it is missing or something else.
    """
    value = row.get(name)
    if type(value) is not int:
        raise place.error(
            f"field {name!r} must be a whole number, found {json.dumps(value)}"
            if name in row
            else f"no field {name!r}"
        )
    return value
