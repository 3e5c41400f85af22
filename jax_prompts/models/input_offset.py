"""Offsets on the embeddings of the encoder's text, tuned leaves of a T5 as `models/tuned_leaves.py` has them.

    input_offset/{a, b}                   DePT: row t of A B to the t-th text token, A [T, R], B [R, D]
    input_offset/{down, up}/{kernel, bias} ADePT: relu(e W_down + b_down) W_up + b_up to a text token of embedding e

Text is what is neither padding nor a virtual token. The t-th text token is counted in its own row, so that what a
batch is padded to, and which prompts stand in front, change nothing. The decoder's input, of the same table, has none.
Letters as in `models/t5.py`; R rank.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_prompts.models.layers import dropped
from jax_prompts.models.products import product
from jax_prompts.models.tuned_leaves import leaf


def with_offsets(
    module: nn.Module, x_BLD: Float[Array, "B L D"], tokens_BL: Int[Array, "B L"], vocab_size: int
) -> Float[Array, "B L D"]:
    """`x_BLD`, embeddings of `tokens_BL`, with the offsets that the module has; float32 where there are some."""
    if (offset := leaf(module, "input_offset")) is None:
        return x_BLD
    x_BLD = x_BLD.astype(jnp.float32)
    is_text_BL = (tokens_BL > 0) & (tokens_BL < vocab_size)
    offsets_BLD = jnp.zeros((), jnp.float32)
    if "down" in offset:
        key = module.make_rng("dropout") if "dropout" in offset else None
        offsets_BLD += _of_embeddings(offset, x_BLD, key)
    if "a" in offset:
        offsets_BLD += _of_positions(offset, is_text_BL)
    return x_BLD + jnp.where(is_text_BL[..., None], offsets_BLD, 0.0)


def _of_embeddings(offset: Any, x_BLD: Float[Array, "B L D"], key: Array | None) -> Float[Array, "B L D"]:
    down, up = offset["down"], offset["up"]
    h_BLR = product(x_BLD, down["kernel"], jnp.float32) + down["bias"][None, None]
    if key is not None:
        h_BLR = dropped(h_BLR, offset["dropout"], key, shared=False)
    return product(nn.relu(h_BLR), up["kernel"], jnp.float32) + up["bias"][None, None]


def _of_positions(offset: Any, is_text_BL: Bool[Array, "B L"]) -> Float[Array, "B L D"]:
    """Rows of A B by the number of each text token in its row; none from number T on."""
    offset_TD = jnp.dot(offset["a"], offset["b"], precision=jax.lax.Precision.HIGHEST)
    number_BL = jnp.maximum(jnp.cumsum(is_text_BL, axis=1) - 1, 0)
    return jnp.take(offset_TD, number_BL, axis=0, mode="fill", fill_value=0.0)
