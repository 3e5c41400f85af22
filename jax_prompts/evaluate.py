"""Scores prompt files on tasks, each prompt alone and all as an ensemble: `t5x eval`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from jax_prompts import decoding, interrupts, memory, model_dir, partition
from jax_prompts.base_models.build import Model, make_model, make_vocabulary
from jax_prompts.base_models.classifier import with_masked_lm
from jax_prompts.base_models.weights import load_weights
from jax_prompts.config import Data
from jax_prompts.data.cache import TokenCache, digests
from jax_prompts.data.cuts import count_cuts
from jax_prompts.data.layout import text_length
from jax_prompts.data.prompt_design import demonstrations_of
from jax_prompts.data.roles import open_role, split_of
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.distributed import processes
from jax_prompts.errors import ConfigError, Preempted
from jax_prompts.models.bert import Bert
from jax_prompts.prompts.prompt_paths import prompt_paths
from jax_prompts.records import Records
from jax_prompts.run_folder import RunFolder
from jax_prompts.runs import EvalRun
from jax_prompts.scoring.baselines import warn_of_answers
from jax_prompts.scoring.evaluator import Evaluator
from jax_prompts.scoring.journal import FOLDER, NOTHING_KEPT, Journal
from jax_prompts.scoring.prompt_scores import scores_of
from jax_prompts.scoring.prompt_set import PromptSet
from jax_prompts.scoring.summary import over_prompts
from jax_prompts.scoring.task_evaluator import report

Tree = Any


def evaluate_run(run: EvalRun, config_text: str) -> dict[str, Any]:
    """Scores every prompt file alone and, when there are several, all as an ensemble; without any, the bare model.

    Returns what eval.json holds: of one task or mixture its report, of several `{"tasks": {name: report}}`. Several
    processes share the rows of every batch, and each ends with all answers. An evaluation that was stopped goes on
    behind the answers that it had.

    Raises:
      ConfigError: settings that cannot work, a prompt that does not fit the model.
      RunError: a file that cannot be read or written.
      Preempted: Ctrl-C or SIGTERM arrived; what was answered is kept.
    """
    processes.assert_equal_settings(config_text)
    with _kept(run.output_dir) as folder:
        return _evaluated(run, folder)


def _evaluated(run: EvalRun, folder: RunFolder | None) -> dict[str, Any]:
    several = isinstance(run.prompt_files, dict)
    files = {task: prompt_paths("PROMPT_FILES", patterns) for task, patterns in run.files_by_task.items()}
    opened = open_evaluation(run)
    prompts = {task: opened.prompts(task, files[task]) for task in files}
    for found in prompts.values():
        processes.assert_equal("prompt files", found.marks)

    # The tasks, one after another.
    root = None if folder is None else folder.path
    model_settings = dataclasses.replace(run.model, partitions={})
    made_with = {**opened.base, "model": model_settings, "decoding": run.decoding, "role": run.role}
    journal = Journal(folder, made_with)
    reports = {}
    for task, data in opened.datas.items():
        of_task = journal.of(
            prompts=prompts[task].marks,
            examples=digests(opened.caches[task]),
            data=dataclasses.replace(data, data_dir=None, tfds_data_dir=None, cache_dir=None),
        )
        directory = root / task if root and several else root
        evaluator = opened.evaluator(task, of_task)
        reports[task] = _evaluate(evaluator, opened.params, prompts[task], run.role, directory)
    summary = {"tasks": reports} if several else reports[run.data.task]
    if root is not None and several:
        Records(RunFolder(root), None).write("eval.json", summary)
    journal.remove()
    return summary


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Models and examples of tasks, ready to score prompts.

    Attributes:
      run: its settings.
      mesh: the devices.
      vocabulary: of all tasks.
      datas, caches, models: by task; a BERT's model has the task's classes.
      params: the weights.
      base: fingerprints that prompts are compared with.
    """

    run: EvalRun
    mesh: jax.sharding.Mesh
    vocabulary: Vocabulary | WordPiece
    datas: dict[str, Data]
    caches: dict[str, list[TokenCache]]
    models: dict[str, Model]
    params: Tree
    base: dict[str, str]

    def prompts(self, task: str, files: Sequence[str]) -> PromptSet:
        """Prompts that fit the model. Raises as `PromptSet.load`."""
        return PromptSet.load(files, self.models[task], _labels(self.caches[task]), **self.base)

    def evaluator(self, task: str, journal: Journal = NOTHING_KEPT) -> Evaluator:
        """Scores prompts on a task."""
        model, caches, data = self.models[task], self.caches[task], self.datas[task]
        return Evaluator(model, self.vocabulary, caches, data, self.run.decoding, self.mesh, journal)


def open_evaluation(run: EvalRun, devices: Sequence[jax.Device] | None = None) -> Evaluation:
    """Opens the examples of every task of a run, then the model, on `devices` or on all; reads no prompts.

    Raises:
      ConfigError, RunError: as `evaluate_run`.
    """
    decoding.check(run.decoding)
    mesh = partition.mesh_of(run.model, devices)
    partition.check_batch("EVAL_BATCH_SIZE", run.data.eval_batch_size, mesh)
    rows, beams = run.data.eval_batch_size, run.decoding.num_decodes
    memory.check_answering(make_model(run.model), run.model, mesh, rows, beams)
    datas = {task: dataclasses.replace(run.data, task=task) for task in run.files_by_task}
    vocabulary = make_vocabulary(run.model)
    caches = {
        task: processes.in_turns(lambda data=data: open_role(data, vocabulary, run.role))
        for task, data in datas.items()
    }
    processes.assert_equal("examples", digests(itertools.chain(*caches.values())))
    models = {
        task: make_model(run.model, vocabulary=vocabulary, classes=len(_labels(found)))
        for task, found in caches.items()
    }
    params, fingerprint = load_weights(run.model, with_masked_lm(_one_of(models), run.model), mesh=mesh)
    base = {"model_fingerprint": fingerprint, "tokenizer_fingerprint": vocabulary.fingerprint}
    return Evaluation(run, mesh, vocabulary, datas, caches, models, params, base)


def _labels(caches: Sequence[TokenCache]) -> tuple[str, ...]:
    """The task's class labels; empty where answers are free text."""
    return tuple(caches[0].labels or ())


def _one_of(models: dict[str, Model]) -> Model:
    """One of the models of several tasks, whose weights are those of all.

    Raises:
      ConfigError: they are a BERT with classes and one without.
    """
    model, *others = models.values()
    for other in others:
        if isinstance(other, Bert) and bool(other.classes) != bool(model.classes):
            raise ConfigError(
                f"PROMPT_FILES mixes tasks with labels and without: {', '.join(models)}; a BERT answers one sort alone"
            )
    return model


@contextlib.contextmanager
def _kept(output_dir: str | None) -> Iterator[RunFolder | None]:
    """Keeps MODEL_DIR for this evaluation; Ctrl-C and SIGTERM end it in one line that says how to go on."""
    if output_dir is None:
        yield None
        return
    try:
        with interrupts.by_sigterm(), model_dir.for_evaluation(output_dir, FOLDER) as folder:
            try:
                yield folder
            except KeyboardInterrupt:
                if processes.primary():
                    folder.publish()
                raise
    except KeyboardInterrupt as error:
        raise Preempted(
            f"stopped; what is answered is in {output_dir}, and the same command goes on behind it"
        ) from error


def _evaluate(
    evaluator: Evaluator, params: Tree, prompts: PromptSet, role: str, directory: pathlib.Path | None
) -> dict[str, Any]:
    """The report of one task or mixture, which is also written."""
    data, caches = evaluator.data, evaluator.caches
    cuts = count_cuts({role: caches}, text_length(data, prompts.longest))
    results = scores_of(evaluator, params, prompts)
    split = split_of(data, role)
    summary: dict[str, Any] = {
        "task": data.task,
        "split": split,
        "examples": {cache.task: len(cache) for cache in caches},
        "cut": cuts[role],
        **demonstrations_of(caches),
    }
    for name, scores in results.items():
        reported = report(scores)
        warn_of_answers(reported.get("about_scores", {}), name)
        for part, values in reported.items():
            summary.setdefault(part, {})[name] = values
    if len(prompts.files) > 1:
        refused = {"refused": f"prompts of different tasks: {', '.join(prompts.tasks)}"}
        summary["ensemble"] = summary["metrics"].pop("ensemble", refused)
        summary["over_prompts"] = over_prompts(summary["metrics"])
    if directory is not None:
        records = Records(RunFolder(directory), None)
        for number, (name, tasks) in enumerate(results.items()):
            which = name if name == "ensemble" else str(number)
            for task, found in tasks.items():
                records.predictions(f"{task}-{which}", split, found.predictions)
        records.write("eval.json", summary)
    return summary
