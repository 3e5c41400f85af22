"""Splits as TFDS writes them (`train`, `validation[:2470]`, `train[10%:]+validation`), for files."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

from tasks.errors import TaskError

_PART = re.compile(r"(?P<name>[\w-]+)(\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?")
_BOUND = re.compile(r"(?P<value>-?\d+(\.\d+)?)%?")


@dataclasses.dataclass(frozen=True)
class Part:
    """A contiguous part of one named split; `start` and `stop` as written, empty where left out."""

    name: str
    start: str = ""
    stop: str = ""

    def range(self, size: int) -> range:
        """Numbers of the examples, of a split that holds `size`; a percentage is rounded to the nearest example.

        Raises:
          TaskError: a bound lies outside the split.
        """
        percent = "%" in self.start + self.stop  # one sign counts for both bounds, as in TFDS
        start = _bound(self.start, size, percent) if self.start else 0
        stop = _bound(self.stop, size, percent) if self.stop else size
        if not 0 <= start <= size or not 0 <= stop <= size:
            raise TaskError(f"split {self.name}[{self.start}:{self.stop}] reaches past its {size} examples")
        return range(start, stop)


def parse(split: str, names: Collection[str]) -> list[Part]:
    """The parts of a split, in order.

    Raises:
      TaskError: it is not written as TFDS writes splits, or names a split outside `names`.
    """
    parts = []
    for text in split.split("+"):
        match = _PART.fullmatch(text.strip())
        bounds = [match[key] for key in ("start", "stop") if match[key]] if match else []
        if not match or any(not _BOUND.fullmatch(bound) for bound in bounds):
            raise TaskError(f"split {split!r} cannot be read; write it as train, train[:500] or train[10%:]")
        if match["name"] not in names:
            raise TaskError(f"there is no split {match['name']!r}: use {' or '.join(names)}")
        parts.append(Part(match["name"], match["start"] or "", match["stop"] or ""))
    return parts


def _bound(text: str, size: int, percent: bool) -> int:
    """A bound as an index; below zero it counts from the end, as in Python."""
    match = _BOUND.fullmatch(text)
    assert match is not None  # `parse` let no other text through
    value = float(match["value"])
    index = round(value * size / 100) if percent else int(value)
    return index + size if index < 0 else index
