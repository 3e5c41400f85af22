"""MODEL_DIR as a run works in it: the directory itself or, of one in a bucket, a copy of its files on this machine.

Files that grow or belong together are kept on this machine, as those of any run are, and taken to the bucket in an
order: first what is gone is removed there, then what has changed is written, and summary.json, which makes a run a
finished one, last. They are small. Checkpoints, which come after the files that tell of their steps, Orbax writes to
the bucket by itself, every process its part.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

from jax_prompts.distributed.processes import barrier, primary
from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.storage import bucket_lock, buckets
from jax_prompts.storage.home import local_root
from jax_prompts.storage.temporary import final_name

_CHECKPOINTS, _LAST = "checkpoints", "summary.json"
# What no run reads again; of W&B all but the run's name there.
_UNREAD = (f"{_CHECKPOINTS}/", "predictions/", "tensorboard/plugins/", "wandb/run-", "wandb/offline-run-")
_Stamp = tuple[int, int]  # size in bytes and time of a file


class RunFolder:
    """Where one run writes.

    Attributes:
      path: on this machine; of several processes with a bucket each has its own.
      url: of MODEL_DIR in a bucket; None: it is `path`.
    """

    def __init__(
        self, path: pathlib.Path, url: str | None = None, check: Callable[[], None] | None = None
    ) -> None:
        """Args: `path`, `url` of the class; `check` raises where the run has lost MODEL_DIR; None: only to be read."""
        self.path, self.url = path, url and url.rstrip("/")
        self._check = check
        self._there: dict[str, _Stamp] = {}  # of files that the bucket has as they are here

    @property
    def checkpoints(self) -> str:
        """Where checkpoints are kept: path or URL."""
        return str(self.path / _CHECKPOINTS) if self.url is None else f"{self.url}/{_CHECKPOINTS}"

    def address_of(self, file: pathlib.Path) -> str:
        """A file as a user finds it."""
        return str(file) if self.url is None else f"{self.url}/{file.relative_to(self.path)}"

    def steps(self) -> set[int]:
        """Steps of which there are checkpoints, whole or not."""
        if self.url is not None:
            with self._errors():
                names = {name.partition("/")[0] for name in buckets.stored(self.checkpoints)}
        else:
            names = {path.name for path in (self.path / _CHECKPOINTS).glob("*")}
        return {int(name) for name in names if name.isdigit()}

    def publish(self) -> None:
        """Brings the bucket to where this folder is; nothing for a directory. Only the primary process may.

        Raises:
          RunError: the bucket cannot be written, for as long as a run waits, or another run has it.
        """
        if self.url is None or self._check is None:
            return
        self._check()
        with self._errors():
            here = dict(self._files())
            for name in sorted(self._there.keys() - here.keys(), key=lambda name: name != _LAST):
                buckets.remove(f"{self.url}/{name}")
                del self._there[name]
            for name in sorted(here, key=lambda name: (name == _LAST, name)):
                file = self.path / name
                if self._there.get(name) != here[name] and file.exists():  # W&B removes some of its own
                    buckets.upload(file, f"{self.url}/{name}")
                    self._there[name] = here[name]

    def share(self) -> None:
        """Waits until every process is here and has the files that the primary one has written."""
        if primary():
            self.publish()
        barrier("files of the run")
        if self.url is not None and not primary():
            self.fetch()

    def fetch(self) -> None:
        """Copies what a run reads again from the bucket; nothing for a directory.

        Raises:
          RunError: the bucket cannot be read.
        """
        if self.url is None:
            return
        with self._errors():
            for name, there in buckets.stored(self.url).items():
                if name.startswith(_UNREAD) or name == bucket_lock.NAME:
                    continue
                buckets.download(f"{self.url}/{name}", self.path / name, there)
                self._there[name] = _stamp(self.path / name)

    def _files(self) -> Iterator[tuple[str, _Stamp]]:
        for folder, _, names in os.walk(self.path):
            for name in names:
                file = pathlib.Path(folder, name)
                if final_name(name) is None and file.is_file() and not file.is_symlink():
                    yield str(file.relative_to(self.path)), _stamp(file)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise RunError(f"MODEL_DIR {self.url}: something in it was removed by others") from error
        except OSError as error:
            raise RunError(
                f"MODEL_DIR {self.url} could not be brought up to date ({system_reason(error)}): start again "
                "once it can be reached, which goes on from the last checkpoint"
            ) from error


@contextlib.contextmanager
def opened(address: str) -> Iterator[RunFolder]:
    """The folder of a MODEL_DIR in a bucket, locked by the primary process, with what a run reads of it.

    Errors inside the block name the bucket, not the copy.

    Raises:
      OSError: it cannot be locked, or the copy cannot be made.
      RunError: another run has it; it cannot be read.
    """
    check_kind(address)
    buckets.be_patient()
    with contextlib.ExitStack() as stack:
        check: Callable[[], None] | None = None
        if primary():
            check = stack.enter_context(bucket_lock.held(address))
            name = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:12]
            path = local_root() / "runs" / name
            shutil.rmtree(
                path, ignore_errors=True
            )  # of a run that was killed: the bucket says where that stands
            path.mkdir(parents=True)
            stack.callback(shutil.rmtree, path, ignore_errors=True)
        else:
            path = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(buckets.named(path, address))
        folder = RunFolder(path, address, check)
        if primary():
            folder.fetch()
        yield folder


def check_kind(address: str) -> None:
    """Raises ConfigError for a MODEL_DIR that is at a URL of another kind than `gs://`."""
    if not address.startswith("gs://"):
        raise ConfigError(
            f"MODEL_DIR {address} is no directory of this machine and not at gs://: Orbax's checkpoints, and locks, "
            "can be in directories and at gs:// alone; mount it, and give the path, or choose another MODEL_DIR"
        )


def _stamp(file: pathlib.Path) -> _Stamp:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
