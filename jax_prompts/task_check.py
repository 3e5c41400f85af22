"""Compares a run's settings with its task before any data is read: its splits, its labels and its metrics."""

from __future__ import annotations

from jax_prompts.data.cache import unchanged
from jax_prompts.data.data_dir import unread
from jax_prompts.display import log
from jax_prompts.runs import TrainRun
from jax_prompts.scoring.best_tracker import check_metric
from jax_prompts.scoring.task_evaluator import metric_names


class _Anything(dict[str, str]):
    """An example of any task: whatever field a postprocessor asks for reads as a text, a number and a list of one."""

    def __missing__(self, field: str) -> str:
        return "1"


def check_task(run: TrainRun) -> list[str]:
    """Names of the run's tasks; none where SeqIO, which knows them, is not installed, which it says.

    Raises:
      ConfigError: a task, split, VERBALIZER or METRIC that is not there.
      RunError: a module of tasks that fails.
    """
    data = run.data
    try:
        from jax_prompts.data.fill import checked_tasks, label_classes
    except ModuleNotFoundError as error:
        log(f"whether there is a task {data.task} is not checked: that needs {error.name}")
        return []
    with unread(data) as here:
        tasks = checked_tasks(here)
    for task in tasks:
        labels = label_classes(task)
        answer = labels[0] if labels else "1"
        example = _Anything(inputs_pretokenized=answer, targets_pretokenized=answer)
        ranked = data.rank_classification and labels is not None
        try:
            names = metric_names(
                task.predict_metric_fns, task.postprocessor or unchanged, 2 * [example], ranked
            )
        except Exception:  # a postprocessor or metric of the user's own, for which no example can be made up
            continue
        check_metric(run.training.metric, task.name, names)
    return [task.name for task in tasks]
