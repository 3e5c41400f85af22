"""Answers of `t5x infer` in a bucket, and lines that are read from one.

Objects do not grow. So answers are kept in a file of this machine, as those to a file are, and become the object when
all are there. Until then `NAME.partial` beside it, written every five minutes and when a run is stopped, is what
`--resume` goes on from on another machine; on the same one nothing is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from jax_prompts.errors import ConfigError, system_reason
from jax_prompts.inference.output import Output, Row, partial_output, write_errors
from jax_prompts.storage import buckets
from jax_prompts.storage.home import local_root

_SECONDS = 300.0  # between two times that the partial file is written
_PARTS = (".partial", ".partial.json")


@contextlib.contextmanager
def copied_input(url: str) -> Iterator[pathlib.Path]:
    """A copy of an object, while the block runs.

    Raises:
      ConfigError: there is no such object, or it cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder, "input")
        try:
            buckets.download(url, place, buckets.facts(url))
        except OSError as error:
            absent = isinstance(error, FileNotFoundError)
            reason = "there is no such object" if absent else system_reason(error)
            raise ConfigError(f"--input {url} cannot be read: {reason}") from error
        yield place


@contextlib.contextmanager
def bucket_output(url: str, source: BinaryIO, *, resume: bool) -> Iterator[Output]:
    """The output of a run in a bucket, checked before anything is computed; `source` is what the run reads.

    Raises:
      ConfigError: as `open_output`.
      RunError: the bucket cannot be read or written.
    """
    parent, _, name = url.rpartition("/")
    if not name:
        raise ConfigError(f"--output {url} is a folder: name a file in it")
    folder = local_root() / "infer" / hashlib.sha256(url.encode()).hexdigest()[:12]
    partial = folder / f"{name}.partial"
    with contextlib.ExitStack() as closing:
        with write_errors(url):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).unlink(missing_ok=True)  # of one that was killed while it was taken to the bucket
            there = buckets.stored(parent)
            left = [f"{url}.partial"] * (partial.name in there) + [str(partial)] * partial.exists()
            if left and not resume:
                raise ConfigError(
                    f"{' and '.join(left)} hold answers of a run that ended early: --resume goes on behind them; "
                    "remove them to begin again"
                )
            if resume and name in there and not left:
                raise ConfigError(f"--output {url} is finished: leave out --resume to answer all lines again")
            _bring(there, parent, folder, name)
            closing.enter_context(buckets.named(folder, parent))
            inner = partial_output(folder / name, url, source, closing, resume=resume)
        output = _InBucket(inner, folder / name, url)
        closing.callback(output.close)
        yield output


def _bring(there: Mapping[str, buckets.Stored], parent: str, folder: pathlib.Path, name: str) -> None:
    """Copies the partial file of a run that ended on another machine, where that has come farther."""
    partial = f"{name}.partial"
    here = (folder / partial).stat().st_size if (folder / partial).exists() else 0
    if partial in there and there[partial].size > here:
        for part in _PARTS:
            if (known := there.get(name + part)) is not None:
                buckets.download(f"{parent}/{name}{part}", folder / (name + part), known)


class _InBucket(Output):
    """A file of this machine that is taken to a bucket."""

    def __init__(self, inner: Output, path: pathlib.Path, url: str) -> None:
        self._inner, self._path, self._url = inner, path, url
        self._published, self._finished = time.monotonic(), False

    @property
    def hint(self) -> str:
        return self._inner.hint.replace(str(self._path), self._url)

    def agree(self, settings: Mapping[str, Any]) -> None:
        self._inner.agree(settings)
        with write_errors(self._url):
            self._upload(".partial.json")  # whether it can be written is known before anything is computed

    def standing(self, asked: Sequence[Row]) -> list[Row] | None:
        return self._inner.standing(asked)

    def write(self, rows: Sequence[Row]) -> None:
        self._inner.write(rows)
        if time.monotonic() - self._published > _SECONDS:
            with write_errors(self._url, lambda: self.hint):
                self._publish()

    def finish(self) -> None:
        with write_errors(self._url, lambda: self.hint):
            self._publish()
        self._inner.finish()
        with write_errors(self._url):
            buckets.upload(self._path, self._url)
            for part in _PARTS:
                buckets.remove(self._url + part)
            self._path.unlink()
        self._finished = True

    def close(self) -> None:
        """Takes what an unfinished run has answered to the bucket; nothing where it has answered nothing."""
        if self._finished:
            return
        with contextlib.suppress(OSError):  # what ends the run is said
            if self.hint:
                self._publish()
            else:
                buckets.remove(f"{self._url}.partial.json")

    def _publish(self) -> None:
        for part in _PARTS:
            self._upload(part)
        self._published = time.monotonic()

    def _upload(self, part: str) -> None:
        file = self._path.with_name(self._path.name + part)
        if file.exists():
            buckets.upload(file, self._url + part)
