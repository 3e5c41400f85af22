"""SeqIO sources of raw examples: TFDS, or the official files of a directory."""

from __future__ import annotations

import functools
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from tasks.errors import TaskError
from tasks.sources.official_files import Files
from tasks.sources.splits import parse

BLOCK = 1024  # examples that pass from Python to TensorFlow at once: one at a time is slow


def directory(data_dir: str | pathlib.Path) -> pathlib.Path:
    """DATA_DIR as a path.

    Raises:
      TaskError: it is no directory.
    """
    path = pathlib.Path(data_dir).expanduser()
    if not path.is_dir():
        raise TaskError(
            f"DATA_DIR {data_dir} is not a directory; set it to the one that holds the official files"
        )
    return path


class TfdsSource(seqio.TfdsDataSource):
    """Reads TFDS; `at` gives the same examples from official files."""

    def __init__(
        self, tfds_name: str, official: Files, tfds_splits: Mapping[str, str | None] | None = None
    ) -> None:
        """Names both sources.

        Args:
          tfds_name: name and version, `super_glue/cb:1.0.2`.
          official: the official files of the same data.
          tfds_splits: TFDS's name of a split, where it differs; None where TFDS lacks the split.
        """
        super().__init__(tfds_name=tfds_name)
        self._official = official
        names = {name: name for name in official.names} | dict(tfds_splits or {})
        self._names = {name: tfds_split for name, tfds_split in names.items() if tfds_split is not None}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, known without asking TFDS, which may be out of reach."""
        return tuple(self._names)

    # SeqIO's own map of splits knows no slices.
    def get_dataset(self, split: str = "train", *args: Any, **kwargs: Any) -> tf.data.Dataset:
        return super().get_dataset(self._in_tfds(split), *args, **kwargs)

    def num_input_examples(self, split: str) -> int | None:
        return super().num_input_examples(self._in_tfds(split))

    def list_shards(self, split: str) -> Sequence[str]:
        return super().list_shards(self._in_tfds(split))

    def _in_tfds(self, split: str) -> str:
        """Text of a split, slices and sums included, with TFDS's names."""
        return re.sub(r"(^|\+)\s*([\w-]+)", lambda part: part[1] + self._names.get(part[2], part[2]), split)

    def wanted(self, split: str) -> str:
        """Name of the file to put under DATA_DIR in place of TFDS, and where it is had."""
        return self._official.wanted(parse(split, self._official.names)[0].name)

    def at(self, data_dir: str | pathlib.Path) -> FileSource:
        """The same data read from files under `data_dir`."""
        return FileSource(self._official, directory(data_dir))

    def files(self, split: str) -> list[pathlib.Path]:
        """Files that a fill should be remembered by: none, since TFDS keeps versions."""
        return []


class FileSource(seqio.DataSource):
    """Reads the official files of one task, in the order of the file.

    A file is read and checked as a whole before its first example is given.
    """

    supports_arbitrary_sharding = False

    def __init__(self, official: Files, data_dir: pathlib.Path) -> None:
        super().__init__(splits=official.names)
        self._official = official
        self._data_dir = data_dir
        self._read = functools.cache(lambda split: official.read(official.file(data_dir, split), split))

    def at(self, data_dir: str | pathlib.Path) -> FileSource:
        return type(self)(self._official, directory(data_dir))

    def files(self, split: str) -> list[pathlib.Path]:
        """The files that hold a split."""
        parts = parse(split, self._official.names)
        names = dict.fromkeys(part.name for part in parts)
        return [self._official.file(self._data_dir, name) for name in names]

    def list_shards(self, split: str) -> Sequence[str]:
        return [split]

    def num_input_examples(self, split: str) -> int | None:
        return len(self._examples(split))

    def get_dataset(self, split: str = "train", *_: Any, **__: Any) -> tf.data.Dataset:
        """All examples in file order; a SeqIO task shuffles by itself.

        Raises:
          TaskError: the split, a file or one of its lines is wrong.
        """
        return as_dataset(self._examples(split))

    def _examples(self, split: str) -> list[dict[str, Any]]:
        parts = [(part, self._read(part.name)) for part in parse(split, self._official.names)]
        return [examples[i] for part, examples in parts for i in part.range(len(examples))]


class FilesOnly(seqio.DataSource):
    """Source of a set that TFDS lacks: DATA_DIR has to be set."""

    supports_arbitrary_sharding = False

    def __init__(self, official: Files) -> None:
        super().__init__(splits=tuple(official.names))
        self._official = official

    def at(self, data_dir: str | pathlib.Path) -> FileSource:
        """The set, read from files under `data_dir`."""
        return FileSource(self._official, directory(data_dir))

    def list_shards(self, split: str) -> Sequence[str]:
        return [split]

    def num_input_examples(self, split: str) -> None:
        return None

    def get_dataset(self, split: str = "train", *_: Any, **__: Any) -> tf.data.Dataset:
        """Raises TaskError: what to download and where to put it."""
        wanted = self._official.wanted(parse(split, self._official.names)[0].name)
        raise TaskError(f"this data set is not in TFDS: put {wanted} into a directory and set DATA_DIR to it")


def as_dataset(examples: Iterable[dict[str, Any]]) -> tf.data.Dataset:
    """Examples as TFDS gives them: texts, numbers, lists of texts, dictionaries of these.

    They are gone through for the first one, and again for each pass over the data set.
    """
    first = next(iter(examples), None)
    if first is None:
        raise TaskError("the split holds no examples: choose a larger part")
    specs = {name: _spec(name, value) for name, value in first.items()}

    def blocks() -> Iterator[dict[str, Any]]:
        waiting = iter(examples)
        while block := list(itertools.islice(waiting, BLOCK)):
            yield {name: _column([example[name] for example in block], spec) for name, spec in specs.items()}

    return tf.data.Dataset.from_generator(blocks, output_signature=specs).unbatch()


def _spec(name: str, value: Any) -> Any:
    """The type of a block of values like this one."""
    if isinstance(value, dict):
        return {inner: _spec(inner, part) for inner, part in value.items()}
    if isinstance(value, list):
        return tf.RaggedTensorSpec([None, None], tf.string, ragged_rank=1)
    if name == "label" and isinstance(value, int):
        return tf.TensorSpec([None], tf.int64)
    return tf.TensorSpec([None], {str: tf.string, int: tf.int32, float: tf.float32}[type(value)])


def _column(values: list[Any], spec: Any) -> Any:
    if isinstance(spec, dict):
        return {name: _column([value[name] for value in values], part) for name, part in spec.items()}
    if isinstance(spec, tf.RaggedTensorSpec):
        flat = tf.constant(list(itertools.chain.from_iterable(values)), tf.string)
        return tf.RaggedTensor.from_row_lengths(flat, [len(value) for value in values])
    return tf.constant(values, spec.dtype)
