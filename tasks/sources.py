"""Where raw examples come from: TFDS, or the official files of a directory."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import seqio
import tensorflow as tf

from jax_prompts.config import ConfigError
from tasks.files import Table
from tasks.splits import parse


def directory(data_dir: str | pathlib.Path) -> pathlib.Path:
    """DATA_DIR as a path.

    Raises:
      ConfigError: it is no directory.
    """
    path = pathlib.Path(data_dir).expanduser()
    if not path.is_dir():
        raise ConfigError(
            f"DATA_DIR {data_dir} is not a directory; set it to the one that holds the official files"
        )
    return path


class TfdsSource(seqio.TfdsDataSource):
    """Reads TFDS; `at` gives the same examples from official files."""

    def __init__(self, tfds_name: str, table: Table) -> None:
        """Names both sources.

        Args:
          tfds_name: name and version, `super_glue/cb:1.0.2`.
          table: the official files of the same data.
        """
        super().__init__(tfds_name=tfds_name)
        self._table = table

    @property
    def splits(self) -> tuple[str, ...]:
        """Known without asking TFDS, which may be out of reach."""
        return tuple(self._table.names)

    def at(self, data_dir: str | pathlib.Path) -> FileSource:
        """The same data read from files under `data_dir`."""
        return FileSource(self._table, directory(data_dir))

    def files(self, split: str) -> list[pathlib.Path]:
        """Files that a fill should be remembered by: none, since TFDS keeps versions."""
        return []


class FileSource(seqio.DataSource):
    """Reads the official files of one task, in the order of the file.

    A file is read and checked as a whole before its first example is given.
    """

    supports_arbitrary_sharding = False

    def __init__(self, table: Table, data_dir: pathlib.Path) -> None:
        super().__init__(splits=table.names)
        self._table = table
        self._data_dir = data_dir
        self._read = functools.cache(lambda split: table.read(table.file(data_dir, split), split))

    def at(self, data_dir: str | pathlib.Path) -> FileSource:
        return FileSource(self._table, directory(data_dir))

    def files(self, split: str) -> list[pathlib.Path]:
        """The files that hold a split."""
        parts = parse(split, self._table.names)
        return [self._table.file(self._data_dir, name) for name in dict.fromkeys(part.name for part in parts)]

    def list_shards(self, split: str) -> Sequence[str]:
        return [split]

    def num_input_examples(self, split: str) -> int:
        return len(self._examples(split))

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """All examples in file order; a SeqIO task shuffles by itself.

        Raises:
          ConfigError: the split, a file or one of its lines is wrong.
        """
        examples = self._examples(split)
        kinds = dict.fromkeys(self._table.texts, tf.string) | dict.fromkeys(
            ("idx", *self._table.numbers), tf.int32
        )
        columns = {
            name: tf.constant([example[name] for example in examples], kind)
            for name, kind in (kinds | {"label": tf.int64}).items()
        }
        return tf.data.Dataset.from_tensor_slices(columns)

    def _examples(self, split: str) -> list[dict[str, Any]]:
        parts = [(part, self._read(part.name)) for part in parse(split, self._table.names)]
        return [examples[i] for part, examples in parts for i in part.range(len(examples))]
