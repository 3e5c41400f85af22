"""Registers tasks and mixtures, each with its family: the module of `tasks` that does so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio

from tasks.features import OUTPUT_FEATURES, TOKENIZE
from tasks.text.preprocessors import remove_first_token

Preprocessors = Sequence[Callable[..., Any]]
Rate = float | Callable[[seqio.Task], float]

_FAMILIES: dict[str, str] = {}


def family_of(name: str) -> str | None:
    """The family of a task or mixture; None where it was registered elsewhere."""
    return _FAMILIES.get(name)


def add(
    name: str,
    source: seqio.DataSource,
    text: Preprocessors,
    *,
    family: str,
    postprocess_fn: Callable[..., Any] | None = None,
    metric_fns: Sequence[Callable[..., dict[str, float]]] = (),
    taskless: bool = True,
) -> None:
    """Registers `name` in T5's form and, unless told otherwise, `taskless_{name}` without the task's name in front.

    Args:
      name: T5's registered name.
      source: of raw examples.
      text: preprocessors that make `inputs` and `targets`, the task's name being the first word of `inputs`.
      family: the name of the module that calls this.
      postprocess_fn: plain function, or a partial of one with keywords.
      metric_fns: of what it makes of targets and predictions.
      taskless: whether the second form makes sense.
    """
    forms = {"": text, "taskless_": (*text, remove_first_token)} if taskless else {"": text}
    for prefix, preprocessors in forms.items():
        _FAMILIES[prefix + name] = family
        seqio.TaskRegistry.add(
            prefix + name,
            source=source,
            preprocessors=[*preprocessors, *TOKENIZE],
            output_features=OUTPUT_FEATURES,
            postprocess_fn=postprocess_fn,
            metric_fns=list(metric_fns),
        )


def add_objective(name: str, source: seqio.DataSource, objective: Callable[..., Any], *, family: str) -> None:
    """Registers a task of pre-training, whose objective makes tokens of text itself."""
    _FAMILIES[name] = family
    seqio.TaskRegistry.add(name, source=source, preprocessors=[objective], output_features=OUTPUT_FEATURES)


def mix(name: str, rates: Mapping[str, Rate], *, family: str) -> None:
    """Registers a mixture of tasks, each at its rate."""
    _FAMILIES[name] = family
    seqio.MixtureRegistry.add(name, list(rates.items()))
