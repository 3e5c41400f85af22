"""Makes a SeqIO task of the user's own files, by settings alone (`OwnTask`)."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import seqio

from tasks.errors import TaskError
from tasks.features import OUTPUT_FEATURES, TOKENIZE
from tasks.own.rows import open_rows
from tasks.own.scoring import scoring
from tasks.own.source import OwnSource
from tasks.own.templates import Template
from tasks.sources.bad_lines import tolerated
from tasks.sources.lines import Place
from tasks.sources.official_files import Files, distinct
from tasks.text import postprocessors

HUB = "hf://datasets/"


def own_task(
    name: str,
    data_dir: str | None,
    *,
    files: Mapping[str, str | None],
    inputs: str,
    target: str,
    labels: Mapping[str, str] | None,
    answers: str | None,
    metrics: Sequence[str],
    tsv_quotes: bool | None,
    id: str | None,
    fetch: Callable[[str], pathlib.Path],
) -> seqio.Task:
    """Task that the settings describe; it is not registered.

    Args:
      name: of the task.
      data_dir: what file names are relative to; None: the working directory.
      files: name of each split's file, or None where there is none.
      inputs, target, labels, answers, metrics, tsv_quotes, id: the fields of `OwnTask` in a run's settings.
      fetch: gives the local copy of a file of the hub.

    Raises:
      TaskError: no files, a file that is neither local nor of the hub, a template without columns, a metric that does
        not fit, labels and answers both, two labels with one word, a name that SeqIO refuses.
    """
    names = {split: file for split, file in files.items() if file is not None}
    if not names:
        raise TaskError("OWN_TASK has no files: set OwnTask.train and OwnTask.validation")
    for split, file in names.items():
        if "://" in file and not file.startswith(HUB):
            raise TaskError(
                f"OwnTask.{split}: {file} is neither a path nor {HUB}...: set it to a copy of the file"
            )
    if labels and answers:
        raise TaskError("OwnTask.labels and OwnTask.answers are both set: set one to None")
    words = tuple((labels or {}).values())
    _check_labels(labels or {})
    postprocess, metric_fns = scoring(metrics, words, answers is not None)
    official = OwnFiles(
        folder=".",
        suite=".",
        names=names,
        inputs=Template(inputs, "OwnTask.inputs"),
        target=Template(target, "OwnTask.target"),
        labels=labels,
        answers=answers,
        tsv_quotes=tsv_quotes,
        id=id,
        numbers=postprocess is postprocessors.score,
        fetch=fetch,
    )
    try:
        return seqio.Task(
            name,
            source=OwnSource(official, pathlib.Path(data_dir or ".").expanduser()),
            preprocessors=TOKENIZE,
            output_features=OUTPUT_FEATURES,
            postprocess_fn=postprocess,
            metric_fns=metric_fns,
        )
    except ValueError as error:
        raise TaskError(f"MIXTURE_OR_TASK_NAME {name!r}: use letters, digits, _, . and : alone") from error


@dataclasses.dataclass(frozen=True)
class OwnFiles(Files):
    """The files of `OwnTask`; a row becomes `inputs` and `targets`, with its number or id.

    Attributes:
      inputs, target: what the columns of a row are put into.
      labels: word of each label; None: targets are free text.
      answers: column with all right answers, if there is one: the first is the target.
      tsv_quotes: see `OwnTask`.
      id: column that tells rows apart, if there is one.
      numbers: whether targets are numbers.
      fetch: gives the local copy of a file of the hub.
    """

    inputs: Template
    target: Template
    labels: Mapping[str, str] | None
    answers: str | None
    tsv_quotes: bool | None
    id: str | None
    numbers: bool
    fetch: Callable[[str], pathlib.Path]

    def file(self, data_dir: pathlib.Path, split: str) -> pathlib.Path:
        """Path of the file of a split; one of the hub is fetched.

        Raises:
          TaskError: it is not there.
        """
        name = str(self.names[split])
        if name.startswith(HUB):
            return self.fetch(name)
        path = data_dir / name
        if not path.is_file():
            raise TaskError(
                f"OwnTask.{split}: {path} is not there; set it to a file of yours, or set DATA_DIR"
            )
        return path

    def remedy(self, path: pathlib.Path, split: str) -> str:
        lacks = "has no row behind its header" if path.read_bytes().strip() else "is empty"
        return f"it {lacks}: set OwnTask.{split} to a file with rows"

    def examples(self, path: pathlib.Path, split: str) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Place and example of each row, checked.

        Raises:
          TaskError: the file lacks a column or has one twice, or a row is malformed, has an empty text, an unknown
            label or the `id` of another.
        """
        rows = self._examples(path)
        return rows if self.id is None else distinct(rows)

    def _examples(self, path: pathlib.Path) -> Iterator[tuple[Place, dict[str, Any]]]:
        targets = self.target.columns if self.answers is None else [self.answers]
        wanted = [*self.inputs.columns, *targets, *filter(None, [self.id])]
        columns, rows = open_rows(path, self.tsv_quotes, wanted)
        _check_columns(path, columns, wanted)
        for number, (place, row) in enumerate(rows):
            with tolerated():
                cells = _Cells(row, place)
                example: dict[str, Any] = {"idx": number} if self.id is None else {"id": cells[self.id]}
                example["inputs"] = self.inputs.fill(cells)
                if self.answers is not None:
                    example["answers"] = cells.texts(self.answers)
                    yield place, {**example, "targets": example["answers"][0]}
                else:
                    yield place, {**example, "targets": self._target(cells, place)}

    def _target(self, cells: _Cells, place: Place) -> str:
        target = self.target.fill(cells)
        if self.labels is None:
            if self.numbers and postprocessors.finite_number(target) is None:
                raise place.error(f"target {target!r:.80} is no number, and OwnTask.metrics compare numbers")
            return target
        if target not in self.labels:
            known = ", ".join(map(repr, self.labels))
            raise place.error(f"label {target!r} is none of OwnTask.labels {known}")
        return self.labels[target]


class _Cells(Mapping[str, str]):
    """A row's columns as text that is not empty: numbers, true and false as JSON writes them."""

    def __init__(self, row: Mapping[str, Any], place: Place) -> None:
        self._row, self._place = row, place

    def __getitem__(self, column: str) -> str:
        return self._text(column, self._value(column))

    def texts(self, column: str) -> list[str]:
        """A column that holds a list of texts, or one text."""
        value = self._value(column)
        if value == []:
            raise self._place.error(f"column {column!r} is empty")
        return [self._text(column, part) for part in (value if isinstance(value, list) else [value])]

    def _value(self, column: str) -> Any:
        if column not in self._row:
            raise self._place.error(f"no column {column!r}, only {', '.join(self._row) or 'an empty object'}")
        return self._row[column]

    def _text(self, column: str, value: Any) -> str:
        text = json.dumps(value) if isinstance(value, bool | int | float) else value
        if not isinstance(text, str):
            raise self._place.error(
                f"column {column!r} must be text or a number, found {json.dumps(value)[:80]}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise self._place.error(f"column {column!r} is {text}, no finite number")
        if not text.strip():
            raise self._place.error(f"column {column!r} is empty")
        if "\0" in text:
            raise self._place.error(f"column {column!r} holds a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self._place.error(f"column {column!r} holds half a surrogate pair") from error
        return text

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


def _check_labels(labels: Mapping[str, str]) -> None:
    label_of = dict[str, str]()
    for label, word in labels.items():
        if word in label_of:
            raise TaskError(
                f"OwnTask.labels has {word!r} for both {label_of[word]!r} and {label!r}: give each label a word of "
                "its own, or make one label of them in the files"
            )
        label_of[word] = label


def _check_columns(path: pathlib.Path, header: Collection[str], wanted: Collection[str]) -> None:
    for column in wanted:
        if header and column not in header:
            raise TaskError(
                f"{path} has no column {column!r}, only {', '.join(header)}: correct OwnTask.inputs, target or id"
            )
    repeated = [column for column, count in collections.Counter(header).items() if count > 1]
    if repeated:
        raise TaskError(f"{path} has two columns {repeated[0]!r}: rename one")
