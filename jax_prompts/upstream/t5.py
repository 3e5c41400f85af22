"""`t5x.examples.t5`, a layer at a time, with a prompt in front of the encoder's input."""

from __future__ import annotations

import jax.numpy as jnp

from jax_prompts.upstream.needs import needs_t5x
from jax_prompts.upstream.parameters import Prompt
from jax_prompts.upstream.prompted import InputLayer, Prompted

with needs_t5x():
    from t5x.examples.t5 import layers, network


class Transformer(Prompted, network.Transformer):
    """Upstream's network, its parameters under the same names, and those of the prompt under `prompt`."""

    def setup(self) -> None:
        config = self.config
        self.shared_embedding = layers.Embed(
            num_embeddings=config.vocab_size,
            features=config.emb_dim,
            dtype=config.dtype,
            attend_dtype=jnp.float32,
            one_hot=True,
            name="token_embedder",
        )
        self.prompt = Prompt(self.method, self.start)
        self.input_layer = InputLayer(self.shared_embedding, self.prompt)
        self.encoder = network.Encoder(config=config, shared_embedding=self.input_layer)
        self.decoder = network.Decoder(config=config, shared_embedding=self.shared_embedding)
