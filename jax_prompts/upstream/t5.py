"""`t5x.examples.t5`, a layer at a time, with a prompt in front of the encoder's input."""

from __future__ import annotations

from jax_prompts.upstream.needs import needs_t5x
from jax_prompts.upstream.prompted import Prompted, set_up

with needs_t5x():
    from t5x.examples.t5 import layers, network


class Transformer(Prompted, network.Transformer):
    """Upstream's network, its parameters under the same names, and those of the prompt under `prompt`."""

    def setup(self) -> None:
        set_up(self, layers, network)
