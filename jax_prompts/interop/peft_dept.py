"""DePT's adapters (PROMPT_TUNING_LORA, PEFT 0.x of its own): a prompt, and A and B of an offset on the embeddings.

Its model adds lora_alpha / sqrt(r) times row t of A B to the t-th token of the text (`models/input_offset.py`).
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import ArraySource
from jax_prompts.interop.imported import as_finite
from jax_prompts.tuned.dept import DePT
from jax_prompts.tuned.leaves import INPUT_OFFSET

TYPE = "PROMPT_TUNING_LORA"
_A, _B = f"{INPUT_OFFSET}/a", f"{INPUT_OFFSET}/b"
_TENSORS = {_A: "prompt_encoder.lora_embedding_A", _B: "prompt_encoder.lora_embedding_B"}


def take_offset(
    folder: pathlib.Path, config: Mapping[str, Any], arrays: ArraySource
) -> tuple[dict[str, np.ndarray], DePT | None]:
    """The offset's leaves, B times the scale, and what they were tuned as; takes both tensors out of `arrays`.

    Nothing, and None, where the adapter was saved without them.

    Args:
      folder: what to call the adapter.
      config: the adapter's settings.
      arrays: its tensors.

    Raises:
      RunError: one of the two, tensors that are not finite, or settings that do not belong to them.
    """
    there = [name for name in _TENSORS.values() if name in arrays]
    if not there:
        return {}, None
    if len(there) == 1:
        raise RunError(f"{folder} holds {there[0]} without the other of the pair: use the whole adapter")
    a_TR, b_RD = (as_finite(folder, arrays.pop(name)[...]) for name in _TENSORS.values())
    length, rank, width, alpha = (config.get(name) for name in ("max_length", "r", "token_dim", "lora_alpha"))
    if (length, rank) != a_TR.shape or (rank, width) != b_RD.shape or 0 in a_TR.shape:
        raise RunError(
            f"{folder} holds A {list(a_TR.shape)} and B {list(b_RD.shape)}, and its settings say max_length "
            f"{length!r:.60}, r {rank!r:.60}, token_dim {width!r:.60}: use an adapter whose files belong together"
        )
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < math.inf:
        raise RunError(f"{folder}: its settings have lora_alpha {alpha!r:.60}, which is no number")
    method = DePT(rank=len(b_RD), alpha=float(alpha), max_length=len(a_TR))
    return {_A: a_TR, _B: b_RD * np.float32(method.scale)}, method


def is_offset(leaves: Mapping[str, Any]) -> bool:
    """Whether leaves are an offset of DePT and nothing else."""
    return leaves.keys() == _TENSORS.keys()


def settings(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """DePT's settings of an adapter whose B is that of `leaves`: an alpha of sqrt(r) makes the scale exactly 1."""
    length, rank = leaves[_A].shape
    return {
        "peft_type": TYPE,
        "bias": "none",
        "hidden_size": leaves[_B].shape[1],
        "init_lora_weights": True,
        "load_lora_embedding_B": True,
        "load_lora_embeddings": True,
        "lora_alpha": math.sqrt(rank),
        "max_length": length,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "r": rank,
        "save_lora_embeddings": True,
        "tokenizer_name_or_path": None,
    }


def tensors(leaves: Mapping[str, np.ndarray], prompt_PD: Float[np.ndarray, "P D"]) -> dict[str, np.ndarray]:
    """Prompt and offset under DePT's names."""
    return {"prompt_embeddings": prompt_PD} | {name: leaves[path] for path, name in _TENSORS.items()}
