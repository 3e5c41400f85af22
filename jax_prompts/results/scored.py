"""What one line of a comparison has scored, and what it cost: records, and the score that metrics make."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax_prompts.errors import RunError
from jax_prompts.results.run_files import LARGEST
from jax_prompts.scoring.averages import TaskMetrics
from jax_prompts.scoring.best_tracker import generated, metric_name, selection_metric

COSTS = (
    "wall_seconds", "examples_per_second", "tuned_parameters", "frozen_parameters", "checkpoint_bytes", "prompt_bytes",
)  # fmt: skip
_RANKED = ("rank", "rank_normalized")  # in front of a metric's name, and where predictions hold those answers


@dataclasses.dataclass(frozen=True)
class Member:
    """One prompt.

    Attributes:
      number: in its run; None of a run by itself, whose predictions name none.
      seed: None of a prompt that was only evaluated.
      score: that chose its step, on validation examples; of an evaluation the score itself.
      step: of the score.
      metrics, test_metrics: by task; empty where there are none.
      test: score on test examples.
      interval: 95 %, of the score over examples, as the run has recorded it.
      failed: why it could not go on.
      predictions: files by role (`validation`, `test`, `evaluation`) and task; they may be gone.
    """

    number: int | None
    seed: int | None
    score: float | None
    step: int | None
    metrics: TaskMetrics
    test_metrics: TaskMetrics
    test: float | None
    interval: tuple[float, float] | None
    failed: str | None
    predictions: Mapping[str, Mapping[str, pathlib.Path]]


@dataclasses.dataclass(frozen=True)
class Scored:
    """One line of a comparison: members that differ in their seeds alone.

    Attributes:
      directory: of the run or the evaluation.
      part: what sets it apart in its directory, such as `LEARNING_RATE = 0.1`; empty where it is alone.
      kind: `run`, `sweep` (a group of its members), `evaluation` (of prompts, each alone) or `ensemble`.
      state: `finished`, `unfinished` or `failed`.
      reason: why it failed.
      task: task or mixture.
      metric: what the score is, such as `accuracy`; empty of a run that was not evaluated yet.
      higher: whether a higher score is better.
      settings: as in config.gin, with its own of a sweep; none of an evaluation.
      members: prompts.
      untuned: score of the bare model.
      last_step: of the run; of an unfinished one, of its last evaluation.
      costs: `COSTS`, None where it is not known; of the whole run.
    """

    directory: pathlib.Path
    part: str
    kind: str
    state: str
    reason: str | None
    task: str
    metric: str
    higher: bool
    settings: Mapping[str, str]
    members: Sequence[Member]
    untuned: float | None
    last_step: int | None
    costs: Mapping[str, float | None]

    @property
    def answer_key(self) -> str:
        """Where rows of predictions hold the answers that the score is about."""
        way, slash, _ = self.metric.partition("/")
        return way if slash and way in _RANKED else "prediction"


def metric_of(found: Sequence[TaskMetrics | None], name: str | None) -> tuple[str, bool]:
    """Name of a score, and whether higher is better; no name where nothing was scored yet.

    Args:
      found: metrics by task of each prompt; None of one without.
      name: `Training.metric`.
    """
    metrics = next(filter(None, found), None)
    metric = metric_name(metrics, name) if metrics else name or ""
    return metric, metric != "loss"


def chosen(metrics: TaskMetrics, name: str | None) -> float | None:
    """The score that metrics make, as runs choose by it; None where one has no value, or there are none.

    Args:
      metrics: by task.
      name: `Training.metric`.

    Raises:
      ConfigError: a task has no metric of that name.
    """
    if not metrics or any(value is None for values in metrics.values() for value in values.values()):
        return None
    return finite(selection_metric(metrics, name)[0])


def recorded_interval(
    intervals: Mapping[str, Any], metrics: TaskMetrics, name: str | None
) -> tuple[float, float] | None:
    """The 95 % interval that a run or an evaluation has recorded of its score, where that is one metric of one task.

    Args:
      intervals: `[low, high]` by task and metric.
      metrics: by task.
      name: `Training.metric`.
    """
    if len(metrics) != 1:
        return None
    ((task, values),) = metrics.items()
    single = [name] if name else generated(values)
    low, high = intervals.get(task, {}).get(single[0], (None, None)) if len(single) == 1 else (None, None)
    low, high = finite(low), finite(high)
    return None if low is None or high is None else (low, high)


def there(files: Mapping[str, pathlib.Path | None]) -> dict[str, pathlib.Path]:
    """The files that are not None."""
    return {task: file for task, file in files.items() if file is not None}


def finite(value: Any) -> float | None:
    """A number that can be added to others without an overflow; None of anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number and abs(value) <= LARGEST else None


@contextlib.contextmanager
def damage_named(file: pathlib.Path) -> Iterator[None]:
    """Turns what comes of values that no command has written into a RunError that names the file."""
    try:
        yield
    except (RunError, OSError) as error:
        raise RunError(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        raise RunError(f"{file} holds what no run has written: move its directory away") from error
