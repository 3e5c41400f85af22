"""Token caches: what a task makes of one split, tokenised once, then read at random without TensorFlow.

A cache is a directory `TASK-SPLIT-KEY` with `tokens.arrow` (Arrow IPC, memory-mapped) and `info.json`; a
mixture's holds `mixture.json` alone, its tasks and rates. The key covers everything that decides the
tokens and can be known without making them: task, split, vocabulary, lengths, the source code of the
tasks' package, the settings of a task of one's own, verbalizer, and whether bad lines are skipped. Files under
DATA_DIR are compared by content when a cache is opened.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jax_prompts.config import Data
from jax_prompts.data.layout import RaggedTokens
from jax_prompts.data.task_errors import task_errors_as_config_errors
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError

FORMAT = 2  # raise it when a change here or in fill.py makes other tokens or other files
Directory = Callable[[str], pathlib.Path]


class Unusable(Exception):
    """A cache that is absent, damaged, or made from other data files: it has to be made (again)."""


class TokenCache:
    """The examples of one task and split, or (`subset`) some of them.

    Attributes:
      task, split: where they come from.
      index_N: of a subset, its rows' numbers in the whole split; None for all of it.
      labels: the task's class labels as targets spell them, or None.
      label_counts: rows of each label; empty without labels.
      longest_inputs, longest_targets: in tokens, end of sentence included.
      tokens: size and SHA-256 of all tokens.
      source: kind of the source, and the files read with their size and SHA-256.
      bad_lines: how many lines of the files were left out, and the first of them.
    """

    def __init__(self, directory: pathlib.Path, package: str) -> None:
        """Opens a cache.

        Args:
          directory: the cache.
          package: the only package whose functions the cache may name as postprocessor and metrics.

        Raises:
          Unusable: absent or damaged.
        """
        self.directory, self._package = directory, package
        try:
            info = json.loads((directory / "info.json").read_text())
            file = directory / "tokens.arrow"
            if digest(file) != info["tokens"]:
                raise Unusable("tokens.arrow is damaged")
            reader = pa.ipc.open_file(pa.memory_map(str(file)))
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            self.task: str = info["task"]
            self.split: str = info["split"]
            self.index_N: Int[np.ndarray, " N"] | None = None
            self.labels: tuple[str, ...] | None = None if info["labels"] is None else tuple(info["labels"])
            self.label_counts: dict[str, int] = info["label_counts"]
            self.longest_inputs: int = info["longest"]["inputs"]
            self.longest_targets: int = info["longest"]["targets"]
            self.tokens: dict[str, Any] = info["tokens"]
            self.source: dict[str, Any] = info["source"]
            self.bad_lines: dict[str, Any] = info["bad_lines"]
            self._functions: dict[str, Any] = {"postprocess": info["postprocess"], "metrics": info["metrics"]}
        except FileNotFoundError as error:
            raise Unusable("") from error
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise Unusable(f"damaged ({type(error).__name__})") from error
        self._batches = batches
        self._first_rows = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._inputs = [_Lists(batch.column("inputs")) for batch in batches]
        self._targets = [_Lists(batch.column("targets")) for batch in batches]

    def __len__(self) -> int:
        return int(self._first_rows[-1]) if self.index_N is None else len(self.index_N)

    def subset(self, index_K: Int[np.ndarray, " K"]) -> TokenCache:
        """A view of the rows numbered `index_K`, in that order; tokens are shared."""
        view = copy.copy(self)
        view.__dict__.pop("first_rows", None)  # the one property that does not hold for a part
        view.index_N = index_K if self.index_N is None else self.index_N[index_K]
        view.longest_inputs, view.longest_targets = (
            int(np.concatenate([lists.lengths for lists in column])[view.index_N].max(initial=0))
            for column in (self._inputs, self._targets)
        )
        if self.labels is not None:
            view.label_counts = dict(collections.Counter(view.texts("targets_pretokenized")))
        return view

    def texts(self, name: str) -> list[str]:
        """`inputs_pretokenized`, `targets_pretokenized` or `example` (the task's other fields, JSON) of each row."""
        column = pa.chunked_array([batch.column(name) for batch in self._batches])
        return (column if self.index_N is None else column.take(pa.array(self.index_N))).to_pylist()

    @functools.cached_property
    def first_rows(self) -> Int[np.ndarray, " N"]:
        """The first row of each raw example.

        A task may make several rows of one (ReCoRD: one an answer): they follow each other and share their `idx`.
        """
        if not any(field.partition("/")[0] == "idx" for field in self.example(0)):
            return np.arange(len(self))
        texts = self.texts("example")
        return np.flatnonzero([True, *(text != before for before, text in itertools.pairwise(texts))])

    def rows_of(self, examples_K: Int[np.ndarray, " K"]) -> Int[np.ndarray, " N"]:
        """The rows of these raw examples, in rising order."""
        taken = np.zeros(len(self.first_rows), bool)
        taken[examples_K] = True
        return np.flatnonzero(np.repeat(taken, np.diff(self.first_rows, append=len(self))))

    def rows(self, index_B: Sequence[int] | Int[np.ndarray, " B"]) -> tuple[RaggedTokens, RaggedTokens]:
        """Inputs and targets of the examples numbered `index_B`."""
        where = [self._locate(int(index)) for index in index_B]
        return (
            RaggedTokens.of(self._inputs[batch][row] for batch, row in where),
            RaggedTokens.of(self._targets[batch][row] for batch, row in where),
        )

    def example(self, index: int) -> dict[str, Any]:
        """An example without tokens: `inputs_pretokenized`, `targets_pretokenized` and the task's fields."""
        batch, row = self._locate(index)
        text = {
            name: self._batches[batch].column(name)[row].as_py()
            for name in ("inputs_pretokenized", "targets_pretokenized")
        }
        return {**json.loads(self._batches[batch].column("example")[row].as_py()), **text}

    @functools.cached_property
    def postprocess(self) -> Callable[..., Any]:
        """`postprocess(text, example=..., is_target=...)`: a text as the metrics want it.

        Raises:
          RunError: the cache names a function outside the tasks' package, or one that is not there.
        """
        spec = self._functions["postprocess"]
        return _unchanged if spec is None else self._function(spec)

    @functools.cached_property
    def metrics(self) -> list[Callable[..., dict[str, float]]]:
        """Functions `(targets, predictions) -> {name: value}`; none for tasks that have no metric.

        Raises:
          RunError: see `postprocess`.
        """
        return [self._function(spec) for spec in self._functions["metrics"]]

    def _locate(self, index: int) -> tuple[int, int]:
        index = index if self.index_N is None else int(self.index_N[index])
        batch = int(np.searchsorted(self._first_rows, index, side="right")) - 1
        return batch, index - int(self._first_rows[batch])

    def _function(self, spec: dict[str, Any]) -> Callable[..., Any]:
        # A cache may come from elsewhere, so what it names is not trusted to be what was written.
        module, _, name = spec["function"].partition(":")
        if module.partition(".")[0] == self._package:
            with task_errors_as_config_errors():
                function = getattr(importlib.import_module(module), name, None)
            if callable(function) and getattr(function, "__module__", "").partition(".")[0] == self._package:
                return functools.partial(function, **spec["kwargs"])
        raise RunError(
            f"{self.directory / 'info.json'} names {spec['function']}, which is no function of package "
            f"{self._package}: remove this directory, so that the cache is made again"
        )


class _Lists:
    """A list column of one record batch, as views of the mapped file."""

    def __init__(self, column: pa.ListArray) -> None:
        self._values = column.values.to_numpy()
        self._offsets = column.offsets.to_numpy()

    @property
    def lengths(self) -> Int[np.ndarray, " R"]:
        return np.diff(self._offsets)

    def __getitem__(self, row: int) -> Int[np.ndarray, " N"]:
        return self._values[self._offsets[row] : self._offsets[row + 1]]


def open_caches(data: Data, split: str, vocabulary: Vocabulary | WordPiece) -> list[tuple[float, TokenCache]]:
    """The caches of a task (one) or mixture (several) with their mixing rates; those missing are made.

    Raises:
      ConfigError: unknown task, split or module; absent DATA_DIR; bad data file; no examples.
      RunError: a cache is missing and cannot be made: no TensorFlow, no network, full disk.
    """
    if data.data_dir is not None and not pathlib.Path(data.data_dir).expanduser().is_dir():
        raise ConfigError(
            f"DATA_DIR {data.data_dir} is not a directory: set it to where the official files are"
        )
    package = data.task_module.partition(".")[0]
    own = data.own_task and dataclasses.asdict(data.own_task)
    settings = [data.task_feature_lengths, data.verbalizer, own, data.skip_bad_lines]
    key = [FORMAT, vocabulary.fingerprint, code_fingerprint(data.task_module), *settings]

    def directory(name: str) -> pathlib.Path:
        text = json.dumps([name, split, *key], sort_keys=True)
        plain = re.sub(r"[^\w.-]+", "_", f"{name}-{split}").strip("_")
        return cache_root(data.cache_dir) / f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def opened(name: str) -> TokenCache:
        cache = TokenCache(directory(name), package)
        _compare_source(cache, data)
        return cache

    # A second turn reads what the first one made; a third, what another process put in its place meanwhile.
    for _ in range(3):
        name = data.task
        try:
            caches = []
            for name, rate in _composition(directory(data.task), data.task):
                caches.append((rate, opened(name)))
            for _, cache in caches:
                source = data.data_dir or cache.source["kind"]
                log(f"{cache.task} {cache.split}: {len(cache)} examples of {source} in {cache.directory}")
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


def cache_root(cache_dir: str | None) -> pathlib.Path:
    """Where caches are kept: `cache_dir`, else `$JAX_PROMPTS_CACHE`, else `~/.cache/jax_prompts`."""
    return pathlib.Path(
        cache_dir or os.environ.get("JAX_PROMPTS_CACHE") or "~/.cache/jax_prompts"
    ).expanduser()


def code_fingerprint(task_module: str) -> str:
    """Hash of every `.py` file of the top-level package that holds `task_module`, none of it imported.

    Raises:
      ConfigError: there is no such package.
    """
    package = task_module.partition(".")[0]
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
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


def digests(caches: Iterable[TokenCache]) -> dict[str, str]:
    """SHA-256 of the tokens of each task and split."""
    return {f"{cache.task} {cache.split}": cache.tokens["sha256"] for cache in caches}


def _composition(directory: pathlib.Path, name: str) -> list[tuple[str, float]]:
    """Tasks and rates of a mixture; a name without `mixture.json` is a task."""
    try:
        return [(task, float(rate)) for task, rate in json.loads((directory / "mixture.json").read_text())]
    except FileNotFoundError:
        return [(name, 1.0)]
    except (OSError, ValueError, TypeError) as error:
        raise Unusable("mixture.json is damaged") from error


def _compare_source(cache: TokenCache, data: Data) -> None:
    """Raises Unusable if the cache was not made from the files in DATA_DIR; without it, takes what there is."""
    if data.data_dir is None and data.own_task is None:
        return
    if cache.source["kind"] == "tfds":
        raise Unusable("made from TFDS, not from DATA_DIR")
    for recorded in cache.source["files"]:
        file = pathlib.Path(data.data_dir or ".", recorded["path"]).expanduser()
        if data.data_dir is None and not file.exists():
            continue  # a cache may be used where the files are not
        found = {name: recorded[name] for name in ("bytes", "sha256")}
        # The size first: it spares reading large files that cannot be equal.
        if not file.is_file() or file.stat().st_size != found["bytes"] or digest(file) != found:
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
            f"no token cache of {data.task} {split} in {cache_root(data.cache_dir)}, and making it needs "
            f"{error.name}: run `t5x cache --gin_file=...` where TensorFlow is installed, and copy it here"
        ) from error

    def usable(name: str) -> bool:
        try:
            opened(name)
        except Unusable:
            return False
        return True

    fill.fill(data, split, vocabulary, directory, usable)


def _unchanged(text: str, **_: Any) -> str:
    return text
