"""T5X checkpoints with a prompt among the model's parameters: of the original prompt tuning code, or of ours in T5X."""

from __future__ import annotations

import dataclasses
import glob
import pathlib
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jaxtyping import Float

from jax_prompts.base_models import t5x
from jax_prompts.base_models.fingerprint import checkpoint_fingerprint
from jax_prompts.base_models.open import open_model
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import ArraySource, in_memory
from jax_prompts.interop.imported import ImportedPrompt, as_prompt
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.interop.unfolded import method_of
from jax_prompts.models.t5 import T5Config
from jax_prompts.prompts import Method, PromptMetadata
from jax_prompts.prompts.prompt_file import load_file
from jax_prompts.prompts.prompt_paths import prompt_paths
from jax_prompts.storage.directories import check_new

_STEP = re.compile(r"checkpoint_(\d+)/*$")


def read_prompt(path: str) -> ImportedPrompt:
    """The prompt of a T5X checkpoint; the model beside it is left where it is.

    A table is the prompt itself. The parameters of another method are folded, by the method and settings that prompt
    files of their run tell, `prompts/` beside the checkpoint (`upstream/save.py`).

    Raises:
      ConfigError: no T5X checkpoint, or one without a prompt; a method's parameters without a prompt file of their run.
      RunError: it cannot be reached, or is damaged; parameters of another method than the prompt file's.
    """
    arrays = t5x.open_checkpoint(path)
    if arrays is None:
        steps = sorted((found.name for found in pathlib.Path(path).glob("checkpoint_*")), key=_number)
        inside = f"it has {', '.join(steps)}, name one" if steps else "there is no prompt to take"
        raise ConfigError(f"{path} is neither a T5X checkpoint nor a PEFT adapter's folder: {inside}")
    params, model = t5x.take_prompt(arrays)
    if not params:
        likely = ", ".join(name for name in arrays if "prompt" in name)
        raise ConfigError(
            f"{path} holds no {t5x.PROMPT} ({likely or 'nothing called prompt'}): it has no prompt"
        )
    if params.keys() == {"prompt"}:
        prompt_PD = as_prompt(pathlib.Path(path), params["prompt"][...])
        return ImportedPrompt(
            prompt_PD, PromptMetadata(method="PromptTuning", settings={"length": len(prompt_PD)})
        )
    if (embedding := model.get("token_embedder/embedding")) is None:
        raise RunError(f"{path} holds no token_embedder/embedding: it is no whole T5X checkpoint")
    method, metadata = _method_of_run(path, params)
    folded_PD = _folded(path, params, method, embedding.shape[1])
    metadata = dataclasses.replace(metadata, step=_number(path) if _STEP.search(path) else None)
    return ImportedPrompt(as_prompt(pathlib.Path(path), folded_PD), metadata)


def _number(path: str) -> int:
    found = _STEP.search(path)
    return int(found[1]) if found else -1


def _method_of_run(path: str, params: ArraySource) -> tuple[Method, PromptMetadata]:
    """What the prompt files that a checkpoint's run wrote say: the method; and that, model and task."""
    folder = f"{path.rstrip('/').rpartition('/')[0] or '.'}/prompts"
    try:
        files = prompt_paths("SOURCE", [f"{glob.escape(folder)}/*.safetensors"])
    except ConfigError as error:
        raise ConfigError(
            f"{path} holds the parameters of a method ({', '.join(params)}), and nothing says of which: put a prompt "
            f"file of its run into {folder}/"
        ) from error
    metadata = load_file(files[-1])[2]
    try:
        return method_of(metadata), metadata
    except (ConfigError, RunError) as error:
        raise type(error)(
            f"{files[-1]}: {error}; put prompt files of the checkpoint's own run there"
        ) from error


def _folded(path: str, params: ArraySource, method: Method, embed_dim: int) -> Float[np.ndarray, "P D"]:
    expected = jax.eval_shape(lambda: meta.unbox(method.init(jax.random.key(0), embed_dim, None))["params"])
    wanted = {name: x.shape for name, x in flax.traverse_util.flatten_dict(expected, sep="/").items()}
    found = {name: x.shape for name, x in params.items()}
    wrong = [
        f"{name} {found.get(name, 'none')} for {wanted.get(name, 'none')}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if wrong:
        raise RunError(
            f"{path} holds no {type(method).__name__} as in the prompt files beside it ({', '.join(wrong)}): put those "
            "of the checkpoint's own run there"
        )
    tree = flax.traverse_util.unflatten_dict(
        {name: jnp.asarray(x[...]) for name, x in params.items()}, sep="/"
    )
    return np.asarray(method.apply({"params": tree}, embed_dim))


def check_without_prompt(checkpoint: str | None) -> None:
    """Raises ConfigError for a T5X checkpoint with a prompt among its parameters, which the base model alone is not.

    What cannot be read is left to whoever loads it.

    Args:
      checkpoint: INITIAL_CHECKPOINT_PATH; models of the hub and of this package have no prompt.
    """
    if checkpoint is None or checkpoint.startswith(("hf://", "asset:")):
        return
    try:
        arrays = t5x.open_checkpoint(checkpoint)
    except (ConfigError, RunError):
        return
    if arrays is not None and t5x.take_prompt(arrays)[0]:
        raise ConfigError(
            f"{checkpoint} is a model with a prompt in it, and no prompt is asked for: take it out with t5x convert "
            f"{checkpoint} prompt.safetensors, and name that file in PROMPT_FILES; for the model without it, t5x "
            f"convert {checkpoint} DIRECTORY"
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
    step = _STEP.search(path) or _STEP.search(base_model)
    write_checkpoint(path, found.arrays | {t5x.PROMPT: in_memory(prompt_PD)}, int(step[1]) if step else 0)
