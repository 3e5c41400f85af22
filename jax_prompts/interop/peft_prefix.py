"""PEFT's prefix tuning of a T5: keys and values in front of the decoder's self-attention, our kind `decoder_prefix`.

An adapter has slots [P, S, 2, H, K], as many as the model has layers. PEFT hands them to a T5's decoder four arrays a
layer, for self-attention and cross-attention, and drops those of the cross-attention: layer i reads slot 2i mod S. So
where S is even, half of the slots are read twice and the others never. Adapters written here have S = 2N, each layer
twice, of which PEFT gives each layer its own.

N decoder layers, H heads of K, P virtual tokens, W = N*2*H*K.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.models.t5 import T5Config

KIND = "decoder_prefix"


def of_layers(
    slots_PX: Float[np.ndarray, "P X"], slots: int
) -> tuple[Float[np.ndarray, "P W"], tuple[str, ...]]:
    """What PEFT gives each decoder layer of a model with S layers, and in words which slots no layer reads.

    Args:
      slots_PX: X = S*Y, where Y = 2*H*K of a slot.
      slots: S; where each stands twice, the model has half as many layers.
    """
    slots_PSY = slots_PX.reshape(len(slots_PX), slots, -1)
    if slots % 2 == 0 and np.array_equal(slots_PSY[:, ::2], slots_PSY[:, 1::2]):
        return np.ascontiguousarray(slots_PSY[:, ::2].reshape(len(slots_PX), -1)), ()
    read = [2 * layer % slots for layer in range(slots)]
    never = ", ".join(str(slot) for slot in range(slots) if slot not in read)
    words = (f"the keys and values of slots {never} of {slots}, which PEFT stores and no T5 layer reads",)
    return slots_PSY[:, read].reshape(len(slots_PX), -1), words if never else ()


def slots_of(prompt_PW: Float[np.ndarray, "P W"], layers: int) -> Float[np.ndarray, "P X"]:
    """Slots of which PEFT gives each of N decoder layers its own, X = 2*W."""
    rows_PNY = prompt_PW.reshape(len(prompt_PW), layers, -1)
    return np.repeat(rows_PNY, 2, axis=1).reshape(len(prompt_PW), -1)


def prefix_tuning(config: T5Config) -> dict[str, Any]:
    """PEFT's settings of `slots_of` a model's layers."""
    return {
        "peft_type": "PREFIX_TUNING",
        "encoder_hidden_size": None,
        "num_attention_heads": config.num_heads,
        "num_layers": 2 * config.num_decoder_layers,
        "num_transformer_submodules": 2,
        "prefix_projection": False,
        "token_dim": config.num_heads
        * config.head_dim,  # PEFT would ask for D, which not every T5 divides by heads
    }
