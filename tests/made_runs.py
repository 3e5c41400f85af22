"""Runs and evaluations that nothing trained, written by what writes those of real ones."""

import argparse
import pathlib

import numpy as np

from jax_prompts.cli.gin_settings import resolve
from jax_prompts.records import Records
from jax_prompts.run_folder import RunFolder
from jax_prompts.scoring.best_tracker import BestTracker
from jax_prompts.scoring.summary import summarize
from jax_prompts.scoring.task_evaluator import Scores, report
from jax_prompts.sweep import of_members

TASK = "quickstart_reviews"
STEPS = (10, 20)


def right(pattern, copies=1):
    """`right("1101", 2)`: which of eight examples are right."""
    return np.array([character == "1" for character in pattern * copies])


def scores(right_N, intervals=None, wrong="negative"):
    """Scores of answers of which some are right."""
    rows = [
        {
            "index": index,
            "inputs": f"review {index}",
            "targets": "positive",
            "prediction": "positive" if each else wrong,
        }
        for index, each in enumerate(right_N.tolist())
    ]
    accuracy = 100 * float(right_N.mean()) if len(rows) else 0.0
    return Scores({"accuracy": accuracy}, rows, intervals=intervals or {})


def make_run(directory, *rights, bindings=(), test=(), failed=None, finished=True, task=TASK, intervals=None):
    """A run whose members have some answers right at step 20, and none before.

    Args:
      directory: its MODEL_DIR.
      rights: of each member.
      bindings: settings besides the quickstart's, `NAME=VALUE`.
      test: of each member, test examples that it has right.
      failed: member -> why it could not go on.
      finished: whether it has a summary.
      task: its only task.
      intervals: of every score.
    """
    members = (
        [] if len(rights) == 1 or any(b.startswith("SWEEP") for b in bindings) else [f"MEMBERS={len(rights)}"]
    )
    settings = ["TRAIN_STEPS=20", f"MODEL_DIR={directory}", *members, *bindings]
    args = argparse.Namespace(
        command="train",
        gin_file=["gin_configs/quickstart.gin"],
        bindings=["Optimizer.warmup_steps=0", *settings],
        gin_search_paths="",
        tfds_data_dir=None,
    )
    run, text = resolve(args, "TrainRun")
    records = Records(RunFolder(directory), text, numbered=len(rights) > 1)
    tracker = BestTracker.fresh(run.training.metric, len(rights), [task])
    untuned = {0: {task: scores(np.zeros_like(rights[0]))}}
    records.evaluation(0, "validation", untuned)
    for step in STEPS:
        results = {
            member: {task: scores(each if step == 20 else np.zeros_like(each), intervals)}
            for member, each in enumerate(rights)
        }
        records.evaluation(step, "validation", results)
        tracker.update(step, {member: report(found) for member, found in results.items()})
    for member, reason in (failed or {}).items():
        tracker.fail([member], reason)
    if not finished:
        return pathlib.Path(directory)
    tests = {member: {task: scores(each)} for member, each in enumerate(test)}
    if tests:
        records.member_predictions("test", tests)
    names = (
        ["prompt.safetensors"]
        if len(rights) == 1
        else [f"prompt-{m}.safetensors" for m in range(len(rights))]
    )
    files = [pathlib.Path(directory) / name for name in names]
    for file in files:
        file.write_bytes(bytes(100))
    seeds = [member.training.seed for member in of_members(run)]
    reports = {member: report(found) for member, found in tests.items()}
    summary = {
        "task": task,
        **summarize(run, tracker, report(untuned[0])["metrics"], reports, seeds, files),
        "tuned_parameters": 1000,
        "frozen_parameters": 4_000_000,
        "checkpoint_bytes": 12_345,
        "examples_per_second": 50.0,
        "wall_seconds": 10.0,
        "last_step": 20,
    }
    records.write("summary.json", summary)
    return pathlib.Path(directory)


def make_evaluation(directory, prompts, ensemble=None, task=TASK):
    """What `t5x eval` leaves of prompts by name, and of their ensemble."""
    records = Records(RunFolder(directory), None)
    found = {name: {task: scores(each)} for name, each in prompts.items()}
    summary = {"task": task, "split": "validation", "metrics": {}}
    for number, (name, tasks) in enumerate(found.items()):
        summary["metrics"][name] = report(tasks)["metrics"]
        records.predictions(f"{task}-{number}", "validation", tasks[task].predictions)
    if ensemble is not None:
        answered = scores(ensemble)
        summary["ensemble"] = {task: answered.metrics | {"mean_rank/accuracy": 1.0}}
        records.predictions(f"{task}-ensemble", "validation", answered.predictions)
    records.write("eval.json", summary)
    return pathlib.Path(directory)
