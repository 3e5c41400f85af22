"""Statistics of every task: where its text comes from, how much there is, and how it is scored."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_prompts.config import Data
from jax_prompts.data.open import open_caches
from jax_prompts.data.task_errors import task_errors_as_config_errors
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError, nearest, printable

HIDDEN = "hidden"  # rows whose label the owners of the data keep, in place of the text that stands for it
NO_CUT = 2**24  # tokens: longer than any text, so that lengths are those of the whole text


@task_errors_as_config_errors()
def describe_tasks(
    patterns: Sequence[str],
    data_dir: str | None,
    vocabulary: str | None,
    lengths: Mapping[str, int | None] | None = None,
    families: Sequence[str] = (),
) -> dict[str, Any]:
    """`{"tasks": [...], "mixtures": {name: tasks}}`.

    A task has its `task`, `family`, `forms` (names of the same data in another form), `source`, `labels`, `metrics` and
    `splits`: for each what was counted, or `missing` and why. Lengths are in tokens, end of sentence included; rows
    without a label count as `hidden`. Token caches are made and kept as for a run.

    Args:
      patterns: see `task_names`; tasks that are named in full are counted wherever their data is, others where their
        files are in `data_dir`.
      data_dir: official files.
      vocabulary: SentencePiece model; without it nothing is counted.
      lengths: of TASK_FEATURE_LENGTHS, to count the `inputs` and `targets` that it cuts; None: those are not counted.
      families: see `task_names`.

    Raises:
      ConfigError: an unknown task or family, no such vocabulary, or `data_dir` without `vocabulary`.
      RunError: no TensorFlow; the vocabulary cannot be read.
    """
    if data_dir is not None and vocabulary is None:
        raise ConfigError(
            "--data_dir is counted in tokens: add --vocabulary=sentencepiece.model, or asset:micro"
        )
    pieces = None if vocabulary is None else Vocabulary(vocabulary)
    catalogue = _catalogue()
    known, mixtures = catalogue.tasks_by_name(), catalogue.mixtures_by_name()
    chosen, rows = _chosen(known, mixtures, patterns, families), []
    for row in (known[name] for name in chosen if name in known):
        name, counted = row["task"], {}
        for split in row["splits"]:
            if pieces is None:
                counted[split] = {"missing": "give --vocabulary to count"}
            elif not row["examples"]:
                counted[split] = {"missing": "rows are as long as a run asks for"}
            elif name in patterns or (data_dir is not None and catalogue.has_files(name, data_dir, split)):
                counted[split] = _count(name, split, data_dir, pieces, lengths or {})
            else:
                counted[split] = {"missing": "no files under --data_dir"}
        shown = ("task", "family", "forms", "source", "labels", "metrics")
        rows.append({**{key: row[key] for key in shown}, "splits": counted})
    return {
        "tasks": rows,
        "mixtures": {name: mixtures[name]["tasks"] for name in chosen if name in mixtures},
    }


def task_names(patterns: Sequence[str], families: Sequence[str] = ()) -> list[str]:
    """Names of tasks, then of mixtures. Forms of a task that is among them are left out, unless named in full.

    Args:
      patterns: names, or patterns such as `super_glue_*`, of which one has to fit; none: all.
      families: modules of `tasks` that register them; none: all.

    Raises:
      ConfigError: an unknown family, or a pattern that nothing fits.
      RunError: no TensorFlow.
    """
    catalogue = _catalogue()
    return _chosen(catalogue.tasks_by_name(), catalogue.mixtures_by_name(), patterns, families)


def _catalogue() -> Any:
    try:
        from jax_prompts.data import fill  # noqa: F401  (it keeps TensorFlow quiet while that is imported)
        from tasks import catalogue
    except ModuleNotFoundError as error:
        raise RunError(f"tasks are listed where {error.name} is installed") from error
    return catalogue


def _chosen(
    tasks: Mapping[str, Any], mixtures: Mapping[str, Any], patterns: Sequence[str], families: Sequence[str]
) -> list[str]:
    every = {**tasks, **mixtures}
    known = sorted({facts["family"] for facts in every.values()})
    for family in families:
        if family not in known:
            raise ConfigError(f"--family {family} is none of the families of tasks: {', '.join(known)}")
    names = [name for name, facts in every.items() if not families or facts["family"] in families]
    chosen: dict[str, None] = {}
    for pattern in patterns or ["*"]:
        found = fnmatch.filter(names, pattern)
        if not found:
            where = f" of the family {' or '.join(families)}" if families else ""
            near = nearest(re.sub(r"[*?\[\]!]", "", pattern), names)
            raise ConfigError(
                f"tasks.registry registers no task {printable(pattern)}{where}; did you mean {near}? "
                "Tasks of OWN_TASK and of other modules are counted by t5x cache"
            )
        chosen |= dict.fromkeys(found)
    return [name for name in chosen if name in patterns or every[name].get("form_of") not in chosen]


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
    from tasks.text.preprocessors import NO_LABEL

    counts = {
        HIDDEN if label == NO_LABEL else label: cache.label_counts.get(label, 0)
        for label in [*(cache.labels or ()), *cache.label_counts]
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
