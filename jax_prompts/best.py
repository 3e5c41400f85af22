"""Saves the best of each member, a prompt or the whole model, and loads it again to be tested.

Checkpoints hold the best prompts, too, so that files which are gone, or of a later step, can be written again.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_prompts import partition
from jax_prompts.base_models.classifier import CLASSIFIER, load_classifier
from jax_prompts.base_models.weights import load_saved, save_model
from jax_prompts.display import log
from jax_prompts.distributed.global_arrays import gathered
from jax_prompts.distributed.processes import by_primary, from_primary
from jax_prompts.errors import ConfigError, RunError, hide_secrets
from jax_prompts.members import put
from jax_prompts.prompts import PromptMetadata, fold, load_prompt, prompt_kind_of, save_prompt
from jax_prompts.prompts.prompt_file import settings_of
from jax_prompts.setup import Setup

Tree = Any


def files_of(directory: pathlib.Path, setup: Setup) -> list[pathlib.Path]:
    """Paths of the members' best: a prompt file each, or the tuned model's directory."""
    members = setup.run.training.members
    if setup.method is None:
        return [directory / "model"]
    if members == 1:
        return [directory / "prompt.safetensors"]
    return [directory / f"prompt-{member}.safetensors" for member in range(members)]


def metadata_of(setup: Setup, model_fingerprint: str, tokenizer_fingerprint: str) -> PromptMetadata:
    """Metadata of a run's prompt files; the evaluation that chooses a prompt adds metric, score and step."""
    run, method = setup.run, setup.method
    return PromptMetadata(
        method=type(method).__name__ if method is not None else "ModelTuning",
        settings=settings_of(method) if method is not None else {},
        prompt_kind=prompt_kind_of(method),
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


def none_yet(setup: Setup) -> Tree:
    """`{"prompt", "head"}` of zeros on every device, for `keep`; empty where the whole model is tuned."""
    method = setup.method
    if method is None:
        return {}

    def folded(tuned: Tree) -> Tree:
        prompts_EPD = fold(method, tuned["prompt"], setup.model.config.emb_dim)
        return {"prompt": prompts_EPD, "head": tuned.get("head", {})}

    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(folded, setup.tuned))
    return jax.device_put(zeros, partition.replicated(setup.mesh))


def keep(
    setup: Setup,
    best: Tree,
    members: Sequence[int],
    prompts_EPD: Float[Array, "E P D"] | None,
    tuned: Tree,
    improved: Collection[int],
) -> Tree:
    """`best` of all members with the prompts and heads of now, of `members`, for those that improved."""
    if prompts_EPD is None or not improved:
        return best
    now = {"prompt": prompts_EPD, "head": tuned.get("head", {})}
    return put(best, now, members, improved, partition.replicated(setup.mesh))


def save(
    file: pathlib.Path,
    setup: Setup,
    params: Tree,
    prompt_PD: Float[Array, "P D"] | None,
    metadata: PromptMetadata,
) -> None:
    """Writes one member's folded prompt and its classifier, if it has one; without a prompt, the whole model.

    Args:
      file: of the member, see `files_of`.
      setup: of the run.
      params, prompt_PD: the member's part of `state.for_evaluation`.
      metadata: `metadata_of` the run, with metric, score and step.

    Raises:
      RunError: values that are not finite, or a file that cannot be written.
    """
    # All processes gather, the primary one writes.
    if prompt_PD is None:
        vocabulary = {"fingerprint": metadata.tokenizer_fingerprint}
        origin = {**dataclasses.asdict(metadata), "vocabulary": vocabulary}
        by_primary(save_model)(file, gathered(params), setup.model.config, origin)
    else:
        head = {name: tree for name, tree in params.items() if name == CLASSIFIER}
        arrays = flax.traverse_util.flatten_dict(gathered(head), sep="/")
        by_primary(save_prompt)(file, gathered(prompt_PD), metadata, arrays)


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
        if chosen is not None and not _holds(file, chosen["step"])
    ]
    for member in json.loads(from_primary("stale files", json.dumps(stale))):
        file, chosen = files[member], chosen_E[member]
        assert chosen is not None
        if best:
            head, prompt_PD = jax.tree.map(lambda x, e=member: x[e], (best["head"], best["prompt"]))
            save(file, setup, head, prompt_PD, scored(metadata, chosen))
        elif chosen["step"] == step:
            save(file, setup, jax.tree.map(lambda x: x[0], tuned["model"]), None, scored(metadata, chosen))
        else:
            raise RunError(
                f"{file} is gone, which was the best at step {chosen['step']}, and the checkpoint holds step {step}: "
                "bring it back, or remove MODEL_DIR to start again"
            )
        log(f"{file} is written again, from the checkpoint of step {step}")


def _holds(file: pathlib.Path, step: int) -> bool:
    if file.suffix != ".safetensors":  # a whole model, which a run writes again when it comes to its step
        return (file / "config.json").is_file() and (file / "model.safetensors").is_file()
    try:
        return load_prompt(file)[1].step == step
    except (ConfigError, RunError):
        return False


def load(
    files: Sequence[pathlib.Path], setup: Setup, frozen: Tree
) -> tuple[list[Tree], Float[Array, "E P D"] | None]:
    """Reads what `save` wrote: parameters and prompts as `state.for_evaluation` gives them.

    Raises:
      ConfigError, RunError: a file that is gone or damaged.
    """
    if setup.method is None:
        return [load_saved(files[0])], None
    params_E = [{**frozen, **load_classifier(setup.model, file, setup.labels)} for file in files]
    return params_E, jnp.stack([load_prompt(file)[0] for file in files])
