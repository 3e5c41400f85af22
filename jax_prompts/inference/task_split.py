"""Answers a split of a task or mixture in shards, by one process or several: `t5x infer` without `--input`."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jax_prompts import interrupts, partition
from jax_prompts.base_models.tuned_file import model_of
from jax_prompts.data.cuts import check_tokens
from jax_prompts.data.roles import split_of
from jax_prompts.display import LineDisplay, log
from jax_prompts.distributed import processes
from jax_prompts.errors import ConfigError, Preempted
from jax_prompts.evaluate import Evaluation, open_evaluation
from jax_prompts.inference.shards import begin, check_folder
from jax_prompts.inference.split_answers import AskedPrompt, SplitAnswers
from jax_prompts.models.bert import Bert
from jax_prompts.runs import EvalRun, InferTaskRun
from jax_prompts.storage import places
from jax_prompts.tuned.leaves import lay_in

_WEEK = 7 * 24 * 3600  # seconds that a process waits for the slowest


def infer_task(run: InferTaskRun, config_text: str, prompt_files: Mapping[str, str]) -> dict[str, Any]:
    """Writes the shards of a run that are not there, and counts them.

    Of several processes each makes some of the shards, where each can hold the model and there are enough; else all
    make one shard after another together, and the primary one writes.

    Args:
      run: its settings.
      config_text: all of them.
      prompt_files: by name; of several each has a folder of its name in INFER_OUTPUT_DIR.

    Raises:
      ConfigError: settings that cannot work, a prompt that does not fit, shards that were made otherwise.
      RunError: a file that cannot be read or written.
      Preempted: Ctrl-C or SIGTERM arrived; what was answered is kept.
    """
    begun = time.monotonic()
    processes.assert_equal_settings(config_text)
    folders = {name: _folder(run.output_dir, prompt_files, name) for name in prompt_files or [""]}
    apart = _apart(run, len(folders))
    processes.by_primary(check_folder)(run.output_dir)
    opened = _opened(run, apart=apart)
    prompts = _prompts(opened, run, prompt_files)
    (caches,) = opened.caches.values()
    for cache in caches:
        check_tokens(cache, ("inputs", "targets") if run.mode == "score" else ("inputs",))
    answers = [
        SplitAnswers(run, opened, cache, prompts[name], folder)
        for name, folder in folders.items()
        for cache in caches
    ]
    processes.by_primary(begin)(run.output_dir, config_text)
    for each in answers:
        processes.by_primary(each.shards.agree)(each.settings)

    shards = range(run.num_shards) if run.shard_id is None else [run.shard_id]
    kept = [_told(_finished(each, shards) if processes.primary() else set()) for each in answers]
    todo = [
        (each, shard)
        for each, there in zip(answers, kept, strict=True)
        for shard in shards
        if shard not in there
    ]
    own = todo[jax.process_index() :: jax.process_count()] if apart else todo
    writes = apart or processes.primary()
    try:
        with (
            interrupts.by_sigterm(),
            LineDisplay(sum(len(each.examples_N(shard)) for each, shard in own)) as display,
        ):
            for each, shard in own:
                each.make(
                    shard, writes=writes, told=(lambda there: there) if apart else _told, display=display
                )
    except KeyboardInterrupt as error:
        raise Preempted(
            f"stopped; what is answered is in {run.output_dir}, and the same command goes on behind it"
        ) from error
    processes.barrier("shards", _WEEK)
    if cut := sum(each.cut for each in answers):
        log(f"TASK_FEATURE_LENGTHS cuts {cut} texts, of which the model reads the first tokens")
    return {
        "task": run.data.task,
        "split": split_of(run.data, "validation"),
        "mode": run.mode,
        "examples": sum(len(each.examples_N(shard)) for each in answers for shard in shards),
        "cut": cut,
        "shards": len(answers) * len(shards),
        "kept": len(answers) * len(shards) - len(todo),
        "wall_seconds": time.monotonic() - begun,
        "output": run.output_dir,
        "files": [each.shards.address(shard) for each in answers for shard in shards],
    }


def _apart(run: InferTaskRun, prompts: int) -> bool:
    """Whether each process has shards of its own: there are enough, and its devices can hold the model."""
    shards = prompts * (run.num_shards if run.shard_id is None else 1)
    parts = [run.model.partitions.get(axis, 1) for axis in partition.AXES if axis != "data"]
    fits = -1 not in parts and jax.local_device_count() % math.prod(parts) == 0
    return jax.process_count() > 1 and fits and shards >= jax.process_count()


def _opened(run: InferTaskRun, *, apart: bool) -> Evaluation:
    """The model, on all devices or on this process's own, and the examples.

    Raises:
      ConfigError, RunError: as `open_evaluation`; a BERT.
    """
    evaluation = EvalRun(None, run.model, run.data, decoding=run.decoding)
    if apart:
        partitions = {**run.model.partitions, "data": -1}
        evaluation = dataclasses.replace(
            evaluation, model=dataclasses.replace(run.model, partitions=partitions)
        )
    opened = open_evaluation(evaluation, jax.local_devices() if apart else None)
    if isinstance(opened.models[run.data.task], Bert):
        raise ConfigError(
            "a BERT answers a split with its classifier: use t5x eval, which writes predictions/ into MODEL_DIR"
        )
    return opened


def _folder(output_dir: str, prompt_files: Mapping[str, str], name: str) -> str:
    if len(prompt_files) < 2:
        return output_dir
    if "/" in name or name.startswith("."):
        raise ConfigError(
            f"of several prompts each has a folder in INFER_OUTPUT_DIR: name them, --prompt NAME={prompt_files[name]}"
        )
    return places.below(output_dir, name)


def _prompts(
    opened: Evaluation, run: InferTaskRun, prompt_files: Mapping[str, str]
) -> dict[str, AskedPrompt]:
    """The prompts by name, or the bare model by none."""
    model = opened.models[run.data.task]
    found = opened.prompts(run.data.task, list(prompt_files.values()))
    processes.assert_equal("prompt files", found.marks)
    if not prompt_files:
        return {"": AskedPrompt(model, opened.params, None, "none")}
    loaded = zip(prompt_files, found.files, found.prompts, found.leaves, found.metadata, strict=True)
    return {
        name: AskedPrompt(
            model_of(model, leaves, metadata),
            lay_in(opened.params, leaves),
            prompt_PW if len(prompt_PW) else None,
            found.marks[file],
        )
        for name, file, prompt_PW, leaves, metadata in loaded
    }


def _finished(answers: SplitAnswers, shards: Sequence[int]) -> set[int]:
    return answers.shards.finished({shard: len(answers.examples_N(shard)) for shard in shards})


def _told(there: set[int]) -> set[int]:
    """The numbers that process 0 has."""
    return set(json.loads(processes.from_primary("shards", json.dumps(sorted(there)))))
