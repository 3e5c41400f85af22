"""Floating-point operations of a model's encoder, which grow with the length of its rows."""

from __future__ import annotations

from jax_prompts.models.bert import BertConfig
from jax_prompts.models.sizes import ModelConfig
from jax_prompts.models.t5gemma_config import T5GemmaConfig


def encoder_flops(config: ModelConfig, length: int) -> float:
    """Of one row's forward pass: products with weights, and attention's two."""
    heads = config.num_heads * config.head_dim
    keys = config.encoder.num_kv_heads * config.head_dim if isinstance(config, T5GemmaConfig) else heads
    if isinstance(config, BertConfig):
        layers, matrices = config.num_layers, 2
    else:
        layers, matrices = config.num_encoder_layers, 1 + len(config.mlp_activations)
    weights = config.emb_dim * (2 * heads + 2 * keys + matrices * config.mlp_dim)
    return 2.0 * layers * length * (weights + 2 * length * heads)
