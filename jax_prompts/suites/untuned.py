"""Cells in which nothing is tuned: the bare model is scored as other cells are; prompt design is a row of such."""

from __future__ import annotations

import dataclasses
from typing import Any

from jax_prompts import model_dir, partition
from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.quantize import frozen_count
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.data import protocols
from jax_prompts.data.cuts import count_cuts
from jax_prompts.data.layout import text_length
from jax_prompts.data.prompt_design import check_design, demonstrations_of
from jax_prompts.data.roles import open_roles, split_of
from jax_prompts.evaluate import open_evaluation
from jax_prompts.records import Records
from jax_prompts.runs import EvalRun, TrainRun
from jax_prompts.scoring.best_tracker import BestTracker, choosing_tasks
from jax_prompts.scoring.summary import summarize
from jax_prompts.scoring.task_evaluator import check_metrics, report
from jax_prompts.stopwatch import Stopwatch
from jax_prompts.task_check import check_task


def evaluate_untuned(run: TrainRun, config_text: str) -> dict[str, Any]:
    """The summary of a run without steps; leaves a run's files in MODEL_DIR, but for a prompt and checkpoints.

    Raises:
      ConfigError, RunError: as `evaluate.evaluate_run`; MODEL_DIR holds another run.
    """
    stopwatch, data = Stopwatch(), run.data
    with model_dir.claimed(run, config_text) as folder, Records(folder, config_text) as records:
        opened = open_evaluation(EvalRun(None, run.model, data, decoding=run.decoding))
        caches, evaluator = opened.caches[data.task], opened.evaluator(data.task)
        check_metrics(run.training.metric, caches, ranked=data.rank_classification)
        tested = [cache for _, cache in open_roles(data, opened.vocabulary, ["test"]).get("test", [])]
        cuts = count_cuts({"validation": caches, "test": tested}, text_length(data, 0))
        records.truncate(-1)
        (scores,) = evaluator([opened.params], None)
        records.evaluation(0, split_of(data, "validation"), {0: scores})
        found, tests = report(scores), {}
        if tested:
            (test_scores,) = dataclasses.replace(evaluator, caches=tested)([opened.params], None)
            records.member_predictions("test", {0: test_scores})
            tests = {0: report(test_scores)}
        tracker = BestTracker.fresh(run.training.metric, 1, choosing_tasks(caches))
        tracker.update(0, {0: found})
        prompt = folder.address_of(folder.path / "prompt.safetensors")  # that there is not
        summary = {
            "task": data.task,
            **summarize(run, tracker, found["metrics"], tests, [run.training.seed], [prompt]),
            "cut": cuts,
            **demonstrations_of(caches),
            "tuned_parameters": 0,
            "frozen_parameters": frozen_count(opened.params),
            "wall_seconds": stopwatch.seconds()["wall_seconds"],
            "last_step": 0,
        }
        records.write("summary.json", summary)
        records.flush()
    return summary


def count_untuned(run: TrainRun) -> dict[str, int]:
    """Parameters of such a cell; checks its settings, and reads no weights and no data.

    Raises:
      ConfigError: settings that cannot work.
    """
    model_dir.check_usable(run.model_dir)
    check_task(run)
    protocols.check(run.data)
    check_design(run.data, bert=False)
    text_length(run.data, 0)
    frozen = partition.parameter_count(abstract_weights(make_model(run.model)))
    return {"tuned_parameters": 0, "frozen_parameters": frozen}
