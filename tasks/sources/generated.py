"""A SeqIO source for text that Python generates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import seqio
import tensorflow as tf

from tasks.sources.seqio_sources import BLOCK
from tasks.sources.splits import parse

FEATURES = ("inputs", "targets")


class Generated(seqio.DataSource):
    """Text pairs made by `generate(split)`: needs no files and no network."""

    def __init__(self, generate: Callable[[str], Iterable[dict[str, str]]], sizes: dict[str, int]) -> None:
        """`sizes`: examples in each split."""
        self._generate, self._sizes = generate, sizes
        super().__init__(splits=tuple(sizes), num_input_examples=sizes)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def at(self, data_dir: str) -> Generated:
        """This source itself: generated text does not depend on DATA_DIR."""
        return self

    def files(self, split: str) -> list[str]:
        return []

    def list_shards(self, split: str) -> list[str]:
        return [split]

    def num_input_examples(self, split: str) -> int:
        return sum(len(part.range(self._sizes[part.name])) for part in parse(split, self._sizes))

    def get_dataset(self, split: str = "train", *_: Any, **__: Any) -> tf.data.Dataset:
        """The examples of a split, or of slices of splits, in the order in which they are generated."""

        def examples() -> Iterator[dict[str, str]]:
            for part in parse(split, self._sizes):
                kept = part.range(self._sizes[part.name])
                yield from itertools.islice(self._generate(part.name), kept.start, kept.stop)

        def blocks() -> Iterator[dict[str, list[str]]]:
            rest = examples()
            while block := list(itertools.islice(rest, BLOCK)):
                yield {name: [example[name] for example in block] for name in FEATURES}

        signature = {name: tf.TensorSpec((None,), tf.string) for name in FEATURES}
        return tf.data.Dataset.from_generator(blocks, output_signature=signature).unbatch()
