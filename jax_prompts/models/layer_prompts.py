"""Prompts at every layer: states, keys and values that virtual tokens have where a layer reads them.

An ordinary prompt gives a virtual token its embedding and leaves the rest to the model. A per-layer prompt
also replaces, at each layer, the virtual token's hidden state (deep prompts: Liu et al. 2022, "P-Tuning v2")
or its key and value (prefix tuning: Li & Liang 2021). Masks, positions and mixed batches are those of virtual
tokens, so nothing else changes. Letters as in `models/t5.py`; N layers, W numbers of one virtual token.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class LayerPrompts(NamedTuple):
    """States, keys and values of virtual tokens at N layers, or without N at one; None: what the layer computes."""

    states_NQD: Any = None
    keys_NQHK: Any = None
    values_NQHK: Any = None

    def layer(self, i: int) -> LayerPrompts:
        return jax.tree.map(lambda rows_NQX: rows_NQX[i], self)


NO_LAYER_PROMPTS = LayerPrompts()


def input_prompts(
    prompts_QW: Float[Array, "Q W"] | None, prompt_kind: str, emb_dim: int
) -> Float[Array, "#Q D"] | None:
    """Embeddings of virtual tokens: the prompts themselves, or one row of zeros where layers replace them all."""
    return prompts_QW if prompts_QW is None or prompt_kind == "input" else jnp.zeros((1, emb_dim))


def layer_prompts_of(
    prompts_QW: Float[Array, "Q W"] | None, prompt_kind: str, layers: int, heads: int
) -> LayerPrompts:
    """Prompts of this kind at each of N layers: N*D states, or N*2*H*K keys and values."""
    if prompts_QW is None or prompt_kind == "input":
        return NO_LAYER_PROMPTS
    if prompt_kind == "deep":
        return LayerPrompts(states_NQD=jnp.moveaxis(prompts_QW.reshape(len(prompts_QW), layers, -1), 1, 0))
    rows_QN2HK = prompts_QW.reshape(len(prompts_QW), layers, 2, heads, -1)
    rows_N2QHK = jnp.moveaxis(rows_QN2HK, 0, 2)
    return LayerPrompts(keys_NQHK=rows_N2QHK[:, 0], values_NQHK=rows_N2QHK[:, 1])


def at_virtual_tokens(
    rows_QX: Float[Array, " Q *x"] | None, virtual_BL: Int[Array, "B L"] | None, x_BLX: Float[Array, "B L *x"]
) -> Float[Array, "B L *x"]:
    """`x_BLX` with row q where virtual token q stands; words have `virtual_BL` below 0."""
    if rows_QX is None:
        return x_BLX
    rows_BLX = jnp.take(rows_QX, virtual_BL, axis=0, mode="clip")
    return jnp.where(jnp.expand_dims(virtual_BL, range(2, x_BLX.ndim)) >= 0, rows_BLX, x_BLX)
