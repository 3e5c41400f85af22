"""Prompts at every layer: states, keys and values that virtual tokens have where a layer reads them.

An ordinary prompt gives a virtual token its embedding and leaves the rest to the model. A per-layer prompt
also replaces, at each layer, the virtual token's hidden state (deep prompts: Liu et al. 2022, "P-Tuning v2")
or its key and value (prefix tuning: Li & Liang 2021). Masks, positions and mixed batches are those of virtual
tokens, so nothing else changes.

In a decoder the virtual tokens of a row's encoder input stand once more, as a prefix: in its self-attention in front
of the first target token. Of a state nothing is read there but its key and value, so no prefix passes through layers.

Letters as in `models/t5.py`; N layers, W numbers of one virtual token, P prefix positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# The encoder's self-attention, the decoder's cross-attention, and its self-attention.
ENCODER, CROSS, DECODER = "encoder", "cross", "decoder"
# Which of them read a virtual token's numbers, of each prompt kind, in the order of these numbers.
PLACES: dict[str, tuple[str, ...]] = {
    "input": (),
    "deep": (ENCODER,),
    "prefix": (ENCODER, CROSS),
    "decoder_deep": (DECODER,),
    "decoder_prefix": (DECODER,),
    "full_deep": (ENCODER, DECODER),
    "full_prefix": (ENCODER, CROSS, DECODER),
}


class LayerPrompts(NamedTuple):
    """States, keys and values of virtual tokens at N layers, or without N at one; None: what the layer computes."""

    states_NQD: Any = None
    keys_NQHK: Any = None
    values_NQHK: Any = None

    def layer(self, i: int) -> LayerPrompts:
        return jax.tree.map(lambda rows_NQX: rows_NQX[i], self)


NO_LAYER_PROMPTS = LayerPrompts()


class DecoderPrompts(NamedTuple):
    """Of the cross-attention, where virtual tokens stand in the encoder, and of the prefix."""

    cross: LayerPrompts = NO_LAYER_PROMPTS
    prefix: LayerPrompts = NO_LAYER_PROMPTS

    def layer(self, i: int) -> DecoderPrompts:
        return jax.tree.map(lambda rows_NQX: rows_NQX[i], self)


class VirtualTokens(NamedTuple):
    """Which virtual tokens a row has, by the rows of their table; words, and prefix positions without, are below 0."""

    encoder_BL: Any = None
    prefix_BP: Any = None


def input_prompts(
    prompts_QW: Float[Array, "Q W"] | None, prompt_kind: str, emb_dim: int
) -> Float[Array, "#Q D"] | None:
    """Embeddings of virtual tokens: the prompts themselves, or one row of zeros where layers replace them all."""
    return prompts_QW if prompts_QW is None or prompt_kind == "input" else jnp.zeros((1, emb_dim))


def prompt_width(prompt_kind: str, layers: Mapping[str, int], emb_dim: int, joined_kv: int) -> int:
    """W of this prompt kind: of each layer D numbers of a state, or 2*H*K of a key and a value.

    Args:
      layers: how many each place has.
      joined_kv: H*K.
    """
    if prompt_kind == "input":
        return emb_dim
    numbers = emb_dim if prompt_kind.endswith("deep") else 2 * joined_kv
    return numbers * sum(layers[place] for place in PLACES[prompt_kind])


def layer_prompts_of(
    prompts_QW: Float[Array, "Q W"] | None, prompt_kind: str, layers: Mapping[str, int], heads: int
) -> dict[str, LayerPrompts]:
    """Prompts of this kind in every place, at each of its `layers`; none where it has none."""
    found = dict.fromkeys(layers, NO_LAYER_PROMPTS)
    places = PLACES[prompt_kind]
    if prompts_QW is None or not places:
        return found
    total, first = sum(layers[place] for place in places), 0
    rows_NQX = jnp.moveaxis(prompts_QW.reshape(len(prompts_QW), total, -1), 1, 0)
    for place in places:
        part_NQX = rows_NQX[first : first + layers[place]]
        first += layers[place]
        if prompt_kind.endswith("deep"):
            found[place] = LayerPrompts(states_NQD=part_NQX)
        else:
            part_NQ2HK = part_NQX.reshape(*part_NQX.shape[:2], 2, heads, -1)
            found[place] = LayerPrompts(keys_NQHK=part_NQ2HK[:, :, 0], values_NQHK=part_NQ2HK[:, :, 1])
    return found


def prefix_positions(virtual_BL: Int[Array, "B L"], prompts: int) -> Int[Array, "B P"]:
    """Each row's virtual tokens in their order, the last at the last position; below 0 where a row has fewer than P.

    So the distances from a target token to them are the same in every row.

    Args:
      virtual_BL: of the encoder's input, below 0 at words.
      prompts: rows of the table, of which no row of the batch has one twice.
    """
    prefix = min(prompts, virtual_BL.shape[1])
    last_BP = jnp.argsort(virtual_BL >= 0, axis=1, stable=True)[:, -prefix:]
    return jnp.take_along_axis(virtual_BL, last_BP, axis=1)


def at_virtual_tokens(
    rows_QX: Float[Array, " Q *x"] | None, virtual_BL: Int[Array, "B L"] | None, x_BLX: Float[Array, "B L *x"]
) -> Float[Array, "B L *x"]:
    """`x_BLX` with row q where virtual token q stands; words have `virtual_BL` below 0."""
    if rows_QX is None:
        return x_BLX
    rows_BLX = jnp.take(rows_QX, virtual_BL, axis=0, mode="clip")
    return jnp.where(jnp.expand_dims(virtual_BL, range(2, x_BLX.ndim)) >= 0, rows_BLX, x_BLX)
