"""T5Gemma's encoder and decoder; letters are explained in `models/t5.py`.

Norms stand in front of every sublayer and behind it. The first layer, and every other one after it, sees the tokens
within a window alone; virtual tokens are tokens there as they are everywhere.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_prompts.models.layer_stack import layer_stack
from jax_prompts.models.layers import MASKED, MLP, Dropout, Embed, shard_batch, written
from jax_prompts.models.products import product
from jax_prompts.models.t5gemma_config import GemmaStack, T5GemmaConfig
from jax_prompts.models.t5gemma_layers import GemmaNorm, GroupedAttention, capped
from jax_prompts.models.tuned_leaves import leaf, plus

Cache = dict[str, Any]
# Of all keys, and what is added where a window is in force; None: it covers all.
Biases = tuple[Array, Array | None]


class EncoderLayer(nn.Module):
    config: T5GemmaConfig

    def setup(self) -> None:
        c = self.config
        self.pre_attention_layer_norm = GemmaNorm(c.dtype)
        self.attention = GroupedAttention(c.encoder, c.encoder.emb_dim, c.dtype, c.adapter_activation)
        self.post_attention_layer_norm = GemmaNorm(c.dtype)
        self.pre_mlp_layer_norm = GemmaNorm(c.dtype)
        self.mlp = _mlp(c, c.encoder)
        self.post_mlp_layer_norm = GemmaNorm(c.dtype)
        self.dropout = Dropout(c.dropout_rate)

    def __call__(
        self, x_BLD: Array, is_local: Array, biases: Biases, deterministic: bool
    ) -> tuple[Array, None]:
        x_BLD = shard_batch(x_BLD)
        position_L = jnp.arange(x_BLD.shape[1])
        h_BLD = self.pre_attention_layer_norm(x_BLD)
        keys_values = self.attention.keys_values(h_BLD, position_L)
        h_BLD = self.attention(h_BLD, keys_values, _bias(biases, is_local), position_L)
        h_BLD = self.post_attention_layer_norm(h_BLD)
        x_BLD = x_BLD.astype(h_BLD.dtype) + self.dropout(h_BLD, deterministic)
        h_BLD = self.post_mlp_layer_norm(self.mlp(self.pre_mlp_layer_norm(x_BLD), deterministic))
        return x_BLD + self.dropout(h_BLD, deterministic), None


class DecoderLayer(nn.Module):
    config: T5GemmaConfig

    def setup(self) -> None:
        c = self.config
        self.pre_self_attention_layer_norm = GemmaNorm(c.dtype)
        self.self_attention = GroupedAttention(c.decoder, c.decoder.emb_dim, c.dtype, c.adapter_activation)
        self.post_self_attention_layer_norm = GemmaNorm(c.dtype)
        self.pre_cross_attention_layer_norm = GemmaNorm(c.dtype)
        self.encoder_decoder_attention = GroupedAttention(
            c.decoder, c.encoder.emb_dim, c.dtype, c.adapter_activation
        )
        self.post_cross_attention_layer_norm = GemmaNorm(c.dtype)
        self.pre_mlp_layer_norm = GemmaNorm(c.dtype)
        self.mlp = _mlp(c, c.decoder)
        self.post_mlp_layer_norm = GemmaNorm(c.dtype)
        self.dropout = Dropout(c.dropout_rate)

    def __call__(
        self,
        y_BUD: Array,
        cache: Cache | None,
        is_local: Array,
        encoded_BLD: Array | None,
        biases: Biases,
        cross_bias: Array,
        position_U: Array,
        deterministic: bool,
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """All target positions at once, or, with a cache, the one at `position_U`, and its key and value.

        `encoded_BLD` is needed unless there is a cache, which has the cross-attention's keys and values.
        """
        y_BUD = shard_batch(y_BUD)
        h_BUD = self.pre_self_attention_layer_norm(y_BUD)
        new_kv = self.self_attention.keys_values(h_BUD, position_U)
        self_kv = new_kv if cache is None else written(cache["self"], new_kv, position_U[0])
        h_BUD = self.self_attention(h_BUD, self_kv, _bias(biases, is_local), position_U)
        h_BUD = self.post_self_attention_layer_norm(h_BUD)
        y_BUD = y_BUD.astype(h_BUD.dtype) + self.dropout(h_BUD, deterministic)
        h_BUD = self.pre_cross_attention_layer_norm(y_BUD)
        cross_kv = self.cross_keys_values(None, encoded_BLD)[1] if cache is None else cache["cross"]
        h_BUD = self.encoder_decoder_attention(h_BUD, cross_kv, cross_bias)
        y_BUD = y_BUD + self.dropout(self.post_cross_attention_layer_norm(h_BUD), deterministic)
        h_BUD = self.post_mlp_layer_norm(self.mlp(self.pre_mlp_layer_norm(y_BUD), deterministic))
        return y_BUD + self.dropout(h_BUD, deterministic), None if cache is None else new_kv

    def cross_keys_values(self, _: None, encoded_BLD: Array) -> tuple[None, tuple[Array, Array]]:
        return None, self.encoder_decoder_attention.keys_values(encoded_BLD)


class Encoder(nn.Module):
    config: T5GemmaConfig

    def setup(self) -> None:
        c = self.config
        scanned = {"__call__": (0, *[nn.broadcast] * 2)}
        self.layers = layer_stack(EncoderLayer, c, c.num_encoder_layers, static=4, scanned=scanned)
        self.encoder_norm = GemmaNorm(c.dtype)
        self.dropout = Dropout(c.dropout_rate)

    def __call__(
        self, x_BLD: Array, key_bias: Float[Array, "B 1 1 L"], deterministic: bool
    ) -> Float[Array, "B L D"]:
        """Encodes embedded tokens; padding is never attended to, and what stands at padding is undefined."""
        c, position_L = self.config, jnp.arange(x_BLD.shape[1])
        biases = key_bias, _window_bias(c.encoder, position_L, position_L)
        local_N = _is_local(c.encoder)
        x_BLD = self.dropout(_scaled(x_BLD, c), deterministic)
        if c.scan_layers:
            # A scan's carry has one dtype, so the prompt's float32 rows are rounded here already.
            x_BLD, _ = self.layers(x_BLD.astype(c.dtype), local_N, biases, deterministic)
        else:
            for i, layer in enumerate(self.layers):
                x_BLD, _ = layer(x_BLD, local_N[i], biases, deterministic)
        return self.dropout(self.encoder_norm(x_BLD), deterministic)


class Decoder(nn.Module):
    """With its own embedding, which makes the logits, too."""

    config: T5GemmaConfig

    def setup(self) -> None:
        c = self.config
        self.token_embedder = Embed(c.vocab_size, c.decoder.emb_dim, nn.initializers.normal(1.0))
        scanned = {"__call__": (0, 0, *[nn.broadcast] * 5), "cross_keys_values": (nn.broadcast,)}
        self.layers = layer_stack(DecoderLayer, c, c.num_decoder_layers, static=8, scanned=scanned)
        self.decoder_norm = GemmaNorm(c.dtype)
        self.dropout = Dropout(c.dropout_rate)

    def __call__(
        self,
        tokens_BU: Int[Array, "B U"],
        encoded_BLD: Array | None,
        cross_bias: Float[Array, "B 1 1 L"],
        deterministic: bool,
        cache: Cache | None = None,
        position: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B U D"], Cache | None]:
        """Hidden states at all target positions; with a cache, at `position`, and the cache after it."""
        c = self.config
        attended = tokens_BU.shape[1] if cache is None else jax.tree.leaves(cache["self"])[0].shape[-3]
        position_M = jnp.arange(attended)
        position_U = position_M if position is None else position[None]
        causal = jnp.where(position_M[None, :] <= position_U[:, None], 0.0, MASKED)[None, None]
        biases = causal, _window_bias(c.decoder, position_U, position_M)
        local_N, shared = _is_local(c.decoder), (encoded_BLD, biases, cross_bias, position_U, deterministic)
        # T5's tasks start with 0, where a Gemma starts with <bos>; behind it 0 is padding.
        started_BU = jnp.where((position_U == 0)[None] & (tokens_BU == 0), c.start_id, tokens_BU)
        y_BUD = _scaled(self.token_embedder(started_BU), c).astype(c.dtype)
        y_BUD = self.dropout(y_BUD, deterministic)
        if c.scan_layers:
            y_BUD, new_kv = self.layers(y_BUD, cache, local_N, *shared)
        else:
            new_kv = []
            for i, layer in enumerate(self.layers):
                past = cache and {name: keys_values[i] for name, keys_values in cache.items()}
                y_BUD, made = layer(y_BUD, past, local_N[i], *shared)
                new_kv.append(made)
        if cache is not None:
            cache = {**cache, "self": written(cache["self"], new_kv, position)}
        return self.dropout(self.decoder_norm(y_BUD), deterministic), cache

    def logits(self, y_BUD: Float[Array, "B U D"]) -> Float[Array, "B U V"]:
        logits_BUV = product(y_BUD, self.token_embedder.embedding.T, jnp.float32)
        return plus(capped(logits_BUV, self.config.logits_cap), leaf(self, "logits_bias"))

    def start_cache(self, encoded_BLD: Array, max_length: int) -> Cache:
        """Room for keys and values of `max_length` tokens, and the cross-attention's, of every layer."""
        c, s = self.config, self.config.decoder
        room = (len(encoded_BLD), max_length, s.num_kv_heads, s.head_dim)
        if c.scan_layers:
            empty = jnp.zeros((s.num_layers, *room), c.dtype)
            return {"self": (empty, empty), "cross": self.layers.cross_keys_values(None, encoded_BLD)[1]}
        empty = jnp.zeros(room, c.dtype)
        cross = [layer.cross_keys_values(None, encoded_BLD)[1] for layer in self.layers]
        return {"self": [(empty, empty)] * s.num_layers, "cross": cross}


def _mlp(c: T5GemmaConfig, stack: GemmaStack) -> MLP:
    return MLP(stack.mlp_dim, c.mlp_activations, c.dropout_rate, c.dtype, c.adapter_activation)


def _scaled(x_BLD: Array, c: T5GemmaConfig) -> Array:
    """Embeddings times sqrt(D), which is rounded to the activations' dtype, as the released models were trained."""
    return x_BLD * jnp.asarray(x_BLD.shape[-1] ** 0.5, c.dtype).astype(x_BLD.dtype)


def _is_local(stack: GemmaStack) -> Array:
    """Which layers see a window alone."""
    return jnp.arange(stack.num_layers) % 2 == 0


def _window_bias(stack: GemmaStack, position_L: Array, position_M: Array) -> Array | None:
    """`MASKED` where a key is as far as the window is long, or farther."""
    if len(position_M) <= stack.sliding_window:
        return None
    distance_LM = jnp.abs(position_L[:, None] - position_M[None, :])
    return jnp.where(distance_LM < stack.sliding_window, 0.0, MASKED)[None, None]


def _bias(biases: Biases, is_local: Array) -> Array:
    of_keys, of_window = biases
    return of_keys if of_window is None else of_keys + jnp.where(is_local, of_window, 0.0)
