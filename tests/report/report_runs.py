"""Directories as runs, suites and evaluations leave them, made without training."""

import json

import numpy as np

from jax_prompts.prompts import PromptMetadata, save_prompt


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prediction(index, target, answer, labels=("no", "yes"), **more):
    inputs = more.pop("inputs", f"text {index}")
    return {"index": index, "inputs": inputs, "targets": target, "prediction": answer,
            "out_of_class": answer not in labels, **more}  # fmt: skip


def make_run(
    directory,
    *,
    scores=(90.0,),
    settings=(),
    finished=True,
    steps=(0, 10, 20),
    predictions=None,
    task="rte",
    recorded=False,
    prompts=False,
):
    """A run of len(scores) members whose loss at step s is s / 10 + member."""
    directory.mkdir(parents=True, exist_ok=True)
    members = len(scores)
    named = {
        "LEARNING_RATE": "0.3",
        "MEMBERS": str(members),
        "MIXTURE_OR_TASK_NAME": repr(task),
        "MODEL_DIR": repr(str(directory)),
        "PROMPT_LENGTH": "2",
        "RANDOM_SEED": "0",
        "SWEEP": "None",
        "TASK_FEATURE_LENGTHS": "{'inputs': 8, 'targets': 2}",
        **dict(settings),
    }
    (directory / "config.gin").write_text("".join(f"{name} = {value}\n" for name, value in named.items()))
    several = members > 1
    of = [{"member": member} if several else {} for member in range(members)]
    train, evaluated, prompt = [], [], []
    for step in steps:
        for member, who in enumerate(of):
            if step:
                train.append({"step": step, **who, "loss": step / 10 + member, "token_accuracy": 50.0,
                              "prompt_norm": 3.0, "prompt_similarity": 0.5, "learning_rate": 0.3})  # fmt: skip
            if step or not member:
                loss = {"loss": 1.0 + member, "token_accuracy": 40.0} if recorded else {}
                evaluated.append({"step": step, "task": task, "split": "validation", **who,
                                  "accuracy": scores[member] * step / steps[-1], **loss})  # fmt: skip
            prompt.append({"step": step, **who, "rank": 2, "entropy_rank": 1.5 + member})
    jsonl(directory / "metrics" / "train.jsonl", train)
    jsonl(directory / "metrics" / "eval.jsonl", evaluated)
    if recorded:
        jsonl(directory / "metrics" / "prompt.jsonl", prompt)
        seconds = [
            {"step": step, "tuning_seconds": 2.0 * step, "wall_seconds": 3.0 * step} for step in steps if step
        ]
        jsonl(directory / "metrics" / "seconds.jsonl", seconds)
    if predictions is not None:
        rows = [{**who, **row} for who in of for row in predictions]
        jsonl(directory / "predictions" / f"{task}-{steps[-1]}.jsonl", rows)
    files = [
        directory / ("prompt.safetensors" if not several else f"prompt-{m}.safetensors")
        for m in range(members)
    ]
    if prompts:
        for member, file in enumerate(files):
            table_PD = np.array([[1, 0], [member, 1]], np.float32)
            save_prompt(file, table_PD, PromptMetadata(method="PromptTuning", task=task))
    if finished:
        about = {task: {"examples": 4, "majority_baseline": {"accuracy": 50.0}}}
        metrics = [{task: {"accuracy": score}} for score in scores]
        summary = {
            "task": task,
            "best_metric": sum(scores) / members,
            "metric": "accuracy",
            "untuned_metric": 0.0,
            "majority_metric": 50.0,
            "metrics": metrics if several else metrics[0],
            "about_scores": [about] * members if several else about,
            "members": [
                {"seed": m, "best_metric": score, "best_step": steps[-1], "file": str(files[m])}
                for m, score in enumerate(scores)
            ],
            "cut": {"train": {task: {"inputs": 1, "targets": 0, "examples": 100}}},
            "tuned_parameters": 10 * members,
            "wall_seconds": 60.0,
            "last_step": steps[-1],
        }  # fmt: skip
        (directory / "summary.json").write_text(json.dumps(summary))
    return directory


def make_evaluation(directory, rows, ensemble=()):
    """An evaluation of two prompts, and of their ensemble where there are rows of one."""
    metrics = {
        "a/prompt.safetensors": {"rte": {"accuracy": 75.0}},
        "b/prompt.safetensors": {"rte": {"accuracy": 50.0}},
    }
    report = {"task": "rte", "split": "validation", "metrics": metrics,
              "about_scores": {name: {"rte": {"majority_baseline": {"accuracy": 50.0}}} for name in metrics},
              "ensemble": {"rte": {"accuracy": 100.0}}}  # fmt: skip
    directory.mkdir(parents=True)
    (directory / "eval.json").write_text(json.dumps(report))
    for which in ("0", "1"):
        jsonl(directory / "predictions" / f"rte-{which}-validation.jsonl", rows)
    if ensemble:
        jsonl(directory / "predictions" / "rte-ensemble-validation.jsonl", ensemble)
    return directory
