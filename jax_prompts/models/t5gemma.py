"""T5Gemma in Flax Linen: an encoder and a decoder of Gemma 2, with T5's interface and its prompt-aware lookup.

The encoder has an embedding of its own, and so has the decoder, whose projection to logits is the same table. Parameter
paths are T5's where the layers are. Prompts are embeddings like those of words: scaled with them, at positions of their
own, within the window like them. Letters as in `models/t5.py`; D width of the encoder, C of the decoder.

Source: Zhang et al. 2025, "Encoder-Decoder Gemma: Improving the Quality-Efficiency Trade-Off via Adaptation".
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_prompts.models.input_offset import with_offsets
from jax_prompts.models.layers import Embed, key_bias
from jax_prompts.models.row_prompts import with_row_prompts
from jax_prompts.models.t5gemma_config import T5GemmaConfig
from jax_prompts.models.t5gemma_stacks import Cache, Decoder, Encoder


class T5Gemma(nn.Module):
    """`prompts_QD` are the rows of virtual tokens V .. V + Q - 1, as in `models/t5.py`. Token 0 is padding, or in front
    of the decoder's input what it starts with.

    Attributes:
      prompt_kind: `input`; there is no other.
    """

    config: T5GemmaConfig
    prompt_kind: str = "input"

    def setup(self) -> None:
        c = self.config
        self.token_embedder = Embed(c.vocab_size, c.emb_dim, nn.initializers.normal(1.0))
        self.encoder = Encoder(c)
        self.decoder = Decoder(c)

    def __call__(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B U"],
        prompts_QD: Float[Array, "Q D"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B U V"]:
        """Float32 logits of every target position, given the tokens before it (teacher forcing).

        Dropout draws from the rng stream `dropout` unless `deterministic`.
        """
        tokens = encoder_input_tokens, decoder_input_tokens
        return self.logits(self.hidden(*tokens, prompts_QD, deterministic=deterministic))

    def hidden(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B U"],
        prompts_QD: Float[Array, "Q D"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B U C"]:
        """Hidden states of every target position: `__call__` up to `logits`."""
        encoded = self.encode(encoder_input_tokens, prompts_QD, deterministic=deterministic)
        return self.decode(encoded, encoder_input_tokens, decoder_input_tokens, deterministic=deterministic)

    def logits(self, y_BUC: Float[Array, "B U C"]) -> Float[Array, "B U V"]:
        """Float32 logits of what `hidden` or `decode` made."""
        return self.decoder.logits(y_BUC)

    def initialize(self) -> None:
        """Touches every parameter, for `init(..., method="initialize")`."""
        token = jnp.zeros((1, 1), jnp.int32)
        self(token, token)

    def encode(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        prompts_QD: Float[Array, "Q D"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B L D"]:
        """The encoder's output after its final norm; undefined at padding."""
        tokens_BL, vocab_size = encoder_input_tokens, self.config.vocab_size
        x_BLD = self.token_embedder(tokens_BL, prompts_QD)
        if prompts_QD is not None:
            x_BLD = with_row_prompts(self, x_BLD, tokens_BL, vocab_size)
        x_BLD = with_offsets(self, x_BLD, tokens_BL, vocab_size)
        return self.encoder(x_BLD, key_bias(tokens_BL > 0), deterministic)

    def decode(
        self,
        encoded_BLD: Float[Array, "B L D"],
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B U"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B U C"]:
        """The decoder's output at every target position, from what `encode` made of the same `encoder_input_tokens`."""
        cross_bias = key_bias(encoder_input_tokens > 0)
        return self.decoder(decoder_input_tokens, encoded_BLD, cross_bias, deterministic)[0]

    def start_decoding(
        self,
        encoded_BLD: Float[Array, "B L D"],
        encoder_input_tokens: Int[Array, "B L"],
        max_length: int,
        hypotheses: int = 1,
    ) -> Cache:
        """Cache of `decode_step` for up to `max_length` tokens, whatever the number of a row's hypotheses.

        From what `encode` made of the same `encoder_input_tokens`. The batch is the axis `CACHE_BATCH_AXIS` of
        `models/t5.py` of all arrays.
        """
        layers = self.decoder.start_cache(encoded_BLD, max_length)
        return {"layers": layers, "cross_bias": key_bias(encoder_input_tokens > 0)}

    def decode_step(
        self, token_B: Int[Array, " B"], cache: Cache, position: Int[Array, ""]
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Float32 logits of the token after `token_B`, which stands at `position`; and the cache after it."""
        y_B1C, layers = self.decoder(
            token_B[:, None], None, cache["cross_bias"], True, cache["layers"], position
        )
        return self.logits(y_B1C)[:, 0], {**cache, "layers": layers}
