"""Residual prompt tuning: a table plus a small network of it (Razdaibiedina et al. 2023, section 3)."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from jax_prompts.prompts.layers import (
    Bottleneck,
    TableInit,
    centered_uniform,
    check_activation,
    check_size,
    table,
)


class Residual(nn.Module):
    """p + LayerNorm(relu(p W_down + b_down) W_up + b_up).

    Tuned parameters: P*D, and 2*D*M + (M + D with `bias`) + (2*D with `norm`) for each network: one, or P of
    them where they are not `shared`.

    Attributes:
      length: P, the number of virtual tokens.
      hidden: M, the bottleneck; 400 in the paper's main tables, 250 in its comparison with adapters, 800 by
        default in the released code.
      activation: a name in `ACTIVATIONS`.
      norm: LayerNorm after the network.
      skip: add p; without it this is the paper's baseline "prompt tuning with MLP".
      bias: biases b_down and b_up; the paper counts its comparison table without them.
      shared: one network for all rows, or one for each (section 5.6).
      passes: how often rows go through the network, the skip being around all of it; 2 is `MLP2` of the
        released code.

    Raises:
      ConfigError: length, hidden or passes below 1, unknown activation.
    """

    length: int
    hidden: int = 400
    activation: str = "relu"
    norm: bool = True
    skip: bool = True
    bias: bool = True
    shared: bool = True
    passes: int = 1

    def __post_init__(self) -> None:
        check_size(self, "length", "hidden", "passes")
        check_activation(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P D"]:
        table_PD = table(self, self.length, embed_dim, table_init, centered_uniform)
        network = Bottleneck
        if not self.shared:
            network = nn.vmap(
                Bottleneck,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                metadata_params={nn.PARTITION_NAME: "prompt"},
            )
        out_PD = network(self.hidden, self.activation, self.norm, self.bias, self.passes, name="network")(
            table_PD
        )
        return table_PD + out_PD if self.skip else out_PD
