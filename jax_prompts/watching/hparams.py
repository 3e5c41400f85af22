"""The settings by which people compare runs, and what each member came to, as TensorBoard and W&B show them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax_prompts import sweep
from jax_prompts.errors import printable
from jax_prompts.runs import TrainRun

Value = str | int | float | bool
Settings = dict[str, Value]
_NO_SETTINGS = ("parent", "variants")  # fields that code sets


@dataclasses.dataclass(frozen=True)
class Session:
    """One member of a finished run; of a run by itself the run.

    Attributes:
      name: of its folder below `tensorboard/`.
      settings: what it was trained with.
      metrics: its best score and step, and scores on test examples; empty where it failed before it had any.
    """

    name: str
    settings: Settings
    metrics: dict[str, float]


def of_members(run: TrainRun, steps: int) -> list[Settings]:
    """Of each member the settings that runs are compared by, those in which members of a sweep differ among them.

    Args:
      run: the run.
      steps: of the optimiser; a run that counts epochs learns them from its data.
    """
    found = []
    for number, member in enumerate(sweep.of_members(run)):
        settings = _words(member, steps)
        if run.variants:
            for name, value in sweep.without_seed(run.variants[number].settings).items():
                settings.setdefault(name.rpartition(".")[2].lower(), value)
        found.append({name: _plain(value) for name, value in settings.items() if value is not None})
    return found


def whole(run: TrainRun) -> Settings:
    """Every setting of a run that has a value, by `Class.field`."""
    return {
        name: _plain(value)
        for name, value in _fields(run)
        if value is not None and name.rpartition(".")[2] not in _NO_SETTINGS
    }


def sessions(settings_E: Sequence[Settings], summary: Mapping[str, Any]) -> list[Session]:
    """The members with their scores.

    Args:
      settings_E: `of_members`.
      summary: what summary.json holds.
    """
    single, found = len(settings_E) == 1, []
    for member, (settings, own) in enumerate(zip(settings_E, summary["members"], strict=True)):
        tested = summary.get("test_metrics")
        tests = (tested if single else tested[member]) if tested else None
        metrics = {name: own[name] for name in ("best_metric", "best_step")} | _by_name(tests or {})
        metrics = {name: float(value) for name, value in metrics.items() if value is not None}
        found.append(Session(session_name(None if single else member), settings, metrics))
    return found


def session_name(member: int | None = None) -> str:
    """The folder of a member below `tensorboard/`; None: of a run by itself."""
    return "hparams" if member is None else f"member-{member}"


def _words(run: TrainRun, steps: int) -> dict[str, Any]:
    method, optimizer, data = run.method, run.optimizer, run.data
    settings: dict[str, Any] = {
        "task": data.task,
        "model": run.model.name,
        "method": run.method_name,
        "prompt_length": method.length if method is not None else 0,
        "initializer": type(run.initializer).__name__
        if run.initializer is not None
        else "as the method's paper",
        "optimizer": optimizer.name,
        "learning_rate": optimizer.learning_rate,
        "schedule": optimizer.schedule,
        "weight_decay": optimizer.weight_decay,
        "batch_size": data.batch_size,
        "steps": steps,
        "seed": run.training.seed,
        "dropout_rate": run.model.dropout_rate,
        "protocol": data.protocol,
        "few_shot": data.few_shot,
        "few_shot_per_class": data.few_shot_per_class,
    }
    if dataclasses.is_dataclass(method):
        for field in dataclasses.fields(method):
            if field.name not in ("length", "name", *_NO_SETTINGS):
                settings[f"method.{field.name}"] = getattr(method, field.name)
    return settings


def _by_name(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Metrics on test examples by one name; the task's is left out where there is one, so that tasks share a column."""
    return {
        "/".join(["test", *([task] if len(metrics) > 1 else []), name]): value
        for task, values in metrics.items()
        for name, value in values.items()
    }


def _plain(value: Any) -> Value:
    return value if isinstance(value, bool | int | float) else printable(str(value))


def _fields(settings: Any) -> Iterator[tuple[str, Any]]:
    kind = type(settings).__name__
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if not dataclasses.is_dataclass(value):
            yield f"{kind}.{field.name}", value
        else:
            yield f"{kind}.{field.name}", type(value).__name__
            yield from _fields(value)
