"""T5 v1.0 and v1.1 in Flax Linen, with T5X's parameter paths and one prompt-aware line.

Letters: B rows, T text tokens, P prompt length, L = P + T encoder length, M attended length, U target
tokens, D model width, H heads, K head width, F MLP width, V rows of the embedding, Q virtual tokens.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer"; T5.1.1 adds gated GELU (Shazeer 2020) and a separate output projection.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_prompts.models.layer_prompts import (
    NO_LAYER_PROMPTS,
    LayerPrompts,
    input_prompts,
    layer_prompts_of,
)
from jax_prompts.models.layers import Embed
from jax_prompts.models.t5_config import T5Config
from jax_prompts.models.t5_stacks import Cache, Decoder, Encoder, key_bias

CACHE_BATCH_AXIS = -4  # of every array of a cache: keys and values [B, M, H, K], or stacked [N, B, M, H, K]
Encoded = tuple[Float[Array, "B L D"], LayerPrompts, Int[Array, "B L"]]


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
        cross_bias = key_bias(encoder_input_tokens > 0)
        return self.decoder(y_BUD, cross_prompts, encoded_BLD, virtual_BL, cross_bias, deterministic)[0]

    def start_decoding(
        self,
        encoded: Encoded,
        encoder_input_tokens: Int[Array, "B L"],
        max_length: int,
        hypotheses: int = 1,
    ) -> Cache:
        """Cache of `decode_step` for up to `max_length` tokens of each of a row's hypotheses.

        From what `encode` made of the same `encoder_input_tokens`. The batch is the axis `CACHE_BATCH_AXIS` of all
        arrays.
        """
        encoded_BLD, cross_prompts, virtual_BL = encoded
        layers = self.decoder.start_cache(cross_prompts, encoded_BLD, virtual_BL, max_length, hypotheses)
        cache = {"layers": layers, "cross_bias": key_bias(encoder_input_tokens > 0)}
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
