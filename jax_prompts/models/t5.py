"""T5 v1.0 and v1.1 in Flax Linen, with T5X's parameter paths and one prompt-aware line.

Letters: B rows, T text tokens, P prompt length, L = P + T encoder length, M attended length, U target
tokens, D model width, H heads, K head width, F MLP width, V rows of the embedding, Q virtual tokens.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer"; T5.1.1 adds gated GELU (Shazeer 2020) and a separate output projection.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_prompts.models.layer_prompts import (
    NO_LAYER_PROMPTS,
    LayerPrompts,
    at_virtual_tokens,
    input_prompts,
    layer_prompts_of,
)
from jax_prompts.models.layers import (
    MASKED,
    MLP,
    Attention,
    Dense,
    Dropout,
    Embed,
    Rate,
    RelativePositionBias,
    RMSNorm,
    prefers_absorbed_projections,
    product,
    shard_batch,
)
from jax_prompts.models.remat import rematerialized

Cache = dict[str, Any]
CACHE_BATCH_AXIS = -4  # of every array of a cache: keys and values [B, M, H, K], or stacked [N, B, M, H, K]
KeysValues = tuple[Array, Array]
Encoded = tuple[Float[Array, "B L D"], LayerPrompts, Int[Array, "B L"]]


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Size and numerics of a T5. Sizes are in `models/sizes.py`.

    Attributes:
      mlp_activations: `("relu",)` for v1.0, `("gelu", "linear")` for v1.1.
      logits_via_embedding: True ties the output projection to the embedding and divides by sqrt(D) (v1.0).
      dtype: of activations; norms' statistics, softmax, logits are float32 whatever it is.
      scan_layers: stack the layers' parameters on axis 0 under `layers` and scan over them.
      remat: what a layer keeps for the backward pass (`models/remat.py`).
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
    dropout_rate: Rate = 0.0
    dtype: Any = jnp.float32
    scan_layers: bool = False
    remat: str = "none"

    def prompt_width(self, prompt_kind: str) -> int:
        """W, the numbers of one virtual token, for a prompt of this kind (`models/layer_prompts.py`)."""
        layers = self.num_encoder_layers + self.num_decoder_layers
        return {
            "input": self.emb_dim,
            "deep": self.num_encoder_layers * self.emb_dim,
            "prefix": layers * 2 * self.num_heads * self.head_dim,
        }[prompt_kind]


class EncoderLayer(nn.Module):
    config: T5Config

    def setup(self) -> None:
        c = self.config
        self.pre_attention_layer_norm = RMSNorm(c.dtype)
        self.attention = Attention(c.num_heads, c.head_dim, c.emb_dim, c.dropout_rate, c.dtype)
        self.pre_mlp_layer_norm = RMSNorm(c.dtype)
        self.mlp = MLP(c.mlp_dim, c.mlp_activations, c.dropout_rate, c.dtype)
        self.dropout = Dropout(c.dropout_rate)

    def __call__(
        self,
        x_BLD: Array,
        prompts: LayerPrompts,
        virtual_BL: Array,
        bias_BHLL: Array,
        deterministic: bool,
    ) -> tuple[Array, None]:
        x_BLD = shard_batch(at_virtual_tokens(prompts.states_NQD, virtual_BL, x_BLD))
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
        self.self_attention = Attention(c.num_heads, c.head_dim, c.emb_dim, c.dropout_rate, c.dtype)
        self.pre_cross_attention_layer_norm = RMSNorm(c.dtype)
        self.encoder_decoder_attention = Attention(
            c.num_heads, c.head_dim, c.emb_dim, c.dropout_rate, c.dtype
        )
        self.pre_mlp_layer_norm = RMSNorm(c.dtype)
        self.mlp = MLP(c.mlp_dim, c.mlp_activations, c.dropout_rate, c.dtype)
        self.dropout = Dropout(c.dropout_rate)

    def __call__(
        self,
        y_BUD: Array,
        cache: Cache | None,
        prompts: LayerPrompts,
        encoded_BLD: Array | None,
        virtual_BL: Array | None,
        self_bias: Array,
        cross_bias: Array,
        position: Array | None,
        deterministic: bool,
    ) -> tuple[Array, KeysValues | None]:
        """All target positions at once, or, with a cache, the one at `position`, and its key and value.

        `encoded_BLD` is needed unless the cache has the cross-attention's keys and values.
        """
        y_BUD = shard_batch(y_BUD)
        h_BUD = self.pre_self_attention_layer_norm(y_BUD)
        self_kv = new_kv = self.self_attention.keys_values(h_BUD)
        if cache is not None:
            self_kv = _written(cache["self"], new_kv, position)
        h_BUD = self.self_attention(h_BUD, self_kv, self_bias, deterministic)
        y_BUD = y_BUD.astype(h_BUD.dtype) + self.dropout(h_BUD, deterministic)
        h_BUD = self.pre_cross_attention_layer_norm(y_BUD)
        cross = self.encoder_decoder_attention
        if cache is not None and "cross" in cache:
            h_BUD = cross(h_BUD, cache["cross"], cross_bias, deterministic)
        elif cache is not None or _is_absorbed(self.config, prompts, y_BUD.shape[1], encoded_BLD):
            h_BUD = cross.absorbed_projections(h_BUD, encoded_BLD, cross_bias, deterministic)
        else:
            cross_kv = cross.keys_values(encoded_BLD, prompts, virtual_BL)
            h_BUD = cross(h_BUD, cross_kv, cross_bias, deterministic)
        y_BUD = y_BUD + self.dropout(h_BUD, deterministic)
        h_BUD = self.mlp(self.pre_mlp_layer_norm(y_BUD), deterministic)
        return y_BUD + self.dropout(h_BUD, deterministic), None if cache is None else new_kv

    def cross_keys_values(
        self, _: None, prompts: LayerPrompts, encoded_BLD: Array, virtual_BL: Array
    ) -> tuple[None, KeysValues]:
        return None, self.encoder_decoder_attention.keys_values(encoded_BLD, prompts, virtual_BL)


def _stack(
    layer: type[nn.Module], config: T5Config, length: int, *, cached: bool
) -> list[nn.Module] | nn.Module:
    """`length` layers: a list, or one module scanned over their parameters, caches and rows, stacked on axis 0."""
    layer = rematerialized(layer, config.remat, static=9 if cached else 5, scanned=config.scan_layers)
    if not config.scan_layers:
        return [layer(config) for _ in range(length)]
    common = dict(variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=length,
                  metadata_params={nn.PARTITION_NAME: "layers"})  # fmt: skip
    if cached:
        methods = {
            "__call__": dict(in_axes=(0, 0, *[nn.broadcast] * 6), **common),
            "cross_keys_values": dict(in_axes=(0, *[nn.broadcast] * 2), **common),
        }
        return nn.scan(layer, methods=methods)(config)
    return nn.scan(layer, in_axes=(0, *[nn.broadcast] * 3), **common)(config)


class Encoder(nn.Module):
    config: T5Config

    def setup(self) -> None:
        c = self.config
        self.relpos_bias = RelativePositionBias(
            c.num_heads, c.relpos_buckets, c.relpos_max_distance, bidirectional=True
        )
        self.layers = _stack(EncoderLayer, c, c.num_encoder_layers, cached=False)
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
        position_L = jnp.arange(x_BLD.shape[1])
        bias_BHLL = self.relpos_bias(position_L, position_L) + _key_bias(valid_BL)
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
        self.relpos_bias = RelativePositionBias(
            c.num_heads, c.relpos_buckets, c.relpos_max_distance, bidirectional=False
        )
        self.layers = _stack(DecoderLayer, c, c.num_decoder_layers, cached=True)
        self.decoder_norm = RMSNorm(c.dtype)
        self.dropout = Dropout(c.dropout_rate)
        if not c.logits_via_embedding:
            init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
            self.logits_dense = Dense(c.emb_dim, c.vocab_size, ("embed", "vocab"), init, jnp.float32)

    def __call__(
        self,
        y_BUD: Array,
        prompts: LayerPrompts,
        encoded_BLD: Array | None,
        virtual_BL: Array | None,
        cross_bias: Float[Array, "B 1 1 L"],
        deterministic: bool,
        cache: Cache | None = None,
        position: Array | None = None,
    ) -> tuple[Float[Array, "B U D"], Cache | None]:
        """Hidden states at all target positions; with a cache, at `position`, and the cache after it."""
        c = self.config
        max_length = y_BUD.shape[1] if cache is None else jax.tree.leaves(cache["self"])[0].shape[-3]
        key_U = jnp.arange(max_length)
        query_U = key_U if position is None else position[None]
        causal_UU = jnp.where(key_U[None, :] <= query_U[:, None], 0.0, MASKED)
        self_bias = self.relpos_bias(query_U, key_U) + causal_UU[None, None]
        shared = (encoded_BLD, virtual_BL, self_bias, cross_bias, position, deterministic)
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
            cache = {**cache, "self": _written(cache["self"], new_kv, position)}
        return self.dropout(self.decoder_norm(y_BUD), deterministic), cache

    def logits(self, y_BUD: Float[Array, "B U D"], embedding_VD: Array) -> Float[Array, "B U V"]:
        if not self.config.logits_via_embedding:
            return self.logits_dense(y_BUD)
        root = jnp.sqrt(self.config.emb_dim)
        if y_BUD.dtype == embedding_VD.dtype == jnp.bfloat16:  # whose quotient would be rounded
            return product(y_BUD, embedding_VD.T, jnp.float32) / root
        return product(y_BUD.astype(jnp.float32) / root, embedding_VD.T, jnp.float32)

    def start_cache(
        self, prompts: LayerPrompts, encoded_BLD: Array, virtual_BL: Array, max_length: int, hypotheses: int
    ) -> Cache:
        """Room for the keys and values of `max_length` tokens, and the cross-attention's where it has some, of every
        layer."""
        c, shared = self.config, (encoded_BLD, virtual_BL)
        room = (len(encoded_BLD), max_length, c.num_heads, c.head_dim)
        if c.scan_layers:
            room = (c.num_decoder_layers, *room)
        empty = jnp.zeros(room, c.dtype), jnp.zeros(room, c.dtype)
        own = empty if c.scan_layers else [empty] * c.num_decoder_layers
        if _is_absorbed(c, prompts, hypotheses * max_length, encoded_BLD):
            return {"self": own}
        if c.scan_layers:
            cross = self.layers.cross_keys_values(None, prompts, *shared)[1]
        else:
            cross = [
                layer.cross_keys_values(None, prompts.layer(i), *shared)[1]
                for i, layer in enumerate(self.layers)
            ]
        return {"self": own, "cross": cross}


class T5(nn.Module):
    """Encoder and decoder around one embedding.

    `prompts_QW` are the rows of virtual tokens V .. V + Q - 1: of the kind `input`, W = D, their
    embeddings; of `deep` and `prefix` what they are at every layer (`models/layer_prompts.py`), keys and values
    those of the encoder's layers and then of the decoder's cross-attention.
    """

    config: T5Config
    prompt_kind: str = "input"

    def setup(self) -> None:
        self.token_embedder = Embed(self.config.vocab_size, self.config.emb_dim, nn.initializers.normal(1.0))
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def __call__(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B U"],
        prompts_QW: Float[Array, "Q W"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B U V"]:
        """Float32 logits of every target position, given the tokens before it (teacher forcing).

        Dropout draws from the rng stream `dropout` unless `deterministic`. Token 0 is padding.
        """
        tokens = encoder_input_tokens, decoder_input_tokens
        return self.logits(self.hidden(*tokens, prompts_QW, deterministic=deterministic))

    def hidden(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B U"],
        prompts_QW: Float[Array, "Q W"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B U D"]:
        """Hidden states of every target position: `__call__` up to `logits`."""
        encoded = self.encode(encoder_input_tokens, prompts_QW, deterministic=deterministic)
        return self.decode(encoded, encoder_input_tokens, decoder_input_tokens, deterministic=deterministic)

    def logits(self, y_BUD: Float[Array, "B U D"]) -> Float[Array, "B U V"]:
        """Float32 logits of what `hidden` or `decode` made."""
        return self.decoder.logits(y_BUD, self.token_embedder.embedding)

    def initialize(self) -> None:
        """Touches every parameter, for `init(..., method="initialize")`."""
        token = jnp.zeros((1, 1), jnp.int32)
        self(token, token)

    def encode(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        prompts_QW: Float[Array, "Q W"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Encoded:
        """The encoder's output after its final norm (undefined at padding), the cross-attention's rows, and where
        virtual tokens stand."""
        c, crossed = self.config, self.config.num_decoder_layers if self.prompt_kind == "prefix" else 0
        prompts = layer_prompts_of(prompts_QW, self.prompt_kind, c.num_encoder_layers + crossed, c.num_heads)
        encoder_prompts = jax.tree.map(lambda x: x[: c.num_encoder_layers], prompts)
        cross_prompts = (
            jax.tree.map(lambda x: x[c.num_encoder_layers :], prompts) if crossed else NO_LAYER_PROMPTS
        )
        virtual_BL = encoder_input_tokens - c.vocab_size
        x_BLD = self.token_embedder(
            encoder_input_tokens, input_prompts(prompts_QW, self.prompt_kind, c.emb_dim)
        )
        encoded_BLD = self.encoder(
            x_BLD, encoder_prompts, virtual_BL, encoder_input_tokens > 0, deterministic
        )
        return encoded_BLD, cross_prompts, virtual_BL

    def decode(
        self,
        encoded: Encoded,
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B U"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B U D"]:
        """The decoder's output at every target position, from what `encode` made of the same `encoder_input_tokens`."""
        encoded_BLD, cross_prompts, virtual_BL = encoded
        y_BUD = self.token_embedder(decoder_input_tokens)
        cross_bias = _key_bias(encoder_input_tokens > 0)
        return self.decoder(y_BUD, cross_prompts, encoded_BLD, virtual_BL, cross_bias, deterministic)[0]

    def start_decoding(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        prompts_QW: Float[Array, "Q W"] | None,
        max_length: int,
        hypotheses: int = 1,
    ) -> Cache:
        """Cache of `decode_step` for up to `max_length` tokens of each of a row's hypotheses.

        The batch is the axis `CACHE_BATCH_AXIS` of all arrays.
        """
        encoded_BLD, cross_prompts, virtual_BL = self.encode(encoder_input_tokens, prompts_QW)
        layers = self.decoder.start_cache(cross_prompts, encoded_BLD, virtual_BL, max_length, hypotheses)
        cache = {"layers": layers, "cross_bias": _key_bias(encoder_input_tokens > 0)}
        return cache if "cross" in layers else {**cache, "encoded": encoded_BLD[:, :, None]}

    def decode_step(
        self, token_B: Int[Array, " B"], cache: Cache, position: Int[Array, ""]
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Float32 logits of the token after `token_B`, which stands at `position`; and the cache after it."""
        y_B1D, cross_bias = self.token_embedder(token_B[:, None]), cache["cross_bias"]
        encoded_BLD = cache["encoded"][:, :, 0] if "encoded" in cache else None
        y_B1D, layers = self.decoder(
            y_B1D, NO_LAYER_PROMPTS, encoded_BLD, None, cross_bias, True, cache["layers"], position
        )
        return self.logits(y_B1D)[:, 0], {**cache, "layers": layers}


def _is_absorbed(config: T5Config, prompts: LayerPrompts, queries: int, encoded_BLD: Array) -> bool:
    """Whether the cross-attention of so many queries does without keys and values."""
    attended = encoded_BLD.shape[1]
    return prompts.keys_NQHK is None and prefers_absorbed_projections(queries, attended, config.head_dim)


def _written(past: Any, new: Any, position: Array) -> Any:
    """Keys and values [..., M, H, K] with those of one token at `position`."""
    return jax.tree.map(
        lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y.astype(x.dtype), position, axis=-3), past, new
    )


def _key_bias(valid_BL: Array) -> Float[Array, "B 1 1 L"]:
    return jnp.where(valid_BL, 0.0, MASKED)[:, None, None, :]
