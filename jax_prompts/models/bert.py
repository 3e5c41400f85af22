"""BERT (Devlin et al. 2019) in Flax Linen, with the prompt-aware lookup of T5.

Post-norm encoder with learned positions: hidden = LayerNorm(x + sublayer(x)). Virtual tokens are tokens: like
words they take a position, a segment and the embedding's norm. Called as T5 is, it answers with a class (a
"vocabulary" of C labels and one target) of [CLS] or at [MASK], or, without classes, with the words that were masked.
Letters as in `models/t5.py`; C classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jax_prompts.errors import ConfigError
from jax_prompts.models.answers import VERBALIZER
from jax_prompts.models.layer_prompts import (
    CROSS,
    DECODER,
    ENCODER,
    PLACES,
    LayerPrompts,
    at_virtual_tokens,
    input_prompts,
    layer_prompts_of,
    prompt_width,
)
from jax_prompts.models.layers import Dense, Dropout, Embed, Rate, key_bias, shard_batch
from jax_prompts.models.mask_place import MASK_PLACE
from jax_prompts.models.products import contract
from jax_prompts.models.remat import rematerialized
from jax_prompts.models.sums import softmax
from jax_prompts.models.tuned_leaves import leaf, plus


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Size and numerics of a BERT.

    Attributes:
      max_length: learned positions; the prompt counts.
      segments: rows of the segment embedding.
      separator_id: of [SEP]: what stands after the first is segment 1.
      mask_id: of [MASK].
      dtype: of activations; norms' statistics, softmax and logits are float32 whatever it is.
      remat: what a layer keeps for the backward pass (`models/remat.py`).
    """

    vocab_size: int
    emb_dim: int
    num_heads: int
    num_layers: int
    mlp_dim: int
    max_length: int = 512
    segments: int = 2
    separator_id: int = 102
    mask_id: int = 103
    dropout_rate: Rate = 0.0
    dtype: Any = jnp.float32
    remat: str = "none"

    @property
    def head_dim(self) -> int:
        return self.emb_dim // self.num_heads

    @property
    def prompted_layers(self) -> dict[str, int]:
        """Layers of each place of `models/layer_prompts.py`: there is no decoder."""
        return {ENCODER: self.num_layers, CROSS: 0}

    def prompt_width(self, prompt_kind: str) -> int:
        """W, the numbers of one virtual token, for a prompt of this kind (`models/layer_prompts.py`).

        Raises:
          ConfigError: a kind that belongs to a decoder.
        """
        if DECODER in PLACES[prompt_kind]:
            raise ConfigError(
                f"a BERT has no decoder for prompts of kind {prompt_kind!r}: use deep or prefix"
            )
        return prompt_width(prompt_kind, self.prompted_layers, self.emb_dim, self.emb_dim)


def _dense(
    c: BertConfig,
    features: int,
    axes: tuple[str, str],
    width: int | None = None,
    dtype: DTypeLike | None = None,
) -> Dense:
    init = nn.initializers.truncated_normal(0.02)
    return Dense(width or c.emb_dim, features, axes, init, dtype or c.dtype, biased=True)


def _norm(c: BertConfig) -> nn.LayerNorm:
    ones = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
    zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
    return nn.LayerNorm(
        epsilon=1e-12, dtype=c.dtype, use_fast_variance=False, scale_init=ones, bias_init=zeros
    )


class BertLayer(nn.Module):
    config: BertConfig

    def setup(self) -> None:
        c = self.config
        self.query, self.key, self.value = (_dense(c, c.emb_dim, ("embed", "joined_kv")) for _ in range(3))
        self.out = _dense(c, c.emb_dim, ("joined_kv", "embed"))
        self.attention_norm = _norm(c)
        self.wi = _dense(c, c.mlp_dim, ("embed", "mlp"))
        self.wo = _dense(c, c.emb_dim, ("mlp", "embed"), c.mlp_dim)
        self.mlp_norm = _norm(c)
        self.dropout = Dropout(c.dropout_rate, shared=False)

    def __call__(
        self,
        x_BLD: Array,
        prompts: LayerPrompts,
        virtual_BL: Array,
        bias_B11L: Array,
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        c = self.config
        shape = (*x_BLD.shape[:2], c.num_heads, c.head_dim)
        x_BLD = shard_batch(at_virtual_tokens(prompts.states_NQD, virtual_BL, x_BLD))
        query, key, value = (dense(x_BLD).reshape(shape) for dense in (self.query, self.key, self.value))
        key = at_virtual_tokens(prompts.keys_NQHK, virtual_BL, key).astype(c.dtype)
        value = at_virtual_tokens(prompts.values_NQHK, virtual_BL, value).astype(c.dtype)
        logits_BHLM = contract("BLHK,BMHK->BHLM", query, key, jnp.float32)
        weights_BHLM = softmax(logits_BHLM * c.head_dim**-0.5 + bias_B11L, c.dtype)
        weights_BHLM = self.dropout(weights_BHLM, deterministic)
        mixed_BLD = contract("BHLM,BMHK->BLHK", weights_BHLM, value, c.dtype).reshape(x_BLD.shape)
        x_BLD = self.attention_norm(x_BLD + self.dropout(self.out(mixed_BLD), deterministic))
        h_BLD = self.wo(nn.gelu(self.wi(x_BLD), approximate=False))
        return self.mlp_norm(x_BLD + self.dropout(h_BLD, deterministic))


class Bert(nn.Module):
    """`prompts_QW` are the rows of virtual tokens V .. V + Q - 1, as in `models/t5.py`. Token 0 is padding.

    Attributes:
      prompt_kind: what prompts are (`models/layer_prompts.py`).
      classes: C of the classifier on [CLS]; 0: masked-LM head in its place.
      at_mask: whether the C classes are read at `MASK_PLACE`, by a verbaliser behind the masked-LM head's norm.
    """

    config: BertConfig
    prompt_kind: str = "input"
    classes: int = 0
    at_mask: bool = False

    def setup(self) -> None:
        c = self.config
        init = nn.initializers.truncated_normal(0.02)
        table = nn.with_logical_partitioning(init, (None, "embed"))
        self.token_embedder = Embed(c.vocab_size, c.emb_dim, init)
        self.positions = self.param("position_embedding", table, (c.max_length, c.emb_dim))
        self.segments = self.param("segment_embedding", table, (c.segments, c.emb_dim))
        self.embedding_norm = _norm(c)
        layer = rematerialized(BertLayer, c.remat, static=5)
        self.layers = [layer(c) for _ in range(c.num_layers)]
        self.pooler = _dense(c, c.emb_dim, ("embed", "embed_out"))
        self.dropout = Dropout(c.dropout_rate, shared=False)
        if self.classes and not self.at_mask:
            self.classifier = _dense(c, self.classes, ("embed", "classes"), dtype=jnp.float32)
        else:
            self.mlm_dense = _dense(c, c.emb_dim, ("embed", "embed_out"))
            self.mlm_norm = _norm(c)
            bias = nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",))
            self.mlm_bias = self.param("mlm_bias", bias, (c.vocab_size,))

    def __call__(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B U"] | None,
        prompts_QW: Float[Array, "Q W"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, " B #L V"]:
        """Float32 logits of the classes [B, 1, C], or of the words at every position [B, L, V].

        There is no decoder: `decoder_input_tokens` are not read.
        """
        tokens = encoder_input_tokens, decoder_input_tokens
        return self.logits(self.hidden(*tokens, prompts_QW, deterministic=deterministic))

    def hidden(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B U"] | None,
        prompts_QW: Float[Array, "Q W"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, " B #L D"]:
        """`__call__` up to `logits`: [CLS] pooled or [MASK] transformed [B, 1, D], or all last states [B, L, D]."""
        x_BLD = self.encode(encoder_input_tokens, prompts_QW, deterministic=deterministic)
        if self.at_mask:
            place_B11 = jnp.argmax(encoder_input_tokens == MASK_PLACE, axis=1)[:, None, None]
            return self.transform(jnp.take_along_axis(x_BLD, place_B11, axis=1))
        return self.dropout(self.pool(x_BLD), deterministic)[:, None] if self.classes else x_BLD

    def logits(self, h_BUD: Float[Array, "B U D"]) -> Float[Array, "B U V"]:
        """Float32 logits of what `hidden` made."""
        if self.at_mask:
            verbalizer = leaf(self, VERBALIZER)
            logits_BUC = jnp.matmul(h_BUD, verbalizer["kernel"], precision=jax.lax.Precision.HIGHEST)
            return plus(logits_BUC, verbalizer.get("bias"))
        return self.classifier(h_BUD) if self.classes else self.predict_masked(h_BUD)

    def encode(
        self,
        tokens_BL: Int[Array, "B L"],
        prompts_QW: Float[Array, "Q W"] | None = None,
        segments_BL: Int[Array, "B L"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B L D"]:
        """The last hidden state; undefined at padding. Without `segments_BL` the first [SEP] ends segment 0."""
        c, length = self.config, tokens_BL.shape[1]
        tokens_BL = jnp.where(tokens_BL == MASK_PLACE, c.mask_id, tokens_BL)
        prompts = layer_prompts_of(prompts_QW, self.prompt_kind, c.prompted_layers, c.num_heads)[ENCODER]
        if segments_BL is None:
            separators_BL = tokens_BL == c.separator_id
            segments_BL = jnp.cumsum(separators_BL, axis=1) - separators_BL > 0
        virtual_BL = tokens_BL - c.vocab_size
        x_BLD = self.token_embedder(tokens_BL, input_prompts(prompts_QW, self.prompt_kind, c.emb_dim))
        x_BLD = (
            x_BLD.astype(jnp.float32)
            + self.positions[None, :length]
            + self.segments[segments_BL.astype(jnp.int32)]
        )
        x_BLD = self.dropout(self.embedding_norm(x_BLD), deterministic)
        bias_B11L = key_bias(tokens_BL > 0)
        for i, layer in enumerate(self.layers):
            x_BLD = layer(x_BLD, prompts.layer(i), virtual_BL, bias_B11L, deterministic)
        return x_BLD

    def pool(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B D"]:
        """tanh(W x + b) of [CLS], the first token: what next-sentence prediction was trained on."""
        return jnp.tanh(self.pooler(x_BLD[:, 0]))

    def transform(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """What the masked-LM head projects, float32."""
        return self.mlm_norm(nn.gelu(self.mlm_dense(x_BLD), approximate=False)).astype(jnp.float32)

    def predict_masked(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """Float32 logits of the masked-LM head, whose projection is the embedding."""
        logits_BLV = self.transform(x_BLD) @ self.token_embedder.embedding.astype(jnp.float32).T
        return plus(logits_BLV, self.mlm_bias)

    def initialize(self) -> None:
        """Touches every parameter, for `init(..., method="initialize")`."""
        x_BLD = self.encode(jnp.zeros((1, 1), jnp.int32))
        if self.classes and not self.at_mask:
            self.classifier(x_BLD)
        else:
            self.predict_masked(x_BLD)
        self.pool(x_BLD)
