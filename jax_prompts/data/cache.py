"""Token caches: what a task makes of one split, tokenised once, then read at random without TensorFlow.

A cache is a directory with `tokens.arrow` (Arrow IPC, memory-mapped) and `info.json`. `cache_key.py` says where it
lies, `fill.py` makes it.
"""

from __future__ import annotations

import collections
import copy
import functools
import importlib
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from jax_prompts.data.cache_key import digest
from jax_prompts.data.layout import RaggedTokens
from jax_prompts.errors import RunError


class Unusable(Exception):
    """A cache that is absent, damaged, or made from other data files: it has to be made (again)."""


class TokenCache:
    """The examples of one task and split, or (`subset`) some of them.

    Attributes:
      task, split: where they come from.
      chooses: whether the task's scores choose the prompt, which those of every task of a mixture need not.
      index_N: of a subset, its rows' numbers in the whole split; None for all of it.
      demonstrations: how many stand in front of its texts (`prompt_design.py`); None where none were asked for.
      labels: the task's class labels as targets spell them, or None.
      label_counts: rows of each label; empty without labels.
      longest_inputs, longest_targets: in tokens, end of sentence included.
      tokens: size and SHA-256 of all tokens.
      source: kind of the source, and the files read with their size and SHA-256.
      misread_targets: how many free texts the vocabulary cannot spell, so that no answer equals them.
      bad_lines: how many lines of the files were left out, and the first of them.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        task_module: str,
        chooses: bool = True,
        index_N: Int[np.ndarray, " N"] | None = None,
    ) -> None:
        """Opens a cache.

        Args:
          directory: the cache.
          task_module: of whose package alone the cache may name functions as postprocessor and metrics.
          chooses: see the class.
          index_N: see the class; of a cache that was made of some rows of a split.

        Raises:
          Unusable: absent or damaged.
        """
        self.directory, self._module, self.chooses = directory, task_module, chooses
        try:
            info = json.loads((directory / "info.json").read_text())
            file = directory / "tokens.arrow"
            if digest(file) != info["tokens"]:
                raise Unusable("tokens.arrow is damaged")
            reader = pa.ipc.open_file(pa.memory_map(str(file)))
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            self.task: str = info["task"]
            self.split: str = info["split"]
            self.demonstrations: dict[str, Any] | None = info.get("demonstrations")
            self.labels: tuple[str, ...] | None = None if info["labels"] is None else tuple(info["labels"])
            self.label_counts: dict[str, int] = info["label_counts"]
            self.longest_inputs: int = info["longest"]["inputs"]
            self.longest_targets: int = info["longest"]["targets"]
            self.tokens: dict[str, Any] = info["tokens"]
            self.source: dict[str, Any] = info["source"]
            self.bad_lines: dict[str, Any] = info["bad_lines"]
            self.misread_targets: int = info["misread_targets"]
            self._functions: dict[str, Any] = {"postprocess": info["postprocess"], "metrics": info["metrics"]}
        except FileNotFoundError as error:
            raise Unusable("") from error
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise Unusable(f"damaged ({type(error).__name__})") from error
        self.index_N = index_N
        self._rows_N: Int[np.ndarray, " N"] | None = None  # of a subset, in the file
        self._batches = batches
        self._first_rows = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._inputs = [_Lists(batch.column("inputs")) for batch in batches]
        self._targets = [_Lists(batch.column("targets")) for batch in batches]

    def __len__(self) -> int:
        return int(self._first_rows[-1]) if self._rows_N is None else len(self._rows_N)

    def subset(self, index_K: Int[np.ndarray, " K"]) -> TokenCache:
        """A view of the rows numbered `index_K`, in that order; tokens are shared."""
        view = copy.copy(self)
        for name in ("first_rows", "input_lengths_N"):  # properties that do not hold for a part
            view.__dict__.pop(name, None)
        view.index_N = index_K if self.index_N is None else self.index_N[index_K]
        view._rows_N = index_K if self._rows_N is None else self._rows_N[index_K]
        view.longest_inputs, view.longest_targets = (
            int(np.concatenate([lists.lengths for lists in column])[view._rows_N].max(initial=0))
            for column in (self._inputs, self._targets)
        )
        if self.labels is not None:
            view.label_counts = dict(collections.Counter(view.texts("targets_pretokenized")))
        return view

    def cut(self, inputs_length: int | None = None) -> dict[str, int]:
        """How many `inputs` and `targets` are cut short, inputs also where they have more than `inputs_length` tokens.

        Counted where a task's last steps are SeqIO's own, that make tokens of texts and cut them.
        """
        cut = {name: self._column(f"{name}_cut") for name in ("inputs", "targets")}
        if inputs_length is not None:
            lengths_N = np.concatenate([lists.lengths for lists in self._inputs])
            cut["inputs"] = cut["inputs"] | (lengths_N > inputs_length)
        chosen = slice(None) if self._rows_N is None else self._rows_N
        return {name: int(cut_N[chosen].sum()) for name, cut_N in cut.items()}

    @functools.cached_property
    def input_lengths_N(self) -> Int[np.ndarray, " N"]:
        """Tokens of each row's inputs, end of sentence included."""
        lengths = np.concatenate([lists.lengths for lists in self._inputs])
        return lengths if self._rows_N is None else lengths[self._rows_N]

    def _column(self, name: str) -> Bool[np.ndarray, " N"]:
        """A column of the whole split."""
        return np.concatenate([batch.column(name).to_numpy(zero_copy_only=False) for batch in self._batches])

    def texts(self, name: str) -> list[str]:
        """`inputs_pretokenized`, `targets_pretokenized` or `example` (the task's other fields, JSON) of each row."""
        column = pa.chunked_array([batch.column(name) for batch in self._batches])
        return (column if self._rows_N is None else column.take(pa.array(self._rows_N))).to_pylist()

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the file's columns."""
        return self._batches[0].schema

    def record_batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """All columns of the file, at most so many `rows` at once."""
        table = pa.Table.from_batches(self._batches)
        for first in range(0, len(self), rows):
            chosen = np.arange(len(self))[first : first + rows]
            part = table.take(pa.array(chosen if self._rows_N is None else self._rows_N[chosen]))
            yield from part.combine_chunks().to_batches()

    @functools.cached_property
    def first_rows(self) -> Int[np.ndarray, " N"]:
        """The first row of each raw example.

        A task may make several rows of one (ReCoRD: one an answer, or for BERT one an entity): they follow each other
        and share their `idx`.
        """
        fields = [field for field in self.example(0) if field.partition("/")[0] == "idx"]
        if not fields:
            return np.arange(len(self))
        numbers = [[example[field] for field in fields] for example in map(json.loads, self.texts("example"))]
        return np.flatnonzero([True, *(now != before for before, now in itertools.pairwise(numbers))])

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
        if spec is None:
            return unchanged
        function = self._function(spec)
        return function if self._package == "tasks" else with_text_of_seqio(function)

    @functools.cached_property
    def metrics(self) -> list[Callable[..., dict[str, float]]]:
        """Functions `(targets, predictions) -> {name: value}`; none for tasks that have no metric.

        Raises:
          RunError: see `postprocess`.
        """
        return [self._function(spec) for spec in self._functions["metrics"]]

    def _locate(self, index: int) -> tuple[int, int]:
        index = index if self._rows_N is None else int(self._rows_N[index])
        batch = int(np.searchsorted(self._first_rows, index, side="right")) - 1
        return batch, index - int(self._first_rows[batch])

    @property
    def _package(self) -> str:
        return self._module.partition(".")[0]

    def _function(self, spec: dict[str, Any]) -> Callable[..., Any]:
        if "of_task" in spec:
            from jax_prompts.data.registered import function_of_task  # with SeqIO, as the module itself

            return function_of_task(self._module, self.task, spec["of_task"])
        # A cache may come from elsewhere, so what it names is not trusted to be what was written.
        module, _, name = spec["function"].partition(":")
        if module.partition(".")[0] == self._package:
            from jax_prompts.data.task_errors import (
                task_errors_as_config_errors,  # tasks, when they are needed
            )

            with task_errors_as_config_errors():
                try:
                    function = getattr(importlib.import_module(module), name, None)
                except ImportError as error:  # such as of what is not installed where caches are read
                    raise RunError(f"{module} cannot be imported ({error}): install what it needs") from error
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


def digests(caches: Iterable[TokenCache]) -> dict[str, str]:
    """SHA-256 of the tokens of each task and split."""
    return {f"{cache.task} {cache.split}": cache.tokens["sha256"] for cache in caches}


class _Text(str):
    """A text that also has what bytes have, which SeqIO's examples hold in its place."""

    __slots__ = ()

    def decode(self, *_: Any, **__: Any) -> str:
        return str(self)


def with_text_of_seqio(postprocess: Callable[..., Any]) -> Callable[..., Any]:
    """A user's postprocessor, given examples whose texts can be decoded, as those that SeqIO gives it have to be."""

    def texts(value: Any) -> Any:
        if isinstance(value, list):
            return [texts(item) for item in value]
        return _Text(value) if isinstance(value, str) else value

    def processed(text: str, **about: Any) -> Any:
        if "example" in about:
            about["example"] = {name: texts(value) for name, value in about["example"].items()}
        return postprocess(text, **about)

    return processed


def unchanged(text: str, **_: Any) -> str:
    """Postprocesses a text that the metrics compare as it is."""
    return text
