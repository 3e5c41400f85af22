"""Converts prompts from other systems (`t5x convert`), and to them (`t5x export`)."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.base_models.open import open_model
from jax_prompts.errors import ConfigError, SettingWarning
from jax_prompts.formats.safetensors import to_bytes
from jax_prompts.interop import (
    merged_model,
    npy,
    peft,
    peft_dept,
    peft_encoder,
    peft_leaves_write,
    peft_multitask,
    peft_prefix,
    t5x_prompt,
)
from jax_prompts.interop.imported import ImportedPrompt
from jax_prompts.interop.unfolded import tuned_parameters, unfolded_method
from jax_prompts.models.answers import answer_of
from jax_prompts.models.sizes import SIZES, ModelConfig
from jax_prompts.models.t5 import T5Config
from jax_prompts.models.t5gemma_config import T5GemmaConfig
from jax_prompts.prompts import MPT, PromptMetadata, save_prompt
from jax_prompts.prompts.prompt_file import check_fits, load_file
from jax_prompts.storage.directories import atomic_directory
from jax_prompts.storage.files import write_errors
from jax_prompts.storage.home import local_path

SUFFIX = ".safetensors"


def is_prompt(source: str, target: str) -> bool:
    """Whether `t5x convert` is asked for a prompt: by a target that is a file, or a source that is nothing else."""
    path = pathlib.Path(source)
    return target.endswith(SUFFIX) or peft.is_adapter(path) or npy.is_array(path)


def convert_prompt(
    source: str, target: str, *, prompt_only: bool = False, task: int | None = None
) -> dict[str, Any]:
    """Writes a prompt file from a PEFT adapter, a NumPy array or a T5X checkpoint with a prompt in it.

    Args:
      source: adapter folder, array or checkpoint.
      target: prompt file; one that is there is replaced.
      prompt_only: take the prompt without what was tuned beside it; the file's metadata says what was left out.
      task: which prompt of a PEFT adapter for several tasks, from 0.

    Raises:
      ConfigError: a source that is none of these, or more than a prompt; a target that is no prompt file; a task that
        the source has not.
      RunError: a damaged source, or a target that cannot be written.
    """
    if not target.endswith(SUFFIX):
        raise ConfigError(f"{source} is a prompt and {target} no prompt file: end it in {SUFFIX}")
    kind, found = _read(source, task)
    if prompt_only:
        if not len(found.prompt_PD):
            raise ConfigError(f"{source} holds no prompt: leave --prompt_only out")
        found = _without_leaves(found)
    if found.left_out and not prompt_only:
        raise ConfigError(
            f"{source} holds more than a prompt: {'; '.join(found.left_out)}; --prompt_only takes the prompt without it"
        )
    for words in (*found.unused, *found.left_out):
        _warn(f"{source}: left out {words}")
    metadata = found.metadata
    if found.left_out:
        extra = metadata.extra | {"left_out": json.dumps(found.left_out)}
        metadata = dataclasses.replace(metadata, extra=extra)
    save_prompt(target, found.prompt_PD, metadata, found.leaves)
    return {
        "prompt": target,
        "from": kind,
        "length": found.prompt_PD.shape[0],
        "width": found.prompt_PD.shape[1],
        "leaves": len(found.leaves),
        "parameters": found.prompt_PD.size + sum(leaf.size for leaf in found.leaves.values()),
        "unused": found.unused,
        "left_out": found.left_out,
    }


def _read(source: str, task: int | None) -> tuple[str, ImportedPrompt]:
    path = pathlib.Path(source)
    if peft.is_adapter(path):
        return "peft", peft.read_adapter(path, task)
    if task is not None:
        raise ConfigError(f"--task chooses a prompt of a PEFT adapter, and {source} is none: leave it out")
    if npy.is_array(path):
        return "npy", npy.read_array(path)
    if "://" in source or path.is_dir():
        return "t5x", t5x_prompt.read_prompt(source)
    raise ConfigError(
        f"{source} is no prompt of another system: give a PEFT adapter's folder (with {peft.CONFIG}), "
        "a NumPy array, or a T5X checkpoint"
    )


def _without_leaves(found: ImportedPrompt) -> ImportedPrompt:
    if not found.leaves:
        return found
    words = (f"{path} {list(array.shape)} (tuned inside the model)" for path, array in found.leaves.items())
    method, *others = found.metadata.method.split(" + ")
    settings = {name: value for name, value in found.metadata.settings.items() if name not in others}
    metadata = dataclasses.replace(found.metadata, method=method, settings=settings)
    return found._replace(metadata=metadata, left_out=(*found.left_out, *words), leaves={})


# Why a prompt that is not rows in front of the input has no place elsewhere.
_PER_LAYER = {
    "peft": "PEFT's prefix tuning gives a T5 keys and values in the decoder's self-attention alone, which is "
    f"PerLayer.kind = {peft_prefix.KIND!r}",
    "npy": "the original code has prompts at the input alone",
    "t5x": "the original code has prompts at the input alone",
}
_CLASSIFIER = {
    "peft": "PEFT puts virtual tokens in front of [CLS], where this prompt stands behind it",
    "npy": "the array has no place for the classifier that was tuned with it",
    "t5x": "the original code prompts T5",
}
_T5GEMMA = (
    "PEFT does not find the sizes of one, and has its prompts in front of <bos>, where there is one; use the file "
    "itself, or --to=npy"
)
_LEAVES = "t5x export FILE DIR --to=model --base_model=CHECKPOINT writes those that merge into weights"


def export_prompt(
    prompt: str, target: str, *, to: str, base_model: str | None = None, unfolded: bool = False
) -> dict[str, Any]:
    """Writes a prompt file in another system's format, or its leaves into a model: `npy` a file, others a directory.

    Args:
      prompt: prompt file.
      target: where; a directory must not be there yet, a file is replaced.
      to: `peft`, `npy`, `t5x` or `model`.
      base_model: the frozen model: for PEFT its Hugging Face name or folder, for T5X the checkpoint to complete, for
        `model` the one whose weights take the leaves.
      unfolded: of a P-Tuning prompt, as PEFT's P_TUNING adapter, with the encoder where the run has kept it; of MPT as
        MULTITASK_PROMPT_TUNING with the factors, which the run must have kept.

    Raises:
      ConfigError: no such prompt, or one that the other system cannot hold.
      RunError: a damaged file, or a target that cannot be written.
    """
    if to != "npy":
        local_path(target, "TARGET")
    _check_file(prompt)
    prompt_PD, leaves, metadata = load_file(prompt)
    if unfolded and (to != "peft" or leaves):
        raise ConfigError(f"--unfolded is for a prompt and --to=peft, not --to={to}: leave it out")
    if to == "model":
        if base_model is None:
            raise ConfigError(f"--to=model writes {prompt} into a model: give --base_model=CHECKPOINT")
        written = merged_model.write_merged(prompt, target, prompt_PD, metadata, leaves, base_model)
        return {"to": to, "target": target, **written}
    if metadata.prompt_kind not in ("input", *([peft_prefix.KIND] if to == "peft" else [])):
        raise ConfigError(f"{prompt} is a prompt at every layer ({metadata.prompt_kind!r}): {_PER_LAYER[to]}")
    if (answer := answer_of(leaves)) is not None:
        raise ConfigError(f"{prompt} is a BERT's, with a {answer}: {_CLASSIFIER[to]}")
    is_dept = to == "peft" and metadata.prompt_kind == "input" and peft_dept.is_offset(leaves)
    is_alone = to == "peft" and not len(prompt_PD)
    if leaves and not is_alone and not (is_dept and len(prompt_PD)):
        where = (
            "beside a prompt, and a PEFT adapter is one or the other" if to == "peft" else "inside the model"
        )
        raise ConfigError(f"{prompt} holds leaves that were tuned {where} ({metadata.method}): {_LEAVES}")
    if base_model is not None and to == "npy":
        raise ConfigError("--base_model says nothing to --to=npy: leave it out")
    if to == "peft":
        base_model = base_model or _loadable(metadata)
        if isinstance(_known_config(metadata, base_model), T5GemmaConfig):
            raise ConfigError(f"{prompt} is a T5Gemma's: {_T5GEMMA}")
    if leaves and is_alone:
        with write_errors(target), atomic_directory(pathlib.Path(target)) as folder:
            peft_type = peft_leaves_write.write_leaves(folder, prompt, leaves, metadata, base_model)
        _warn_unless_named(base_model)
        kind = {"peft_type": peft_type, "base_model": base_model, "leaves": len(leaves)}
    elif to == "peft":
        kind = _to_peft(prompt, target, prompt_PD, metadata, leaves, base_model, unfolded)
    elif to == "t5x":
        t5x_prompt.write_prompted(target, prompt_PD, metadata, base_model)
        kind = {"base_model": base_model}
    else:
        npy.write_array(target, prompt_PD)
        kind = {}
    return {"to": to, "target": target, "length": prompt_PD.shape[0], "width": prompt_PD.shape[1], **kind}


def _to_peft(
    prompt: str,
    target: str,
    prompt_PD: Float[np.ndarray, "P D"],
    metadata: PromptMetadata,
    leaves: Mapping[str, np.ndarray],
    base_model: str | None,
    unfolded: bool,
) -> dict[str, Any]:
    kind, tensors, encoder, written = peft.PROMPT_TUNING, None, None, prompt_PD
    if metadata.prompt_kind == peft_prefix.KIND:
        config = _model_of(prompt, prompt_PD, metadata, base_model)
        kind = peft_prefix.prefix_tuning(config)
        written = peft_prefix.slots_of(prompt_PD, config.num_decoder_layers)
    if leaves:
        kind, tensors = peft_dept.settings(leaves), peft_dept.tensors(leaves, prompt_PD)
    if unfolded:
        method = unfolded_method(metadata)
        params = tuned_parameters(pathlib.Path(prompt), prompt_PD, method, metadata.step)
        if isinstance(method, MPT):
            if params is None:
                raise ConfigError(
                    f"{prompt}: no checkpoint of its step beside it, and the factors are nowhere else: leave "
                    "--unfolded out, which writes the folded prompt as PROMPT_TUNING"
                )
            kind, tensors = peft_multitask.settings(method), peft_multitask.tensors(params)
        else:
            kind = peft_encoder.p_tuning(method, prompt_PD.shape[1])
            encoder = None if params is None else peft_encoder.torch_names(params)
            if encoder is None:
                _warn(
                    f"{prompt}: no checkpoint of its step beside it, so the adapter has no {peft_encoder.FILE}"
                )
    _warn_unless_named(base_model)
    with write_errors(target), atomic_directory(pathlib.Path(target)) as folder:
        peft.write_adapter(folder, written, metadata, base_model, kind, tensors)
        if encoder is not None:
            (folder / peft_encoder.FILE).write_bytes(to_bytes(encoder, {}))
    encoder_file = peft_encoder.FILE if encoder else None
    return {"peft_type": kind["peft_type"], "base_model": base_model, "encoder": encoder_file}


def _model_of(
    prompt: str, prompt_PW: Float[np.ndarray, "P W"], metadata: PromptMetadata, base_model: str | None
) -> T5Config:
    """Sizes of the base model: those that the run named, or of the folder that is given.

    Raises:
      ConfigError: neither is there, or the prompt is another model's.
    """
    config = _known_config(metadata, base_model)
    if not isinstance(config, T5Config):
        raise ConfigError(
            f"{prompt} does not say how many layers and heads its base model has: give --base_model=FOLDER of a T5"
        )
    check_fits(
        prompt,
        prompt_PW,
        metadata,
        prompt_width=config.prompt_width,
        model_fingerprint=None,
    )
    return config


def _known_config(metadata: PromptMetadata, base_model: str | None) -> ModelConfig | None:
    """Sizes of the base model that the run named, or of the folder; None: neither says them."""
    config = SIZES.get(metadata.base_model.partition(" ")[0])
    if config is None and base_model is not None and pathlib.Path(base_model).is_dir():
        config = open_model(base_model).config
    return config


def _check_file(prompt: str) -> None:
    """Raises ConfigError for a directory; of a MODEL_DIR the names of its prompts are told."""
    path = pathlib.Path(prompt)
    if path.is_dir():
        files = [str(file) for file in sorted(path.glob(f"prompt*{SUFFIX}"))]
        raise ConfigError(
            f"{prompt} is a directory: give a prompt file, such as {' or '.join(files) or 'p' + SUFFIX}"
        )


def _loadable(metadata: PromptMetadata) -> str | None:
    """What transformers may know the base model by: a name or a local folder, not a `gs://` path or an asset."""
    first, _, checkpoint = metadata.base_model.partition(
        " "
    )  # a run's own words are its size and its checkpoint
    name = checkpoint or first
    return None if name in ("", "None") or ":" in name else name


def _warn_unless_named(base_model: str | None) -> None:
    if base_model is None:
        _warn("the adapter names no base model: --base_model=NAME lets AutoPeftModelForSeq2SeqLM find it")


def _warn(words: str) -> None:
    warnings.warn(words, SettingWarning, stacklevel=2)
