"""Writes leaves into a base model's weights: LoRA, IA3 and what stands in a weight's own place.

Of x W with what `models/layers.py` reads beside it, ((x * input_scale) (W + A B) + b) * scale, the weights are
diag(input_scale) (W + A B) diag(scale) and b * scale. What changes is written in float32, whatever the base model's
dtype: bfloat16 has too few digits for a small update. One array at a time is in memory.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from jax_prompts.base_models.convert import write_native
from jax_prompts.base_models.fingerprint import checkpoint_fingerprint
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.stacks import in_layers
from jax_prompts.base_models.tuned_file import check_in_weights
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import ArraySource, LazyArray, in_memory
from jax_prompts.interop.imported import NO_PROMPT
from jax_prompts.models.answers import answer_of, inside_model
from jax_prompts.models.bert import BertConfig
from jax_prompts.prompts import PromptMetadata, save_prompt
from jax_prompts.prompts.prompt_file import check_fits
from jax_prompts.storage.directories import atomic_directory
from jax_prompts.storage.files import write_errors

PROMPT_FILE = "prompt.safetensors"
Leaves = Mapping[str, np.ndarray]
_AROUND = ("lora_a", "lora_b", "scale", "input_scale")
_SHOWN = 6


def write_merged(
    name: str,
    target: str,
    prompt_PD: Float[np.ndarray, "P D"],
    metadata: PromptMetadata,
    leaves: Leaves,
    base_model: str,
) -> dict[str, Any]:
    """Writes a base model with leaves in its weights, in the native form, and what is no weight as a prompt file there.

    Args:
      name: what to call the file of prompt and leaves.
      target: a directory that must not be there yet.
      prompt_PD, metadata, leaves: what the file holds.
      base_model: what `open_model` takes.

    Returns:
      Fingerprints of both models, the leaves merged, the path of the prompt file or None.

    Raises:
      ConfigError: leaves that no weight can hold, another base model, or a target that is there.
      RunError: something cannot be read or written.
    """
    found = open_model(base_model)
    arrays = in_layers(found.arrays)
    if not (inside := inside_model(leaves)):
        raise ConfigError(f"{name} holds nothing that weights could take: use the prompt file as it is")
    _check_mergeable(name, inside, arrays)
    before = checkpoint_fingerprint(found)
    check_fits(
        name,
        prompt_PD,
        metadata,
        prompt_width=found.config.prompt_width,
        model_fingerprint=before,
    )
    check_in_weights(name, inside, _boxes(arrays), metadata)
    if len(inside) < len(leaves) and not isinstance(found.config, BertConfig):
        raise ConfigError(
            f"{name} holds a BERT's {answer_of(leaves)}, and {base_model} is a T5: use the BERT it was tuned with"
        )
    origin = {"path": base_model, "kind": found.kind, "fingerprint": before, "merged": metadata.method}
    model = dataclasses.replace(
        found,
        arrays=merged(arrays, inside),
        described={**found.described, "origin": origin},
        fingerprint=None,
    )
    beside = {path: leaf for path, leaf in leaves.items() if path not in inside}
    with write_errors(target), atomic_directory(pathlib.Path(target)) as folder:
        after = write_native(base_model, folder, model)["fingerprint"]
        if has_prompt := bool(len(prompt_PD) or beside):
            its_own = dataclasses.replace(
                metadata, base_model=target, model_fingerprint=after, adapter_activation=""
            )
            save_prompt(folder / PROMPT_FILE, prompt_PD if len(prompt_PD) else NO_PROMPT, its_own, beside)
    return {
        "base_model": base_model,
        "base_fingerprint": before,
        "fingerprint": after,
        "merged": len(inside),
        "prompt": str(pathlib.Path(target, PROMPT_FILE)) if has_prompt else None,
    }


def merged(arrays: ArraySource, leaves: Leaves) -> ArraySource:
    """Weights with these leaves in them, read when they are wanted; single layers, float32 where they changed."""
    changed = dict(arrays)
    for path, leaf in leaves.items():
        if path in arrays:
            changed[path] = in_memory(np.asarray(leaf, np.float32))
    for parent in {path.rpartition("/")[0] for path in leaves if path not in arrays}:
        around = {end: leaves[path] for end in _AROUND if (path := f"{parent}/{end}") in leaves}
        changed[f"{parent}/kernel"] = _kernel(parent, changed[f"{parent}/kernel"], around)
        if "scale" in around and (bias := changed.get(f"{parent}/bias")) is not None:
            changed[f"{parent}/bias"] = in_memory(bias[...].astype(np.float32) * around["scale"])
    return changed


def _kernel(path: str, kernel: LazyArray, around: dict[str, np.ndarray]) -> LazyArray:
    @np.errstate(over="ignore", invalid="ignore")
    def read(index: tuple[slice, ...]) -> np.ndarray:
        numbers_IO = kernel[...].astype(np.float32)
        if "lora_a" in around:
            numbers_IO = numbers_IO + around["lora_a"] @ around["lora_b"]
        if "input_scale" in around:
            numbers_IO = numbers_IO * around["input_scale"][:, None]
        if "scale" in around:
            numbers_IO = numbers_IO * around["scale"]
        if not np.isfinite(numbers_IO).all():
            raise RunError(f"{path} with what was tuned in it is not finite: use another prompt file")
        return numbers_IO[index]

    return LazyArray(kernel.shape, np.dtype(np.float32), read)


def _check_mergeable(name: str, leaves: Leaves, arrays: ArraySource) -> None:
    """Raises ConfigError for leaves that are another function than weights."""
    others = sorted(p for p in leaves if p not in arrays and p.rpartition("/")[2] not in _AROUND)
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        raise ConfigError(
            f"{name} holds leaves that the model's weights have no place for ({', '.join(others[:_SHOWN])}{more}): "
            "LoRA and IA3 can be merged; use the file beside the base model, as it is"
        )


def _boxes(arrays: ArraySource) -> dict[str, nn.LogicallyPartitioned]:
    return {
        path: nn.LogicallyPartitioned(jax.ShapeDtypeStruct(array.shape, array.dtype), ())
        for path, array in arrays.items()
    }
