"""One training run, read top to bottom: data, model, two trees, loop, summary."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_prompts import optim, partition
from jax_prompts.base_models.build import Model, make_model, make_vocabulary
from jax_prompts.base_models.fingerprint import fingerprint
from jax_prompts.base_models.weights import load_saved, load_weights, save_model
from jax_prompts.checkpoint import Checkpoints
from jax_prompts.config import TrainRun
from jax_prompts.data.cache import digests
from jax_prompts.data.layout import SpecialTokens, text_length
from jax_prompts.data.roles import open_roles, split_of, subset_record
from jax_prompts.data.sampler import train_batches
from jax_prompts.display import StepDisplay, log
from jax_prompts.distributed import global_arrays, processes
from jax_prompts.distributed.processes import by_primary
from jax_prompts.errors import Preempted
from jax_prompts.prompts import Method, PromptMetadata, for_model, load_prompt, prompt_kind_of, save_prompt
from jax_prompts.prompts.prompt_file import settings_of
from jax_prompts.records import MetricAccumulator, Records
from jax_prompts.scoring.baselines import warn_of_constants
from jax_prompts.scoring.best_tracker import BestTracker, selection_metric
from jax_prompts.scoring.evaluator import Evaluator
from jax_prompts.scoring.task_evaluator import Scores, report
from jax_prompts.state import (
    assemble,
    assert_same_data,
    check,
    check_model,
    check_vocabulary,
    checked_head,
    head_arrays,
    length_of,
    parameter_count,
    sharded_trees,
    split,
)
from jax_prompts.step import dropout_keys, jit_train_step

Tree = Any


def train(run: TrainRun, config_text: str) -> dict[str, Any]:
    """Tunes a prompt (or, without a method, the whole model) and returns what summary.json holds.

    Resumes by itself when MODEL_DIR holds a checkpoint of the same configuration; a resumed run ends with
    the numbers of an uninterrupted one.

    Raises:
      ConfigError: settings that cannot work, or MODEL_DIR holds another run.
      RunError: a file that cannot be read or written, or a loss that is not finite.
      Preempted: SIGTERM arrived; everything is saved.
    """
    started = time.monotonic()
    settings = run.training
    processes.assert_equal_settings(config_text)
    mesh = partition.mesh_of(run.model)
    check(run, mesh)

    # Data: text tokens from the caches, which fill themselves where they are missing.
    vocabulary = make_vocabulary(run.model)
    roles = processes.in_turns(lambda: open_roles(run.data, vocabulary))
    processes.assert_equal("examples", digests(cache for caches in roles.values() for _, cache in caches))
    train_caches = roles["train"]
    mixed = {cache.task: [rate, cache.tokens["sha256"]] for rate, cache in train_caches}
    examples = sum(len(cache) for _, cache in train_caches)
    steps, eval_period = settings.in_steps(examples, run.data.batch_size)
    optimizer = optim.make_optimizer(run.optimizer, steps)

    # The model, which a BERT's task gives its classes and a per-layer prompt its kind.
    labels = tuple(train_caches[0][1].labels or ())
    model = make_model(
        run.model, prompt_kind=prompt_kind_of(run.method), vocabulary=vocabulary, classes=len(labels)
    )
    check_model(run, model, [cache for _, cache in train_caches])
    if run.method is None:
        check_vocabulary(run, model, vocabulary)
    run = dataclasses.replace(run, method=for_model(run.method, model.config.prompt_width))
    method = run.method

    # Two trees: what is tuned, and what is only read.
    tuned_shapes, _ = sharded_trees(run, model, mesh)
    tuned_shardings = partition.shardings(tuned_shapes)
    state_shardings = partition.shardings(partition.state_shapes(optimizer, tuned_shapes))
    weights = load_weights(run.model, model, settings.seed, mesh)
    metadata = PromptMetadata(
        method=type(method).__name__ if method is not None else "ModelTuning",
        settings=settings_of(method) if method is not None else {},
        prompt_kind=prompt_kind_of(method),
        base_model=f"{run.model.size or ''} {run.model.checkpoint}".strip(),
        model_fingerprint=fingerprint(weights),
        tokenizer_fingerprint=vocabulary.fingerprint,
        task=run.data.task,
        labels=labels,
        metric=settings.metric or "mean",
    )
    processes.assert_equal("base models", {metadata.base_model: metadata.model_fingerprint})
    seeds_E = np.arange(settings.seed, settings.seed + settings.members)
    tuned, frozen = split(run, model, weights, vocabulary, labels, seeds_E)
    tuned = jax.device_put(tuned, tuned_shardings)
    opt_state = jax.jit(jax.vmap(optimizer.init), out_shardings=state_shardings)(tuned)
    log(
        f"{run.model.name}: {parameter_count(frozen):,} frozen parameters, {parameter_count(tuned):,} tuned "
        f"({type(method).__name__ if method else 'the whole model'}, members: {settings.members})"
    )

    # Where the run stands: at the beginning, or at its newest whole checkpoint.
    validation = [cache for _, cache in roles["validation"]]
    score = Evaluator(model, vocabulary, validation, run.data, run.decoding, mesh)
    records = Records(run.model_dir, config_text)
    if subsets := subset_record(run.data, roles):
        records.write("subset.json", subsets, indent=None)
    checkpoints = Checkpoints(records.directory / "checkpoints", settings.keep)
    restored = checkpoints.restore_latest(tuned, opt_state)
    processes.assert_equal("checkpoints", {"the newest": str(restored and restored[0])})
    window = MetricAccumulator(settings.members)
    if restored is None:
        step, selection = 0, BestTracker(settings.metric, [None] * settings.members)
        records.truncate(-1)
        params_E, _ = assemble(method, tuned, frozen, model.config.emb_dim)
        untuned = score(params_E[:1], None)[0]
        _record(records, run, step, [untuned])
        untuned_metrics = report(untuned)["metrics"]
    else:
        step, tuned, opt_state, progress = restored
        assert_same_data(run, progress["data"], mixed)
        selection = BestTracker(**progress["selection"])
        untuned_metrics = progress["untuned"]
        window.sums = progress["window"]
        records.truncate(step)
        log(f"resuming at step {step}")
        done = json.loads(processes.from_primary("summary", json.dumps(records.read("summary.json"))))
        if done is not None and done["last_step"] == step:
            return done
    log(f"before tuning: {_line(untuned_metrics)}")
    del weights

    # The loop: batch s and dropout key s are functions of (seed, s), so nothing else needs saving.
    batch_sharding = partition.batch_sharding(mesh, members=True)
    batches = train_batches(
        train_caches,
        seeds=seeds_E.tolist(),
        batch_size=run.data.batch_size,
        inputs_length=text_length(run.data, length_of(method)),
        targets_length=run.data.task_feature_lengths["targets"],
        prompt_ids=np.arange(
            model.config.vocab_size, model.config.vocab_size + length_of(method), dtype=np.int32
        ),
        special_tokens=SpecialTokens.of(vocabulary),
        start_step=step,
        rows_here_K=global_arrays.rows_here(batch_sharding, run.data.batch_size, axis=1),
    )
    train_step = jit_train_step(run, model, optimizer, mesh, (tuned_shardings, state_shardings))
    schedule = optim.learning_rate_schedule(run.optimizer, steps)
    files = _files(records.directory, method, settings.members)
    steps_here, tuning_seconds, begun = 0, 0.0, time.monotonic()
    with StepDisplay(step, steps, _rows(run)) as display, processes.stop_requests() as stop_requested:
        while step < steps and not selection.exhausted(settings.patience):
            batch = global_arrays.put_batch(next(batches), batch_sharding, run.data.batch_size, axis=1)
            tuned, opt_state, metrics = train_step(
                tuned, opt_state, frozen, batch, dropout_keys(seeds_E, step)
            )
            step, steps_here = step + 1, steps_here + 1
            window.add(metrics)
            display.advance(step)

            last, stopping = step == steps, stop_requested(step)
            evaluating = last or step % eval_period == 0
            saving = last or step % (settings.checkpoint_period or eval_period) == 0
            if last or step % settings.log_period == 0:
                rate = float(schedule(step - 1))
                for line in window.lines(step):
                    records.scalars("train", step, {**line, "learning_rate": rate})
                display.status(step, f"loss {line['loss']:.4f}")
                window.clear()
            if evaluating:
                tuning_seconds += time.monotonic() - begun
                params_E, prompts_EPD = assemble(method, tuned, frozen, model.config.emb_dim)
                results_E = score(params_E, prompts_EPD)
                _record(records, run, step, results_E)
                reports_E = [report(results) for results in results_E]
                for member in selection.update(step, reports_E):
                    chosen = dataclasses.replace(metadata, score=selection.values()[member], step=step)
                    if prompts_EPD is None:
                        weights = global_arrays.gathered(params_E[0])
                        origin = {
                            **dataclasses.asdict(chosen),
                            "vocabulary": {"fingerprint": vocabulary.fingerprint},
                        }
                        by_primary(save_model)(files[member], weights, model.config, origin)
                    else:
                        prompt_PD, head = (
                            global_arrays.gathered(prompts_EPD[member]),
                            head_arrays(tuned, member),
                        )
                        by_primary(save_prompt)(files[member], prompt_PD, chosen, head)
                display.status(step, f"validation {_line(reports_E[0]['metrics'])}")
                begun = time.monotonic()
            if saving or stopping:
                window.fetch(step)
                progress = {
                    "data": mixed,
                    "selection": dataclasses.asdict(selection),
                    "untuned": untuned_metrics,
                    "window": window.sums,
                }
                records.flush()
                checkpoints.save(step, tuned, opt_state, progress)
            if stopping and not last:
                checkpoints.wait()
                raise Preempted(f"stopped by SIGTERM at step {step}; run the same command again to resume")
    tuning_seconds += time.monotonic() - begun
    checkpoints.close()

    # The best of each member on examples that chose nothing, where the protocol has some.
    tests_E = []
    processes.barrier("prompt files")  # process 0 has written them
    if "test" in roles:
        score_tests = dataclasses.replace(score, caches=[cache for _, cache in roles["test"]])
        results_E = score_tests(*_best(method, files, model, frozen, labels))
        _write_predictions(records, run, "test", results_E)
        tests_E = [report(results) for results in results_E]

    # The summary.
    best, values = selection.found(), selection.values()
    reported = [part for part in best[0] if part not in ("value", "step")]
    summary = {
        "task": run.data.task,
        "best_metric": statistics.fmean(values),
        "best_metric_deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
        "best_step": _alone([found["step"] for found in best]),
        "untuned_metric": selection_metric(untuned_metrics, settings.metric)[0],
        **{part: _alone([found[part] for found in best]) for part in reported},
        **{f"test_{part}": _alone([tests[part] for tests in tests_E]) for part in (tests_E or [{}])[0]},
        "tuned_parameters": parameter_count(tuned),
        "frozen_parameters": parameter_count(frozen),
        "checkpoint_bytes": _checkpoint_bytes(records.directory / "checkpoints"),
        "examples_per_second": steps_here * _rows(run) / tuning_seconds,
        "wall_seconds": time.monotonic() - started,
        "last_step": step,
        "members": [
            {"seed": int(seed), "best_metric": found["value"], "best_step": found["step"], "file": str(file)}
            for seed, found, file in zip(seeds_E, best, files, strict=True)
        ],
    }
    records.write("summary.json", summary)
    records.close()
    for found, file in zip(best, files, strict=True):
        warn_of_constants(found.get("about_scores", {}), str(file))
    log(
        f"before tuning {summary['untuned_metric']:.2f}, after {summary['best_metric']:.2f} ({run.data.task})"
    )
    for tests in tests_E:
        log(f"on test examples: {_line(tests['metrics'])}")
    log("written: " + ", ".join(str(file) for file in files))
    return summary


def _record(records: Records, run: TrainRun, step: int, results_E: list[dict[str, Scores]]) -> None:
    """Metrics and predictions of one evaluation."""
    for member, results in enumerate(results_E):
        which = {"member": member} if run.training.members > 1 else {}
        for task, scores in results.items():
            where = {"task": task, "split": split_of(run.data, "validation"), **which}
            more = {"about_scores": scores.context, "intervals": scores.intervals}
            records.scalars("eval", step, {**where, **scores.metrics, **{k: v for k, v in more.items() if v}})
    _write_predictions(records, run, step, results_E)


def _write_predictions(
    records: Records, run: TrainRun, name: int | str, results_E: list[dict[str, Scores]]
) -> None:
    for task in results_E[0]:
        rows = [
            {"member": member, **row} if run.training.members > 1 else row
            for member, results in enumerate(results_E)
            for row in results[task].predictions
        ]
        if rows:
            records.predictions(task, name, rows)


def _best(
    method: Method | None, files: list[pathlib.Path], model: Model, frozen: Tree, labels: tuple[str, ...]
) -> tuple[list[Tree], jax.Array | None]:
    """The parameters and prompts that `files` hold, for scoring."""
    if method is None:
        return [load_saved(files[0])], None
    params_E = [{**frozen, **checked_head(model, str(file), labels)} for file in files]
    return params_E, jnp.stack([load_prompt(file)[0] for file in files])


def _files(directory: pathlib.Path, method: Method | None, members: int) -> list[pathlib.Path]:
    """Where the best of each member is kept: a prompt file each, or the tuned model."""
    if method is None:
        return [directory / "model"]
    if members == 1:
        return [directory / "prompt.safetensors"]
    return [directory / f"prompt-{member}.safetensors" for member in range(members)]


def _alone(values_E: list[Any]) -> Any:
    """One member's value stands by itself."""
    return values_E[0] if len(values_E) == 1 else values_E


def _rows(run: TrainRun) -> int:
    return run.data.batch_size * run.training.members


def _checkpoint_bytes(directory: pathlib.Path) -> int:
    """Bytes on disk of the newest checkpoint."""
    newest = max(
        (path for path in directory.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    )
    return sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())


def _line(metrics: dict[str, dict[str, float]]) -> str:
    return ", ".join(
        f"{task} {name} {value:.2f}" for task, found in metrics.items() for name, value in found.items()
    )
