"""Saves the best of each member, a prompt or the whole model, and loads it again to be tested.

Checkpoints hold the best prompts, too, so that files which are gone, or of a later step, can be written again.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_prompts import partition
from jax_prompts.base_models.tuned_file import load_tuned
from jax_prompts.base_models.weights import load_saved, save_model
from jax_prompts.display import log
from jax_prompts.distributed.global_arrays import gathered
from jax_prompts.distributed.processes import by_primary, from_primary
from jax_prompts.errors import ConfigError, RunError, hide_secrets
from jax_prompts.members import put
from jax_prompts.prompts import PromptMetadata, load_prompt, prompt_kind_of, save_prompt
from jax_prompts.prompts.prompt_file import settings_of
from jax_prompts.scoring.best_tracker import metric_name, selection_metric
from jax_prompts.setup import Setup
from jax_prompts.state import fold_tuned, of_member
from jax_prompts.tuned import adapter_activation, constants_of
from jax_prompts.tuned.leaves import flat, lay_in

Tree = Any
SUFFIX = ".safetensors"


def files_of(directory: pathlib.Path, setup: Setup) -> list[pathlib.Path]:
    """Paths of the members' best: a prompt file each, a directory with one of each task, or the tuned model's."""
    members = setup.run.training.members
    if setup.run.tunes_model:
        return [directory / "model"]
    name, suffix = ("prompts", "") if setup.prompt_tasks else ("prompt", SUFFIX)
    numbers = [""] if members == 1 else [f"-{member}" for member in range(members)]
    return [directory / f"{name}{number}{suffix}" for number in numbers]


def metadata_of(setup: Setup, model_fingerprint: str, tokenizer_fingerprint: str) -> PromptMetadata:
    """Metadata of a run's prompt files; the evaluation that chooses a prompt adds metric, score and step."""
    run = setup.run
    first, *others = [*(() if run.method is None else (run.method,)), *run.leaves] or [None]
    return PromptMetadata(
        method=run.method_name,
        settings=settings_of(first) | {type(each).__name__: settings_of(each) for each in others},
        prompt_kind=prompt_kind_of(run.method),
        adapter_activation=adapter_activation(run.leaves),
        base_model=hide_secrets(f"{run.model.size or ''} {run.model.checkpoint}".strip()),
        model_fingerprint=model_fingerprint,
        tokenizer_fingerprint=tokenizer_fingerprint,
        task=run.data.task,
        labels=setup.labels,
    )


def scored(metadata: PromptMetadata, chosen: dict[str, Any]) -> PromptMetadata:
    """Metadata of a run's prompt file with metric, score and step of the evaluation that chose it.

    Args:
      metadata: `metadata_of` the run.
      chosen: the member's part of `BestTracker.best`.
    """
    return dataclasses.replace(metadata, metric=chosen["metric"], score=chosen["value"], step=chosen["step"])


def _of_task(setup: Setup, metadata: PromptMetadata, chosen: dict[str, Any], task: str) -> PromptMetadata:
    """`scored` of one task's own prompt, with that task's score, where it was evaluated, at the common step."""
    own = dataclasses.replace(metadata, task=task, labels=setup.labels_of[task])
    metrics = {name: found for name, found in chosen["metrics"].items() if name == task}
    if not metrics:
        return dataclasses.replace(own, step=chosen["step"])
    wanted = setup.run.training.metric
    value, _ = selection_metric(metrics, wanted)
    return scored(own, {**chosen, "metric": metric_name(metrics, wanted), "value": value})


def none_yet(setup: Setup) -> Tree:
    """Zeros as `fold_tuned` gives them, on every device, for `keep`; empty where the whole model is tuned."""
    if setup.run.tunes_model:
        return {}
    folded = jax.eval_shape(lambda tuned: fold_tuned(setup, tuned), setup.tuned)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), folded)
    return jax.device_put(zeros, partition.replicated(setup.mesh))


def keep(setup: Setup, best: Tree, members: Sequence[int], folded: Tree, improved: Collection[int]) -> Tree:
    """`best` of all members with what is folded now, of `members`, for those that improved."""
    if not best or not improved:
        return best
    return put(best, folded, members, improved, partition.replicated(setup.mesh))


def save(
    file: pathlib.Path, setup: Setup, folded: Tree, metadata: PromptMetadata, chosen: dict[str, Any]
) -> None:
    """Writes what one member tuned, folded: a prompt file, those of its tasks, or the whole model.

    Args:
      file: of the member, see `files_of`.
      setup, metadata: of the run.
      folded: the member's part of `state.fold_tuned`.
      chosen: the member's part of `BestTracker.best`.

    Raises:
      RunError: values that are not finite, or a file that cannot be written.
    """
    # All processes gather, the primary one writes.
    if setup.run.tunes_model:
        vocabulary = {"fingerprint": metadata.tokenizer_fingerprint}
        origin = {**dataclasses.asdict(scored(metadata, chosen)), "vocabulary": vocabulary}
        by_primary(save_model)(file, gathered(folded["model"]), setup.model.config, origin)
        return
    found = gathered(folded)
    prompt_PD = found.get("prompt", np.zeros((0, 0), np.float32))
    constants = {path: box.value for path, box in constants_of(setup.run.leaves).items()}
    leaves = {**flat(found.get("model", {})), **constants}
    of_tasks = [_of_task(setup, metadata, chosen, task) for task in setup.prompt_tasks]
    places = _prompt_files(file, setup)
    prompts = np.split(prompt_PD, len(places))
    for place, own_PD, about in zip(places, prompts, of_tasks or [scored(metadata, chosen)], strict=True):
        by_primary(save_prompt)(place, own_PD, about, leaves)


def restore(
    files: Sequence[pathlib.Path],
    setup: Setup,
    metadata: PromptMetadata,
    chosen_E: Sequence[dict[str, Any] | None],
    best: Tree,
    tuned: Tree,
    step: int,
) -> None:
    """Writes files of a resumed run again, as they were: those that are gone, damaged, or of another evaluation.

    Args:
      files: of the members, see `files_of`.
      setup, metadata: of the run.
      chosen_E: `BestTracker.best` of the checkpoint.
      best, tuned, step: what the checkpoint holds.

    Raises:
      RunError: the whole model is tuned, its directory is gone, and the checkpoint holds a later step than its best.
    """
    stale = [
        member
        for member, (file, chosen) in enumerate(zip(files, chosen_E, strict=True))
        if chosen is not None and not _holds(file, setup, chosen["step"])
    ]
    for member in json.loads(from_primary("stale files", json.dumps(stale))):
        file, chosen = files[member], chosen_E[member]
        assert chosen is not None
        if best:
            save(file, setup, of_member(best, member), metadata, chosen)
        elif chosen["step"] == step:
            save(file, setup, of_member(tuned, member), metadata, chosen)
        else:
            raise RunError(
                f"{file} is gone, which was the best at step {chosen['step']}, and the checkpoint holds step {step}: "
                "bring it back, or remove MODEL_DIR to start again"
            )
        log(f"{file} is written again, from the checkpoint of step {step}")


def _holds(file: pathlib.Path, setup: Setup, step: int) -> bool:
    if setup.run.tunes_model:  # which a run writes again when it comes to its step
        return (file / "config.json").is_file() and (file / "model.safetensors").is_file()
    try:
        return all(load_prompt(each)[1].step == step for each in _prompt_files(file, setup))
    except (ConfigError, RunError):
        return False


def _prompt_files(file: pathlib.Path, setup: Setup) -> list[pathlib.Path]:
    return [file / f"{task}{SUFFIX}" for task in setup.prompt_tasks] or [file]


def load(
    files: Sequence[pathlib.Path], setup: Setup, frozen: Tree
) -> tuple[list[Tree], Float[Array, "E P D"] | None]:
    """Reads what `save` wrote: parameters and prompts as `state.for_evaluation` gives them.

    Raises:
      ConfigError, RunError: a file that is gone or damaged.
    """
    if setup.run.tunes_model:
        return [load_saved(files[0])], None
    read_ET = [
        [load_tuned(setup.model, each, setup.labels) for each in _prompt_files(file, setup)] for file in files
    ]
    params_E = [lay_in(frozen, leaves) for (_, leaves, _), *_ in read_ET]
    if setup.method is None:
        return params_E, None
    return params_E, jnp.stack([jnp.concatenate([prompt_PD for prompt_PD, *_ in read]) for read in read_ET])
