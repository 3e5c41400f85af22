"""Plain text as a SeqIO source: one paragraph a line, in `.txt`, `.txt.gz` and `.txt.xz` files."""

from __future__ import annotations

import gzip
import itertools
import lzma
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import seqio
import tensorflow as tf

from tasks.errors import TaskError
from tasks.sources.bad_lines import tolerated
from tasks.sources.lines import Place
from tasks.sources.seqio_sources import BLOCK, directory
from tasks.sources.splits import parse

SPLITS = ("train", "validation")
_OPEN: dict[str, Callable[..., Any]] = {".txt": open, ".txt.gz": gzip.open, ".txt.xz": lzma.open}
_VALIDATION_ONE_IN = 100


class TextFiles(seqio.DataSource):
    """Paragraphs of every text file under a directory, in order of path, as examples `{"text": ...}`.

    One paragraph in a hundred, chosen by a hash of its text, is validation: the same on every machine, and a
    paragraph that occurs twice is never on both sides.
    """

    supports_arbitrary_sharding = False

    def __init__(self, data_dir: pathlib.Path | None = None) -> None:
        super().__init__(splits=SPLITS)
        self._data_dir = data_dir

    def at(self, data_dir: str | pathlib.Path) -> TextFiles:
        """The same source over the text files of a directory."""
        return TextFiles(directory(data_dir))

    def files(self, split: str) -> list[pathlib.Path]:
        """The files read; each holds a part of every split.

        Raises:
          TaskError: DATA_DIR is not set or holds no text file.
        """
        if self._data_dir is None:
            raise TaskError(
                "pre-training reads text files: set DATA_DIR to a directory of .txt, .txt.gz or .txt.xz files"
            )
        found = sorted(path for path in self._data_dir.rglob("*.txt*") if _kind(path) and path.is_file())
        if not found:
            raise TaskError(
                f"DATA_DIR {self._data_dir} holds no .txt, .txt.gz or .txt.xz file; one paragraph a line"
            )
        return found

    def list_shards(self, split: str) -> Sequence[str]:
        return [split]

    def get_dataset(self, split: str = "train", *_: Any, **__: Any) -> tf.data.Dataset:
        """Paragraphs in file order.

        Raises:
          TaskError: no such split, no files, or (while reading) a damaged file or a line that is not UTF-8.
        """
        files, parts = self.files(split), parse(split, SPLITS)

        def blocks() -> Iterator[dict[str, list[bytes]]]:
            for part in parts:
                paragraphs = read_paragraphs(files, part.name)
                if part.start or part.stop:
                    kept = part.range(sum(1 for _ in read_paragraphs(files, part.name)))
                    paragraphs = itertools.islice(paragraphs, kept.start, kept.stop)
                while block := list(itertools.islice(paragraphs, BLOCK)):
                    yield {"text": block}

        signature = {"text": tf.TensorSpec([None], tf.string)}
        return tf.data.Dataset.from_generator(blocks, output_signature=signature).unbatch()


def _kind(path: pathlib.Path) -> str | None:
    return next((ending for ending in _OPEN if path.name.endswith(ending)), None)


def read_paragraphs(files: Sequence[pathlib.Path], split: str) -> Iterator[bytes]:
    """Paragraphs of a split, in order of the files.

    Raises:
      TaskError: a damaged file, or a line that is not UTF-8.
    """
    for path in files:
        try:
            with _OPEN[_kind(path) or ""](path, "rb") as lines:
                for number, line in enumerate(lines, start=1):
                    text = line.strip()
                    if text and (zlib.crc32(text) % _VALIDATION_ONE_IN == 0) == (split == "validation"):
                        with tolerated():
                            yield _checked(text, path, number)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise TaskError(f"{path} cannot be read to its end ({error}); replace the file") from error


def _checked(text: bytes, path: pathlib.Path, number: int) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise Place(path, number).error(f"not UTF-8 ({error.reason} at byte {error.start})") from error
    return text
