"""The size and numerics of a T5Gemma."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from jax_prompts.errors import ConfigError
from jax_prompts.models.layers import Rate


@dataclasses.dataclass(frozen=True)
class GemmaStack:
    """The size of an encoder or a decoder.

    Attributes:
      num_kv_heads: of keys and values, each of which num_heads / num_kv_heads heads of queries read.
      query_scalar: attention's logits are divided by its root.
      sliding_window: tokens that a token sees to one side, itself counted, in every other layer, the first among them.
      attention_cap: what tanh keeps attention's logits below; 0: nothing does.
      rope_base: wavelengths of rotary positions grow up to 2 pi times this.
    """

    emb_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    query_scalar: float
    sliding_window: int = 4096
    attention_cap: float = 50.0
    rope_base: float = 10000.0


@dataclasses.dataclass(frozen=True)
class T5GemmaConfig:
    """Size and numerics of a T5Gemma. Sizes are in `models/sizes.py`.

    Attributes:
      logits_cap: what tanh keeps logits below; 0: nothing does.
      start_id: what the decoder starts with, Gemma's <bos>.
      dtype: of activations; norms' statistics, softmax, logits are float32 whatever it is.
      scan_layers: stack the layers' parameters on axis 0 under `layers` and scan over them.
      remat: what a layer keeps for the backward pass (`models/remat.py`).
      adapter_activation: of adapters that are tuned inside it (`models/tuned_leaves.py`).
    """

    vocab_size: int
    encoder: GemmaStack
    decoder: GemmaStack
    logits_cap: float = 30.0
    start_id: int = 2
    dropout_rate: Rate = 0.0
    dtype: Any = jnp.float32
    scan_layers: bool = False
    remat: str = "none"
    adapter_activation: str = "gelu"

    # What is asked of a T5, too, is the encoder's, the larger where the two differ.
    emb_dim = property(lambda self: self.encoder.emb_dim)
    num_heads = property(lambda self: self.encoder.num_heads)
    head_dim = property(lambda self: self.encoder.head_dim)
    mlp_dim = property(lambda self: self.encoder.mlp_dim)
    num_encoder_layers = property(lambda self: self.encoder.num_layers)
    num_decoder_layers = property(lambda self: self.decoder.num_layers)
    mlp_activations = ("gelu", "linear")

    def prompt_width(self, prompt_kind: str) -> int:
        """W, the numbers of one virtual token: those of an embedding.

        Raises:
          ConfigError: a kind of prompts at every layer.
        """
        if prompt_kind != "input":
            raise ConfigError(
                f"a T5Gemma has no place for prompts of kind {prompt_kind!r}, which stand at every layer: use a prompt "
                "of the input, or a T5"
            )
        return self.emb_dim
