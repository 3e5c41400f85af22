"""Writes the folded prompt at every evaluation of a T5X run, as a prompt file of the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
import numpy as np

from jax_prompts.prompts import Method, PromptMetadata, save_prompt
from jax_prompts.prompts.prompt_file import settings_of
from jax_prompts.upstream.needs import needs_t5x

with needs_t5x():
    from t5x import trainer


class PromptFiles(trainer.BaseAction):
    """Leaves MODEL_DIR/prompts/STEP.safetensors: for `train.actions`, at TRAIN_EVAL."""

    def __init__(self, method: Method, model_dir: str, base_model: Any = None, task: Any = None) -> None:
        """Makes the action.

        Args:
          method: the network's.
          model_dir: MODEL_DIR, a directory or a bucket's.
          base_model, task: what T5X was given as such, for the files' metadata.
        """
        self._method, self._folder = method, f"{model_dir.rstrip('/')}/prompts"
        self._known = {"base_model": str(base_model or ""), "task": str(task or "")}

    def run(self, train_state: Any, metrics_by_task: Mapping[str, Any]) -> bool:
        """Writes the file of this step, on the process that T5X calls; whether training should stop: never.

        Raises:
          RunError: a prompt that is not finite, or a file that cannot be written.
        """
        params = train_state.params
        embed_dim = params["token_embedder"]["embedding"].shape[1]
        tuned = params["prompt"] if "prompt" in params else params["encoder"]["prompt"]["prompt"]
        tuned = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x)), flax.core.unfreeze(tuned)
        )  # whole on any device
        prompt_PD = self._method.apply({"params": tuned}, embed_dim)
        step = int(train_state.step)
        metadata = PromptMetadata(
            method=type(self._method).__name__, settings=settings_of(self._method), step=step, **self._known
        )
        save_prompt(f"{self._folder}/{step}.safetensors", np.asarray(prompt_PD), metadata)
        return False
