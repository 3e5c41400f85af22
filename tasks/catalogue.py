"""Lists the registered tasks and mixtures as plain values, for tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import seqio

import tasks.registry  # noqa: F401
from tasks import registration
from tasks.classification import label_classes
from tasks.errors import TaskError
from tasks.sources.generated import Generated
from tasks.sources.text_files import TextFiles

FORMS = ("taskless_", "bert_")  # the same data in another form


def tasks_by_name() -> dict[str, dict[str, Any]]:
    """Facts of each task that are known without its data: family, source, splits, labels, metrics, other forms."""
    names = _registered_here(seqio.TaskRegistry.names())
    return {name: _facts(seqio.TaskRegistry.get(name), names) for name in names}


def mixtures_by_name() -> dict[str, dict[str, Any]]:
    """The `family` of each mixture, and the names of its `tasks`."""
    return {
        name: {
            "family": registration.family_of(name),
            "tasks": sorted(task.name for task in seqio.MixtureRegistry.get(name).tasks),
        }
        for name in _registered_here(seqio.MixtureRegistry.names())
    }


def has_files(name: str, data_dir: str, split: str) -> bool:
    """Whether the official files of a task's split are under `data_dir`."""
    source = seqio.TaskRegistry.get(name).source
    try:
        return hasattr(source, "at") and bool(source.at(data_dir).files(split))
    except TaskError:
        return False


def _registered_here(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if registration.family_of(name) is not None)


def _facts(task: seqio.Task, names: list[str]) -> dict[str, Any]:
    source = task.source
    plain = next((task.name.removeprefix(form) for form in FORMS if task.name.startswith(form)), "")
    labels = label_classes(task)
    return {
        "task": task.name,
        "family": registration.family_of(task.name),
        "forms": [form + task.name for form in FORMS if form + task.name in names],
        "form_of": plain if plain in names else None,
        "source": _origin(source),
        "splits": list(source.splits or ()),
        "labels": None if labels is None else list(labels),
        "metrics": [getattr(metric, "func", metric).__name__ for metric in task.predict_metric_fns],
        # Plain text is cut into rows of the length a run asks for: it has no examples of its own.
        "examples": not isinstance(source, TextFiles),
    }


def _origin(source: seqio.DataSource) -> str:
    if isinstance(source, seqio.TfdsDataSource):
        return f"TFDS {source.tfds_dataset.name}"
    return "generated" if isinstance(source, Generated) else "files"
