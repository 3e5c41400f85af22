"""The best of each member: kept in its file, a prompt or the whole model, and read back to be tested."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.base_models.weights import load_saved, save_model
from jax_prompts.distributed.global_arrays import gathered
from jax_prompts.distributed.processes import by_primary
from jax_prompts.errors import hide_secrets
from jax_prompts.prompts import PromptMetadata, load_prompt, prompt_kind_of, save_prompt
from jax_prompts.prompts.prompt_file import settings_of
from jax_prompts.setup import Setup
from jax_prompts.state import checked_head, head_arrays

Tree = Any


def files_of(directory: pathlib.Path, setup: Setup) -> list[pathlib.Path]:
    """Where the best of each member is kept: a prompt file each, or the tuned model's directory."""
    members = setup.run.training.members
    if setup.method is None:
        return [directory / "model"]
    if members == 1:
        return [directory / "prompt.safetensors"]
    return [directory / f"prompt-{member}.safetensors" for member in range(members)]


def metadata_of(setup: Setup, model_fingerprint: str, tokenizer_fingerprint: str) -> PromptMetadata:
    """Where the prompts of a run come from; score and step are those of the evaluation that chooses one."""
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
        metric=run.training.metric or "mean",
    )


def keep(
    file: pathlib.Path,
    setup: Setup,
    member: int,
    params_E: Sequence[Tree],
    prompts_EPD: Float[Array, "E P D"] | None,
    tuned: Tree,
    metadata: PromptMetadata,
) -> None:
    """Writes one member's folded prompt and its classifier, if it has one; without prompts, the whole model.

    Args:
      file: of the member, see `files_of`.
      params_E, prompts_EPD: `state.for_evaluation` of `tuned`.

    Raises:
      RunError: values that are not finite, or a file that cannot be written.
    """
    # All processes gather, the primary one writes.
    if prompts_EPD is None:
        weights = gathered(params_E[member])
        by_primary(save_model)(file, weights, setup.model.config, dataclasses.asdict(metadata))
    else:
        prompt_PD, head = gathered(prompts_EPD[member]), head_arrays(tuned, member)
        by_primary(save_prompt)(file, prompt_PD, metadata, head)


def load(
    files: Sequence[pathlib.Path], setup: Setup, frozen: Tree
) -> tuple[list[Tree], Float[Array, "E P D"] | None]:
    """The parameters and prompts that `files` hold, as `state.for_evaluation` gives those of a run.

    Raises:
      ConfigError, RunError: a file that is gone or damaged.
    """
    if setup.method is None:
        return [load_saved(files[0])], None
    params_E = [{**frozen, **checked_head(setup.model, file, setup.labels)} for file in files]
    return params_E, jnp.stack([load_prompt(file)[0] for file in files])
