"""Official data files (JSON lines, TSV with a header) as the dictionaries that TFDS makes of them."""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jax_prompts.config import ConfigError

UNLABELLED = -1  # TFDS's class of an example without a label


@dataclasses.dataclass(frozen=True)
class Table:
    """Where the official files of a classification task lie and what a row holds.

    Attributes:
      folder: directory of the files (`CB`).
      suite: directory above it (`superglue`); `DATA_DIR/suite/folder` and `DATA_DIR/folder` will both do.
      names: file of each TFDS split; `.jsonl` and `.tsv` are understood.
      texts: text fields, kept as they are.
      numbers: integer fields, kept.
      labels: what the label field may hold, in order of TFDS's class numbers.
      unlabelled: splits whose rows may lack a label.
      nested: field that holds further fields of a row (WSC's `target`); TFDS has them side by side.
    """

    folder: str
    suite: str
    names: Mapping[str, str]
    texts: tuple[str, ...]
    labels: tuple[Any, ...]
    numbers: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ("test",)
    nested: str | None = None

    def file(self, data_dir: pathlib.Path, split: str) -> pathlib.Path:
        """The file of a split.

        Raises:
          ConfigError: there is none; says where it was looked for.
        """
        tail = pathlib.Path(self.folder, self.names[split])
        paths = [data_dir / self.suite / tail, data_dir / tail]
        for path in paths:
            if path.is_file():
                return path
        raise ConfigError(
            f"DATA_DIR {data_dir} has no {split} file: neither {paths[0]} nor {paths[1]} exists; "
            f"put the official {self.folder} files there"
        )

    def read(self, path: pathlib.Path, split: str) -> list[dict[str, Any]]:
        """Every example of a file, checked.

        Raises:
          ConfigError: the file cannot be read or is empty, or a line is malformed or has a label outside the
            task's classes; names file and line.
        """
        rows = _json_lines if path.suffix == ".jsonl" else _tab_separated
        examples = [
            self._example(row, number, Place(path, line), split)
            for number, (line, row) in enumerate(rows(path))
        ]
        if not examples:
            raise ConfigError(
                f"{path} holds no examples; put the official {split} file of {self.folder} there"
            )
        return examples

    def _example(self, row: dict[str, Any], number: int, place: Place, split: str) -> dict[str, Any]:
        if self.nested is not None:
            inner = row.get(self.nested)
            if not isinstance(inner, dict):
                raise place.error(f"field {self.nested!r} must be an object, found {json.dumps(inner)}")
            row = {**inner, **row}
        # TFDS takes the index from JSON and counts the rows of a TSV.
        numbers = ("idx", *self.numbers) if place.path.suffix == ".jsonl" else self.numbers
        example = {"idx": number} | {name: _text(row, name, place) for name in self.texts}
        example |= {name: _integer(row, name, place) for name in numbers}
        return example | {"label": self._label(row, place, split)}

    def _label(self, row: dict[str, Any], place: Place, split: str) -> int:
        if "label" not in row:
            if split in self.unlabelled:
                return UNLABELLED
            raise place.error("no field 'label'")
        # Compared by text too, since Python takes 1, 1.0 and true for equal.
        for number, label in enumerate(self.labels):
            if row["label"] == label and str(row["label"]) == str(label):
                return number
        classes = ", ".join(json.dumps(label) for label in self.labels)
        raise place.error(f"label {json.dumps(row['label'])} is none of the task's classes {classes}")


@dataclasses.dataclass(frozen=True)
class Place:
    """A line of a file, for messages."""

    path: pathlib.Path
    line: int

    def error(self, reason: str) -> ConfigError:
        return ConfigError(f"{self.path}, line {self.line}: {reason}; correct or remove the line")


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank.

    Raises:
      ConfigError: the file cannot be read or a line is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check DATA_DIR") from error
    # Split at line feeds alone: U+2028 and its kin are part of the text.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, line.removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                raise Place(path, number).error(
                    f"not UTF-8 ({error.reason} at byte {error.start})"
                ) from error


def _json_lines(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Place(path, number).error(f"malformed JSON ({error})") from error
        if not isinstance(row, dict):
            raise Place(path, number).error(f"a JSON object is expected, not {type(row).__name__}")
        yield number, row


def _tab_separated(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = read_lines(path)
    header = next(lines, (0, ""))[1].split("\t")
    for number, line in lines:
        (fields,) = csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE)
        if len(fields) != len(header):
            raise Place(path, number).error(
                f"{len(fields)} tab-separated fields, the header has {len(header)}"
            )
        yield number, dict(zip(header, fields, strict=True))


def _text(row: dict[str, Any], name: str, place: Place) -> str:
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


def _integer(row: dict[str, Any], name: str, place: Place) -> int:
    value = row.get(name)
    if type(value) is not int:
        raise place.error(
            f"field {name!r} must be a whole number, found {json.dumps(value)}"
            if name in row
            else f"no field {name!r}"
        )
    return value
