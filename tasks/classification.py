"""How the tasks of GLUE and SuperGLUE that answer with a label's name are registered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import seqio

from tasks import metrics
from tasks.features import OUTPUT_FEATURES
from tasks.files import Table
from tasks.postprocessors import label_id
from tasks.preprocessors import label_text, remove_first_token, segment_text
from tasks.sources import TfdsSource


def register(
    task_name: str,
    *,
    tfds_name: str,
    table: Table,
    name: str,
    fields: Sequence[str],
    pair: tuple[Sequence[str], Sequence[str]],
    label_classes: Sequence[str],
    metric_fns: Sequence[Callable[..., dict[str, float]]] = (metrics.accuracy,),
    forms: Sequence[str] = ("", "taskless_", "bert_"),
) -> None:
    """Registers `task_name`, `taskless_{task_name}` without the task's name, and `bert_{task_name}` for BERT.

    Args:
      task_name: T5's registered name.
      tfds_name: name and version in TFDS.
      table: the official files.
      name, fields, label_classes: see `preprocessors.label_text`.
      pair: the fields of BERT's two segments; the second may be empty.
      metric_fns: of the numbers of gold and predicted classes.
      forms: which of the three, by their prefixes.
    """
    classes = tuple(label_classes)
    text = functools.partial(label_text, name=name, fields=tuple(fields), label_classes=classes)
    segments = functools.partial(segment_text, segments=tuple(map(tuple, pair)), label_classes=classes)
    tokens = (seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim)
    to_text = {"": (text,), "taskless_": (text, remove_first_token), "bert_": (segments,)}
    for prefix in forms:
        seqio.TaskRegistry.add(
            prefix + task_name,
            source=TfdsSource(tfds_name, table),
            preprocessors=[*to_text[prefix], *tokens],
            output_features=OUTPUT_FEATURES,
            postprocess_fn=functools.partial(label_id, label_classes=classes),
            metric_fns=list(metric_fns),
        )
