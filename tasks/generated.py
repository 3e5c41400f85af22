"""A SeqIO source for text that Python generates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import seqio
import tensorflow as tf


class Generated(seqio.DataSource):
    """Text pairs made by `generate(split)`: needs no files and no network."""

    def __init__(self, generate: Callable[[str], Iterable[dict[str, str]]], sizes: dict[str, int]) -> None:
        """`sizes`: examples in each split."""
        self._generate = generate
        super().__init__(splits=tuple(sizes), num_input_examples=sizes)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def at(self, data_dir: str) -> Generated:
        """The same: generated text does not depend on DATA_DIR."""
        return self

    def files(self, split: str) -> list[str]:
        return []

    def list_shards(self, split: str) -> list[str]:
        return [split]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: dict[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        signature = {name: tf.TensorSpec((), tf.string) for name in ("inputs", "targets")}
        dataset = tf.data.Dataset.from_generator(lambda: self._generate(split), output_signature=signature)
        return dataset.repeat(num_epochs)
