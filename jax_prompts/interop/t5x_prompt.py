"""T5X checkpoints with a prompt among the model's parameters, as the original prompt tuning code writes them."""

from __future__ import annotations

import pathlib
import re

import numpy as np
from jaxtyping import Float

from jax_prompts.base_models import t5x
from jax_prompts.base_models.fingerprint import checkpoint_fingerprint
from jax_prompts.base_models.open import open_model
from jax_prompts.errors import ConfigError
from jax_prompts.formats.arrays import in_memory
from jax_prompts.interop.imported import ImportedPrompt, as_prompt
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.models.t5 import T5Config
from jax_prompts.prompts import PromptMetadata
from jax_prompts.storage.directories import check_new


def read_prompt(path: str) -> ImportedPrompt:
    """The prompt of a T5X checkpoint; the model beside it is left where it is.

    Raises:
      ConfigError: no T5X checkpoint, or one without a prompt.
      RunError: it cannot be reached, or is damaged.
    """
    arrays = t5x.open_checkpoint(path)
    if arrays is None:
        raise ConfigError(
            f"{path} is neither a T5X checkpoint nor a PEFT adapter's folder: there is no prompt to take"
        )
    if t5x.PROMPT not in arrays:
        likely = ", ".join(name for name in arrays if "prompt" in name)
        raise ConfigError(
            f"{path} holds no {t5x.PROMPT} ({likely or 'nothing called prompt'}): it has no prompt"
        )
    prompt_PD = as_prompt(pathlib.Path(path), arrays[t5x.PROMPT][...])
    return ImportedPrompt(
        prompt_PD, PromptMetadata(method="PromptTuning", settings={"length": len(prompt_PD)})
    )


def write_prompted(
    path: str, prompt_PD: Float[np.ndarray, "P D"], metadata: PromptMetadata, base_model: str | None
) -> None:
    """Writes a legacy T5X checkpoint of the base model with the prompt in it; a prompt that it has is replaced.

    Args:
      path: a new directory, by T5X's habit called `checkpoint_STEP`.
      prompt_PD: the prompt.
      metadata: whose fingerprint, if it has one, must be the base model's.
      base_model: what `open_model` takes.

    Raises:
      ConfigError: no base model, another one than the prompt's, one that is no T5; a directory that is not new.
      RunError: something cannot be read or written.
    """
    if base_model is None:
        raise ConfigError("--to=t5x writes the model with the prompt in it: give --base_model=CHECKPOINT")
    check_new(pathlib.Path(path))  # before the model is read
    found = open_model(base_model)
    if not isinstance(found.config, T5Config):
        raise ConfigError(f"{base_model} is a BERT or a T5Gemma, and T5X has none: use --to=npy")
    if found.config.emb_dim != prompt_PD.shape[1]:
        raise ConfigError(
            f"the prompt has width {prompt_PD.shape[1]} and {base_model} {found.config.emb_dim}: "
            "give the base model it was tuned with"
        )
    if metadata.model_fingerprint:
        ours = checkpoint_fingerprint(found)
        if ours != metadata.model_fingerprint:
            raise ConfigError(
                f"the prompt belongs to base model {metadata.model_fingerprint} and {base_model} is {ours}: "
                f"give the one it was tuned with ({metadata.base_model})"
            )
    step = re.search(r"checkpoint_(\d+)/*$", path) or re.search(r"checkpoint_(\d+)/*$", base_model)
    write_checkpoint(path, found.arrays | {t5x.PROMPT: in_memory(prompt_PD)}, int(step[1]) if step else 0)
