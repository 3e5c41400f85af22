"""The files that answers to a task's split are written to, named as T5X's: in a directory, or a folder of a bucket.

`TASK-MODE.jsonl-00000-of-00004` takes its name when all of its rows are there; beside it then stands an empty
`....COMPLETED`, as T5X has it. Until then its rows lie, some batches at a time, as files of
`tmp-TASK-MODE-00000-of-00004`, each written whole, so that a run that was stopped goes on behind them.
`TASK-MODE.settings.json` says what all of them were made with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.storage import files, json_text, places
from jax_prompts.storage.directories import check_possible

_MAX_BYTES = 1 << 32  # of rows
_MAX_SETTINGS_BYTES = 1 << 24
_COMPLETED = ".COMPLETED"
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Shards:
    """The shards of one task's answers with one prompt.

    Attributes:
      folder: path or URL.
      task: its name.
      mode: `predict` or `score`.
      count: how many there are.
    """

    folder: str
    task: str
    mode: str
    count: int

    def name(self, number: int) -> str:
        """The file of a shard."""
        return f"{self.task}-{self.mode}.jsonl-{number:05}-of-{self.count:05}"

    def address(self, number: int) -> str:
        """A shard as a user finds it."""
        return places.below(self.folder, self.name(number))

    def finished(self, rows: Mapping[int, int]) -> set[int]:
        """Shards that are there whole: with all rows, and the marker, which is written last but for what goes.

        Args:
          rows: how many each of the shards in question has, by number.

        Raises:
          ConfigError, RunError: the folder cannot be one, or be read.
        """
        with _errors(self.folder):
            there = places.names(self.folder)
            marked = [n for n in rows if {self.name(n), self.name(n) + _COMPLETED} <= there]
            damaged = {n for n in marked if _whole(self.address(n), rows[n]) is None}
        for number in sorted(damaged):
            log(f"{self.address(number)} is damaged: it has not {rows[number]} rows, and is made again")
        return {*marked} - damaged

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Says what the shards are made with, or that those that are there were made with the same.

        Raises:
          ConfigError: they were made with something else, or nothing says with what.
          RunError: the folder cannot be written.
        """
        file = places.below(self.folder, f"{self.task}-{self.mode}.settings.json")
        text = json_text.dumps({**settings, "num_shards": self.count}, indent=1) + "\n"
        with _errors(self.folder):
            there = places.read(file, _MAX_SETTINGS_BYTES)
            if there is None:
                start = f"{self.task}-{self.mode}.jsonl-"
                if found := [name for name in places.names(self.folder) if name.startswith(start)]:
                    raise ConfigError(
                        f"INFER_OUTPUT_DIR {self.folder} holds {min(found)}, and no {self.task}-{self.mode}"
                        ".settings.json that says how it was made: choose another INFER_OUTPUT_DIR"
                    )
                if places.write(file, text, replace=False):
                    return
                there = places.read(file, _MAX_SETTINGS_BYTES)  # of another process, which was quicker
        try:
            before, now = json.loads(there or b""), json.loads(text)
            others = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{file} is damaged: choose another INFER_OUTPUT_DIR, or remove this one"
            ) from error
        if others:
            raise ConfigError(
                f"INFER_OUTPUT_DIR {self.folder} holds answers of {self.task} that were made with another "
                f"{' and '.join(others)}: give the same, or choose another INFER_OUTPUT_DIR"
            )

    def chunks(self, number: int, rows: Sequence[int]) -> set[int]:
        """Chunks of a shard that are there whole, of which each has so many rows. Raises as `finished`."""
        with _errors(self.folder):
            there = places.names(self._chunks(number))
            return {
                chunk
                for chunk, count in enumerate(rows)
                if f"{chunk:05}" in there and _whole(self._chunk(number, chunk), count) is not None
            }

    def write_chunk(self, number: int, chunk: int, rows: Sequence[Row]) -> None:
        """Writes some rows of a shard. Raises RunError where that fails."""
        text = "".join(json_text.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with _errors(self.folder):
            places.write(self._chunk(number, chunk), text)

    def finish(self, number: int, rows: Sequence[int]) -> None:
        """Makes a shard of its chunks, of which each has so many rows; nothing where another process has made it.

        Raises:
          RunError: that fails.
        """
        with _errors(self.folder):
            parts = {chunk: _whole(self._chunk(number, chunk), count) for chunk, count in enumerate(rows)}
            gone = [self._chunk(number, chunk) for chunk, part in parts.items() if part is None]
            if gone and not self.finished({number: sum(rows)}):
                raise RunError(f"{gone[0]} is gone or damaged: start the command again, which makes it again")
            if not gone:
                places.write(self.address(number), b"".join(part for part in parts.values() if part))
                places.write(self.address(number) + _COMPLETED, b"")
            places.remove_folder(self._chunks(number))

    def _chunk(self, number: int, chunk: int) -> str:
        return places.below(self._chunks(number), f"{chunk:05}")

    def _chunks(self, number: int) -> str:
        return places.below(self.folder, f"tmp-{self.task}-{self.mode}-{number:05}-of-{self.count:05}")


def _whole(address: str, rows: int) -> bytes | None:
    """The lines of a file; None where there is none, or it has another number of them."""
    content = places.read(address, _MAX_BYTES)
    lines = content is not None and content.count(b"\n") == rows and content[-1:] in (b"", b"\n")
    return content if lines else None


def check_folder(folder: str) -> None:
    """Looks whether INFER_OUTPUT_DIR can be; makes nothing.

    Raises:
      ConfigError: it is no directory.
      RunError: it cannot be made or reached.
    """
    place = files.place_of(folder)
    with _errors(folder):
        if isinstance(place, str):
            places.names(place)
        else:
            check_possible(place)


def begin(folder: str, config_text: str) -> None:
    """Makes INFER_OUTPUT_DIR, with all settings of the run in it. Raises RunError where it cannot be written."""
    with _errors(folder):
        places.write(places.below(folder, "infer.gin"), config_text)


@contextlib.contextmanager
def _errors(folder: str) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as error:
        raise ConfigError(
            f"INFER_OUTPUT_DIR {folder} is no directory ({system_reason(error)}): choose another"
        ) from error
    except OSError as error:
        absent = isinstance(error, FileNotFoundError) and "://" in folder
        reason = "there is no such bucket" if absent else system_reason(error)
        raise RunError(
            f"INFER_OUTPUT_DIR {folder} cannot be used ({reason}): once it can, the same command goes on behind what "
            "is there"
        ) from error
