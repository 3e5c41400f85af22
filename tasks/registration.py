"""Registers a task in two forms: T5's, and `taskless_` without the task's name in front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import seqio

from tasks.features import OUTPUT_FEATURES, TOKENIZE
from tasks.text.preprocessors import remove_first_token

Preprocessors = Sequence[Callable[..., Any]]


def add(
    name: str,
    source: seqio.DataSource,
    text: Preprocessors,
    *,
    postprocess_fn: Callable[..., Any] | None = None,
    metric_fns: Sequence[Callable[..., dict[str, float]]] = (),
    taskless: bool = True,
) -> None:
    """Registers `name` and, unless told otherwise, `taskless_{name}`.

    Args:
      name: T5's registered name.
      source: of raw examples.
      text: preprocessors that make `inputs` and `targets`, the task's name being the first word of `inputs`.
      postprocess_fn: plain function, or a partial of one with keywords.
      metric_fns: of what it makes of targets and predictions.
      taskless: whether the second form makes sense.
    """
    forms = {"": text, "taskless_": (*text, remove_first_token)} if taskless else {"": text}
    for prefix, preprocessors in forms.items():
        seqio.TaskRegistry.add(
            prefix + name,
            source=source,
            preprocessors=[*preprocessors, *TOKENIZE],
            output_features=OUTPUT_FEATURES,
            postprocess_fn=postprocess_fn,
            metric_fns=list(metric_fns),
        )
