"""Makes rows of a token cache from a SeqIO task, many at once: one at a time TensorFlow takes most of the time."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import seqio
import tensorflow as tf

from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError
from tasks.features import TOKENIZE
from tasks.text.objectives import NO_TARGET

Columns = Mapping[str, tf.Tensor | tf.RaggedTensor]

TEXTS = ("inputs", "targets")
BATCH_ROWS = 4096  # rows in memory at once: about 16 MB of 1,000 tokens each
SCHEMA = pa.schema(
    {
        "inputs": pa.list_(pa.int32()),
        "targets": pa.list_(pa.int32()),
        "inputs_pretokenized": pa.string(),
        "targets_pretokenized": pa.string(),
        "example": pa.string(),
        "inputs_cut": pa.bool_(),
        "targets_cut": pa.bool_(),
    }
)


def batches(task: seqio.Task, split: str, lengths: Mapping[str, int]) -> tf.data.Dataset:
    """The task's examples, many at once, as text where its last steps only make tokens of it.

    Args:
      task: with the run's vocabulary.
      split: split name, TFDS slices allowed.
      lengths: of `inputs` and `targets`.
    """
    options: dict[str, Any] = {"sequence_length": lengths, "split": split, "shuffle": False, "seed": 0}
    if ends_in_tokens(task):
        task = task.replace(
            preprocessors=_steps(task)[: -len(TOKENIZE)],
            output_features={
                name: dataclasses.replace(
                    feature, vocabulary=seqio.PassThroughVocabulary(1), dtype=tf.string, rank=0, add_eos=False
                )
                for name, feature in task.output_features.items()
            },
        )
        options["trim_output_features"] = False
    return task.get_dataset(**options, try_in_mem_cache=False).ragged_batch(BATCH_ROWS)


def _steps(task: seqio.Task) -> list[Callable[..., Any]]:
    return [step for step in task.preprocessors if not isinstance(step, seqio.CacheDatasetPlaceholder)]


def ends_in_tokens(task: seqio.Task) -> bool:
    """Whether the last steps of a task only make tokens of its texts."""
    features = task.output_features
    return (
        tuple(_steps(task)[-len(TOKENIZE) :]) == TOKENIZE
        and set(features) <= set(TEXTS)
        and all(feature.rank == 1 for feature in features.values())
    )


def rows_of(
    columns: Columns,
    task: seqio.Task,
    vocabulary: Vocabulary | WordPiece,
    lengths: Mapping[str, int],
    begin: Sequence[int] = (),
) -> pa.RecordBatch:
    """One of `batches` as rows of the cache; targets that are made of text here begin with the ids `begin`."""
    columns = dict(columns)
    first = next(iter(columns.values()))
    count = int(first.nrows() if isinstance(first, tf.RaggedTensor) else first.shape[0])
    rows: dict[str, pa.Array] = {}
    for name in TEXTS:
        value, text = columns.pop(name, None), columns.pop(f"{name}_pretokenized", None)
        texts = None if text is None else _plain(text)
        if value is None:
            rows[name], cut = _lists([[]] * count), [False] * count
        elif value.dtype == tf.string:
            texts = _plain(value)
            first_ids = begin if name == "targets" else _begin_ids(vocabulary)
            ids, cut = _tokens(texts, task.output_features[name], vocabulary, lengths[name], first_ids)
            rows[name] = _lists(ids)
        else:
            _check_ids(task.name, name, value, vocabulary)
            ids, cut = value, [False] * count
            if name == "inputs" and (first_ids := _begin_ids(vocabulary)):
                ids, cut = _begun(_plain(value), first_ids, lengths[name])
            rows[name] = _lists(ids)
        rows[f"{name}_cut"] = pa.array(cut, pa.bool_())
        if texts is None:
            texts = [vocabulary.decode(ids) for ids in rows[name].to_pylist()]
        rows[f"{name}_pretokenized"] = pa.array(texts, pa.string())
    rest = {name: _plain(value) for name, value in columns.items()}
    examples = [{name: values[row] for name, values in rest.items()} for row in range(count)]
    rows["example"] = pa.array(map(json.dumps, examples), pa.string())
    return pa.RecordBatch.from_arrays([rows[name] for name in SCHEMA.names], schema=SCHEMA)


def _check_ids(
    task: str, name: str, value: tf.Tensor | tf.RaggedTensor, vocabulary: Vocabulary | WordPiece
) -> None:
    """Raises ConfigError unless the tokens that a task makes by itself are ids of the vocabulary.

    A BERT's targets have NO_TARGET where nothing is predicted.
    """
    if value.shape.rank != 2 or not value.dtype.is_integer:
        raise ConfigError(
            f"{task} makes {name} of {value.dtype.name} with {(value.shape.rank or 1) - 1} axes: make them text, or a "
            "list of token ids"
        )
    ids = value.flat_values if isinstance(value, tf.RaggedTensor) else value
    if not int(tf.size(ids)):
        return
    low, high = int(tf.reduce_min(ids)), int(tf.reduce_max(ids))
    lowest = NO_TARGET if name == "targets" and isinstance(vocabulary, WordPiece) else 0
    if low < lowest or high >= vocabulary.size:
        raise ConfigError(
            f"{task} makes token ids from {low} to {high} in {name}, and the vocabulary has 0 to "
            f"{vocabulary.size - 1}: set VOCABULARY to the one that the task is of"
        )


def _begin_ids(vocabulary: Vocabulary | WordPiece) -> tuple[int, ...]:
    """What a T5Gemma's inputs may begin with; a BERT's features put [CLS] there themselves."""
    return vocabulary.begin_ids if isinstance(vocabulary, Vocabulary) else ()


def _begun(rows: list[list[int]], begin: tuple[int, ...], length: int) -> tuple[list[list[int]], list[bool]]:
    """Tokens that a task makes by itself, after `begin` where it has not put them there; and which were cut.

    Of what is too long the last token stays, its end of sentence.
    """
    whole = [ids if tuple(ids[: len(begin)]) == begin else [*begin, *ids] for ids in rows]
    cut = [len(ids) > length for ids in whole]
    return [[*ids[: length - 1], ids[-1]] if long else ids for ids, long in zip(whole, cut, strict=True)], cut


def _tokens(
    texts: list[str],
    feature: seqio.Feature,
    vocabulary: Vocabulary | WordPiece,
    length: int,
    begin: Sequence[int],
) -> tuple[list[list[int]], list[bool]]:
    """Ids of texts, as SeqIO's `tokenize` and `append_eos_after_trim` make them, after `begin`; and which were cut."""
    own = isinstance(feature.vocabulary, seqio.SentencePieceVocabulary)
    encoded = vocabulary.encode_all(texts) if own else feature.vocabulary.encode_rows(texts)
    end = [feature.vocabulary.eos_id] if feature.add_eos else []
    kept = max(0, length - len(begin) - len(end))
    return [[*begin, *ids[:kept], *end] for ids in encoded], [len(ids) > kept for ids in encoded]


def _lists(rows: list[list[int]] | tf.Tensor | tf.RaggedTensor) -> pa.ListArray:
    if isinstance(rows, list):
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        values = np.fromiter(itertools.chain.from_iterable(rows), np.int32, offsets[-1])
    else:
        ragged = rows if isinstance(rows, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(rows)
        offsets, values = ragged.row_splits.numpy().astype(np.int32), ragged.flat_values.numpy()
    return pa.ListArray.from_arrays(offsets, values.astype(np.int32))


def _plain(value: Any) -> Any:
    """A column of a batch as JSON knows it."""
    if isinstance(value, tf.RaggedTensor):
        value = value.to_list()
    elif hasattr(value, "numpy"):
        value = value.numpy().tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
