"""Saves the best of each member, a prompt or the whole model, and loads it again to be tested."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.base_models.classifier import CLASSIFIER, load_classifier
from jax_prompts.base_models.weights import load_saved, save_model
from jax_prompts.distributed.global_arrays import gathered
from jax_prompts.distributed.processes import by_primary
from jax_prompts.prompts import PromptMetadata, load_prompt, prompt_kind_of, save_prompt
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
    """Metadata of a run's prompt files; the evaluation that chooses a prompt adds score and step."""
    run, method = setup.run, setup.method
    return PromptMetadata(
        method=type(method).__name__ if method is not None else "ModelTuning",
        settings=settings_of(method) if method is not None else {},
        prompt_kind=prompt_kind_of(method),
        base_model=f"{run.model.size or ''} {run.model.checkpoint}".strip(),
        model_fingerprint=model_fingerprint,
        tokenizer_fingerprint=tokenizer_fingerprint,
        task=run.data.task,
        labels=setup.labels,
        metric=run.training.metric or "mean",
    )


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
      metadata: `metadata_of` the run, with score and step.

    Raises:
      RunError: values that are not finite, or a file that cannot be written.
    """
    # All processes gather, the primary one writes.
    if prompt_PD is None:
        by_primary(save_model)(file, gathered(params), setup.model.config, dataclasses.asdict(metadata))
    else:
        head = {name: tree for name, tree in params.items() if name == CLASSIFIER}
        arrays = flax.traverse_util.flatten_dict(gathered(head), sep="/")
        by_primary(save_prompt)(file, gathered(prompt_PD), metadata, arrays)


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
