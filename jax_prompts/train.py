"""Runs one training, top to bottom: MODEL_DIR, data, setup, two trees, loop, summary."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jax_prompts import best, memory, model_dir, optim, partition
from jax_prompts.base_models.build import make_vocabulary
from jax_prompts.base_models.quantize import frozen_count
from jax_prompts.batches import batches_of
from jax_prompts.checkpoint import Checkpoints
from jax_prompts.config import Data
from jax_prompts.data.cache import digests
from jax_prompts.data.cuts import count_cuts
from jax_prompts.data.layout import SpecialTokens
from jax_prompts.data.prompt_design import demonstrations_of
from jax_prompts.data.roles import (
    Caches,
    are_filled,
    assert_same_data,
    examples_of,
    mixture_record,
    open_members,
    split_of,
    subset_records,
)
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.display import StepDisplay, log
from jax_prompts.distributed import processes
from jax_prompts.errors import Preempted
from jax_prompts.length_plan import plan_training
from jax_prompts.members import ActiveMembers
from jax_prompts.metric_accumulator import MetricAccumulator
from jax_prompts.prompts.described import describe
from jax_prompts.records import Records
from jax_prompts.run_folder import RunFolder
from jax_prompts.runs import TrainRun
from jax_prompts.scoring.baselines import warn_of_answers
from jax_prompts.scoring.best_tracker import BestTracker, choosing_tasks
from jax_prompts.scoring.evaluator import Evaluator
from jax_prompts.scoring.summary import one_line, summarize
from jax_prompts.scoring.task_evaluator import check_metrics, report
from jax_prompts.setup import set_up
from jax_prompts.state import fold_tuned, for_evaluation, initial_state, of_member, warn_of_rates
from jax_prompts.step import dropout_keys
from jax_prompts.stopwatch import Stopwatch
from jax_prompts.sweep import of_members
from jax_prompts.task_check import check_task
from jax_prompts.train_step import TrainStep
from jax_prompts.tuned import check_files
from jax_prompts.watching.profiler import profiled


def train(run: TrainRun, config_text: str) -> dict[str, Any]:
    """Tunes a prompt (or, without a method, the whole model) and returns what summary.json holds.

    Resumes by itself when MODEL_DIR holds a checkpoint of the same configuration; a resumed run ends with
    the numbers of an uninterrupted one. A finished one goes on where it is given more steps.

    Raises:
      ConfigError: settings that cannot work, or MODEL_DIR holds another run.
      RunError: a file that cannot be read or written, a loss that is not finite, or another process in MODEL_DIR.
      Preempted: SIGTERM or Ctrl-C arrived; everything is saved.
    """
    processes.assert_equal_settings(config_text)
    mesh = partition.mesh_of(run.model)
    memory.check_training(set_up(run, mesh))
    check_files(run.leaves)
    with model_dir.claimed(run, config_text) as folder, contextlib.ExitStack() as exits:
        return _train(run, folder, config_text, mesh, exits)


def open_checked(
    run: TrainRun, datas_E: Sequence[Data], vocabulary: Vocabulary | WordPiece
) -> tuple[dict[str, Caches], list[Caches]]:
    """`open_members`; where that reads data, and imports SeqIO, what the task can tell without is checked before."""
    if not are_filled(run.data, vocabulary):
        check_task(run)
    return open_members(datas_E, vocabulary)


def _train(
    run: TrainRun, folder: RunFolder, config_text: str, mesh: Mesh, exits: contextlib.ExitStack
) -> dict[str, Any]:
    stopwatch = Stopwatch()
    settings, data = run.training, run.data

    # Data: text tokens from the caches, which fill themselves where they are missing.
    vocabulary = make_vocabulary(run.model)
    datas_E = [member.data for member in of_members(run)]
    roles, mixtures_E = processes.in_turns(lambda: open_checked(run, datas_E, vocabulary))
    caches = {role: [cache for _, cache in weighted] for role, weighted in roles.items()}
    processes.assert_equal("examples", digests(itertools.chain(*caches.values())))
    steps, eval_period = settings.in_steps(examples_of(mixtures_E), data.batch_size)

    # The run made ready, and its two trees: what is tuned, and what is only read.
    labels = [cache.labels for cache in caches["train"]]
    tasks = [cache.task for cache in caches["train"]]
    setup = set_up(run, mesh, vocabulary=vocabulary, tasks=tasks, labels=labels, steps=steps)
    memory.check_training(setup, caches)
    plan = plan_training(setup, mixtures_E, steps)
    cuts = count_cuts(caches, setup.inputs_length)
    choosing = choosing_tasks(caches["validation"])
    check_metrics(settings.metric, caches["validation"], ranked=data.rank_classification)
    if len(choosing) < len(caches["validation"]):
        log(f"the prompt is chosen on {', '.join(choosing)}; the other tasks are reported")
    tuned, opt_state, frozen, fingerprint = initial_state(setup, vocabulary)
    metadata = best.metadata_of(setup, fingerprint, vocabulary.fingerprint)
    processes.assert_equal("base models", {metadata.base_model: fingerprint})
    log(
        f"{run.model.name}: {frozen_count(frozen):,} frozen parameters, "
        f"{partition.parameter_count(tuned):,} tuned "
        f"({'the whole model' if run.tunes_model else metadata.method}, members: {settings.members})"
    )
    log(f"rows in {plan.groups} groups, padded to {', '.join(map(str, plan.lengths))} tokens of text")

    # Where the run stands: at the beginning, or at its newest whole checkpoint.
    split = split_of(data, "validation")
    evaluator = Evaluator(
        setup.model,
        vocabulary,
        caches["validation"],
        data,
        run.decoding,
        mesh,
        passes=1 + steps // eval_period,
        prompt_tasks=setup.prompt_tasks,
    )
    records = exits.enter_context(Records(folder, config_text, numbered=settings.members > 1))
    if subsets := subset_records(datas_E, roles, mixtures_E):
        records.write("subset.json", subsets, indent=None)
    checkpoints = Checkpoints(folder.checkpoints, settings.keep)
    files, best_E = best.files_of(records.directory, setup), best.none_yet(setup)
    restored = checkpoints.restore_latest(tuned, opt_state, best_E)
    processes.assert_equal("checkpoints", {"the newest": str(restored and restored[0])})
    accumulator = MetricAccumulator(settings.members)
    if restored is None:
        step, tracker = 0, BestTracker.fresh(settings.metric, settings.members, choosing)
        records.truncate(-1)
        records.watch(step, run, steps)
        folded = fold_tuned(setup, tuned)
        params_E, prompts_EPD = for_evaluation(folded, frozen)
        untuned = evaluator(params_E[:1], None)
        records.evaluation(step, split, dict(enumerate(untuned)))
        everyone = range(settings.members)
        records.prompts(step, describe(setup.method, tuned.get("prompt"), prompts_EPD, everyone, everyone))
        warn_of_rates(setup, tuned)
        untuned_metrics = report(untuned[0])["metrics"]
    else:
        step, tuned, opt_state, best_E, progress = restored
        assert_same_data(run.model_dir, progress["data"], mixture_record(roles["train"]))
        if progress["steps"] != steps:
            model_dir.check_steps(run.model_dir, steps, step)
        tracker = BestTracker(**progress["selection"])
        untuned_metrics = progress["untuned"]
        accumulator.sums = progress["window"]
        stopwatch.count_on(progress["stopwatch"])
        records.truncate(step)
        log(f"resuming at step {step}")
        best.restore(files, setup, metadata, tracker.best, best_E, tuned, step)
        done = json.loads(processes.from_primary("summary", json.dumps(records.summary())))
        ended = step >= steps or not tracker.active(settings.patience)
        if ended and done and done["last_step"] == step:
            if step < steps:
                log(f"PATIENCE {settings.patience} ended this run at step {step}: more steps change nothing")
            checkpoints.close()
            return records.renamed(done, files)
        records.unfinish()
        records.watch(step, run, steps)
    log(f"before tuning: {one_line(untuned_metrics)}")

    # The loop: batch s and dropout key s are functions of (seed, s), so nothing else needs saving.
    make_batches = batches_of(setup, plan, SpecialTokens.of(vocabulary))
    active = ActiveMembers(setup, mixtures_E)
    profiling = profiled(TrainStep(setup, plan), settings.profile_steps, step, records.directory)
    schedules_E = [optim.learning_rate_schedule(member.optimizer, steps) for member in setup.members_E]
    batches = make_batches(mixtures_E, setup.seeds_E.tolist(), step)
    first = step
    stopwatch.start_steps()
    with (
        StepDisplay(step, steps) as display,
        processes.stop_requests() as stop_requested,
        profiling as train_step,
    ):
        while step < steps and (going_on := tracker.active(settings.patience)):
            if going_on != active.members:
                log(f"step {step}: {len(going_on)} of {settings.members} members go on")
                tuned, opt_state = active.only(going_on, tuned, opt_state)
                batches = make_batches(active.mixtures, active.seeds.tolist(), step)
            groups, keys_E = next(batches), dropout_keys(active.seeds, step)
            tuned, opt_state, metrics = train_step(tuned, opt_state, frozen, groups, keys_E, active.numbers)
            step, rows = step + 1, data.batch_size * len(active.members)
            accumulator.add(active.members, metrics)
            display.advance(step, rows)
            if step == first + 1 < steps:  # it compiled, which says nothing about the others
                jax.block_until_ready(metrics)
                stopwatch.compiled()
            else:
                stopwatch.took_step(rows)

            last, stopping = step == steps, stop_requested(step)
            if stopping and not last:
                log(f"{stopping}: saving step {step}")
            evaluating = last or step % eval_period == 0
            saving = stopping or last or step % (settings.checkpoint_period or eval_period) == 0
            logging = last or step % settings.log_period == 0
            if (evaluating or saving or logging) and (diverged := accumulator.fetch()):
                reason = f"the loss is not finite at or before step {step}; lower the learning rate"
                tracker.fail(diverged, reason)
            sound = [member for member in active.members if tracker.failed[member] is None]
            losses, score = [], ""
            if evaluating or logging:
                records.scalars("seconds", step, stopwatch.seconds())
            if logging and sound:
                lines = accumulator.lines(sound)
                for member, line in lines.items():
                    rate = float(schedules_E[member](step - 1))
                    records.scalars("train", step, {**line, "learning_rate": rate})
                losses = [line["loss"] for line in lines.values()]
                accumulator.clear()
            if evaluating and sound:
                stopwatch.stop_steps()
                folded = fold_tuned(setup, tuned)
                params_E, prompts_EPD = for_evaluation(folded, frozen)
                scores_E = evaluator(params_E, prompts_EPD)
                results = {
                    m: scores for m, scores in zip(active.members, scores_E, strict=True) if m in sound
                }
                records.evaluation(step, split, results)
                prompts = describe(setup.method, tuned.get("prompt"), prompts_EPD, active.members, sound)
                records.prompts(step, prompts)
                reports = {member: report(scores) for member, scores in results.items()}
                improved, chosen = tracker.update(step, reports), tracker.chosen()
                best_E = best.keep(setup, best_E, active.members, folded, improved)
                for place, member in enumerate(active.members):
                    if member in improved:
                        best.save(files[member], setup, of_member(folded, place), metadata, chosen[member])
                score = one_line(*(found["metrics"] for found in reports.values()), named=False)
                stopwatch.start_steps()
            if losses or score:
                display.status(step, losses=losses, score=score)
            if evaluating or saving:
                records.flush()
            if saving:
                progress = {
                    "data": mixture_record(roles["train"]),
                    "selection": dataclasses.asdict(tracker),
                    "untuned": untuned_metrics,
                    "window": accumulator.sums,
                    "steps": steps,
                    "stopwatch": stopwatch.state(),
                }
                checkpoints.save(step, *active.whole(tuned, opt_state), best_E, progress)
            if stopping and not last:
                checkpoints.close()
                reason = f"stopped by {stopping} at step {step}; run the same command again to resume"
                raise Preempted(reason, together=True)
    stopwatch.stop_steps()
    checkpoints.close()

    # The best of each member on examples that chose nothing, where the protocol has some.
    tests: dict[int, dict[str, Any]] = {}
    chosen = tracker.chosen()
    folder.share()  # prompt files, which process 0 has written
    if "test" in roles:
        tested = best.load([files[member] for member in chosen], setup, frozen)
        results_E = dataclasses.replace(evaluator, caches=caches["test"])(*tested)
        results = dict(zip(chosen, results_E, strict=True))
        records.member_predictions("test", results)
        tests = {member: report(scores) for member, scores in results.items()}

    # The summary.
    addresses = [folder.address_of(file) for file in files]
    summary = {
        "task": data.task,
        **summarize(run, tracker, untuned_metrics, tests, setup.seeds_E.tolist(), addresses),
        "cut": cuts,
        **demonstrations_of(caches["validation"]),
        "tuned_parameters": partition.parameter_count(setup.tuned),
        "frozen_parameters": frozen_count(frozen),
        "checkpoint_bytes": checkpoints.newest_bytes(),
        "examples_per_second": stopwatch.examples_per_second,
        "wall_seconds": stopwatch.seconds()["wall_seconds"],
        "last_step": step,
    }
    records.finish(summary)
    for member, scores in chosen.items():
        warn_of_answers(scores.get("about_scores", {}), addresses[member])
    return summary
