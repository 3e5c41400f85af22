"""T5's encoder and decoder; letters are explained in `models/t5.py`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.models.layer_prompts import DecoderPrompts, LayerPrompts, VirtualTokens, at_virtual_tokens
from jax_prompts.models.layer_stack import layer_stack
from jax_prompts.models.layers import (
    MASKED,
    MLP,
    Attention,
    Dense,
    Dropout,
    RelativePositionBias,
    RMSNorm,
    key_bias,
    prefers_absorbed_projections,
    shard_batch,
    written,
)
from jax_prompts.models.products import product
from jax_prompts.models.sums import repeated
from jax_prompts.models.t5_config import T5Config
from jax_prompts.models.tuned_leaves import leaf, plus

Cache = dict[str, Any]
KeysValues = tuple[Array, Array]


class EncoderLayer(nn.Module):
    config: T5Config

    def setup(self) -> None:
        c = self.config
        self.pre_attention_layer_norm = RMSNorm(c.dtype)
        self.attention = Attention(
            c.num_heads, c.head_dim, c.emb_dim, c.dropout_rate, c.dtype, c.adapter_activation
        )
        self.pre_mlp_layer_norm = RMSNorm(c.dtype)
        self.mlp = MLP(c.mlp_dim, c.mlp_activations, c.dropout_rate, c.dtype, c.adapter_activation)
        self.dropout = Dropout(c.dropout_rate)
        if c.relpos_in_layers:
            self.relpos_bias = _relpos_bias(c, bidirectional=True)

    def __call__(
        self,
        x_BLD: Array,
        prompts: LayerPrompts,
        virtual_BL: Array,
        bias_BHLL: Array,
        deterministic: bool,
    ) -> tuple[Array, None]:
        x_BLD = shard_batch(at_virtual_tokens(prompts.states_NQD, virtual_BL, x_BLD))
        if self.config.relpos_in_layers:
            bias_BHLL = _with_positions(bias_BHLL, self.relpos_bias)
        h_BLD = self.pre_attention_layer_norm(x_BLD)
        keys_values = self.attention.keys_values(h_BLD, prompts, virtual_BL)
        h_BLD = self.attention(h_BLD, keys_values, bias_BHLL, deterministic)
        x_BLD = x_BLD.astype(h_BLD.dtype) + self.dropout(h_BLD, deterministic)
        h_BLD = self.mlp(self.pre_mlp_layer_norm(x_BLD), deterministic)
        return x_BLD + self.dropout(h_BLD, deterministic), None


class DecoderLayer(nn.Module):
    config: T5Config

    def setup(self) -> None:
        c = self.config
        self.pre_self_attention_layer_norm = RMSNorm(c.dtype)
        self.self_attention = Attention(
            c.num_heads, c.head_dim, c.emb_dim, c.dropout_rate, c.dtype, c.adapter_activation
        )
        self.pre_cross_attention_layer_norm = RMSNorm(c.dtype)
        self.encoder_decoder_attention = Attention(
            c.num_heads, c.head_dim, c.emb_dim, c.dropout_rate, c.dtype, c.adapter_activation
        )
        self.pre_mlp_layer_norm = RMSNorm(c.dtype)
        self.mlp = MLP(c.mlp_dim, c.mlp_activations, c.dropout_rate, c.dtype, c.adapter_activation)
        self.dropout = Dropout(c.dropout_rate)
        if c.relpos_in_layers:
            self.relpos_bias = _relpos_bias(c, bidirectional=False)

    def __call__(
        self,
        y_BUD: Array,
        cache: Cache | None,
        prompts: DecoderPrompts,
        encoded_BLD: Array | None,
        virtual: VirtualTokens,
        self_bias: Array,
        cross_bias: Array,
        position: Array | None,
        deterministic: bool,
    ) -> tuple[Array, KeysValues | None]:
        """All target positions at once, or, with a cache, the one at `position`, and its key and value.

        `encoded_BLD` is needed unless the cache has the cross-attention's keys and values. Positions of a cache count
        from the first of the prefix.
        """
        y_BUD = shard_batch(y_BUD)
        if self.config.relpos_in_layers:
            self_bias += self.relpos_bias(*_positions(y_BUD.shape[1], self_bias.shape[-1], position))
        h_BUD = self.pre_self_attention_layer_norm(y_BUD)
        self_kv = new_kv = self.self_attention.keys_values(h_BUD)
        if cache is not None:
            self_kv = written(cache["self"], new_kv, position)
        elif virtual.prefix_BP is not None:
            self_kv = _behind(self.prefix_keys_values(None, prompts.prefix, virtual)[1], new_kv)
        h_BUD = self.self_attention(h_BUD, self_kv, self_bias, deterministic)
        y_BUD = y_BUD.astype(h_BUD.dtype) + self.dropout(h_BUD, deterministic)
        h_BUD = self.pre_cross_attention_layer_norm(y_BUD)
        cross = self.encoder_decoder_attention
        if cache is not None and "cross" in cache:
            h_BUD = cross(h_BUD, cache["cross"], cross_bias, deterministic)
        elif cache is not None or (
            cross.can_absorb and _is_absorbed(self.config, prompts.cross, y_BUD.shape[1], encoded_BLD)
        ):
            h_BUD = cross.absorbed_projections(h_BUD, encoded_BLD, cross_bias, deterministic)
        else:
            cross_kv = cross.keys_values(encoded_BLD, prompts.cross, virtual.encoder_BL)
            h_BUD = cross(h_BUD, cross_kv, cross_bias, deterministic)
        y_BUD = y_BUD + self.dropout(h_BUD, deterministic)
        h_BUD = self.mlp(self.pre_mlp_layer_norm(y_BUD), deterministic)
        return y_BUD + self.dropout(h_BUD, deterministic), None if cache is None else new_kv

    def cross_keys_values(
        self, _: None, cross: LayerPrompts, encoded_BLD: Array, virtual: VirtualTokens
    ) -> tuple[None, KeysValues]:
        return None, self.encoder_decoder_attention.keys_values(encoded_BLD, cross, virtual.encoder_BL)

    def prefix_keys_values(
        self, _: None, prefix: LayerPrompts, virtual: VirtualTokens
    ) -> tuple[None, KeysValues]:
        """Keys and values [B, P, H, K] of the prefix; arbitrary where a row has no virtual token."""
        if prefix.states_NQD is None:
            rows_QHK = prefix.keys_NQHK, prefix.values_NQHK
        else:
            h_1QD = self.pre_self_attention_layer_norm(prefix.states_NQD[None])
            key_1QHK, value_1QHK = self.self_attention.keys_values(h_1QD)
            rows_QHK = key_1QHK[0], value_1QHK[0]
        key_BPHK, value_BPHK = (
            jnp.take(x, virtual.prefix_BP, axis=0, mode="clip").astype(self.config.dtype) for x in rows_QHK
        )
        return None, (key_BPHK, value_BPHK)


class Encoder(nn.Module):
    config: T5Config

    def setup(self) -> None:
        c = self.config
        if not c.relpos_in_layers:
            self.relpos_bias = _relpos_bias(c, bidirectional=True)
        scanned = {"__call__": (0, *[nn.broadcast] * 3)}
        self.layers = layer_stack(EncoderLayer, c, c.num_encoder_layers, static=5, scanned=scanned)
        self.encoder_norm = RMSNorm(c.dtype)
        self.dropout = Dropout(c.dropout_rate)

    def __call__(
        self,
        x_BLD: Array,
        prompts: LayerPrompts,
        virtual_BL: Array,
        valid_BL: Array,
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        """Encodes embedded tokens; padding is never attended to, and what stands at padding is undefined."""
        bias_BHLL = key_bias(valid_BL)
        if not self.config.relpos_in_layers:
            bias_BHLL = _with_positions(bias_BHLL, self.relpos_bias)
        x_BLD = self.dropout(x_BLD, deterministic)
        if self.config.scan_layers:
            # A scan's carry has one dtype, so the prompt's float32 rows are rounded here already.
            x_BLD = x_BLD.astype(self.config.dtype)
            x_BLD, _ = self.layers(x_BLD, prompts, virtual_BL, bias_BHLL, deterministic)
        else:
            for i, layer in enumerate(self.layers):
                x_BLD, _ = layer(x_BLD, prompts.layer(i), virtual_BL, bias_BHLL, deterministic)
        return self.dropout(self.encoder_norm(x_BLD), deterministic)


class Decoder(nn.Module):
    config: T5Config

    def setup(self) -> None:
        c = self.config
        if not c.relpos_in_layers:
            self.relpos_bias = _relpos_bias(c, bidirectional=False)
        scanned = {
            "__call__": (0, 0, *[nn.broadcast] * 6),
            "cross_keys_values": (0, *[nn.broadcast] * 2),
            "prefix_keys_values": (0, nn.broadcast),
        }
        self.layers = layer_stack(DecoderLayer, c, c.num_decoder_layers, static=9, scanned=scanned)
        self.decoder_norm = RMSNorm(c.dtype)
        self.dropout = Dropout(c.dropout_rate)
        if not c.logits_via_embedding:
            init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
            self.logits_dense = Dense(c.emb_dim, c.vocab_size, ("embed", "vocab"), init, jnp.float32)

    def __call__(
        self,
        y_BUD: Array,
        prompts: DecoderPrompts,
        encoded_BLD: Array | None,
        virtual: VirtualTokens,
        cross_bias: Float[Array, "B 1 1 L"],
        prefix_bias: Float[Array, "B 1 1 P"] | None,
        deterministic: bool,
        cache: Cache | None = None,
        position: Array | None = None,
    ) -> tuple[Float[Array, "B U D"], Cache | None]:
        """Hidden states at all target positions; with a cache, at `position`, and the cache after it."""
        c, prefix = self.config, 0 if prefix_bias is None else prefix_bias.shape[-1]
        attended = prefix + y_BUD.shape[1] if cache is None else jax.tree.leaves(cache["self"])[0].shape[-3]
        if position is not None and prefix:
            position = prefix + position
        query_U, key_M = _positions(y_BUD.shape[1], attended, position)
        self_bias = jnp.where(key_M[None, :] <= query_U[:, None], 0.0, MASKED)[None, None]
        if not c.relpos_in_layers:
            self_bias += self.relpos_bias(query_U, key_M)
        if prefix_bias is not None:
            self_bias += jnp.pad(prefix_bias, (*[(0, 0)] * 3, (0, attended - prefix)))
        shared = (encoded_BLD, virtual, self_bias, cross_bias, position, deterministic)
        y_BUD = self.dropout(y_BUD.astype(c.dtype), deterministic)
        if c.scan_layers:
            y_BUD, new_kv = self.layers(y_BUD, cache, prompts, *shared)
        else:
            new_kv = []
            for i, layer in enumerate(self.layers):
                past = cache and {name: keys_values[i] for name, keys_values in cache.items()}
                y_BUD, made = layer(y_BUD, past, prompts.layer(i), *shared)
                new_kv.append(made)
        if cache is not None:
            cache = {**cache, "self": written(cache["self"], new_kv, position)}
        return self.dropout(self.decoder_norm(y_BUD), deterministic), cache

    def logits(self, y_BUD: Float[Array, "B U D"], embedding_VD: Array) -> Float[Array, "B U V"]:
        return plus(self._unbiased_logits(y_BUD, embedding_VD), leaf(self, "logits_bias"))

    def _unbiased_logits(self, y_BUD: Float[Array, "B U D"], embedding_VD: Array) -> Float[Array, "B U V"]:
        if not self.config.logits_via_embedding:
            return self.logits_dense(y_BUD)
        root = jnp.sqrt(self.config.emb_dim)
        if y_BUD.dtype == embedding_VD.dtype == jnp.bfloat16:  # whose quotient would be rounded
            return product(y_BUD, embedding_VD.T, jnp.float32) / root
        return product(y_BUD.astype(jnp.float32) / root, embedding_VD.T, jnp.float32)

    def start_cache(
        self,
        prompts: DecoderPrompts,
        encoded_BLD: Array,
        virtual: VirtualTokens,
        max_length: int,
        hypotheses: int,
    ) -> Cache:
        """Keys and values of the prefix with room for those of `max_length` tokens behind them, and the
        cross-attention's where it has some, of every layer."""
        c, shared = self.config, (encoded_BLD, virtual)
        room = (len(encoded_BLD), max_length, c.num_heads, c.head_dim)
        if c.scan_layers:
            room = (c.num_decoder_layers, *room)
        empty = jnp.zeros(room, c.dtype), jnp.zeros(room, c.dtype)
        own = empty if c.scan_layers else [empty] * c.num_decoder_layers
        if virtual.prefix_BP is not None:
            own = _behind(self._of_layers("prefix_keys_values", prompts.prefix, virtual), own)
        if _is_absorbed(c, prompts.cross, hypotheses * max_length, encoded_BLD):
            return {"self": own}
        return {"self": own, "cross": self._of_layers("cross_keys_values", prompts.cross, *shared)}

    def _of_layers(self, name: str, prompts: LayerPrompts, *shared: Any) -> Any:
        """Keys and values that this method of each layer makes."""
        if self.config.scan_layers:
            return getattr(self.layers, name)(None, prompts, *shared)[1]
        return [
            getattr(layer, name)(None, prompts.layer(i), *shared)[1] for i, layer in enumerate(self.layers)
        ]


def _with_positions(bias_BHLL: Array, relpos_bias: RelativePositionBias) -> Float[Array, "B H L L"]:
    """A bias of keys and, the same for every row, of their positions."""
    position_L = jnp.arange(bias_BHLL.shape[-1])
    return bias_BHLL + repeated(relpos_bias(position_L, position_L)[0], bias_BHLL.shape[:1])


def _relpos_bias(config: T5Config, *, bidirectional: bool) -> RelativePositionBias:
    return RelativePositionBias(
        config.num_heads, config.relpos_buckets, config.relpos_max_distance, bidirectional
    )


def _positions(queries: int, attended: int, position: Array | None) -> tuple[Array, Array]:
    """Of the decoder's queries, which are the last of what is attended to or one at `position`, and of the keys."""
    key_M = jnp.arange(attended)
    return key_M[attended - queries :] if position is None else position[None], key_M


def _is_absorbed(config: T5Config, prompts: LayerPrompts, queries: int, encoded_BLD: Array) -> bool:
    """Whether the cross-attention of so many queries does without keys and values."""
    attended = encoded_BLD.shape[1]
    return prompts.keys_NQHK is None and prefers_absorbed_projections(queries, attended, config.head_dim)


def _behind(prefix: Any, own: Any) -> Any:
    """Keys and values [..., M, H, K] of a prefix, and behind them others."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=-3), prefix, own)


def prefix_bias(virtual: VirtualTokens) -> Float[Array, "B 1 1 P"] | None:
    return None if virtual.prefix_BP is None else key_bias(virtual.prefix_BP >= 0)
