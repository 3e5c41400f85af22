"""Layers of Gemma 2: norm, rotary positions, attention with grouped queries and capped logits.

Letters as in `models/t5.py`; G heads of keys and values, R heads of queries that read one of them.

Source: Gemma Team 2024, "Gemma 2: Improving Open Language Models at a Practical Size", section 2.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jax_prompts.models.layers import Dense
from jax_prompts.models.products import contract
from jax_prompts.models.sums import softmax
from jax_prompts.models.t5gemma_config import GemmaStack
from jax_prompts.models.tuned_leaves import adapted, leaf, plus, times


class GemmaNorm(nn.Module):
    """x / RMS(x) * (1 + scale), in float32 and then rounded to `dtype`, and a tuned bias where it is there."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
        init = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
        scale_D = self.param("scale", init, (x_BLD.shape[-1],)).astype(jnp.float32)
        x_BLD = x_BLD.astype(jnp.float32)
        normed_BLD = x_BLD * jax.lax.rsqrt(jnp.mean(jnp.square(x_BLD), axis=-1, keepdims=True) + 1e-6)
        return plus((normed_BLD + times(normed_BLD, scale_D)).astype(self.dtype), leaf(self, "bias"))


def rotated(
    x_BLHK: Float[Array, "B L H K"], position_L: Int[Array, " L"], base: float
) -> Float[Array, "B L H K"]:
    """Queries or keys turned by their positions (Su et al. 2021, "RoFormer", section 3.2.2).

    Number i of the first half of a head and number i of the second are the two sides of a plane.
    """
    half = x_BLHK.shape[-1] // 2
    wavelength_I = base ** (jnp.arange(half) / half)
    angle_LI = position_L[:, None] / wavelength_I[None]
    cos_L1I, sin_L1I = jnp.cos(angle_LI)[:, None], jnp.sin(angle_LI)[:, None]
    first, second = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    turned = first * cos_L1I[None] - second * sin_L1I[None], second * cos_L1I[None] + first * sin_L1I[None]
    return jnp.concatenate(turned, axis=-1).astype(x_BLHK.dtype)


def capped(logits: Float[Array, "*x"], cap: float) -> Float[Array, "*x"]:
    """cap * tanh(logits / cap); 0 leaves them as they are."""
    return cap * jnp.tanh(logits / cap) if cap else logits


class GroupedAttention(nn.Module):
    """Attention in which several heads of queries share one of keys and values (Ainslie et al. 2023, section 2.2).

    Attributes:
      stack: whose queries it has, and whose output.
      attended_dim: width of what keys and values are made of.
    """

    stack: GemmaStack
    attended_dim: int
    dtype: DTypeLike
    adapter_activation: str = "gelu"

    def setup(self) -> None:
        s, into = self.stack, ("embed", "joined_kv")
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        queries, keys = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim
        self.query = Dense(s.emb_dim, queries, into, init, self.dtype)
        self.key = Dense(self.attended_dim, keys, into, init, self.dtype)
        self.value = Dense(self.attended_dim, keys, into, init, self.dtype)
        self.out = Dense(queries, s.emb_dim, ("joined_kv", "embed"), init, self.dtype)

    def keys_values(
        self, x_BMD: Float[Array, "B M D"], position_M: Int[Array, " M"] | None = None
    ) -> tuple[Float[Array, "B M G K"], Float[Array, "B M G K"]]:
        """Keys and values of the attended sequence, the keys turned by their positions where there are some."""
        key_BMGK, value_BMGK = self._heads(self.key(x_BMD)), self._heads(self.value(x_BMD))
        return self._rotated(key_BMGK, position_M), value_BMGK

    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        keys_values: tuple[Float[Array, "B M G K"], Float[Array, "B M G K"]],
        bias: Float[Array, "#B 1 #L M"],
        position_L: Int[Array, " L"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Attend from `x_BLD`, turned by its positions; `bias` is added to the capped logits."""
        s, (key_BMGK, value_BMGK) = self.stack, keys_values
        query_BLHK = self._rotated(self._heads(self.query(x_BLD)), position_L)
        query_BLGRK = query_BLHK.reshape(*x_BLD.shape[:2], s.num_kv_heads, -1, s.head_dim)
        logits_BGRLM = contract("BLGRK,BMGK->BGRLM", query_BLGRK, key_BMGK, jnp.float32)
        logits_BGRLM = capped(logits_BGRLM * s.query_scalar**-0.5, s.attention_cap) + bias[:, :, None]
        weights_BGRLM = softmax(logits_BGRLM, self.dtype)
        out_BLGRK = contract("BGRLM,BMGK->BLGRK", weights_BGRLM, value_BMGK, self.dtype)
        return adapted(self, self.out(out_BLGRK.reshape(*x_BLD.shape[:2], -1)), self.adapter_activation)

    def _rotated(self, x_BLHK: Float[Array, "B L H K"], position_L: Int[Array, " L"] | None) -> Array:
        return x_BLHK if position_L is None else rotated(x_BLHK, position_L, self.stack.rope_base)

    def _heads(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L H K"]:
        return x_BLD.reshape(*x_BLD.shape[:2], -1, self.stack.head_dim)
