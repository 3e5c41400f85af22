"""Statistics of every task: where its text comes from, how much there is, and how it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_prompts.config import Data
from jax_prompts.data.open import open_caches
from jax_prompts.data.task_errors import task_errors_as_config_errors
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError, nearest

NO_CUT = 2**24  # tokens: longer than any text, so that lengths are those of the whole text


@task_errors_as_config_errors()
def describe_tasks(
    names: Sequence[str],
    data_dir: str | None,
    vocabulary: str | None,
    lengths: Mapping[str, int | None] | None = None,
) -> dict[str, Any]:
    """`{"tasks": [...], "mixtures": {name: tasks}}`.

    A task has its `task`, `forms` (names of the same data in another form), `source`, `labels`, `metrics` and
    `splits`: for each what was counted, or `missing` and why. Lengths are in tokens, end of sentence included.
    Token caches are made and kept as for a run.

    Args:
      names: of the tasks to count, wherever their data is; none: all, those counted whose files are in `data_dir`.
      data_dir: official files.
      vocabulary: SentencePiece model; without it nothing is counted.
      lengths: of TASK_FEATURE_LENGTHS, to count the `inputs` and `targets` that it cuts; None: those are not counted.

    Raises:
      ConfigError: an unknown task, no such vocabulary, or `data_dir` without `vocabulary`.
      RunError: no TensorFlow; the vocabulary cannot be read.
    """
    if data_dir is not None and vocabulary is None:
        raise ConfigError(
            "--data_dir is counted in tokens: add --vocabulary=sentencepiece.model, or asset:micro"
        )
    pieces = None if vocabulary is None else Vocabulary(vocabulary)
    try:
        from jax_prompts.data import fill  # noqa: F401  (it keeps TensorFlow quiet while that is imported)
        from tasks import catalogue
    except ModuleNotFoundError as error:
        raise RunError(f"tasks are listed where {error.name} is installed") from error
    known = catalogue.tasks_by_name()
    for name in names:
        if name not in known:
            raise ConfigError(
                f"tasks.registry registers no task {name}; did you mean {nearest(name, known)}? "
                "Tasks of OWN_TASK and of other modules are counted by t5x cache"
            )
    rows = []
    for name in names or [name for name, facts in known.items() if facts["form_of"] is None]:
        row = known[name]
        counted = {}
        for split in row["splits"]:
            if pieces is None:
                counted[split] = {"missing": "give --vocabulary to count"}
            elif not row["examples"]:
                counted[split] = {"missing": "rows are as long as a run asks for"}
            elif names or (data_dir is not None and catalogue.has_files(name, data_dir, split)):
                counted[split] = _count(name, split, data_dir, pieces, lengths or {})
            else:
                counted[split] = {"missing": "no files under --data_dir"}
        rows.append(
            {**{key: row[key] for key in ("task", "forms", "source", "labels", "metrics")}, "splits": counted}
        )
    return {"tasks": rows, "mixtures": {} if names else catalogue.mixtures_by_name()}


def _count(
    task: str, split: str, data_dir: str | None, vocabulary: Vocabulary, lengths: Mapping[str, int | None]
) -> dict[str, Any]:
    uncut = {"inputs": NO_CUT, "targets": NO_CUT}
    data = Data(task, "tasks.registry", uncut, batch_size=1, data_dir=data_dir)
    try:
        ((_, cache),) = open_caches(data, split, vocabulary)
    except (ConfigError, RunError) as error:
        log(f"{task} {split}: {error}")
        return {"missing": str(error)}
    inputs, targets = cache.rows(range(len(cache)))
    counts = {
        label: cache.label_counts.get(label, 0) for label in [*(cache.labels or ()), *cache.label_counts]
    }
    return {
        "examples": len(cache),
        "labels": counts,
        "inputs": _summary(inputs.lengths_B, lengths.get("inputs")),
        "targets": _summary(targets.lengths_B, lengths.get("targets")),
    }


def _summary(lengths_B: np.ndarray, limit: int | None) -> dict[str, float]:
    """`p99`: the length that 99 % of the rows do not exceed; `cut`: how many exceed `limit`, where it is given."""
    cut = {} if limit is None else {"cut": int((lengths_B > limit).sum())}
    return cut | {
        "mean": float(np.mean(lengths_B)),
        "p99": int(np.percentile(lengths_B, 99, method="inverted_cdf")),
    }
