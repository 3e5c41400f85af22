"""The size and numerics of a T5."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from jax_prompts.models import layer_prompts
from jax_prompts.models.layers import Rate


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Size and numerics of a T5. Sizes are in `models/sizes.py`.

    Attributes:
      mlp_activations: `("relu",)` for v1.0, `("gelu", "linear")` for v1.1.
      logits_via_embedding: True ties the output projection to the embedding and divides by sqrt(D) (v1.0).
      relpos_in_layers: every layer has a relative position bias of its own (umT5), in place of one a stack.
      dtype: of activations; norms' statistics, softmax, logits are float32 whatever it is.
      scan_layers: stack the layers' parameters on axis 0 under `layers` and scan over them.
      remat: what a layer keeps for the backward pass (`models/remat.py`).
      adapter_activation: of adapters that are tuned inside it (`models/tuned_leaves.py`).
    """

    vocab_size: int
    emb_dim: int
    num_heads: int
    num_encoder_layers: int
    num_decoder_layers: int
    head_dim: int
    mlp_dim: int
    mlp_activations: tuple[str, ...]
    logits_via_embedding: bool
    relpos_buckets: int = 32
    relpos_max_distance: int = 128
    relpos_in_layers: bool = False
    dropout_rate: Rate = 0.0
    dtype: Any = jnp.float32
    scan_layers: bool = False
    remat: str = "none"
    adapter_activation: str = "gelu"

    @property
    def prompted_layers(self) -> dict[str, int]:
        """Layers of each place of `models/layer_prompts.py`."""
        decoder = self.num_decoder_layers
        return {
            layer_prompts.ENCODER: self.num_encoder_layers,
            layer_prompts.CROSS: decoder,
            layer_prompts.DECODER: decoder,
        }

    def prompt_width(self, prompt_kind: str) -> int:
        """W, the numbers of one virtual token, for a prompt of this kind (`models/layer_prompts.py`)."""
        joined_kv = self.num_heads * self.head_dim
        return layer_prompts.prompt_width(prompt_kind, self.prompted_layers, self.emb_dim, joined_kv)
