"""Postprocessor and metrics of a task as its module registers it, where a cache cannot name them.

A cache names plain functions of the package of MIXTURE_OR_TASK_MODULE, which are found without SeqIO. Others, such as
those of T5, lambdas and partial ones with arguments by place, are asked of the task itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import seqio

from jax_prompts.config import Data
from jax_prompts.data.fill import POSTPROCESSOR, find_task
from jax_prompts.errors import RunError


@functools.cache
def function_of_task(module: str, task: str, which: str | int) -> Callable[..., Any]:
    """The postprocessor of a registered task (`POSTPROCESSOR`), or one of its metrics by number.

    Raises:
      ConfigError: the module registers no such task.
      RunError: the module cannot be imported, or the task has no such function.
    """
    found = find_task(Data(task=task, task_module=module, task_feature_lengths={}, batch_size=1))
    functions: dict[str | int, Callable[..., Any]] = {}
    if isinstance(found, seqio.Task):
        functions = {POSTPROCESSOR: found.postprocessor, **dict(enumerate(found.predict_metric_fns))}
    if functions.get(which) is None:
        raise RunError(
            f"{task} of {module} has no longer what its token cache says ({which}): remove the cache, so that it is "
            "made again"
        )
    return functions[which]
