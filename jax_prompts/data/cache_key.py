"""Directories of token caches: a key covers all that decides the tokens and can be known without making them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

from jax_prompts.config import Data
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError, system_reason
from jax_prompts.storage.directories import check_possible
from jax_prompts.storage.home import local_root, with_home
from jax_prompts.storage.remote import is_remote

FORMAT = 3  # raise it when a change in cache.py or fill.py makes other tokens or other files
Directory = Callable[[str], pathlib.Path]


def cache_directory(data: Data, split: str, vocabulary: Vocabulary | WordPiece) -> Directory:
    """The function task or mixture name -> directory `TASK-SPLIT-KEY` of its cache.

    The key is of task, split, vocabulary, lengths, the source code of the tasks' package, the settings of a task of
    one's own, verbalizer, and whether targets begin with a sentinel and bad lines are skipped.

    Raises:
      ConfigError: see `code_fingerprint`.
    """
    own = data.own_task and dataclasses.asdict(data.own_task)
    settings = [data.task_feature_lengths, data.verbalizer, own, data.skip_bad_lines, data.sentinel]
    key = [FORMAT, vocabulary.fingerprint, code_fingerprint(data.task_module), *settings]

    return lambda name: keyed_directory(data.cache_dir, name, split, key)


def keyed_directory(cache_dir: str | None, name: str, split: str, key: list[Any]) -> pathlib.Path:
    """The directory of what is made of a task's split with a key, plain JSON."""
    text = json.dumps([name, split, *key], sort_keys=True)
    plain = re.sub(r"[^\w.-]+", "_", f"{name}-{split}").strip("_")
    return cache_root(cache_dir) / f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def cache_root(cache_dir: str | None) -> pathlib.Path:
    """Where caches are kept on this machine: `cache_dir`, of a bucket its copies below `local_root`, else that."""
    if cache_dir is None:
        return local_root()
    if is_remote(cache_dir):
        return local_root() / "buckets" / hashlib.sha256(cache_dir.rstrip("/").encode()).hexdigest()[:12]
    return pathlib.Path(with_home(cache_dir).removeprefix("file://"))


def check_cache_dir(cache_dir: str | None) -> None:
    """Raises ConfigError where no directory can be: CACHE_DIR is a file, or below a file."""
    root = cache_root(cache_dir)
    try:
        check_possible(root, writable=False)  # one that is filled may be read-only
    except OSError as error:
        raise ConfigError(
            f"CACHE_DIR {root} is not a directory and cannot become one ({system_reason(error)}): set it to one, which "
            "is made where it is missing"
        ) from error


def check_module_name(task_module: str) -> None:
    """Raises ConfigError for what names no module."""
    if not all(part.isidentifier() for part in task_module.split(".")):
        raise ConfigError(
            f"MIXTURE_OR_TASK_MODULE {task_module!r} names no module: write it as in an import, such as tasks.registry"
        )


def code_fingerprint(task_module: str) -> str:
    """Hash of every `.py` file of the top-level package that holds `task_module`, none of it imported.

    Raises:
      ConfigError: there is no such package.
    """
    check_module_name(task_module)
    package = task_module.partition(".")[0]
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ConfigError(
            f"MIXTURE_OR_TASK_MODULE {task_module}: no package {package} here; install it, or set PYTHONPATH"
        )
    total = hashlib.sha256()
    for root in map(pathlib.Path, spec.submodule_search_locations or [str(spec.origin)]):
        for file in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            total.update(f"{file.relative_to(root.parent)}:{digest(file)}".encode())
    return total.hexdigest()


def digest(file: pathlib.Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with file.open("rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}
