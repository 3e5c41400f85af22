"""The user's own files as a SeqIO source."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tasks.sources.seqio_sources import FileSource, as_dataset
from tasks.sources.splits import Part, parse


class OwnSource(FileSource):
    """Reads files while their examples are used, so that memory does not grow with them, but for .csv and .tsv files,
    which are read whole."""

    def num_input_examples(self, split: str) -> None:
        """None: the rows have to be read to know."""
        return None

    def files(self, split: str) -> list[pathlib.Path]:
        """The local files that hold a split: those of the hub are asked for once, and not compared again."""
        names = dict.fromkeys(part.name for part in parse(split, self._official.names))
        local = [name for name in names if "://" not in str(self._official.names[name])]
        return [self._official.file(self._data_dir, name) for name in local]

    def get_dataset(self, split: str = "train", *_: Any, **__: Any) -> tf.data.Dataset:
        """All examples in file order.

        Raises:
          TaskError: the split, a file or (of the others: while reading) its first row is wrong.
        """
        return as_dataset(_Rows(self, parse(split, self._official.names)))

    def rows(self, part: Part) -> Iterator[dict[str, Any]]:
        """Examples of a part of a split.

        Raises:
          TaskError: the file or one of its rows is wrong, it has none, or the part reaches past its end.
        """
        if not (part.start or part.stop):
            return self._whole(part.name)
        kept = part.range(sum(1 for _ in self._whole(part.name)))
        return itertools.islice(self._whole(part.name), kept.start, kept.stop)

    def _whole(self, split: str) -> Iterator[dict[str, Any]]:
        path = self._official.file(self._data_dir, split)
        empty = True
        for _, example in self._official.examples(path, split):
            empty = False
            yield example
        if empty:
            raise self._official.holds_nothing(path, split)


class _Rows:
    """The examples of some parts, anew from each iterator."""

    def __init__(self, source: OwnSource, parts: list[Part]) -> None:
        self._source, self._parts = source, parts

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return itertools.chain.from_iterable(map(self._source.rows, self._parts))
