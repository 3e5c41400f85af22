"""Official files of classification sets: one JSON object of rows, with numbers of its own for the labels."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.errors import TaskError
from tasks.sources.bad_lines import tolerated
from tasks.sources.lines import Place, json_document, text_field
from tasks.sources.official_files import Files


@dataclasses.dataclass(frozen=True)
class JsonTable(Files):
    """Files of `{"0": {"text_a": ..., "label": 0}, ...}`; an example has a `text`, a `label` and an `idx`.

    Attributes:
      column: of the text.
      classes: the task's class number of each label, as text; rows with a label of None are left out.
    """

    column: str
    classes: Mapping[str, int | None]

    def examples(self, path: pathlib.Path, split: str) -> Iterator[tuple[Place, dict[str, Any]]]:
        content = json_document(path)
        if not isinstance(content, dict):
            raise TaskError(f"{path}: one JSON object of rows is expected, not {type(content).__name__}")
        for number, (key, row) in enumerate(content.items()):
            place = Place(path, inside=f"entry {key!r}")
            with tolerated():
                label = self._class(row, place)
                if label is not None:
                    yield place, {"idx": number, "text": text_field(row, self.column, place), "label": label}

    def _class(self, row: Any, place: Place) -> int | None:
        if not isinstance(row, dict):
            raise place.error(f"a JSON object is expected, not {type(row).__name__}")
        if "label" not in row:
            raise place.error("no field 'label'")
        label = row["label"]
        if isinstance(label, str | int) and str(label) in self.classes:
            return self.classes[str(label)]
        known = ", ".join(map(json.dumps, self.classes))
        raise place.error(f"label {json.dumps(label)} is none of the set's labels {known}")
