"""Registers tasks that answer with a label's name, and finds the labels of a task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio

from tasks import registration
from tasks.metrics.labels import accuracy
from tasks.sources.official_files import Files
from tasks.sources.seqio_sources import FilesOnly, TfdsSource
from tasks.text.postprocessors import label_id
from tasks.text.preprocessors import label_text, segment_text


def label_classes(task: seqio.Task) -> Sequence[str] | None:
    """The texts that a classification task may answer with, as its postprocessor names them; None of other tasks."""
    return getattr(task.postprocessor, "keywords", {}).get("label_classes")


def register(
    task_name: str,
    *,
    family: str,
    tfds_name: str | None,
    table: Files,
    name: str,
    fields: Sequence[str],
    pair: tuple[Sequence[str], Sequence[str]],
    label_classes: Sequence[str],
    metric_fns: Sequence[Callable[..., dict[str, float]]] = (accuracy,),
    forms: Sequence[str] = ("", "bert_"),
    before: Sequence[Callable[..., Any]] = (),
    postprocess: Callable[..., Any] = label_id,
    tfds_splits: Mapping[str, str | None] | None = None,
) -> None:
    """Registers `task_name`, `taskless_{task_name}` without the task's name, and `bert_{task_name}` for BERT.

    Args:
      task_name: T5's registered name.
      family: the name of the module that calls this.
      tfds_name: name and version in TFDS; None where TFDS lacks the set.
      table: the official files.
      name, fields, label_classes: see `preprocessors.label_text`.
      pair: the fields of BERT's two segments; the second may be empty.
      metric_fns: of what `postprocess` makes of gold and prediction.
      forms: "" for the first two, "bert_" for the third.
      before: preprocessors of the raw examples.
      postprocess: a function with a keyword `label_classes`.
      tfds_splits: see `TfdsSource`.
    """
    classes = tuple(label_classes)
    text = functools.partial(label_text, name=name, fields=tuple(fields), label_classes=classes)
    segments = functools.partial(segment_text, segments=tuple(map(tuple, pair)), label_classes=classes)
    for prefix, to_text in {"": text, "bert_": segments}.items():
        if prefix in forms:
            registration.add(
                prefix + task_name,
                TfdsSource(tfds_name, table, tfds_splits) if tfds_name else FilesOnly(table),
                (*before, to_text),
                family=family,
                postprocess_fn=functools.partial(postprocess, label_classes=classes),
                metric_fns=metric_fns,
                taskless=not prefix,
            )
