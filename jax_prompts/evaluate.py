"""Scores prompt files on a task or mixture, each alone and all as an ensemble: `t5x eval`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jax_prompts import decoding, memory, model_dir, partition
from jax_prompts.base_models.build import make_model, make_vocabulary
from jax_prompts.base_models.classifier import load_classifier
from jax_prompts.base_models.fingerprint import fingerprint
from jax_prompts.base_models.weights import load_weights
from jax_prompts.config import EvalRun
from jax_prompts.data.cache import digests
from jax_prompts.data.cuts import count_cuts
from jax_prompts.data.layout import text_length
from jax_prompts.data.roles import open_role, split_of
from jax_prompts.distributed import processes
from jax_prompts.prompts import load_prompts
from jax_prompts.records import Records
from jax_prompts.scoring.baselines import warn_of_answers
from jax_prompts.scoring.evaluator import Evaluator
from jax_prompts.scoring.task_evaluator import Scores, majority_vote, report

Tree = Any


def evaluate_run(run: EvalRun, config_text: str) -> dict[str, Any]:
    """Scores every prompt file alone and, when there are several, all as an ensemble; without any, the bare model.

    Returns what eval.json holds. Several processes share the rows of every batch, and each ends with all answers.

    Raises:
      ConfigError: settings that cannot work, a prompt that does not fit the model.
      RunError: a file that cannot be read or written.
    """
    processes.assert_equal_settings(config_text)
    decoding.check(run.decoding)
    mesh = partition.mesh_of(run.model)
    partition.check_batch("EVAL_BATCH_SIZE", run.data.eval_batch_size, mesh)
    rows, beams = run.data.eval_batch_size, run.decoding.num_decodes
    memory.check_answering(make_model(run.model), run.model, mesh, rows, beams)
    if run.output_dir is not None:
        processes.by_primary(model_dir.check_writable)(run.output_dir)
    vocabulary = make_vocabulary(run.model)
    caches = processes.in_turns(lambda: open_role(run.data, vocabulary, run.role))
    split = split_of(run.data, run.role)
    processes.assert_equal("examples", digests(caches))
    labels = tuple(caches[0].labels or ())
    model = make_model(run.model, vocabulary=vocabulary, classes=len(labels))
    params = load_weights(run.model, model, mesh=mesh)
    prompts, prompt_kind = load_prompts(
        run.prompt_files,
        prompt_width=model.config.prompt_width,
        model_fingerprint=fingerprint(params),
        tokenizer_fingerprint=vocabulary.fingerprint,
    )
    cuts = count_cuts({run.role: caches}, text_length(run.data, max(map(len, prompts), default=0)))
    processes.assert_equal(
        "prompt files",
        {
            file: hashlib.sha256(p.tobytes()).hexdigest()
            for file, p in zip(run.prompt_files, prompts, strict=True)
        },
    )
    evaluator = Evaluator(
        model.clone(prompt_kind=prompt_kind), vocabulary, caches, run.data, run.decoding, mesh
    )
    heads = [load_classifier(model, path, labels) for path in run.prompt_files]
    # One prompt at a time: files may differ in length.
    results = [
        evaluator([{**params, **head}], jnp.asarray(prompt_PD)[None])[0]
        for prompt_PD, head in zip(prompts, heads, strict=True)
    ] or evaluator([params], None)
    names = list(run.prompt_files) or ["no prompt"]
    if len(prompts) > 1:
        names.append("ensemble")
        results.append(_ensemble(evaluator, results))
    summary: dict[str, Any] = {
        "task": run.data.task,
        "split": split,
        "examples": {cache.task: len(cache) for cache in caches},
        "cut": cuts[run.role],
    }
    for name, scores in zip(names, results, strict=True):
        reported = report(scores)
        warn_of_answers(reported.get("about_scores", {}), name)
        for part, values in reported.items():
            summary.setdefault(part, {})[name] = values
    if len(prompts) > 1:
        summary["ensemble"] = summary["metrics"].pop("ensemble")
    if run.output_dir is not None:
        records = Records(run.output_dir, None)
        for number, (name, tasks) in enumerate(zip(names, results, strict=True)):
            which = name if name == "ensemble" else str(number)
            for task, found in tasks.items():
                records.predictions(f"{task}-{which}", split, found.predictions)
        records.write("eval.json", summary)
    return summary


def _ensemble(evaluator: Evaluator, results: Sequence[dict[str, Scores]]) -> dict[str, Scores]:
    """Scores of the prompts' majority vote, on every task that is scored by its answers."""
    scores = {}
    for task, task_evaluator in evaluator.task_evaluators.items():
        if task_evaluator.cache.metrics:
            texts_E = [[row["prediction"] for row in found[task].predictions] for found in results]
            scores[task] = task_evaluator(majority_vote(texts_E))
    return scores
