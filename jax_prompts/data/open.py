"""Opens the token caches of a task or mixture, and has those made that are missing.

A mixture's cache holds `mixture.json` alone: its tasks, their rates, and whether they choose the prompt. Files under
DATA_DIR are compared by content.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable

from jax_prompts.config import Data
from jax_prompts.data import cache_bucket, data_dir
from jax_prompts.data.cache import TokenCache, Unusable
from jax_prompts.data.cache_key import Directory, cache_directory, check_cache_dir
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.display import log
from jax_prompts.errors import RunError
from jax_prompts.storage.home import local_root


def open_caches(data: Data, split: str, vocabulary: Vocabulary | WordPiece) -> list[tuple[float, TokenCache]]:
    """The caches of a task (one) or mixture (several) with their mixing rates; those missing are made.

    Raises:
      ConfigError: unknown task, split or module; absent DATA_DIR; bad data file; no examples.
      RunError: a cache is missing and cannot be made: no TensorFlow, no network, full disk.
    """
    data_dir.check(data.data_dir)
    check_cache_dir(data.cache_dir)
    directory = cache_directory(data, split, vocabulary)

    def brought(name: str) -> pathlib.Path:
        if not cache_bucket.bring(directory(name), data.cache_dir):
            raise Unusable("")
        return directory(name)

    def opened(name: str, chooses: bool = True) -> TokenCache:
        cache = TokenCache(brought(name), data.task_module, chooses)
        _compare_source(cache, data)
        return cache

    # A second turn reads what the first one made; a third, what another process put in its place meanwhile.
    for _ in range(3):
        name = data.task
        try:
            caches = []
            for name, rate, chooses in _composition(brought(data.task), data.task):
                caches.append((rate, opened(name, chooses)))
            for _, cache in caches:
                source = data.data_dir or cache.source["kind"]
                log(f"{cache.task} {cache.split}: {len(cache)} examples of {source} in {cache.directory}")
                if cache.misread_targets:
                    log(
                        f"warning: {cache.misread_targets} targets of {cache.task} {cache.split} do not read back "
                        "from their tokens, so that no answer equals them"
                    )
                if cache.bad_lines["count"]:
                    log(
                        f"{cache.bad_lines['count']} bad lines left out: {'; '.join(cache.bad_lines['first'])}"
                    )
            return caches
        except Unusable as reason:
            if str(reason):
                log(f"token cache {directory(name)}: {reason}; making it again")
        _fill(data, split, vocabulary, directory, opened)
    raise RunError(f"token cache {directory(name)} does not stay readable: check its disk, or set CACHE_DIR")


def _composition(directory: pathlib.Path, name: str) -> list[tuple[str, float, bool]]:
    """Tasks of a mixture, their rates, and whether they choose the prompt; a name without `mixture.json` is a task."""
    try:
        parts = json.loads((directory / "mixture.json").read_text())
        return [(task, float(rate), bool(chooses)) for task, rate, chooses in parts]
    except FileNotFoundError:
        return [(name, 1.0, True)]
    except (OSError, ValueError, TypeError) as error:
        raise Unusable("mixture.json is damaged") from error


def _compare_source(cache: TokenCache, data: Data) -> None:
    """Raises Unusable if the cache was not made from the files in DATA_DIR; without it, takes what there is."""
    if data.data_dir is None and data.own_task is None:
        return
    if cache.source["kind"] == "tfds":
        raise Unusable("made from TFDS, not from DATA_DIR")
    for recorded in cache.source["files"]:
        file = os.path.join(data.data_dir or "", recorded["path"])
        if data.data_dir is None and not os.path.exists(file):
            continue  # a cache may be used where the files are not
        if not data_dir.is_as_recorded(data.data_dir, recorded):
            raise Unusable(f"made from another {file}")


def _fill(
    data: Data,
    split: str,
    vocabulary: Vocabulary | WordPiece,
    directory: Directory,
    opened: Callable[[str], TokenCache],
) -> None:
    try:
        from jax_prompts.data import fill
    except ModuleNotFoundError as error:
        raise RunError(
            f"no token cache of {data.task} {split} in {data.cache_dir or local_root()}, and making it needs "
            f"{error.name}: run `t5x cache --gin_file=...` where TensorFlow is installed, and copy it here"
        ) from error

    def usable(name: str) -> bool:
        try:
            opened(name)
        except Unusable:
            return False
        return True

    with data_dir.on_this_machine(data) as here:
        fill.fill(here, split, vocabulary, directory, usable)
