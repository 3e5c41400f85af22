"""Where `t5x infer` writes its answers: a stream, or a file that appears when it is whole and survives a kill.

Answers to `FILE` are kept in `FILE.partial`, beside what they were made with in `FILE.partial.json`, until all are
there; then it takes the name `FILE`. With `--resume` a run goes on behind the last chunk that is whole.
"""

from __future__ import annotations

import abc
import contextlib
import io
import json
import os
import pathlib
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.storage import files, json_text
from jax_prompts.storage.file_lock import lock
from jax_prompts.storage.temporary import sync

_MAX_SETTINGS_BYTES = 1 << 26  # a line for each prompt
Row = dict[str, Any]


class Output(abc.ABC):
    """Takes the rows of one chunk after another.

    Attributes:
      hint: how to go on after an end before the last row, for a message; empty where nothing is kept.
    """

    @property
    @abc.abstractmethod
    def hint(self) -> str: ...

    @abc.abstractmethod
    def agree(self, settings: Mapping[str, Any]) -> None:
        """Raises ConfigError unless the answers that are there were made with these settings."""

    @abc.abstractmethod
    def standing(self, asked: Sequence[Row]) -> list[Row] | None:
        """The next rows, where those of all that is asked are there: each with what `asked` has in it; else None.

        Raises:
          ConfigError: a row that answers something else.
        """

    @abc.abstractmethod
    def write(self, rows: Sequence[Row]) -> None:
        """Appends rows. Raises RunError where that fails."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Gives the file its name. Raises ConfigError for rows that nothing asked for, RunError where it fails."""


@contextlib.contextmanager
def open_output(target: str, source: BinaryIO, *, resume: bool) -> Iterator[Output]:
    """The output of a run (`-`: stdout), checked before anything is computed; `source` is what the run reads.

    Raises:
      ConfigError: a file that cannot be, is the input, has another writer or answers of a run that ended early; with
        `resume`, nothing to go on from.
      RunError: a file that cannot be written.
    """
    with contextlib.ExitStack() as closing:
        with write_errors(target):
            output = _opened(target, source, resume, closing)
        yield output


def _opened(target: str, source: BinaryIO, resume: bool, closing: contextlib.ExitStack) -> Output:
    if target == "-":
        _check_other(source, sys.stdout.buffer, "stdout")
        return _Stream(sys.stdout.buffer, "-")
    named = pathlib.Path(target)
    if named.is_dir() or target.endswith(os.sep):
        raise ConfigError(f"--output {target} is a directory: name a file in it")
    if named.exists():
        # Unbuffered: what cannot be written would be tried again, and fail, when the file is closed.
        stream = closing.enter_context(named.open("ab", buffering=0))
        _check_other(source, stream, target)
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):  # a pipe, /dev/null
            if resume:
                raise ConfigError(f"--output {target} keeps nothing that --resume could go on from")
            return _Stream(stream, target)
    path = pathlib.Path(os.path.realpath(target))  # a link goes on leading to the answers
    if not path.parent.is_dir():
        raise ConfigError(f"--output {target}: there is no directory {path.parent}; make it")
    return partial_output(path, target, source, closing, resume=resume)


def partial_output(
    path: pathlib.Path, target: str, source: BinaryIO, closing: contextlib.ExitStack, *, resume: bool
) -> Output:
    """The output that becomes a file of this machine, which a user knows as `target`; closed with `closing`.

    Raises:
      ConfigError: as `open_output`.
      OSError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    if resume and path.exists() and not partial.exists():
        raise ConfigError(f"--output {target} is finished: leave out --resume to answer all lines again")
    file = closing.enter_context(partial.open("a+b", buffering=0))
    if lock(file.fileno()) is False:
        raise ConfigError(f"--output {target} is being written by another run: choose another, or wait")
    status = os.fstat(file.fileno())
    if not partial.exists() or not os.path.samestat(status, partial.stat()):
        raise ConfigError(f"--output {target} was finished by another run just now: choose another")
    _check_other(source, file, str(partial))
    if status.st_size and not resume:
        raise ConfigError(
            f"{partial} holds answers of a run that ended early: --resume goes on behind them; remove it to begin again"
        )
    output = _Partial(path, target, file)
    closing.callback(output.clean)
    return output


class _Partial(Output):
    """A file that takes its name when all answers are in it."""

    def __init__(self, path: pathlib.Path, target: str, file: io.FileIO) -> None:
        self._path, self._target, self._file = path, target, file
        self._partial = path.with_name(path.name + ".partial")
        self._settings = path.with_name(path.name + ".partial.json")
        file.seek(0)
        self._standing = io.BufferedReader(file)
        self._reading = True  # until what is there has been read
        self._rows = 0
        self._kept = True

    @property
    def hint(self) -> str:
        if not os.fstat(self._file.fileno()).st_size:
            return ""
        return f"; what is answered is in {self._partial}, and --resume goes on behind it"

    def agree(self, settings: Mapping[str, Any]) -> None:
        text = json_text.dumps(settings, indent=1) + "\n"
        if not os.fstat(self._file.fileno()).st_size:
            with write_errors(self._target):
                files.write(self._settings, text)
            return
        try:
            there, here = json.loads(files.read(self._settings, _MAX_SETTINGS_BYTES)), json.loads(text)
            others = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{self._settings} does not say what {self._partial} was made with: remove both to begin again"
            ) from error
        if others:
            raise ConfigError(
                f"{self._partial} was made with another {' and '.join(others)}: give the same, or remove it to "
                "begin again"
            )

    def standing(self, asked: Sequence[Row]) -> list[Row] | None:
        if not self._reading:
            return None
        with write_errors(self._target):
            start, rows = self._standing.tell(), list[Row]()
            for expected in asked:
                row = _whole(self._standing.readline())
                if row is None:
                    self._file.truncate(start)
                    self._reading = False
                    return None
                if not expected.items() <= row.items():
                    raise ConfigError(
                        f"{self._partial} was made from another input: its line {self._rows + len(rows) + 1} answers "
                        "something else; give the same, or remove it to begin again"
                    )
                rows.append(row)
        self._rows += len(rows)
        return rows

    def write(self, rows: Sequence[Row]) -> None:
        with write_errors(self._target, lambda: self.hint):
            _append(self._file, rows)
        self._rows += len(rows)

    def finish(self) -> None:
        with write_errors(self._target, lambda: self.hint):
            if self._reading and self._standing.read(1):
                raise ConfigError(
                    f"{self._partial} holds more than the {self._rows} lines of this input: give the one that it was "
                    "made from, or remove it to begin again"
                )
            sync(self._partial)
            os.replace(self._partial, self._path)
            self._kept = False
            self._settings.unlink(missing_ok=True)

    def clean(self) -> None:
        """Leaves nothing where nothing was answered."""
        with contextlib.suppress(OSError):
            if self._kept and not os.fstat(self._file.fileno()).st_size:
                self._settings.unlink(missing_ok=True)
                self._partial.unlink(missing_ok=True)


class _Stream(Output):
    """Stdout, a pipe or a device."""

    hint = ""

    def __init__(self, stream: BinaryIO | io.FileIO, target: str) -> None:
        self._stream, self._target = stream, target

    def agree(self, settings: Mapping[str, Any]) -> None:
        pass

    def standing(self, asked: Sequence[Row]) -> None:
        return None

    def write(self, rows: Sequence[Row]) -> None:
        with write_errors(self._target):
            try:
                _append(self._stream, rows)
            except BrokenPipeError:  # who reads has gone; what is left in the buffer would fail again at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
                raise

    def finish(self) -> None:
        pass


def _append(file: BinaryIO | io.FileIO, rows: Sequence[Row]) -> None:
    left = "".join(json_text.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    while left:
        left = left[file.write(left) :]
    file.flush()


def _whole(line: bytes) -> Row | None:
    """The row of a line; None for one that was not written to its end."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and ("prediction" in row or "error" in row) else None


def _check_other(source: BinaryIO, output: BinaryIO | io.FileIO, name: str) -> None:
    """Raises ConfigError where the output is the file that is read."""
    with contextlib.suppress(io.UnsupportedOperation):  # what a program has put in place of stdin or stdout
        read, written = os.fstat(source.fileno()), os.fstat(output.fileno())
        if stat.S_ISREG(written.st_mode) and os.path.samestat(read, written):
            raise ConfigError(f"--output {name} is the file that --input reads: choose another")


@contextlib.contextmanager
def write_errors(target: str, hint: Callable[[], str] = str) -> Iterator[None]:
    """Turns an OSError into a RunError which says that the output cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise RunError(f"--output {target} cannot be written: {system_reason(error)}{hint()}") from error
