"""Official files of flat examples: JSON lines, or TSV with a header."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tasks.sources.bad_lines import tolerated
from tasks.sources.lines import Place, integer_field, json_lines, tab_separated, text_field
from tasks.sources.official_files import UNLABELLED, Files


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
