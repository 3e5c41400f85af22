"""Every prompt on every task, without tuning there (EPT, appendix A.2, figure 10, right)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jax_prompts.errors import ConfigError
from jax_prompts.evaluate import evaluate_run
from jax_prompts.prompts.prompt_paths import prompt_paths
from jax_prompts.runs import EvalRun
from jax_prompts.scoring.best_tracker import selection_metric
from jax_prompts.studies.prompt_inputs import NamedPrompt, read_prompts


def transfer(run: EvalRun, config_text: str) -> dict[str, Any]:
    """Scores of all prompts of `run.prompt_files` on all its tasks, beside ratios to each task's own prompts.

    A task's examples are answered once for all prompts of a length together. What is written, and how an evaluation
    that was stopped goes on, is as of `t5x eval`.

    Raises:
      ConfigError: PROMPT_FILES that names no prompts by task, prompts of different kinds or widths; as `evaluate_run`.
      RunError, Preempted: as `evaluate_run`.
    """
    if not isinstance(run.prompt_files, dict):
        raise ConfigError(
            "PROMPT_FILES names no tasks: set it to {'TASK': ('FILE',), ...}, each with its own prompts"
        )
    own = {task: prompt_paths("PROMPT_FILES", patterns) for task, patterns in run.prompt_files.items()}
    files = list(dict.fromkeys(file for each in own.values() for file in each))
    if not files:
        raise ConfigError("PROMPT_FILES names no prompts: set it to {'TASK': ('FILE',), ...}")
    prompts = read_prompts(files, leaves_alone=True)
    check_comparable(prompts)
    tasks = dict.fromkeys(own, tuple(files))
    reports = evaluate_run(dataclasses.replace(run, prompt_files=tasks), config_text)["tasks"]
    return {
        "study": "transfer",
        "model": run.model.name,
        "role": run.role,
        "output_dir": run.output_dir,
        "prompts": [
            {**prompt.described(), "own": [task for task in own if prompt.file in own[task]]}
            for prompt in prompts
        ],
        "tasks": [_of_task(task, reports[task], files, own[task]) for task in own],
    }


def check_comparable(prompts: Sequence[NamedPrompt]) -> None:
    """Raises ConfigError where prompts differ in kind or width: one model reads one sort alone."""
    first, *others = [each for each in prompts if len(each.prompt_PD)] or prompts
    for other in others:
        for what, of_first, of_other in (
            ("kind", first.metadata.prompt_kind, other.metadata.prompt_kind),
            ("width", first.prompt_PD.shape[1], other.prompt_PD.shape[1]),
        ):
            if of_first != of_other:
                raise ConfigError(
                    f"{first.file} has {what} {of_first} and {other.file} {what} {of_other}: "
                    "transfer prompts of one kind and one base model"
                )


def ratios(scores: Sequence[float | None], own: Sequence[float | None]) -> list[float | None]:
    """Each score over the mean of the task's own; None where one of them is missing or that mean is not above 0."""
    known = [score for score in own if score is not None]
    mean = statistics.fmean(known) if known else 0.0
    return [None if score is None or mean <= 0 else score / mean for score in scores]


def _of_task(
    task: str, report: Mapping[str, Any], files: Sequence[str], own: Sequence[str]
) -> dict[str, Any]:
    chosen = {file: selection_metric(report["metrics"][file], None) for file in files}
    scores = {file: value if value == value else None for file, (value, _) in chosen.items()}
    higher = all(better for _, better in chosen.values())
    return {
        "task": task,
        "split": report["split"],
        "examples": report["examples"],
        "higher_is_better": higher,
        "scores": list(scores.values()),
        "ratios": ratios(list(scores.values()), [scores[file] for file in own]) if higher else None,
        "metrics": [report["metrics"][file] for file in files],
    }
