"""T5 v1.0 and v1.1 in Flax Linen, with T5X's parameter paths and one prompt-aware line.

Letters: B rows, T text tokens, P prompt length, L = P + T encoder length, M attended length, U target
tokens, D model width, H heads, K head width, F MLP width, V rows of the embedding, Q virtual tokens.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer"; T5.1.1 adds gated GELU (Shazeer 2020) and a separate output projection.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_prompts.models.input_offset import with_offsets
from jax_prompts.models.layer_prompts import (
    CROSS,
    DECODER,
    ENCODER,
    PLACES,
    DecoderPrompts,
    VirtualTokens,
    input_prompts,
    layer_prompts_of,
    prefix_positions,
)
from jax_prompts.models.layers import Embed
from jax_prompts.models.row_prompts import with_row_prompts
from jax_prompts.models.t5_config import T5Config
from jax_prompts.models.t5_stacks import Cache, Decoder, Encoder, key_bias, prefix_bias

CACHE_BATCH_AXIS = -4  # of every array of a cache: keys and values [B, M, H, K], or stacked [N, B, M, H, K]
Encoded = tuple[Float[Array, "B L D"], DecoderPrompts, VirtualTokens]


class T5(nn.Module):
    """Encoder and decoder around one embedding.

    `prompts_QW` are the rows of virtual tokens V .. V + Q - 1: of the kind `input`, W = D, their
    embeddings; of other kinds what they are at every layer (`models/layer_prompts.py`). Where they are nothing to the
    encoder, neither it nor the cross-attention sees where they stand.
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
        """The encoder's output after its final norm (undefined at padding), the decoder's prompts, and where virtual
        tokens stand."""
        c = self.config
        prompts = layer_prompts_of(prompts_QW, self.prompt_kind, c.prompted_layers, c.num_heads)
        virtual_BL, prefix_BP = encoder_input_tokens - c.vocab_size, None
        if prompts_QW is not None and DECODER in PLACES[self.prompt_kind]:
            prefix_BP = prefix_positions(virtual_BL, len(prompts_QW))
        x_BLD = self.token_embedder(
            encoder_input_tokens, input_prompts(prompts_QW, self.prompt_kind, c.emb_dim)
        )
        if prompts_QW is not None:
            x_BLD = with_row_prompts(self, x_BLD, encoder_input_tokens, c.vocab_size)
        x_BLD = with_offsets(self, x_BLD, encoder_input_tokens, c.vocab_size)
        attended_BL = self._attended(encoder_input_tokens)
        encoded_BLD = self.encoder(x_BLD, prompts[ENCODER], virtual_BL, attended_BL, deterministic)
        of_decoder = DecoderPrompts(prompts[CROSS], prompts[DECODER])
        return encoded_BLD, of_decoder, VirtualTokens(virtual_BL, prefix_BP)

    def _attended(self, encoder_input_tokens: Int[Array, "B L"]) -> Bool[Array, "B L"]:
        """Which positions of the encoder are seen: all but padding and virtual tokens that are nothing there."""
        attended_BL = encoder_input_tokens > 0
        if PLACES[self.prompt_kind] == (DECODER,):
            attended_BL &= encoder_input_tokens < self.config.vocab_size
        return attended_BL

    def decode(
        self,
        encoded: Encoded,
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B U"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B U D"]:
        """The decoder's output at every target position, from what `encode` made of the same `encoder_input_tokens`."""
        encoded_BLD, prompts, virtual = encoded
        y_BUD = self.token_embedder(decoder_input_tokens)
        cross_bias = key_bias(self._attended(encoder_input_tokens))
        biases = cross_bias, prefix_bias(virtual)
        return self.decoder(y_BUD, prompts, encoded_BLD, virtual, *biases, deterministic)[0]

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
        encoded_BLD, prompts, virtual = encoded
        layers = self.decoder.start_cache(prompts, encoded_BLD, virtual, max_length, hypotheses)
        cross_bias = key_bias(self._attended(encoder_input_tokens))
        cache = {"layers": layers, "cross_bias": cross_bias, "prefix_bias": prefix_bias(virtual)}
        return cache if "cross" in layers else {**cache, "encoded": encoded_BLD[:, :, None]}

    def decode_step(
        self, token_B: Int[Array, " B"], cache: Cache, position: Int[Array, ""]
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Float32 logits of the token after `token_B`, which stands at `position`; and the cache after it."""
        y_B1D, biases = self.token_embedder(token_B[:, None]), (cache["cross_bias"], cache["prefix_bias"])
        encoded_BLD = cache["encoded"][:, :, 0] if "encoded" in cache else None
        y_B1D, layers = self.decoder(
            y_B1D, DecoderPrompts(), encoded_BLD, VirtualTokens(), *biases, True, cache["layers"], position
        )
        return self.logits(y_B1D)[:, 0], {**cache, "layers": layers}
