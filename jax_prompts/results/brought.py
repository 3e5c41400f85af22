"""Folders of runs in buckets, copied to this machine to be read; what is read of none of them stays where it is."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.storage import buckets, copies
from jax_prompts.storage.home import local_root
from jax_prompts.storage.remote import is_remote

_FILE = re.compile(r".*\.(safetensors|json)")
# Of a run: its checkpoints, what others watch it by, a tuned model's weights. Of a suite, beside its cells:
_UNREAD = re.compile(r"(.*/)?((checkpoints|tensorboard|wandb)/.*|model/model[^/]*\.safetensors|run\.lock)")
_BESIDE_CELLS = ("groups", "claims", "jobs")
_ATTEMPTS = 3  # a run may write while it is read


@contextlib.contextmanager
def on_this_machine(paths: Sequence[str], *, folders_alone: bool = False) -> Iterator[list[str]]:
    """The paths, URLs of folders and files in buckets replaced by copies, which are brought up to date.

    Errors of the block name the bucket, not the copy.

    Args:
      paths: of runs, suites, evaluations, prompts and studies, or above some.
      folders_alone: whether URLs of files stay as they are.

    Raises:
      ConfigError: nothing is there.
      RunError: it cannot be read or copied.
    """
    with contextlib.ExitStack() as stack:
        yield [
            _brought(path, stack)
            if is_remote(path) and not (folders_alone and _FILE.fullmatch(path))
            else path
            for path in paths
        ]


def _brought(url: str, stack: contextlib.ExitStack) -> str:
    root, name = url.rstrip("/"), ""
    if _FILE.fullmatch(root):
        root, _, name = root.rpartition("/")
    mark = hashlib.sha256(root.encode()).hexdigest()[:12]
    folder = local_root() / "brought" / mark / root.partition("://")[2]  # whose last parts name it in tables
    for attempt in range(_ATTEMPTS):
        try:
            copies.update(root, _wanted(url, root, name), folder)
            break
        except RunError:
            if attempt == _ATTEMPTS - 1:
                raise
    log(f"{url} is read as its copy, {folder / name}")
    stack.enter_context(buckets.named(folder, root))
    return str(folder / name)


def _wanted(url: str, root: str, name: str) -> Mapping[str, buckets.Stored]:
    """What is to be copied: of a folder all that is read, of a file the file."""
    found = copies.listed(root, url)
    suites = {each[: cells.end(1)] for each in found if (cells := re.match(r"((?:.*/)?)cells/", each))}
    beside = tuple(f"{suite}{part}/" for suite in suites for part in _BESIDE_CELLS)
    wanted = {
        each: there
        for each, there in found.items()
        if (each == name if name else not (_UNREAD.fullmatch(each) or each.startswith(beside)))
    }
    if not wanted:
        raise ConfigError(
            f"{url} holds nothing: name directories of runs, suites or evaluations, or prompt files"
        )
    return wanted
